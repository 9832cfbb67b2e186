"""The fake brokers do what Kafka does, where a world depends on it."""

from retriable_kafka_client.core.protocol import Place
from tests.simulation.broker import Broker

PLACE = Place("orders", 0)


def test_each_open_transaction_holds_a_partitions_offsets_by_itself() -> None:
    broker = Broker(metadata_limit=4_000)
    broker.lock(PLACE, "of a member that died", until=5.0)
    broker.lock(PLACE, "of the next one")
    broker.unlock(PLACE, "of the next one")
    assert broker.is_locked(PLACE, mono=4.9)
    assert not broker.is_locked(PLACE, mono=5.0)


def test_a_dead_members_time_does_not_free_what_another_holds() -> None:
    broker = Broker(metadata_limit=4_000)
    broker.lock(PLACE, "of the next one")
    broker.lock(PLACE, "of a member that died", until=5.0)
    assert broker.is_locked(PLACE, mono=60.0)
    broker.unlock(PLACE, "of the next one")
    assert not broker.is_locked(PLACE, mono=60.0)
