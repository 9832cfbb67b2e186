"""What `stats()` and `health()` say of logs: how much is left, what is held back, and what is gone unread."""

import logging
import threading
from typing import Any, Literal

import pytest
from confluent_kafka import Consumer as Reader
from confluent_kafka import Producer as Client
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from retriable_kafka_client import Message, Topic
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, nothing
from tests.support.waiting import wait_until

Guarantee = Literal["at_least_once", "exactly_once"]
GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")


def lags(consumer: Any, topic: Topic) -> dict[int, int | None]:
    return {
        partition: one.lag
        for (name, partition), one in consumer.stats().partitions.items()
        if name == topic.name
    }


def delete_before(lab: Lab, topic: Topic, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": lab.servers})
    for answer in admin.delete_records([TopicPartition(topic.name, 0, offset)]).values():
        answer.result(30)


def test_behind_a_slow_head_the_lag_is_one(lab: Lab) -> None:
    entry, gate = lab.entry(partitions=2), threading.Event()

    def handler(message: Message[Any]) -> None:
        if message.value == 0:
            gate.wait(60)

    lab.fill(entry, [b"%d" % number for number in range(2_000)], partition=0)
    consumer = lab.start(entry, handler)
    try:
        wait_until(lambda: lags(consumer, entry) == {0: 1, 1: 0}, what=repr(consumer.stats()))
        (head,) = [one for one in consumer.stats().partitions.values() if one.end == 2_000]
        assert (head.position, head.incomplete) == (0, 1)
    finally:
        gate.set()
    wait_until(lambda: lags(consumer, entry) == {0: 0, 1: 0}, what=repr(consumer.stats()))
    lab.caught_up(entry)
    # The next member goes on behind what is complete, and other partitions than its own do not show.
    consumer.stop()
    assert consumer.join(30) and not consumer.stats().partitions
    again = lab.start(entry, nothing)
    wait_until(lambda: lags(again, entry) == {0: 0, 1: 0}, what=repr(again.stats()))


def test_a_transaction_that_does_not_end_is_told(real_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "retriable_kafka_client")
    lab, runs, entry = real_lab, Log(), real_lab.entry(partitions=1)
    consumers = [
        lab.start(entry, runs.add, guarantee=guarantee, group=f"{lab.group}-{guarantee}")
        for guarantee in GUARANTEES
    ]
    lab.send(entry, b"1")
    runs.wait(2)
    other = Client({"bootstrap.servers": lab.servers, "transactional.id": f"{lab.group}-other"})
    other.init_transactions()
    other.begin_transaction()
    for number in range(3):
        other.produce(entry.name, b"%d" % number, partition=0)
    other.flush(30)
    wait_until(lambda: all(lags(one, entry) == {0: 3} for one in consumers))
    wait_until(lambda: all(one.health().reasons for one in consumers), 90)
    for hangs in lab.events.of(ev.TransactionHangs):
        assert (hangs.topic, hangs.partition, hangs.position, hangs.held_back) == (entry.name, 0, 1, 3)
    for consumer in consumers:
        health = consumer.health()
        assert health.alive and health.ready and f"{entry.name}/0" in health.reasons[0]
        assert consumer.stats().hanging == 1 and len(runs) == 2
    lines = [one.getMessage() for one in caplog.records if f"{entry.name}/0" in one.getMessage()]
    assert len(lines) == 2 and all("transaction" in line for line in lines)
    other.commit_transaction(30)
    runs.wait(8)
    for consumer in consumers:
        wait_until(lambda: not consumer.health().reasons and lags(consumer, entry) == {0: 0})  # noqa: B023
        assert consumer.stats().hanging == 0
    wait_until(lambda: len(lab.events.of(ev.TransactionEnded)) == 2)
    assert len(lab.events.of(ev.TransactionHangs)) == 2


def wait_for(lab: Lab, kind: type) -> list[Any]:
    wait_until(lambda: bool(lab.events.of(kind)), 90, kind.__name__)
    return lab.events.of(kind)


@pytest.mark.parametrize(("guarantee", "reset"), [("at_least_once", "earliest"), ("exactly_once", "latest")])
def test_records_that_were_deleted_before_they_were_read_are_told(
    real_lab: Lab, guarantee: Guarantee, reset: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "retriable_kafka_client")
    lab, runs = real_lab, Log()
    entry = lab.entry(partitions=1)
    first = lab.start(entry, runs.add, guarantee=guarantee)
    lab.fill(entry, [b"1"] * 3, partition=0)
    runs.wait(3)
    lab.caught_up(entry)
    first.stop()
    assert first.join(30)
    lab.fill(entry, [b"2"] * 40, partition=0)
    delete_before(lab, entry, 43)
    second = lab.start(
        entry, runs.add, guarantee=guarantee, settings={**lab.quick, "auto.offset.reset": reset}
    )
    # Nothing comes: it is told all the same, and there is nothing left to do.
    (lost,) = wait_for(lab, ev.RecordsLost)
    assert (lost.topic, lost.partition, lost.first, lost.count) == (entry.name, 0, 3, 40)
    lab.caught_up(entry)
    wait_until(lambda: lags(second, entry) == {0: 0}, what=repr(second.stats()))
    health = second.health()
    assert health.ready and f"{entry.name}/0: 40 records" in health.reasons[0]
    assert second.stats().lost_records == 40
    lab.send(entry, b"3", partition=0)
    runs.wait(4)
    lines = [one.getMessage() for one in caplog.records if "deleted before" in one.getMessage()]
    assert len(lines) == 1 and len(lab.events.of(ev.RecordsLost)) == 1
    # Some of what is there is gone.
    lab.caught_up(entry)
    second.stop()
    assert second.join(30)
    lab.fill(entry, [b"4"] * 10, partition=0)
    delete_before(lab, entry, 44 + 7)
    third = lab.start(
        entry, runs.add, guarantee=guarantee, settings={**lab.quick, "auto.offset.reset": reset}
    )
    runs.wait(4 + 3)
    wait_until(lambda: third.stats().lost_records == 7, what=repr(third.stats()))
    lab.caught_up(entry)
    assert len(runs) == 7


def test_a_gap_of_markers_or_aborted_records_is_no_loss(real_lab: Lab) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(partitions=1)
    consumer = lab.start(entry, runs.add)
    other = Client({"bootstrap.servers": lab.servers, "transactional.id": f"{lab.group}-other"})
    other.init_transactions()
    for number in range(20):
        other.begin_transaction()
        other.produce(entry.name, b"%d" % number, partition=0)
        other.flush(30)
        other.abort_transaction(30) if number % 3 else other.commit_transaction(30)
    runs.wait(7)
    lab.caught_up(entry)
    wait_until(lambda: lags(consumer, entry) == {0: 0}, what=repr(consumer.stats()))
    assert not lab.events.of(ev.RecordsLost) and consumer.health().reasons == ()


def test_a_log_that_was_cut_back_is_told_as_that(real_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "retriable_kafka_client")
    lab, runs = real_lab, Log()
    entry = lab.entry(partitions=1)
    lab.fill(entry, [b"1"] * 3, partition=0)
    reader = Reader({"bootstrap.servers": lab.servers, "group.id": lab.group})
    reader.commit(offsets=[TopicPartition(entry.name, 0, 500)], asynchronous=False)
    reader.close()
    lab.start(entry, runs.add)
    runs.wait(3)
    (reset,) = wait_for(lab, ev.TopicReset)
    assert reset.position == 0
    (line,) = [one.getMessage() for one in caplog.records if f"{entry.name}/0" in one.getMessage()]
    assert "cut back" in line and "offset 0" in line and "new one" not in line
