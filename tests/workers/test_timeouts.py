"""Runs that take too long: ended where that can be done, reported where it cannot."""

import asyncio
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client.core.retry import Failure, Policy
from retriable_kafka_client.events import REASON_GIVEN_UP
from retriable_kafka_client.message import Message
from retriable_kafka_client.workers.executor import AsyncExecutor, ProcessExecutor
from retriable_kafka_client.workers.job import HandlerSpec
from tests.support.waiting import WAIT, wait_until
from tests.workers import handlers
from tests.workers.driving import Driven, Seconds, entries, orders, spec

LIMIT = 1.0  # seconds; long beside what a quick handler takes, also on a busy machine
SHORT = 0.05  # where no message has to be quick


class Elsewhere(Executor):
    """An executor of a kind that the library does not know: it never says when it begins something."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        told: Future[Any] = Future()

        def ended(future: Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                told.set_exception(error)
            else:
                told.set_result(future.result())

        self._pool.submit(fn, *args, **kwargs).add_done_callback(ended)
        return told


def nap(seconds: float) -> None:
    time.sleep(seconds)


REPORTED = ["int", "ThreadPoolExecutor", "ProcessPoolExecutor", "Elsewhere"]


@pytest.fixture(scope="module")
def executors() -> Iterator[dict[str, int | Executor]]:
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(2, mp_context=get_context("spawn")))
        list(
            pool.map(nap, [0.5] * 4)
        )  # until its processes are up and have imported us: with such a pool it counts
        yield {
            "int": 2,
            "ThreadPoolExecutor": stack.enter_context(ThreadPoolExecutor(2)),
            "ProcessPoolExecutor": pool,
            "Elsewhere": Elsewhere(pool),
        }


class Told:
    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.gate = folder / "gate"

    def spec(self, function: Callable[..., object], **changes: Any) -> HandlerSpec:
        return spec(partial(function, str(self.said), str(self.gate)), **{"timeout": LIMIT, **changes})

    def workers(self, order: str) -> list[int]:
        return [int(line.split()[2]) for line in handlers.lines(self.said) if line.split()[0] == order]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.gate.touch()


def check_timed_out(failure: Failure, retry_in: float | None = 5.0) -> None:
    assert failure.timed_out
    assert (failure.error, failure.retry_in) == ("TimeoutError", retry_in)


@pytest.mark.parametrize("kind", REPORTED)
def test_what_cannot_be_ended_fails_at_once_and_keeps_its_slot(
    executors: dict[str, int | Executor], kind: str, told: Told
) -> None:
    driven = Driven(executors[kind], told.spec(handlers.send_as_told), slots=2)
    driven.push(orders("hold", *["ok"] * 50))
    driven.until(lambda: driven.overdue)
    check_timed_out(driven.failure_of(0))
    driven.until(lambda: driven.ended == 51)  # the others have the other slot
    assert [one.offset for one in driven.runner.running().busy] == [0]
    driven.push(orders("hold", "ok", first=100))
    driven.until(lambda: len(driven.overdue) == 2)
    assert driven.runner.running().queued == 1  # both slots are held
    assert not driven.released
    told.gate.touch()
    driven.until(lambda: len(driven.released) == 2 and driven.ended == 53)
    assert sorted(one.offset for one in driven.released) == [0, 100]
    assert len(driven.done) == 51
    assert not driven.failed
    driven.close()


@pytest.mark.parametrize("kind", REPORTED)
def test_what_comes_too_late_is_dropped(executors: dict[str, int | Executor], kind: str, told: Told) -> None:
    driven = Driven(executors[kind], told.spec(handlers.late), slots=2)
    driven.push([*orders("send"), *orders("raise", first=1)])
    driven.until(lambda: len(driven.overdue) == 2)
    told.gate.touch()
    driven.until(lambda: len(driven.released) == 2)
    assert not (driven.done or driven.sent or driven.failed or driven.died)
    driven.close()


def test_what_stands_in_a_slice_behind_it_moves_on(told: Told) -> None:
    driven = Driven(2, told.spec(handlers.do_as_told))
    driven.warm_up()
    driven.push(orders("hold", *["ok"] * 300))
    driven.until(lambda: len(driven.done) == 300 and driven.overdue)
    told.gate.touch()
    driven.until(lambda: driven.released)
    driven.push(orders("ok", first=500))
    driven.until_ended(302)
    driven.close()


def test_it_is_judged_by_the_policy(told: Told) -> None:
    policy = Policy(max_attempts=3, delay=Seconds(5.0), give_up_on=(TimeoutError,))
    driven = Driven(1, told.spec(handlers.do_as_told, policies=(policy,), error_text=True))
    driven.push(orders("hold"))
    driven.until(lambda: driven.overdue)
    failure = driven.failure_of(0)
    check_timed_out(failure, None)
    assert failure.reason == REASON_GIVEN_UP
    assert failure.text == "the handler did not end within 1 s"
    driven.close(0.0)


def test_many_that_end_about_their_limit_come_back_once(told: Told) -> None:
    def handler(message: Message[Any]) -> None:
        time.sleep(SHORT if message.offset % 2 else SHORT + 0.03)

    driven = Driven(16, spec(handler, timeout=SHORT))
    driven.push(entries(400))
    driven.until_ended(400)
    driven.until(lambda: len(driven.released) == len(driven.overdue))
    assert {one.offset for one in driven.released} == {one.offset for one, _ in driven.overdue}
    driven.close()


def test_without_a_limit_nothing_is_ever_overdue(told: Told) -> None:
    driven = Driven(1, told.spec(handlers.do_as_told, timeout=None))
    driven.push(orders("hold"))
    wait_until(lambda: told.workers("hold"))
    deadline = time.monotonic() + 2 * SHORT
    driven.until(lambda: time.monotonic() > deadline)
    assert driven.ended == 0
    told.gate.touch()
    driven.until_ended(1)
    driven.close()


# Worker processes of the library's own --------------------------------------------------------------------


def test_a_process_is_killed_and_only_its_message_fails(told: Told) -> None:
    with ProcessExecutor(1) as executor:
        driven = Driven(executor, told.spec(handlers.send_as_told))
        driven.warm_up()
        driven.push(orders("fail", *["ok"] * 20, "hold", *["ok"] * 20))
        driven.until_ended(42)
        check_timed_out(driven.failure_of(21))
        assert sorted(one.offset for one, _ in driven.failed) == [0, 21]
        assert len(driven.done) == 40
        assert not (driven.died or driven.overdue or driven.released)
        (killed,) = told.workers("hold")
        assert told.workers("ok")[-1] != killed
        wait_until(lambda: _gone(killed))
        driven.close()


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_are_killed_again_and_again(told: Told) -> None:
    with ProcessExecutor(2) as executor:
        driven = Driven(executor, told.spec(handlers.send_as_told))
        driven.push(orders(*["hold" if number % 40 == 7 else "ok" for number in range(200)]))
        driven.until_ended(200)
        assert sorted(one.offset for one, _ in driven.failed) == list(range(7, 200, 40))
        assert driven.runner.failure is None
        driven.close()


def test_ends_about_the_limit_cost_no_innocent_its_attempt() -> None:
    with ProcessExecutor(2) as executor:
        driven = Driven(executor, spec(handlers.take_half_a_second, timeout=0.5))
        driven.push(entries(60))
        driven.until_ended(60)
        assert not driven.died
        assert {one.offset for one, failure in driven.failed if failure.timed_out} <= set(range(0, 60, 10))
        assert len(driven.failed) + len(driven.done) == 60
        driven.close()


def test_a_death_of_its_own_is_none_by_time(told: Told) -> None:
    with ProcessExecutor(1) as executor:
        driven = Driven(executor, told.spec(handlers.do_as_told))
        driven.push(orders("kill", "ok"))
        driven.until_ended(2)
        assert [one.offset for one in driven.died] == [0]
        driven.close()


# Coroutines -----------------------------------------------------------------------------------------------


def test_a_coroutine_is_cancelled_and_has_failed(told: Told) -> None:
    cancelled = threading.Event()

    async def handler(message: Message[Any]) -> None:
        message.send("out", {})
        if message.offset == 3:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    with AsyncExecutor(10) as executor:
        driven = Driven(executor, spec(handler, timeout=LIMIT))
        driven.push(entries(20))
        driven.until_ended(20)
        check_timed_out(driven.failure_of(3))
        assert cancelled.is_set()
        assert len(driven.sent) == 19
        assert not (driven.overdue or driven.released)
        driven.close()


def test_a_coroutine_that_makes_a_success_of_its_cancellation_has_failed() -> None:
    async def handler(message: Message[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            message.send("out", {})

    with AsyncExecutor(10) as executor:
        driven = Driven(executor, spec(handler, timeout=SHORT))
        driven.push(entries(3))
        driven.until_ended(3)
        assert len(driven.failed) == 3
        driven.close()


@pytest.mark.parametrize("order", ["stubborn", "block"])
def test_a_coroutine_that_does_not_obey_is_reported_like_a_thread(told: Told, order: str) -> None:
    with AsyncExecutor(1) as executor:
        driven = Driven(executor, told.spec(handlers.send_as_told_async))
        driven.push(orders(order, "ok"))
        driven.until(lambda: driven.overdue)
        check_timed_out(driven.failure_of(0))
        assert [one.offset for one in driven.runner.running().busy] == [0]
        assert driven.ended == 1  # the slot is held
        told.gate.touch()
        driven.until(lambda: driven.released and driven.done)
        assert [one.offset for one in driven.released] == [0]
        assert not (driven.failed or driven.sent)
        driven.close()


def test_coroutines_that_end_about_their_limit_come_back_once() -> None:
    async def handler(message: Message[Any]) -> None:
        await asyncio.sleep(SHORT if message.offset % 2 else SHORT + 0.02)

    with AsyncExecutor(100) as executor:
        driven = Driven(executor, spec(handler, timeout=SHORT))
        driven.push(entries(2000))
        driven.until_ended(2000)
        assert all(failure.timed_out for _, failure in driven.failed)
        driven.close()


def test_a_handlers_own_timeout_is_an_ordinary_failure() -> None:
    async def handler(message: Message[Any]) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with AsyncExecutor(10) as executor:
        driven = Driven(executor, spec(handler, timeout=WAIT))
        driven.push(entries(1))
        driven.until_ended(1)
        assert not driven.failure_of(0).timed_out
        assert driven.failure_of(0).error == "TimeoutError"
        driven.close()


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("step", range(12))
def test_what_ends_at_its_limit_comes_back_once(step: int, fails: bool) -> None:
    """The loop looks between two lines of the worker's, after so many since the handler ended."""
    started, go_on, stands, move = (threading.Event() for _ in range(4))
    left = step

    def trace(_frame: object, event: str, _arg: object) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or event == "return":
            sys.settrace(None)
            stands.set()
            assert move.wait(WAIT)
            return None
        return trace

    def handler(message: Message[Any]) -> None:
        if message.offset == 0:
            started.set()
            assert go_on.wait(WAIT)
            frame = inspect.currentframe()
            assert frame is not None
            assert frame.f_back is not None
            frame.f_back.f_trace = trace
            sys.settrace(lambda *_: None)
            if fails:
                raise ValueError

    driven = Driven(1, spec(handler, timeout=1000.0))
    driven.push(entries(1))
    assert started.wait(WAIT)
    driven.turn()
    go_on.set()
    assert stands.wait(WAIT)
    driven.runner.sweep(time.monotonic() + 2000.0)
    move.set()
    driven.until(lambda: driven.done or driven.failed or driven.released)
    driven.push(entries(1, 1))
    driven.until(lambda: 1 in driven.offsets())
    driven.close()
    assert driven.ended == 2
    assert len(driven.released) == len(driven.overdue)
