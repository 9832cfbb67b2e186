"""What every executor promises a consumer, whatever its workers are."""

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

from retriable_kafka_client import Message
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.events import REASON_REJECTED, REASON_UNDECODABLE
from retriable_kafka_client.wire.headers import Marks
from retriable_kafka_client.workers.executor import (
    AsyncExecutor,
    ProcessExecutor,
    Running,
    check_executor,
    make_runner,
)
from tests.support.waiting import WAIT, wait_until
from tests.workers import handlers
from tests.workers.driving import Driven, InBatches, entries, entry, orders, spec


class Elsewhere(Executor):
    """An executor of a kind that the library does not know, with its workers in other processes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._pool.submit(fn, *args, **kwargs)


class Inline(Executor):
    """Runs everything at once, in the thread that submits it."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


ALL = [
    "int",
    "InBatches",
    "ThreadPoolExecutor",
    "ProcessExecutor",
    "ProcessPoolExecutor",
    "Elsewhere",
    "AsyncExecutor",
]
OWN = ["int", "InBatches", "ThreadPoolExecutor", "ProcessExecutor", "AsyncExecutor"]  # with taking back
SHARED = [kind for kind in ALL if kind not in ("int", "InBatches")]


class Kinds:
    """Executors with two workers, made when first wanted, and one of each kind with a single worker."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], int | Executor] = {}
        self._stack = ExitStack()

    def get(self, kind: str, workers: int = 2) -> int | Executor:
        if (kind, workers) not in self._made:
            self._made[kind, workers] = self._make(kind, workers)
        return self._made[kind, workers]

    def _make(self, kind: str, workers: int) -> int | Executor:
        match kind:
            case "int":
                return workers
            case "InBatches":
                return InBatches(workers)
            case "ThreadPoolExecutor":
                return self._stack.enter_context(ThreadPoolExecutor(workers))
            case "ProcessExecutor":
                return self._stack.enter_context(ProcessExecutor(workers))
            case "AsyncExecutor":
                return self._stack.enter_context(AsyncExecutor(workers if workers == 1 else 100))
            case "ProcessPoolExecutor":
                return self._stack.enter_context(
                    ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
                )
            case _:
                pool = self.get("ProcessPoolExecutor", workers)
                assert isinstance(pool, ProcessPoolExecutor)
                return Elsewhere(pool)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def kinds() -> Iterator[Kinds]:
    made = Kinds()
    yield made
    made.close()


class Told:
    """Handlers that do as their messages say, of the kind that an executor takes."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.gate = folder / "gate"

    def handler(self, kind: str) -> Callable[..., object]:
        function = handlers.do_as_told_async if kind == "AsyncExecutor" else handlers.do_as_told
        return partial(function, str(self.said), str(self.gate))

    def begun(self, order: str) -> list[int]:
        """The offsets of messages with this order, as they were begun."""
        return [int(line.split()[1]) for line in handlers.lines(self.said) if line.split()[0] == order]

    def open(self) -> None:
        self.gate.touch()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.open()


@pytest.mark.parametrize("kind", ALL)
def test_a_handler_that_forgets_to_await_fails(kinds: Kinds, kind: str) -> None:
    forgets = handlers.returns_coroutine_async if kind == "AsyncExecutor" else handlers.returns_coroutine
    driven = Driven(kinds.get(kind), spec(forgets))
    driven.push(entries(50))
    driven.until_ended(50)
    assert {failure.error for _, failure in driven.failed} == {
        "retriable_kafka_client.workers.job.AwaitableReturned"
    }
    assert len(driven.failed) == 50
    driven.close()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("error_text", [False, True])
