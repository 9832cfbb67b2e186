"""A time limit for each run of a handler, with consumers on the mock cluster and on real Kafka."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client import AsyncExecutor, Limits, Message, ProcessExecutor
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.handlers import slow_or_quick
from tests.shell.lab import Lab, Log, as_json, number
from tests.support.evidence import EvidenceWriter, read_evidence
from tests.support.waiting import WAIT, wait_until

LIMIT = 1.0


class Gated:
    """A handler: message 0 waits at its first attempt until the gate is open, and is sent on when it gets through."""

    def __init__(self, attempts: int = 1) -> None:
        self.attempts = attempts
        self.ran = Log()
        self.ended = Log()
        self.gate = threading.Event()

    def __call__(self, message: Message[Any]) -> None:
        i = message.value["i"]
        self.ran.add((i, message.attempt))
        if i == 0 and message.attempt <= self.attempts:
            assert self.gate.wait(WAIT)
        self.ended.add((i, message.attempt))


@pytest.fixture
def gated() -> Iterator[Gated]:
    handler = Gated()
    yield handler
    handler.gate.set()


def test_a_thread_that_takes_too_long_is_retried_and_its_late_success_dropped(
    lab: Lab, gated: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    entry = lab.entry()
    with caplog.at_level(logging.WARNING, "retriable_kafka_client"):
        consumer = lab.start(entry, gated, timeout=LIMIT)
        lab.fill(entry, [as_json({"i": i}) for i in range(50)])
        wait_until(lambda: (0, 2) in gated.ended.items)  # while the first attempt still runs
        lab.caught_up(entry)
    assert (0, 1) not in gated.ended.items
    wait_until(lambda: consumer.stats().overdue == 1)
    assert consumer.health().ready  # one of four
    gated.gate.set()
    wait_until(lambda: consumer.stats().in_flight == 0)
    stats = consumer.stats()
    assert (stats.handled, stats.failed, stats.retried, stats.overdue) == (50, 1, 1, 0)
    (told,) = lab.events.of(ev.HandlerTimedOut)
    assert (told.topic, told.attempt, told.running) == (entry.name, 1, True)
    assert lab.events.of(ev.MessageRetried)[0].error == "TimeoutError"
    assert [text for text in caplog.messages if "beyond its time limit" in text]


def test_threads_that_are_held_for_too_long_are_told_in_health(lab: Lab, gated: Gated) -> None:
    entry = lab.entry()
    consumer = lab.start(entry, gated, timeout=LIMIT, executor=2)
    lab.fill(entry, [as_json({"i": i}) for i in range(20)])
    wait_until(lambda: any("time limit" in reason for reason in consumer.health().reasons))
    assert consumer.health().alive
    wait_until(lambda: len(gated.ended) == 20)  # the other thread goes on
    gated.gate.set()
    wait_until(lambda: consumer.health().ready)


def test_exhausted_by_time_is_a_dead_letter(lab: Lab) -> None:
    gated = Gated(attempts=2)
    entry = lab.entry(max_attempts=2)
    consumer = lab.start(entry, gated, timeout=LIMIT, error_text=True)
    lab.fill(entry, [as_json({"i": i}) for i in range(5)])
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_ERROR) == b"TimeoutError"
    assert letter.header(wire.DEAD_ERROR_TEXT) == b"the handler did not end within 1 s"
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 2
    gated.gate.set()
    wait_until(lambda: consumer.stats().in_flight == 0)
    assert consumer.stats().handled == 4


def test_give_up_on_timeout_error(lab: Lab, gated: Gated) -> None:
    entry = lab.entry(give_up_on=(TimeoutError,))
    lab.start(entry, gated, timeout=LIMIT)
    lab.fill(entry, [as_json({"i": 0})])
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_REASON) == b"given-up"
    assert gated.ran.items == [(0, 1)]


def test_stopping_does_not_wait_for_what_is_overdue(lab: Lab, gated: Gated) -> None:
    entry = lab.entry()
    consumer = lab.start(entry, gated, timeout=LIMIT, limits=Limits(drain_timeout=60.0))
    lab.fill(entry, [as_json({"i": i}) for i in range(10)])
    wait_until(lambda: (0, 2) in gated.ended.items)
    lab.caught_up(entry)
    consumer.stop()
    assert consumer.join(20)


def test_a_coroutine_is_cancelled_and_tried_again(lab: Lab) -> None:
    entry, ran, cancelled = lab.entry(), Log(), Log()

    async def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        ran.add((i, message.attempt))
        if i % 10 == 0 and message.attempt == 1:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.add(i)

    with AsyncExecutor(100) as executor:
        consumer = lab.start(entry, handler, timeout=LIMIT, executor=executor)
        lab.fill(entry, [as_json({"i": i}) for i in range(50)])
        wait_until(lambda: consumer.stats().handled == 50)
        lab.caught_up(entry)
        assert sorted(cancelled) == [0, 10, 20, 30, 40]
        assert consumer.stats().failed == 5
        assert not any(one.running for one in lab.events.of(ev.HandlerTimedOut))
        assert len(lab.events.of(ev.HandlerTimedOut)) == 5
        consumer.stop()
        assert consumer.join(30)


def test_a_worker_process_is_killed_and_no_innocent_notices(lab: Lab, tmp_path: Path) -> None:
    entry, file = lab.entry(max_attempts=2), tmp_path / "evidence"
    with ProcessExecutor(2) as executor:
        handler = partial(slow_or_quick, EvidenceWriter(file), str(tmp_path / "never"))
        consumer = lab.start(entry, handler, timeout=LIMIT, executor=executor)
        lab.fill(entry, [as_json({"i": i}) for i in range(100)])
        (letter,) = lab.dead(entry, timeout=60)
        lab.caught_up(entry)
        wait_until(lambda: consumer.stats().handled == 99)
        consumer.stop()
        assert consumer.join(30)
    assert json.loads(letter.value or b"") == {"i": 0}
    assert letter.header(wire.DEAD_REASON) == b"exhausted"
    assert letter.header(wire.DEAD_ERROR) == b"TimeoutError"
    ran = sorted((one["i"], one["attempt"]) for one in read_evidence(file) if one["event"] == "ran")
    assert ran == sorted([(0, 2), *((i, 1) for i in range(100))])
    assert not lab.events.of(ev.WorkerDied)
    assert entry.retry
    assert not any(wire.read_marks(one.headers).alone for one in lab.read(str(entry.retry.topic)))
