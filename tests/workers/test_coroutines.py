"""Coroutines: what a handler may do to its loop, and what happens to it at the end."""

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.message import Message
from retriable_kafka_client.workers.executor import AsyncExecutor
from tests.support.waiting import WAIT, wait_until
from tests.workers import handlers
from tests.workers.driving import Driven, entries, orders, spec


@pytest.fixture
def executor() -> Iterator[AsyncExecutor]:
    with AsyncExecutor(50) as made:
        yield made


class Meter:
    """A handler that counts how many of it run at once, and waits until so many did."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.now = 0
        self.most = 0
        self.enough = asyncio.Event()

    async def __call__(self, message: Message[Any]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.most >= self.wanted:
            self.enough.set()
        await self.enough.wait()
        await asyncio.sleep(0)
        self.now -= 1


def test_as_many_run_at_once_as_was_said_and_no_more(executor: AsyncExecutor) -> None:
    meter = Meter(50)
    driven = Driven(executor, spec(meter))
    driven.push(entries(1000))
    driven.until_ended(1000)
    assert meter.most == 50
    driven.close()


def test_consumers_share_the_room(executor: AsyncExecutor) -> None:
    meter = Meter(50)
    both = [Driven(executor, spec(meter)) for _ in range(2)]
    for driven in both:
        driven.push(entries(500))
    for driven in both:
        driven.until_ended(500)
        driven.close()
    assert meter.most == 50


def test_plain_functions_are_refused(executor: AsyncExecutor) -> None:
    with pytest.raises(ConfigError, match="async def"):
        Driven(executor, spec(handlers.nothing))


def test_a_cancellation_of_the_handlers_own_is_a_failed_attempt(
    executor: AsyncExecutor, tmp_path: Path
) -> None:
    driven = Driven(executor, spec(partial(handlers.do_as_told_async, str(tmp_path / "said"), "")))
    driven.push(orders("cancel", "ok"))
    driven.until_ended(2)
    assert driven.failure_of(0).retry_in == 5.0
    assert driven.failure_of(0).error == "asyncio.exceptions.CancelledError"
    driven.close()


def test_a_handler_that_blocks_the_loop_does_not_block_the_consumer(
    executor: AsyncExecutor, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    driven = Driven(executor, spec(partial(handlers.do_as_told_async, str(tmp_path / "said"), str(gate))))
    driven.push(orders("block", *["ok"] * 100))
    wait_until(lambda: handlers.lines(tmp_path / "said"))
    before = time.monotonic()
    driven.push(orders("ok", first=500))
    given = driven.runner.withdraw(lambda one: one.offset == 500)
    driven.turn()
    assert driven.runner.running().busy
    assert time.monotonic() - before < 5.0
    assert [one.offset for one in given] == [500]
    gate.touch()
    driven.until_ended(101)
    driven.close()


def test_closing_cancels_what_runs_and_reports_nothing_of_it(executor: AsyncExecutor) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def hold(message: Message[Any]) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    driven = Driven(executor, spec(hold))
    driven.push(entries(3))
    assert begun.wait(WAIT)
    driven.close()
    assert cancelled.is_set()
    driven.turn()
    assert driven.ended == 0


async def leave_behind(message: Message[Any]) -> None:
    async def leave() -> None:
        raise SystemExit

    task = asyncio.get_running_loop().create_task(leave())
    await asyncio.sleep(0)
    task.cancel()


async def stop_the_loop(message: Message[Any]) -> None:
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize("handler", [leave_behind, stop_the_loop])
def test_nothing_that_a_handler_does_ends_the_loop(executor: AsyncExecutor, handler: Any) -> None:
    driven = Driven(executor, spec(handler))
    driven.push(entries(20))
    driven.until_ended(20)
    driven.close()
    assert executor.submit(int, "4").result(WAIT) == 4


def test_shutdown_waits_for_what_was_submitted_and_ends_what_was_left_behind() -> None:
    executor = AsyncExecutor()
    forgotten = threading.Event()

    async def forget() -> int:
        async def for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                forgotten.set()

        executor.left = asyncio.create_task(for_ever())  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        return 5

    future = executor.submit(forget)
    executor.shutdown()
    assert future.result(0) == 5
    assert forgotten.is_set()
    executor.shutdown()