def test_a_failure_names_the_place_in_the_users_code(
    kinds: Kinds, told: Told, kind: str, error_text: bool
) -> None:
    driven = Driven(kinds.get(kind), spec(told.handler(kind), error_text=error_text))
    driven.push(orders("fail", "fail"))
    driven.until_ended(2)
    for failure in (driven.failure_of(0), driven.failure_of(1)):
        assert (failure.place or "").startswith(f"{handlers.__name__}:")
        assert (failure.place or "").endswith(" _obey")
        assert (failure.traceback is not None and "secret payload" in failure.traceback) is error_text
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_each_run_has_a_context_of_its_own(kinds: Kinds, kind: str, tmp_path: Path) -> None:
    token = handlers.started.set("the consumer")
    leak = handlers.leak_async if kind == "AsyncExecutor" else handlers.leak
    driven = Driven(kinds.get(kind), spec(partial(leak, str(tmp_path / "said"))))
    handlers.started.reset(token)
    driven.push(entries(100))
    driven.until_ended(100)
    assert not driven.failed
    crosses = "rocess" in kind or kind == "Elsewhere"
    assert handlers.lines(tmp_path / "said") == [f"-1 {'nothing' if crosses else 'the consumer'}"] * 100
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_each_deserializer_call_has_a_context_of_its_own(kinds: Kinds, kind: str, tmp_path: Path) -> None:
    read = handlers.read_and_leak_async if kind == "AsyncExecutor" else handlers.read_and_leak
    handled = spec(partial(read, str(tmp_path / "said")), deserializer=handlers.decode_and_leak)
    driven = Driven(kinds.get(kind), handled)
    driven.push(entries(100))
    driven.until_ended(100)
    assert not driven.failed
    assert handlers.lines(tmp_path / "said") == ["True True"] * 100
    driven.close()


def test_what_a_pools_initializer_sets_stays(tmp_path: Path) -> None:
    token = handlers.started.set("the consumer")
    with (
        ThreadPoolExecutor(1, initializer=handlers.begin_started) as threads,
        ProcessExecutor(1, initializer=handlers.begin_started) as processes,
    ):
        for pool in (threads, processes):
            driven = Driven(pool, spec(partial(handlers.leak, str(tmp_path / "said"))))
            driven.push(entries(10))
            driven.until_ended(10)
            driven.close()
    handlers.started.reset(token)
    assert handlers.lines(tmp_path / "said") == ["-1 the pool"] * 20


@pytest.mark.parametrize(
    "order", ["await-generator-exit", "task-generator-exit", "close-me", "generator-exit"]
)
def test_a_task_that_ends_in_generator_exit_fails_its_message(kinds: Kinds, told: Told, order: str) -> None:
    driven = Driven(kinds.get("AsyncExecutor"), spec(told.handler("AsyncExecutor")))
    driven.push(orders(order, "ok"))
    driven.until_ended(2)
    assert driven.failure_of(0).error == "GeneratorExit"
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_everything_comes_back_once(kinds: Kinds, kind: str) -> None:
    handler = handlers.nothing_async if kind == "AsyncExecutor" else handlers.nothing
    count = 100_000 if kind in ("int", "InBatches", "ThreadPoolExecutor") else 20_000
    driven = Driven(kinds.get(kind), spec(handler))
    for first in range(0, count, 500):
        driven.push(entries(500, first))
    driven.until_ended(count)
    assert len(driven.done) == count
    assert driven.runner.running().queued == 0
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_failures_come_back_with_their_verdict_and_neighbours_do_not_notice(
    kinds: Kinds, kind: str, told: Told
) -> None:
    driven = Driven(kinds.get(kind), spec(told.handler(kind)))
    driven.push(orders("ok", "fail", "reject", "retry-after", "interrupt", "exit", "generator-exit", "ok"))
    driven.push([entry(100, b"{"), entry(101, b"", marks=Marks(failed=1)), entry(102, b'{"do": "ok"}')])
    driven.push(
        [entry(103, b'{"do": "fail"}', marks=Marks(failed=2)), entry(104, b'{"do": "fail"}', route=1)]
    )
    driven.until_ended(13)
    assert sorted(one.offset for one in driven.done) == [0, 7, 102]
    assert [driven.failure_of(offset).retry_in for offset in (1, 2, 3)] == [5.0, None, 7.0]
    assert [driven.failure_of(offset).retry_in for offset in (4, 5, 6)] == [5.0, 5.0, 5.0]
    assert driven.failure_of(1).error == "ValueError"
    assert driven.failure_of(1).text is None
    assert driven.failure_of(2).reason == REASON_REJECTED
    assert driven.failure_of(100).reason == driven.failure_of(101).reason == REASON_UNDECODABLE
    assert [driven.failure_of(offset).retry_in for offset in (103, 104)] == [None, None]
    driven.push(orders("ok", first=200))
    driven.until_ended(14)
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_one_worker_keeps_the_order(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind, 1), spec(told.handler(kind)))
    for first in range(0, 2000, 250):
        driven.push(orders(*["ok"] * 250, first=first))
    driven.until_ended(2000)
    assert told.begun("ok") == list(range(2000))
    driven.close()


