"""What a poll brings becomes one event for each partition, or several where the client went back meanwhile."""

from confluent_kafka import Message

from retriable_kafka_client.consumer.arrivals import arrivals
from retriable_kafka_client.core.protocol import Place


def record(topic: str, partition: int, offset: int) -> Message:
    return Message(topic=topic, partition=partition, offset=offset, timestamp=(1, 1000 + offset))


def test_each_partition_has_its_records_in_order() -> None:
    batch = [record("a", 0, 5), record("b", 1, 7), record("a", 0, 6), record("a", 1, 2)]
    found = list(arrivals(batch))
    assert [(one.place, list(one.offsets)) for one in found] == [
        (Place("a", 0), [5, 6]),
        (Place("b", 1), [7]),
        (Place("a", 1), [2]),
    ]
    assert list(found[0].raws) == [batch[0], batch[2]]
    assert (found[0].first_ms, found[0].stamp_ms) == (1005, 1006)


def test_what_comes_again_within_one_poll_is_a_piece_of_its_own() -> None:
    found = list(arrivals([record("a", 0, offset) for offset in (5, 6, 5, 6, 7, 7)]))
    assert [list(one.offsets) for one in found] == [[5, 6], [5, 6, 7], [7]]
    assert [one.first_ms for one in found] == [1005, 1005, 1007]
    assert [one.raws[0].offset() for one in found] == [5, 5, 7]


def test_nothing_brings_nothing() -> None:
    assert list(arrivals([])) == []
