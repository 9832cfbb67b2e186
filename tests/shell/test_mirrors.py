"""A group that goes on with another cluster: a mirror, or topics that were restored from a backup."""

import threading
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import TopicPartition

from retriable_kafka_client import Limits, Message, Retry, Topic
from retriable_kafka_client import events as ev
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire.headers import DEAD_REASON, Marks, Origin, write_marks
from tests.shell.lab import Lab, Log, as_json
from tests.support.records import Commit, committed
from tests.support.waiting import wait_until

COUNT, STUCK = 40, 7


@pytest.fixture
def first_cluster() -> MockKafka:
    """The one that the group worked with before."""
    return MockKafka()


def test_the_positions_that_a_tool_copied_count(lab: Lab, first_cluster: MockKafka) -> None:
    """Nothing below them runs again; what the copied map says is done above them is not believed."""
    with first_cluster:
        was = _left_behind(first_cluster, lab)
    assert (was.offset, was.metadata[:3]) == (STUCK, "rkc")
    entry, runs = lab.entry(partitions=1), Log()
    lab.fill(entry, [as_json(i) for i in range(COUNT)])
    client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group, "enable.auto.commit": False})
    client.commit(offsets=[TopicPartition(entry.name, 0, was.offset, was.metadata)], asynchronous=False)
    client.close()
    lab.start(entry, lambda m: runs.add(m.value))
    lab.caught_up(entry)
    assert sorted(runs) == list(range(STUCK, COUNT))
    assert [one.reason for one in lab.events.of(ev.OffsetMapIgnored)] == ["cluster"]


def test_copies_of_a_mirrored_topic_are_run_under_its_new_name(lab: Lab) -> None:
    """A copy names its topic as the other cluster calls it."""
    name, retry, dead = lab.topic("primary.orders"), lab.topic("retry", 1), lab.topic("dead", 1)
    entry = Topic(name, retry=Retry(retry, delay=0.05), dead_letter=dead, formerly=["orders"])
    runs = Log()
    for origin in ("orders", "sales"):
        marks = Marks(failed=2, group=lab.group, origin=Origin(origin, 3, 17), id=f"{origin}-17")
        lab.send(retry, as_json(origin), headers=write_marks(marks))
    lab.start(entry, lambda m: runs.add((m.value, m.topic, m.attempt, m.id)))
    lab.caught_up(entry)
    assert runs.wait(1) == [("orders", "orders", 3, "orders-17")]
    assert [reason(letter.headers) for letter in lab.dead(entry)] == [b"unknown-origin"]


def reason(headers: Sequence[tuple[str, bytes | None]] | None) -> bytes | None:
    """Why it is a dead letter."""
    return dict(headers or ())[DEAD_REASON]


def _left_behind(cluster: MockKafka, lab: Lab) -> Commit:
    """What a group commits that is done with all messages but one, whose handler goes on after its stop."""
    gate = threading.Event()
    with Lab(
        cluster.bootstrap_servers, lambda name, n, _: cluster.create_topic(name, n), lab.test, real=False
    ) as first:
        entry = first.entry(partitions=1)
        first.fill(entry, [as_json(i) for i in range(COUNT)])

        def handler(message: Message[int]) -> None:
            if message.value == STUCK:
                gate.wait(60)

        consumer = first.start(entry, handler, limits=Limits(drain_timeout=0.1))
        wait_until(lambda: consumer.stats().handled == COUNT - 1)
        consumer.stop()
        assert consumer.join(30)
        gate.set()
        return committed(first.servers, first.group, entry.name)[0]
