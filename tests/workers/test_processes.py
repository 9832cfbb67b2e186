"""The library's own process pool: workers that die, and workers whose parent dies."""

import fcntl
import os
import signal
import sys
import types
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.workers.executor import ProcessExecutor
from tests.support.processes import Program
from tests.support.waiting import WAIT, wait_until
from tests.workers import handlers
from tests.workers.driving import Driven, entries, orders, spec


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessExecutor]:
    with ProcessExecutor(2) as executor:
        yield executor


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


@pytest.fixture
def driven(two: ProcessExecutor, said: Path, tmp_path: Path) -> Iterator[Driven]:
    made = Driven(two, spec(partial(handlers.do_as_told, str(said), str(tmp_path / "gate"))))
    yield made
    (tmp_path / "gate").touch()
    made.close()


def worker_of(said: Path, order: str) -> int:
    """The process that began the message with this order."""

    def found() -> int:
        return next((int(line.split()[2]) for line in handlers.lines(said) if line.split()[0] == order), 0)

    return wait_until(found)


@pytest.mark.parametrize("killer", ["os-exit", "kill", "abort", "segfault", "orphan"])
def test_only_the_message_that_ran_is_reported_dead(driven: Driven, said: Path, killer: str) -> None:
    driven.warm_up()
    driven.push(orders(*["ok"] * 60, killer, *["ok"] * 60))
    driven.until_ended(121)
    assert [one.offset for one in driven.died] == [60]
    assert len(driven.done) == 120
    dead = worker_of(said, killer)
    driven.push(orders(*["ok"] * 1000, first=1000))
    driven.until_ended(1121)
    after = [line.split() for line in handlers.lines(said)][-1000:]
    assert all(int(pid) != dead for _, _, pid in after)


def test_failures_told_before_the_death_are_kept(driven: Driven) -> None:
    driven.warm_up()
    driven.push(orders("fail", "ok", "fail", "kill", "fail", "ok"))
    driven.until_ended(6)
    assert [one.offset for one in driven.died] == [3]
    assert sorted(one.offset for one, _ in driven.failed) == [0, 2, 4]
    assert sorted(one.offset for one in driven.done) == [1, 5]


def test_many_killers_among_innocents(driven: Driven) -> None:
    told = [("os-exit" if number % 20 == 7 else "ok") for number in range(200)]
    driven.push(orders(*told))
    driven.until_ended(200)
    assert sorted(one.offset for one in driven.died) == [number for number in range(200) if number % 20 == 7]
    assert len(driven.done) == 190


def test_a_worker_that_somebody_kills(driven: Driven, said: Path) -> None:
    driven.warm_up()
    driven.push(orders("hold", *["ok"] * 50))
    os.kill(worker_of(said, "hold"), signal.SIGKILL)
    driven.until_ended(51)
    assert [one.offset for one in driven.died] == [0]


def test_an_idle_worker_that_somebody_kills_costs_nothing(said: Path) -> None:
    with ProcessExecutor(1) as executor:
        driven = Driven(executor, spec(partial(handlers.do_as_told, str(said), "")))
        driven.push(orders("ok"))
        driven.until_ended(1)
        for number in range(1, 6):
            os.kill(int(handlers.lines(said)[-1].split()[2]), signal.SIGKILL)
            driven.push(orders("ok", first=number))
            driven.until_ended(number + 1)
        assert not driven.died
        driven.close()


def test_a_stopped_worker_holds_up_neither_the_loop_nor_the_other_worker(driven: Driven, said: Path) -> None:
    driven.warm_up()
    driven.push(orders("hold", *["ok"] * 50))
    worker = worker_of(said, "hold")
    os.kill(worker, signal.SIGSTOP)
    try:
        driven.until(lambda: len(driven.done) == 50)
        assert driven.runner.withdraw(lambda one: True) == []
    finally:
        os.kill(worker, signal.SIGKILL)
    driven.until_ended(51)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_parent_alone_decides_when_a_worker_ends(
    driven: Driven, said: Path, tmp_path: Path, number: signal.Signals
) -> None:
    driven.push(orders("hold"))
    os.kill(worker_of(said, "hold"), number)
    driven.turn()
    (tmp_path / "gate").touch()
    driven.until_ended(1)
    assert len(driven.done) == 1


def test_the_initializer_runs_once_in_each_worker(said: Path) -> None:
    with ProcessExecutor(2, initializer=partial(handlers.initialize, str(said))) as executor:
        driven = Driven(executor, spec(handlers.nothing))
        driven.push(entries(1000))
        driven.until_ended(1000)
        driven.close()
    workers = [line.split()[1] for line in handlers.lines(said)]
    assert len(workers) == len(set(workers)) == 2


def test_an_initializer_that_raises_breaks_the_executor() -> None:
    executor = ProcessExecutor(2, initializer=handlers.fail_to_initialize)
    driven = Driven(executor, spec(handlers.nothing))
    driven.until(lambda: driven.runner.failure is not None)  # also with nothing to do
    assert isinstance(driven.runner.failure, BrokenExecutor)
    assert "initializer raised LookupError" in str(driven.runner.failure)
    assert "secret" not in str(driven.runner.failure)
    driven.push(entries(10))
    driven.turn()
    assert driven.ended == 0
    driven.close(1.0)
    with pytest.raises(BrokenExecutor, match="initializer"):
        executor.submit(int)
    executor.shutdown()


