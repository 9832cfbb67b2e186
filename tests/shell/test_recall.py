"""Reading a part of a log again."""

from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import Producer

from retriable_kafka_client.core.protocol import Place, Recall, Recalled, RecallEnded
from retriable_kafka_client.recall import Recaller
from retriable_kafka_client.testing import MockKafka
from tests.support.waiting import wait_until

COUNT = 5


@pytest.mark.parametrize(
    ("first", "stop", "offsets", "reached"),
    [(1, 4, [1, 2, 3], True), (2, COUNT, [2, 3, 4], True), (3, COUNT + 2, [3, 4], False)],
    ids=["within", "to the end", "beyond what the broker gives out"],
)
def test_it_reaches_its_stop_or_says_so(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
    first: int,
    stop: int,
    offsets: list[int],
    reached: bool,
) -> None:
    """What is missing at the end is not gone: a broker that took over may not know yet how far its log may be read."""
    servers = mock_kafka({"orders": 1}).bootstrap_servers
    producer = Producer({"bootstrap.servers": servers})
    for _ in range(COUNT):
        producer.produce("orders", b"x", partition=0)
    assert producer.flush(10) == 0
    recaller = Recaller({"bootstrap.servers": servers, "group.id": "group", "fetch.wait.max.ms": 100})
    told: list[Recalled | RecallEnded] = []
    recaller.begin(Recall(Place("orders", 0), first, stop))

    def ended() -> bool:
        told.extend(recaller.poll(500))
        return any(isinstance(one, RecallEnded) for one in told)

    wait_until(ended)
    recaller.close()
    assert [offset for one in told if isinstance(one, Recalled) for offset in one.offsets] == offsets
    assert [one.reached for one in told if isinstance(one, RecallEnded)] == [reached]