@pytest.mark.parametrize("kind", ["int", "InBatches", "ThreadPoolExecutor"])
def test_what_was_taken_back_from_one_worker_goes_before_what_came_later(kinds: Kinds, kind: str) -> None:
    gates = {0: threading.Event(), 100: threading.Event()}
    begun: list[int] = []

    def handler(message: Message[Any]) -> None:
        begun.append(message.offset)
        if message.offset in gates:
            gates[message.offset].wait(60)

    driven = Driven(kinds.get(kind, 1), spec(handler))
    driven.warm_up()
    begun.clear()
    driven.push(orders(*["ok"] * 200))
    driven.push(orders(*["ok"] * 200, first=200))
    for offset, gate in gates.items():
        driven.until(lambda: begun[-1:] == [offset])  # noqa: B023
        driven.runner.hold(True)  # takes back what the worker has not begun
        driven.runner.hold(False)
        gate.set()
    driven.until_ended(400)
    assert begun == list(range(400))
    driven.close()


@pytest.mark.parametrize("kind", OWN)
def test_what_waits_behind_a_slow_message_runs_elsewhere(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind), spec(told.handler(kind)))
    driven.warm_up()
    driven.push(orders("hold", *["ok"] * 300))
    driven.until(lambda: len(driven.done) == 300)
    driven.until(lambda: [one.offset for one in driven.runner.running().busy] == [0])
    told.open()
    driven.until_ended(301)
    driven.close()


@pytest.mark.parametrize("kind", ["int", "InBatches", "ThreadPoolExecutor", "ProcessExecutor"])
def test_forerunners_of_a_slow_message_come_back_before_it_ends(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind, 1), spec(told.handler(kind)))
    driven.warm_up()
    driven.push(orders("ok", "fail", "ok", "hold", "ok"))
    driven.until(lambda: driven.ended == 3)
    assert [one.offset for one in driven.done] == [0, 2]
    assert driven.runner.running().queued == 1
    told.open()
    driven.until_ended(5)
    driven.close()


@pytest.mark.parametrize("kind", ALL)
def test_what_is_held_starts_when_it_is_let_go(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind), spec(told.handler(kind)))
    driven.push(orders(*["ok"] * 10))
    driven.until_ended(10)
    driven.runner.hold(True)
    driven.push(orders(*["ok"] * 100, first=100))
    for _ in range(5):
        driven.turn()
    assert driven.ended == 10
    assert driven.runner.running() == Running(queued=100, busy=())
    assert [one.offset for one in driven.runner.withdraw(lambda one: one.offset == 150)] == [150]
    driven.runner.hold(False)
    driven.until_ended(109)
    driven.close()


@pytest.mark.parametrize("kind", OWN)
def test_withdrawn_is_what_has_not_started(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind, 1), spec(told.handler(kind)))
    driven.warm_up()
    driven.push(orders("hold", *["ok"] * 100))
    wait_until(lambda: told.begun("hold"))
    before = time.monotonic()
    given = driven.runner.withdraw(lambda one: one.offset % 2 == 0)
    assert time.monotonic() - before < 1.0
    assert [one.offset for one in given] == list(range(2, 101, 2))
    assert driven.runner.running().queued == 50
    told.open()
    driven.until_ended(51)
    assert told.begun("ok")[-50:] == list(range(1, 100, 2))
    driven.close()


@pytest.mark.parametrize("kind", SHARED)
def test_two_consumers_share_a_pool(kinds: Kinds, kind: str, told: Told) -> None:
    executor = kinds.get(kind)
    quiet = handlers.nothing_async if kind == "AsyncExecutor" else handlers.nothing
    first, second = Driven(executor, spec(told.handler(kind))), Driven(executor, spec(quiet))
    for number in range(20):
        first.push(orders(*["ok", "fail"] * 25, first=number * 50))
        second.push(entries(100, number * 100))
    first.until(lambda: first.ended == 1000)
    second.until(lambda: second.ended == 2000)
    assert (len(first.done), len(first.failed), len(second.done)) == (500, 500, 2000)
    first.close()
    second.push(entries(100, 5000))  # it does not notice that the other one left
    second.until_ended(2100)
    second.close()


@pytest.mark.parametrize("kind", OWN)
def test_closing_starts_nothing_more_and_does_not_wait_for_long(kinds: Kinds, kind: str, told: Told) -> None:
    driven = Driven(kinds.get(kind, 1), spec(told.handler(kind)))
    driven.push(orders("hold", "ok", "ok"))
    wait_until(lambda: told.begun("hold"))
    before = time.monotonic()
    driven.close(0.2)
    assert time.monotonic() - before < 5.0
    told.open()
    after = Driven(kinds.get(kind, 1), spec(told.handler(kind)))
    after.push(orders("ok", first=10))
    after.until_ended(1)
    after.close()
    assert told.begun("ok") == [10]


