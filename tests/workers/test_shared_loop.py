"""An AsyncExecutor on the application's event loop."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.message import Message
from retriable_kafka_client.workers.executor import AsyncExecutor
from tests.support.waiting import WAIT, wait_until
from tests.workers.driving import Driven, entries, spec


class LoopThread:
    """An application: an event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.loop.run_forever()

    def start(self) -> None:
        self.thread.start()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(WAIT)
        self.loop.close()


@pytest.fixture
def application() -> Any:
    made = LoopThread()
    yield made
    made.stop()


def test_handlers_run_on_the_loop_that_was_given(application: LoopThread) -> None:
    seen: set[Any] = set()

    async def handler(message: Message[Any]) -> None:
        seen.add((asyncio.get_running_loop(), threading.current_thread()))

    application.start()
    executor = AsyncExecutor(10, loop=application.loop)
    driven = Driven(executor, spec(handler))
    driven.push(entries(100))
    driven.until_ended(100)
    assert seen == {(application.loop, application.thread)}
    driven.close()
    executor.shutdown()
    assert application.loop.is_running()
    assert application.call(asyncio.sleep(0, "alive")) == "alive"


def test_a_loop_may_start_later(application: LoopThread) -> None:
    driven = Driven(AsyncExecutor(10, loop=application.loop), spec(_nothing))
    driven.push(entries(10))
    driven.turn()
    assert driven.ended == 0
    application.start()
    driven.until_ended(10)
    driven.close()


async def _nothing(_message: Message[Any]) -> None:
    await asyncio.sleep(0)


def test_shutdown_ends_what_is_ours_and_leaves_the_rest_alone(application: LoopThread) -> None:
    application.start()
    executor = AsyncExecutor(10, loop=application.loop)

    async def begin() -> asyncio.Task[str]:
        return asyncio.create_task(asyncio.sleep(0.2, "theirs"))

    async def hold() -> None:
        await asyncio.Event().wait()

    theirs = application.call(begin())
    ours = executor.submit(hold)
    executor.shutdown(cancel_futures=True)
    assert ours.done()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(hold)

    async def wait() -> str:
        return str(await theirs)

    assert application.call(wait()) == "theirs"


def test_shutdown_without_a_running_loop_does_not_wait(application: LoopThread) -> None:
    executor = AsyncExecutor(10, loop=application.loop)
    executor.submit(asyncio.sleep, 0)
    executor.shutdown()


def test_closing_and_shutting_down_on_the_loops_own_thread_wait_for_nothing(application: LoopThread) -> None:
    cancelled = threading.Event()

    async def hold(message: Message[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    application.start()
    executor = AsyncExecutor(10, loop=application.loop)
    driven = Driven(executor, spec(hold))
    driven.push(entries(1))
    wait_until(lambda: driven.runner.running().busy)

    async def close() -> float:
        began = time.monotonic()
        driven.close(timeout=WAIT)
        executor.shutdown()
        return time.monotonic() - began

    assert application.call(close()) < WAIT / 2
    assert cancelled.wait(WAIT)
    driven.turn()
    assert driven.ended == 0


def test_a_loop_that_is_closed_under_a_consumer_is_its_failure(application: LoopThread) -> None:
    application.start()
    driven = Driven(AsyncExecutor(10, loop=application.loop), spec(_nothing))
    driven.push(entries(1))
    driven.until_ended(1)
    application.stop()
    driven.until(lambda: driven.runner.failure is not None)  # also with nothing to do
    assert "closed" in str(driven.runner.failure)
    driven.push(entries(1))
    driven.close(1.0)
    with pytest.raises(RuntimeError, match="closed"):
        Driven(AsyncExecutor(10, loop=application.loop), spec(_nothing))


def test_what_the_end_of_the_loop_cancels_has_not_failed() -> None:
    begun = threading.Event()

    async def hold(message: Message[Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    made: list[Driven] = []

    async def main() -> None:
        executor = AsyncExecutor(10, loop=asyncio.get_running_loop())
        driven = Driven(executor, spec(hold))
        made.append(driven)
        driven.push(entries(3))
        while not begun.is_set():  # noqa: ASYNC110 - the handler's event is a thread's
            await asyncio.sleep(0.01)

    asyncio.run(main())  # cancels all, and closes its loop
    (driven,) = made
    driven.until(lambda: driven.runner.failure is not None)
    driven.turn()
    assert driven.ended == 0
    driven.close(1.0)


def test_a_handlers_own_cancellation_is_a_failed_attempt(application: LoopThread) -> None:
    async def raise_it(message: Message[Any]) -> None:
        raise asyncio.CancelledError

    async def be_cancelled(message: Message[Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    application.start()
    handlers: list[Callable[..., Any]] = [raise_it, be_cancelled]
    for handler in handlers:
        driven = Driven(AsyncExecutor(10, loop=application.loop), spec(handler))
        driven.push(entries(1))
        driven.until_ended(1)
        assert driven.failure_of(0).retry_in == 5.0
        driven.close()


def test_time_limits_hold_here_too(application: LoopThread) -> None:
    async def hold(message: Message[Any]) -> None:
        if message.offset == 1:
            await asyncio.Event().wait()

    application.start()
    driven = Driven(AsyncExecutor(10, loop=application.loop), spec(hold, timeout=0.5))
    driven.push(entries(3))
    driven.until_ended(3)
    assert driven.failure_of(1).timed_out
    driven.close()


def test_what_is_no_loop_is_refused() -> None:
    wrong: Any = asyncio
    with pytest.raises(ConfigError) as caught:
        AsyncExecutor(loop=wrong)
    assert caught.value.field == "AsyncExecutor.loop"
