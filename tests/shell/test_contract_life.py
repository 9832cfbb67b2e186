"""How a consumer lives, on the mock cluster and on real Kafka alike: executors, start and stop, figures, events."""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import FrozenInstanceError, is_dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client import (
    DISCARD,
    AsyncExecutor,
    ConfigError,
    Consumer,
    Limits,
    Message,
    ProcessExecutor,
    Reject,
    Retry,
    Topic,
    run_consumers,
)
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.handlers import obey, obey_async
from tests.shell.lab import Lab, Log, as_json, nothing, raiser, ready
from tests.support.evidence import EvidenceWriter, read_evidence
from tests.support.records import committed, end_offsets
from tests.support.waiting import wait_until

# Executors -------------------------------------------------------------------------------------------------------


def make_executor(kind: str) -> int | Executor:
    match kind:
        case "threads":
            return 3
        case "thread-pool":
            return ThreadPoolExecutor(3)
        case "processes":
            return ProcessExecutor(2)
        case "process-pool":
            return ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        case _:
            return AsyncExecutor(20)


@pytest.mark.parametrize("kind", ["threads", "thread-pool", "processes", "process-pool", "async"])
def test_every_executor_keeps_the_contract(lab: Lab, kind: str, tmp_path: Path) -> None:
    entry, file = lab.entry(max_attempts=3), tmp_path / "evidence"
    orders = [{"i": i, "do": {0: "fail-twice", 1: "reject", 2: "fail"}.get(i)} for i in range(60)]
    lab.fill(entry, [*map(as_json, orders), b"undecodable"])
    handler = partial(obey_async if kind == "async" else obey, EvidenceWriter(file))
    executor = make_executor(kind)
    consumer = lab.start(entry, handler, executor=executor)
    letters = {one.value: one for one in lab.dead(entry, 3, timeout=60)}
    wait_until(lambda: consumer.stats().handled == 58, what=repr(consumer.stats()))
    consumer.stop()
    assert consumer.join(30)
    if isinstance(executor, Executor):
        # Never shut down by the consumer.
        assert executor.submit(max, 1, 2).result(30) == 2
        executor.shutdown()
    ran = Counter((one["i"], one["attempt"]) for one in read_evidence(file) if one["event"] == "ran")
    wanted = {(i, 1): 1 for i in range(60)} | {(i, a): 1 for i in (0, 2) for a in (2, 3)}
    assert ran == wanted
    assert {
        key: (one.header(wire.DEAD_REASON), one.header(wire.DEAD_ERROR)) for key, one in letters.items()
    } == {
        as_json(orders[1]): (b"rejected", b"retriable_kafka_client.errors.Reject"),
        as_json(orders[2]): (b"exhausted", b"ValueError"),
        b"undecodable": (b"undecodable", b"msgspec.DecodeError"),
    }
    stats = consumer.stats()
    assert (stats.handled, stats.failed, stats.retried, stats.dead_lettered) == (58, 7, 4, 3)


def test_one_pool_serves_several_consumers(lab: Lab) -> None:
    log = Log()
    entries = [lab.entry() for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        consumers = [
            lab.start(one, lambda m: log.add(m.topic), executor=pool, group=f"{lab.group}-{one.name}")
            for one in entries
        ]
        for entry in entries:
            lab.fill(entry, [b"1"] * 50)
        log.wait(150)
        for consumer in consumers:
            consumer.stop()
        assert all(consumer.join(30) for consumer in consumers)
    assert log.counts() == {entry.name: 50 for entry in entries}


def test_an_awaitable_elsewhere_is_no_success(lab: Lab) -> None:
    async def coroutine(_message: Message[Any]) -> None:
        pass

    entry = lab.entry(max_attempts=1)
    with pytest.raises(ConfigError, match="AsyncExecutor"):
        lab.consumer(entry, coroutine).start()
    lab.send(entry, b"1")
    lab.start(entry, lambda m: [coroutine(m)][0])
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_ERROR) == b"retriable_kafka_client.workers.job.AwaitableReturned"


# Life ------------------------------------------------------------------------------------------------------------


def test_health_follows_its_life(lab: Lab) -> None:
    gate, log = threading.Event(), Log()

    def handler(_message: Message[Any]) -> None:
        log.add(1)
        gate.wait(30)

    entry = lab.entry()
    lab.send(entry, b"1")
    consumer = lab.consumer(entry, handler)
    health = consumer.health()
    assert (health.alive, health.ready, health.reasons) == (True, False, ("not started",))
    consumer.start()
    ready(consumer)
    assert consumer.health().reasons == ()
    log.wait(1)
    consumer.stop()
    wait_until(lambda: "stopping" in consumer.health().reasons)
    assert consumer.health().alive and not consumer.health().ready
    assert not consumer.join(0.1)  # the handler is waited for
    gate.set()
    assert consumer.join(30)
    assert consumer.health().reasons == ("stopped",)
    assert not consumer.health().alive
    assert consumer.stats().handled == 1