@pytest.mark.parametrize("kind", ALL)
def test_nothing_to_take_is_no_work(kinds: Kinds, kind: str) -> None:
    handler = handlers.nothing_async if kind == "AsyncExecutor" else handlers.nothing
    driven = Driven(kinds.get(kind), spec(handler))
    assert driven.runner.take() is driven.runner.take()
    assert not driven.runner.take()
    driven.close()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "AsyncExecutor"])
def test_coroutine_functions_are_refused_and_coroutines_fail(kinds: Kinds, kind: str) -> None:
    with pytest.raises(ConfigError, match="AsyncExecutor"):
        Driven(kinds.get(kind), spec(handlers.nothing_async))
    driven = Driven(kinds.get(kind), spec(handlers.returns_coroutine))
    driven.push(entries(3))
    driven.until_ended(3)
    assert len(driven.failed) == 3
    driven.close()


@pytest.mark.parametrize("kind", ["ProcessExecutor", "ProcessPoolExecutor"])
def test_what_does_not_pickle_is_named_at_the_start(kinds: Kinds, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Driven(kinds.get(kind), spec(lambda message: None))
    assert caught.value.field == "Consumer.handler"


def test_an_unknown_executor_says_so_when_it_pickles(kinds: Kinds) -> None:
    driven = Driven(kinds.get("Elsewhere"), spec(lambda message: None))
    driven.push(entries(1))
    driven.until(lambda: driven.runner.failure is not None)
    assert isinstance(driven.runner.failure, ConfigError)
    assert driven.ended == 0
    driven.close()


def test_an_executor_may_run_inline() -> None:
    driven = Driven(Inline(), spec(lambda message: None))
    driven.push(entries(50_000))  # no recursion from slice to slice
    driven.until_ended(50_000)
    driven.close()


def test_a_message_that_killed_a_worker_before_has_a_slice_of_its_own() -> None:
    executor = Inline()
    driven = Driven(executor, spec(handlers.nothing), slots=1)
    driven.push(entries(10_000))
    driven.until_ended(10_000)
    before = executor.submitted
    marks = Marks(failed=1, alone=True)
    driven.push(
        [*entries(5, 20_000), entry(20_005, marks=marks), entry(20_006, marks=marks), *entries(5, 20_007)]
    )
    driven.until_ended(10_012)
    assert executor.submitted - before == 4
    driven.close()


@pytest.mark.parametrize("kind", SHARED)
def test_an_executor_that_was_shut_down_fails_the_runner(kind: str) -> None:
    made = Kinds()
    executor = made.get(kind)
    handler = handlers.nothing_async if kind == "AsyncExecutor" else handlers.nothing
    driven = Driven(executor, spec(handler))
    driven.push(entries(10))
    driven.until_ended(10)
    made.close()
    driven.push(entries(10, 100))
    driven.until(lambda: driven.runner.failure is not None)
    assert driven.ended == 10
    driven.close()


@pytest.mark.parametrize("kind", SHARED)
def test_submit_and_shutdown_work_as_with_any_executor(kind: str) -> None:
    made = Kinds()
    executor = made.get(kind)
    assert isinstance(executor, Executor)
    assert executor.submit(int, "12").result(WAIT) == 12
    failed = executor.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result(WAIT)
    assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
    made.close()
    with pytest.raises(RuntimeError):
        executor.submit(int)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "4", None, object()])
def test_a_wrong_executor_is_a_config_error(wrong: object) -> None:
    with pytest.raises(ConfigError) as caught:
        check_executor(wrong, print)
    assert caught.value.field == "Consumer.executor"


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "4", None])
def test_wrong_sizes_are_config_errors(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        ProcessExecutor(wrong)
    with pytest.raises(ConfigError):
        AsyncExecutor(wrong)


def test_slots_are_the_workers() -> None:
    handled = spec(handlers.nothing)
    assert make_runner(7, handled).slots == 7
    assert make_runner(ThreadPoolExecutor(3), handled).slots == 3
    assert make_runner(ProcessExecutor(5), handled).slots == 5
    assert make_runner(AsyncExecutor(50), handled).slots == 50
    assert make_runner(Inline(), handled).slots > 0
    assert make_runner(Inline(), handled, slots=2).slots == 2
