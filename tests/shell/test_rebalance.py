"""Members that come and go, on real Kafka, under each rebalance protocol."""

import threading
import time
from collections import Counter
from typing import Any

import pytest

from retriable_kafka_client import Limits, Message
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, settings_of
from tests.support.waiting import wait_until

PROTOCOLS = ["cooperative", "range", "consumer"]


def number_of(message: Message[Any]) -> int:
    return int(message.body or b"")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_come_and_go_and_nothing_runs_twice(real_lab: Lab, protocol: str) -> None:
    """One thread each, so that most of what was handed out has not begun when it is taken away."""
    lab, runs = real_lab, Log()
    entry = lab.entry(max_attempts=3)
    total = 0

    def fill(count: int) -> None:
        nonlocal total
        total += lab.fill(entry, [b"%d" % i for i in range(total, total + count)])

    def member(name: str) -> Any:
        def handler(m: Message[Any]) -> None:
            runs.add((name, number_of(m), m.attempt))
            time.sleep(0.006)
            if number_of(m) % 20 == 0 and m.attempt == 1:
                raise ValueError

        return lab.start(entry, handler, executor=1, settings=settings_of(protocol))

    def ran(name: str) -> int:
        return sum(one[0] == name for one in runs)

    def takes_part(name: str) -> bool:
        if len(runs) > total - 200:  # there is always work when it is given its partitions
            fill(200)
        return ran(name) > 20

    fill(1000)
    first = member("first")
    wait_until(lambda: takes_part("first"))
    second = member("second")
    wait_until(lambda: takes_part("second"), what=repr(runs.items[-5:]))
    third = member("third")
    wait_until(lambda: ran("third") > 5 or len(runs) >= total)
    first.stop()
    assert first.join(30)
    stopped_at = ran("first")
    wait_until(lambda: len(runs) >= total - 100)
    second.stop()
    assert second.join(30)
    lab.caught_up(entry)
    third.stop()
    assert third.join(30)

    wanted = {(i, 1): 1 for i in range(total)} | {(i, 2): 1 for i in range(0, total, 20)}
    assert Counter(one[1:] for one in runs) == wanted
    assert ran("first") == stopped_at
    assert not lab.events.of(ev.DrainOverrun)
    assert {one.reason for one in lab.events.of(ev.AssignmentEnded)} == {"revoked", "stopped"}
    assert sum(one.stats().handled for one in (first, second, third)) == total
    assert sum(one.stats().retried for one in (first, second, third)) == total // 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_outlasts_the_drain_runs_elsewhere_and_counts_here(real_lab: Lab, protocol: str) -> None:
    lab, runs, gate = real_lab, Log(), threading.Event()
    entry = lab.entry(retry=False)
    for partition in (0, 1):
        lab.fill(entry, [b"%d" % (100 * partition + i) for i in range(20)], partition=partition)

    def stuck(m: Message[Any]) -> None:
        runs.add(("first", number_of(m)))
        if number_of(m) % 100 == 0:
            gate.wait(60)

    def quick(m: Message[Any]) -> None:
        runs.add(("second", number_of(m)))

    options: dict[str, Any] = {"settings": settings_of(protocol), "limits": Limits(drain_timeout=0.5)}
    try:
        first = lab.start(entry, stuck, executor=3, **options)
        runs.wait(40)
        second = lab.start(entry, quick, **options)
        again = wait_until(lambda: [n for name, n in runs if name == "second"], what=repr(lab.events.items))
        wait_until(lambda: first.stats().overrun >= 1)
        overrun = first.stats().overrun
        if overrun * 2 >= 3:
            wait_until(lambda: any("given away" in one for one in first.health().reasons))
        gate.set()
        wait_until(lambda: first.stats().overrun == 0)
        lab.caught_up(entry)
        first.stop()
        second.stop()
        assert first.join(30) and second.join(30)
    finally:
        gate.set()
    counts = Counter(n for _, n in runs)
    assert set(again) <= {0, 100}
    assert {n for n, count in counts.items() if count > 1} <= {0, 100}
    assert sum(counts.values()) == 40 + sum(one.running for one in lab.events.of(ev.DrainOverrun))
    # What came late from a partition that was given away is not counted as handled here.
    assert first.stats().handled + second.stats().handled == 40
    assert {one.reason for one in lab.events.of(ev.AssignmentEnded)} == {"revoked", "stopped"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_partition_moves_with_its_offset_map(real_lab: Lab, protocol: str) -> None:
    """What is done behind a stuck head stays done with the next owner."""
    lab, runs, gate = real_lab, Log(), threading.Event()
    entry = lab.entry(retry=False)
    for partition in (0, 1):
        lab.fill(entry, [b"%d" % (1000 * partition + i) for i in range(200)], partition=partition)

    def handler(m: Message[Any]) -> None:
        runs.add(number_of(m))
        if number_of(m) % 1000 == 0:
            gate.wait(60)

    options: dict[str, Any] = {"settings": settings_of(protocol), "limits": Limits(drain_timeout=0.3)}
    try:
        first = lab.start(entry, handler, **options)
        runs.wait(400)
        wait_until(lambda: first.stats().handled == 398)
        second = lab.start(entry, handler, **options)
        wait_until(lambda: second.stats().restored >= 199, what=repr(second.stats()))
    finally:
        gate.set()
    lab.caught_up(entry)
    assert {n for n, count in runs.counts().items() if count > 1} <= {0, 1000}


def test_a_long_handler_keeps_its_membership(real_lab: Lab) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(20)])
    settings = {**settings_of("cooperative"), "max.poll.interval.ms": 6000}
    pause = threading.Event()

    def handler(m: Message[Any]) -> None:
        runs.add(number_of(m))
        pause.wait(15 if number_of(m) == 7 else 0)  # nobody sets it: this is the work

    consumer = lab.start(entry, handler, settings=settings, limits=Limits(drain_timeout=15.0))
    lab.caught_up(entry)
    assert runs.counts() == dict.fromkeys(range(20), 1)
    assert not lab.events.of(ev.AssignmentEnded)
    assert consumer.health().ready


def test_a_long_handler_is_drained_by_a_stop(real_lab: Lab) -> None:
    lab, runs, gate = real_lab, Log(), threading.Event()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(20)], partition=0)

    def handler(m: Message[Any]) -> None:
        runs.add(number_of(m))
        if number_of(m) == 0:
            gate.wait(60)

    consumer = lab.start(entry, handler)
    runs.wait(20)
    consumer.stop()
    assert not consumer.join(1.0)
    gate.set()
    assert consumer.join(10)
    assert consumer.stats().handled == 20
    lab.caught_up(entry)
