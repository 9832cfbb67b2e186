"""A handler in C that keeps the interpreter's lock: the whole process stands, and the group gives its partitions away."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import pytest

from retriable_kafka_client import AsyncExecutor, Message
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, settings_of
from tests.support.waiting import wait_until

COUNT = 30
HOLDER = 5  # this one keeps the lock


def hold(seconds: float) -> None:
    """As a library in C may that does not let go of the lock."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@pytest.mark.campaign
@pytest.mark.parametrize("lab", ["mock"], indirect=True)
@pytest.mark.parametrize("how", ["unordered", "in place", "no retry", "key", "partition", "async"])
def test_who_holds_the_process_up_ends_as_a_dead_letter_and_its_neighbours_run_on(
    lab: Lab, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    _hold_up(lab, how, caplog)


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["unordered", "exactly once"])
def test_so_does_who_holds_it_up_on_real_kafka(
    real_lab: Lab, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    _hold_up(real_lab, how, caplog)


def _hold_up(lab: Lab, how: str, caplog: pytest.LogCaptureFixture) -> None:
    runs, interval = Log(), 6.0 if lab.real else 2.0  # a broker takes no shorter session
    milliseconds = round(interval * 1000)
    settings = {
        **settings_of("cooperative"),
        "session.timeout.ms": milliseconds,
        "max.poll.interval.ms": milliseconds,
    }

    def handler(message: Message[Any]) -> None:
        runs.add((message.value, message.attempt))
        if message.value == HOLDER:
            hold(interval + 4.0)  # the client does not notice each one that is just too long

    async def on_loop(message: Message[Any]) -> None:
        handler(message)

    ordering = how if how in ("key", "partition") else "unordered"
    in_place = how in ("in place", "key", "partition")
    entry = lab.entry(retry=how != "no retry", in_place=in_place, partitions=1, max_attempts=3)
    more: dict[str, Any] = {"executor": AsyncExecutor()} if how == "async" else {}
    if how == "exactly once":
        more["guarantee"] = "exactly_once"
    with caplog.at_level(logging.ERROR, "retriable_kafka_client"):
        lab.fill(entry, [b"%d" % i for i in range(COUNT)])
        consumer = lab.start(
            entry, on_loop if how == "async" else handler, settings=settings, ordering=ordering, **more
        )
        (letter,) = lab.dead(entry, timeout=180.0)
        wait_until(lambda: {i for i, _ in runs.items} == set(range(COUNT)))
        wait_until(lambda: consumer.health().ready)
    assert letter.value == b"%d" % HOLDER
    assert dict(letter.headers)["retriable_kafka_dead_reason"] == b"worker-stuck"
    last = 2 if how == "no retry" else 3
    assert [attempt for i, attempt in runs.items if i == HOLDER] == [1, 2, 3][:last]
    counts = runs.counts()
    neighbours = sum(count for (i, _), count in counts.items() if i != HOLDER)
    assert neighbours <= 2 * (COUNT - 1)
    stuck = lab.events.of(ev.HandlerStuck)
    told = [event for event in stuck if event.alone or event.offset == HOLDER]
    assert [(event.attempt, event.alone) for event in told] == [(1, False), (2, True), (3, True)][:last]
    named = [f"{event.topic}/{event.partition}/{event.offset}, attempt {event.attempt}:" for event in told]
    # All that may have done it have ten lines at most; who did it alone is named each time.
    alone = [line for line in caplog.messages if "GIL" in line and "; alone ran " in line]
    assert all(name in line for name, line in zip(named[1:], alone, strict=True))
    guesses = [line for line in caplog.messages if "GIL" in line and "; meanwhile ran, " in line]
    assert len(guesses) == min(10, len(stuck) - len(alone))