def test_workers_that_end_before_they_can_work_break_the_executor(said: Path) -> None:
    executor = ProcessExecutor(1, initializer=partial(_say_and_leave, str(said)))
    driven = Driven(executor, spec(handlers.nothing))
    driven.push(entries(1))
    driven.until(lambda: driven.runner.failure is not None)
    assert "exit code 9" in str(driven.runner.failure)
    assert "__main__" in str(driven.runner.failure)
    assert driven.ended == 0
    assert len(handlers.lines(said)) == 3  # it was tried again, and not for ever
    driven.close(1.0)
    executor.shutdown()


def _say_and_leave(path: str) -> NoReturn:
    handlers.say(path, "left")
    os._exit(9)


def test_an_initializer_that_does_not_pickle_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Driven(ProcessExecutor(1, initializer=lambda: None), spec(handlers.nothing))
    assert caught.value.field == "ProcessExecutor.initializer"


def test_a_handler_that_workers_cannot_import_is_named(
    two: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_in_the_parent")
    exec("def handler(message): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_in_the_parent", module)
    driven = Driven(two, spec(module.handler))
    driven.push(entries(5))
    driven.until(lambda: driven.runner.failure is not None)
    assert isinstance(driven.runner.failure, ConfigError)
    assert "ModuleNotFoundError" in str(driven.runner.failure)
    driven.close()
    other = Driven(two, spec(handlers.nothing))  # the pool itself is sound
    other.push(entries(5))
    other.until_ended(5)
    other.close()


class Awkward(Exception):
    def __init__(self, *, required: str) -> None:
        super().__init__(required)


def _raise_awkward() -> NoReturn:
    raise Awkward(required="x")


def test_submit_survives_what_it_calls(two: ProcessExecutor) -> None:
    with pytest.raises(BrokenExecutor, match="exit code 5"):
        two.submit(os._exit, 5).result(WAIT)
    with pytest.raises(RuntimeError, match="Awkward"):
        two.submit(_raise_awkward).result(WAIT)
    unpicklable: Any = lambda: None  # noqa: E731 - a lambda is what does not pickle
    with pytest.raises(Exception, match=r"pickle|local object"):
        two.submit(unpicklable).result(WAIT)
    with pytest.raises(SystemExit):
        two.submit(sys.exit, 3).result(WAIT)
    assert two.submit(int, "3").result(WAIT) == 3


def locked(path: Path) -> bool:
    """Whether a process holds the lock: it is let go of when the process ends, whether reaped or not."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# A consumer's place is taken by a runner that is driven by hand; the handler takes a lock and never returns.
PROGRAM = """
import fcntl, pathlib, sys, threading, time
from retriable_kafka_client.workers.executor import ProcessExecutor
from tests.workers.driving import Driven, entries, spec

held = []
def hold(message):
    file = open(f"{sys.argv[1]}/lock-{message.offset}", "a")
    fcntl.flock(file, fcntl.LOCK_EX)
    held.append(file)
    pathlib.Path(f"{sys.argv[1]}/began-{message.offset}").touch()
    threading.Event().wait()

if __name__ == "__main__":
    driven = Driven(ProcessExecutor(2), spec(hold))
    driven.push(entries(2))
    driven.until(lambda: all(pathlib.Path(f"{sys.argv[1]}/began-{number}").exists() for number in range(2)))
    print("both hold", flush=True)
    if sys.argv[2] == "stay":
        threading.Event().wait()
"""


def held_program(folder: Path, then: str) -> Program:
    script = folder / "program.py"
    script.write_text(PROGRAM)
    return Program(script, str(folder), then, log=folder / "log")


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with held_program(tmp_path, "stay") as program:
        wait_until(lambda: "both hold" in program.output)
        assert locked(tmp_path / "lock-0")
        program.kill9()
        wait_until(lambda: not locked(tmp_path / "lock-0") and not locked(tmp_path / "lock-1"))


def test_a_program_that_ends_takes_its_workers_along(tmp_path: Path) -> None:
    with held_program(tmp_path, "leave") as program:
        assert program.wait() == 0
        assert not locked(tmp_path / "lock-0")
        assert not locked(tmp_path / "lock-1")
        assert program.output == "both hold\n"


UNGUARDED = """
import pathlib, sys
from retriable_kafka_client.workers.executor import ProcessExecutor
from tests.workers import handlers
from tests.workers.driving import Driven, entries, spec

handlers.say(sys.argv[1], "imported")
driven = Driven(ProcessExecutor(2), spec(handlers.nothing))
driven.push(entries(2))
driven.until(lambda: driven.runner.failure is not None)
print(f"FAILURE {driven.runner.failure}")
"""


def test_a_main_module_without_guard_ends_with_the_remedy(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(UNGUARDED)
    with Program(script, str(tmp_path / "said"), log=tmp_path / "log") as program:
        assert program.wait() == 0
        (failure,) = [line for line in program.output.splitlines() if line.startswith("FAILURE")]
        assert "if __name__ == '__main__'" in failure
        assert "ConfigError" in program.output  # in the workers, which name the remedy too
        assert len(handlers.lines(tmp_path / "said")) <= 1 + 2 * 3