def test_with_runs_it_and_ends_it(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")
    with lab.consumer(entry, lambda m: log.add(m.value)) as consumer:
        log.wait(1)
    assert consumer.join(0)
    assert {0, 1} == {one.offset for one in committed(lab.servers, lab.group, entry.name).values()} | {0}
    with pytest.raises(LookupError), lab.consumer(entry, nothing):
        raise LookupError


def test_run_blocks_until_stopped(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")

    def handler(m: Message[Any]) -> None:
        log.add(m.value)
        consumer.stop()

    consumer = lab.consumer(entry, handler)
    consumer.run()
    assert log.items == [1]
    assert consumer.health().reasons == ("stopped",)
    with pytest.raises(RuntimeError, match="runs once"):
        consumer.run()
    with pytest.raises(RuntimeError, match="runs once"):
        consumer.start()


def test_run_in_a_thread_of_ones_own(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")
    consumer = lab.consumer(entry, lambda m: log.add(m.value))
    thread = threading.Thread(target=consumer.run)
    thread.start()
    log.wait(1)
    consumer.stop()
    thread.join(30)
    assert not thread.is_alive() and consumer.join(0)


def test_run_async_leaves_the_event_loop_free(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")

    async def main() -> int:
        consumer = lab.consumer(entry, lambda m: log.add(m.value))
        running = asyncio.create_task(consumer.run_async())
        turns = 0
        while not log:
            await asyncio.sleep(0.01)
            turns += 1
        consumer.stop()
        await asyncio.wait_for(running, 30)
        cancelled = asyncio.create_task(lab.consumer(entry, nothing).run_async())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(cancelled, 30)
        return turns

    assert asyncio.run(main()) >= 1


def test_stop_before_start_and_twice(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")
    for begin in (Consumer.start, Consumer.run):
        consumer = lab.consumer(entry, log.add)
        consumer.stop()
        consumer.stop()
        assert consumer.join(0)
        begin(consumer)
        assert consumer.join(10)
        assert consumer.health().reasons == ("stopped",)
        consumer.stop()
    assert not log and committed(lab.servers, lab.group, entry.name) == {}


def test_stop_at_once_after_start(lab: Lab) -> None:
    entry = lab.entry()
    for _ in range(3):
        consumer = lab.start(entry, nothing)
        consumer.stop()
        assert consumer.join(15)


def test_a_stop_from_many_threads_at_once(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.fill(entry, [b"1"] * 200)
    consumer = lab.start(entry, lambda m: log.add(m.attempt))
    log.wait(1)
    threads = [threading.Thread(target=consumer.stop) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert consumer.join(30)
    assert consumer.stats().handled == len(log)


def test_after_a_stop_all_is_committed_and_a_restart_repeats_nothing(lab: Lab) -> None:
    entry, runs = lab.entry(max_attempts=2), Log()
    lab.fill(entry, [as_json(i) for i in range(100)])

    def handler(m: Message[Any]) -> None:
        runs.add((m.value, m.attempt))
        if m.value % 10 == 0:
            raise ValueError

    consumer = lab.start(entry, handler, commit_interval=3600.0)
    lab.dead(entry, 10)
    consumer.stop()
    assert consumer.join(30)
    assert entry.retry and entry.retry.topic
    for name in (entry.name, entry.retry.topic):
        found = {p: one.offset for p, one in committed(lab.servers, lab.group, name).items()}
        assert found == end_offsets(lab.servers, name)
    wanted = {(i, 1): 1 for i in range(100)} | {(i, 2): 1 for i in range(0, 100, 10)}
    assert runs.counts() == wanted

    again = lab.start(entry, handler)
    lab.send(entry, as_json(1001))
    wait_until(lambda: (1001, 1) in runs.items)
    again.stop()
    assert again.join(30)
    assert runs.counts() == wanted | {(1001, 1): 1}


def test_a_stop_in_the_middle_loses_and_repeats_nothing(lab: Lab) -> None:
    entry, runs = lab.entry(), Log()
    lab.fill(entry, [as_json(i) for i in range(600)])

    def handler(m: Message[Any]) -> None:
        runs.add(m.value)
        time.sleep(0.001)

    for count in (50, 200, 600):
        consumer = lab.start(entry, handler)
        runs.wait(count)
        consumer.stop()
        assert consumer.join(30)
    assert runs.counts() == dict.fromkeys(range(600), 1)


def test_what_is_done_behind_a_stuck_head_is_not_run_again(lab: Lab) -> None:
    entry, runs, gate = lab.entry(), Log(), threading.Event()
    lab.fill(entry, [as_json(i) for i in range(300)], partition=0)

    def handler(m: Message[Any]) -> None:
        if m.value == 0:
            gate.wait(60)
        runs.add(m.value)

    try:
        consumer = lab.start(entry, handler, limits=Limits(drain_timeout=0.2))
        runs.wait(299)
        consumer.stop()
        assert consumer.join(30)
        assert committed(lab.servers, lab.group, entry.name)[0].offset == 0
        assert sum(one.running for one in lab.events.of(ev.DrainOverrun)) == 1
        again = Log()
        second = lab.start(entry, lambda m: again.add(m.value))
        again.wait(1)
        lab.caught_up(entry)
        assert again.items == [0]
        assert second.stats().restored == 299
        started = [one for one in lab.events.of(ev.AssignmentStarted) if one.topic == entry.name]
        assert [(one.position, one.restored) for one in started if one.partition == 0][-1] == (0, 299)
    finally:
        gate.set()


def test_nothing_of_it_is_left_running(lab: Lab) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")
    with lab.consumer(entry, lambda m: log.add(m.value)):
        log.wait(1)

    def left() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.ident not in before]

    wait_until(lambda: not left(), 5, "no thread is left")


LIMITS = {
    "window 1": Limits(window=1),
    "one in flight": Limits(in_flight=1),
    "window 3, two in flight": Limits(window=3, in_flight=2),
    "2 KiB": Limits(buffer_bytes=2048),
}


@pytest.mark.parametrize("name", LIMITS)
def test_tight_limits_only_slow_it_down(lab: Lab, name: str) -> None:
    entry, runs, limits = lab.entry(max_attempts=2), Log(), LIMITS[name]
    lab.fill(entry, [as_json(i) for i in range(60)])
    lock = threading.Lock()
    running = most = 0

    def handler(m: Message[Any]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        runs.add((m.value, m.attempt))
        with lock:
            running -= 1
        if m.value % 6 == 0:
            raise ValueError

    consumer = lab.start(entry, handler, limits=limits)
    lab.dead(entry, 10, timeout=60)
    lab.caught_up(entry, timeout=60)
    assert runs.counts() == {(i, 1): 1 for i in range(60)} | {(i, 2): 1 for i in range(0, 60, 6)}
    assert most <= limits.in_flight
    wait_until(lambda: consumer.stats().in_flight == 0)


# Figures and events ----------------------------------------------------------------------------------------------


def test_figures_add_up(lab: Lab) -> None:
    entry = lab.entry(max_attempts=3)
    for partition in (0, 1):  # of one that stays empty nobody knows where it stands
        lab.fill(entry, [as_json(i) for i in range(partition, 200, 2)], partition=partition)
    runs = Log()

    def handler(m: Message[Any]) -> None:
        runs.add(m.attempt)
        if m.value % 5 == 0 and m.attempt <= m.value % 4:
            raise ValueError
        if m.value % 7 == 0:
            raise Reject("seven")

    consumer = lab.start(entry, handler, filter=lambda m: m.body != b"3")
    lab.caught_up(entry)

    ends = end_offsets(lab.servers, entry.name)

    def settled() -> bool:
        one = consumer.stats()
        stand = {n: one.partitions[entry.name, n].position for n in ends if (entry.name, n) in one.partitions}
        return one.handled + one.dead_lettered + one.filtered == 200 and stand == ends

    wait_until(settled, what=repr(consumer.stats()))
    stats = consumer.stats()
    assert entry.retry and entry.retry.topic and isinstance(entry.dead_letter, str)
    assert stats.handled + stats.failed == len(runs)
    assert stats.failed == stats.retried + stats.dead_lettered
    assert stats.retried == len(lab.read(entry.retry.topic)) == len(lab.events.of(ev.MessageRetried))
    assert (
        stats.dead_lettered == len(lab.read(entry.dead_letter)) == len(lab.events.of(ev.MessageDeadLettered))
    )
    assert stats.arrived == 200 + stats.retried
    assert (stats.filtered, stats.in_flight, stats.buffered_bytes, stats.overrun) == (1, 0, 0, 0)
    assert set(stats.partitions) == {(name, n) for name in (entry.name, entry.retry.topic) for n in (0, 1)}
    with pytest.raises(FrozenInstanceError):
        stats.handled = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.partitions[entry.name, 0] = None  # type: ignore[index]


def test_events_are_typed_frozen_and_told_in_order(lab: Lab) -> None:
    entry = lab.entry(max_attempts=2)
    place = lab.send(entry, b"1")
    consumer = lab.start(entry, raiser(ValueError()))
    lab.dead(entry)
    lab.caught_up(entry)
    consumer.stop()
    assert consumer.join(30)
    told = lab.events.items
    assert all(isinstance(one, ev.Event) and is_dataclass(one) for one in told)
    with pytest.raises(FrozenInstanceError):
        told[0].topic = "x"
    kinds = {type(one) for one in told}
    assert kinds == {
        ev.AssignmentStarted,
        ev.MessageRetried,
        ev.MessageDeadLettered,
        ev.Committed,
        ev.AssignmentEnded,
    }
    (retried,) = lab.events.of(ev.MessageRetried)
    assert (retried.topic, retried.partition, retried.offset) == (entry.name, *place)
    assert entry.retry and entry.retry.topic
    assert (retried.attempt, retried.error) == (1, "ValueError")
    assert 0 <= retried.delay <= 0.051  # what was left of it when the copy was acknowledged
    assert retried.retry_topic == entry.retry.topic
    (dead,) = lab.events.of(ev.MessageDeadLettered)
    assert (dead.topic, dead.attempts, dead.reason, dead.error) == (
        entry.retry.topic,
        2,
        "exhausted",
        "ValueError",
    )
    assert {one.reason for one in lab.events.of(ev.AssignmentEnded)} == {"stopped"}
    assert {one.unfinished for one in lab.events.of(ev.AssignmentEnded)} == {0}


def test_an_on_event_that_raises_harms_nobody(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    entry, told = lab.entry(max_attempts=2), Log()

    def on_event(event: ev.Event) -> None:
        told.add(event)
        raise RuntimeError("secret of on_event")

    lab.fill(entry, [b"1"] * 10)
    consumer = lab.start(entry, raiser(ValueError()), on_event=on_event)
    lab.dead(entry, 10)
    consumer.stop()
    assert consumer.join(30)
    assert len(told.of(ev.MessageRetried)) == 10
    lines = [one for one in caplog.records if "on_event raised" in one.getMessage()]
    assert len(lines) == 1 and "RuntimeError" in lines[0].getMessage()
    assert "secret of on_event" not in caplog.text


def test_an_on_event_that_blocks_holds_up_nobody(lab: Lab) -> None:
    if lab.real:
        return  # 5 s of patience with it, which one cluster is enough for
    gate, log = threading.Event(), Log()
    entry = lab.entry()
    lab.fill(entry, [b"1"] * 100)
    try:
        consumer = lab.start(entry, lambda m: log.add(m.value), on_event=lambda _event: gate.wait(60))
        log.wait(100)
        lab.caught_up(entry)
        began = time.monotonic()
        consumer.stop()
        assert consumer.join(30)
        assert time.monotonic() - began < 10
    finally:
        gate.set()


# At the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["base", "retry", "dead"])
def test_a_missing_topic_is_named_with_the_command_that_makes_it(lab: Lab, which: str) -> None:
    entry = lab.entry()
    missing = f"{lab.group}-missing"
    assert entry.retry and entry.retry.topic and isinstance(entry.dead_letter, str)
    entry = Topic(
        missing if which == "base" else entry.name,
        retry=Retry(missing if which == "retry" else entry.retry.topic),
        dead_letter=missing if which == "dead" else entry.dead_letter,
    )
    consumer = lab.consumer(entry, nothing)
    with pytest.raises(ConfigError, match=missing) as failure:
        consumer.run()
    assert "--create --topic " + missing in str(failure.value)
    health = consumer.health()
    assert not health.alive and missing in health.reasons[0]
    with pytest.raises(ConfigError):
        consumer.join(0)


def test_consumers_run_together_and_the_first_failure_ends_them(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")

    def handler(m: Message[Any]) -> None:
        log.add(m.value)
        fine.stop()
        also.stop()

    fine = lab.consumer(entry, handler)
    also = lab.consumer(lab.entry(), nothing, group=f"{lab.group}-also")
    run_consumers(fine, also)
    assert log.items == [1]

    third = lab.consumer(lab.entry(), nothing)
    broken = lab.consumer(Topic(f"{lab.group}-missing", dead_letter=DISCARD), nothing)
    with pytest.raises(ConfigError, match="missing"):
        run_consumers(third, broken)
    assert third.health().reasons == ("stopped",)
