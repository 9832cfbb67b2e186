"""pause() and resume(), on the mock cluster and on real Kafka."""

import threading
import time
from typing import Any

import pytest

from retriable_kafka_client import Consumer, Message
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, ready, settings_of
from tests.support.waiting import wait_until


def noting(log: Log) -> Any:
    def handler(m: Message[Any]) -> None:
        log.add(int(m.body or b""))

    return handler


def held(consumer: Consumer) -> None:
    """Wait until it is paused."""
    wait_until(
        lambda: consumer.stats().on_hold and all(one.paused for one in consumer.stats().partitions.values())
    )


def test_a_paused_consumer_reads_nothing_until_it_is_resumed(lab: Lab) -> None:
    runs, others = Log(), Log()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(20)])
    consumer = lab.start(entry, noting(runs))
    runs.wait(20)
    consumer.pause()
    consumer.pause()
    held(consumer)
    lab.fill(entry, [b"%d" % i for i in range(20, 40)])
    # By the time that another group has handled all of it, this one would have, too.
    lab.start(entry, noting(others), group=f"{lab.group}-others")
    others.wait(40)
    assert len(runs) == 20
    health = consumer.health()
    assert health.ready and health.alive, health
    consumer.resume()
    runs.wait(40)
    lab.caught_up(entry)
    assert sorted(runs) == list(range(40))
    wait_until(lambda: not consumer.stats().on_hold)


def test_what_has_not_begun_is_taken_back_and_goes_first_later(lab: Lab) -> None:
    runs, gate = Log(), threading.Event()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(50)], partition=0)

    def handler(m: Message[Any]) -> None:
        runs.add(int(m.body or b""))
        gate.wait(60)

    try:
        consumer = lab.start(entry, handler, executor=1)
        wait_until(lambda: consumer.stats().in_flight == 50, what=repr(consumer.stats()))
        consumer.pause()
        wait_until(lambda: consumer.stats().in_flight == 1, what=repr(consumer.stats()))
        gate.set()
        wait_until(lambda: consumer.stats().handled == 1 and consumer.stats().in_flight == 0)
        assert runs.items == [0]
    finally:
        gate.set()
    consumer.resume()
    lab.caught_up(entry)
    assert runs.items == list(range(50))


def test_a_consumer_may_begin_paused(lab: Lab) -> None:
    runs = Log()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(10)])
    consumer = lab.consumer(entry, noting(runs))
    consumer.pause()
    consumer.start()
    ready(consumer)
    held(consumer)
    assert consumer.stats().arrived == 0
    consumer.resume()
    runs.wait(10)


def test_a_paused_consumer_stops_and_leaves_the_rest_to_others(lab: Lab) -> None:
    runs, later = Log(), Log()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(10)])
    consumer = lab.start(entry, noting(runs))
    runs.wait(10)
    consumer.pause()
    held(consumer)
    lab.fill(entry, [b"%d" % i for i in range(10, 20)])
    consumer.stop()
    assert consumer.join(20)
    lab.start(entry, noting(later))
    later.wait(10)
    lab.caught_up(entry)
    assert (sorted(runs), sorted(later)) == (list(range(10)), list(range(10, 20)))


def test_retries_wait_for_the_resume(lab: Lab) -> None:
    runs = Log()
    entry = lab.entry(delay=0.5)
    lab.fill(entry, [b"0"])

    def handler(m: Message[Any]) -> None:
        runs.add(m.attempt)
        if m.attempt == 1:
            consumer.pause()  # from a handler, too
            raise ValueError

    consumer = lab.start(entry, handler)
    wait_until(lambda: consumer.stats().retried == 1)
    held(consumer)
    assert runs.items == [1]
    consumer.resume()
    runs.wait(2)
    lab.caught_up(entry)
    assert runs.items == [1, 2]


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_paused_consumer_keeps_its_partitions(real_lab: Lab, protocol: str) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry()
    settings = {**settings_of(protocol), "max.poll.interval.ms": 6000}
    consumer = lab.start(entry, noting(runs), settings=settings)
    ready(consumer)
    consumer.pause()
    held(consumer)
    lab.fill(entry, [b"%d" % i for i in range(10)])
    over = time.monotonic() + 8.0  # beyond max.poll.interval.ms, which is what this is about
    wait_until(lambda: time.monotonic() > over)
    assert not lab.events.of(ev.AssignmentEnded)
    assert consumer.health().ready and len(runs) == 0
    consumer.resume()
    runs.wait(10)


@pytest.mark.parametrize("protocol", ["cooperative", "range", "consumer"])
def test_partitions_come_and_go_while_paused(real_lab: Lab, protocol: str) -> None:
    lab, runs, others = real_lab, Log(), Log()
    entry = lab.entry(retry=False)
    settings = settings_of(protocol)
    first = lab.start(entry, noting(runs), settings=settings)
    ready(first)
    first.pause()
    held(first)
    lab.fill(entry, [b"0"], partition=0)
    lab.fill(entry, [b"1"], partition=1)
    second = lab.start(entry, noting(others), settings=settings)
    others.wait(1)  # half of it is the other's now, who is not paused
    second.stop()
    assert second.join(30)
    wait_until(lambda: len(first.stats().partitions) == 2)
    held(first)
    assert len(runs) == 0
    first.resume()
    lab.caught_up(entry)
    assert sorted([*runs, *others]) == [0, 1]
