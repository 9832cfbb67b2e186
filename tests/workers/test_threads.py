"""The library's own threads."""

import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from retriable_kafka_client.workers.threads import DaemonThreads
from tests.support.processes import Program
from tests.support.waiting import WAIT


def test_it_is_an_executor() -> None:
    with DaemonThreads(3) as pool:
        assert list(pool.map(lambda number: number * 2, range(100))) == [number * 2 for number in range(100)]
        failed = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result(WAIT)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(int)


def test_it_runs_as_many_at_once_as_it_has_threads_and_no_more() -> None:
    pool = DaemonThreads(3)
    barrier = threading.Barrier(3)
    futures = [pool.submit(barrier.wait, WAIT) for _ in range(3)]
    assert sorted(future.result(WAIT) for future in futures) == [0, 1, 2]
    names = {pool.submit(lambda: threading.current_thread().name).result(WAIT) for _ in range(50)}
    assert len(names) <= 3
    pool.shutdown()


def test_a_base_exception_does_not_end_a_thread() -> None:
    def leave() -> None:
        raise SystemExit

    with DaemonThreads(1) as pool:
        with pytest.raises(SystemExit):
            pool.submit(leave).result(WAIT)
        assert pool.submit(int, "1").result(WAIT) == 1


def test_shutdown_cancels_what_waits_if_asked_to() -> None:
    pool = DaemonThreads(1)
    begun, gate = threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return gate.wait(WAIT)

    running = pool.submit(hold)
    assert begun.wait(WAIT)
    waiting = pool.submit(int)
    pool.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result(WAIT)
    gate.set()
    assert running.result(WAIT)
    pool.shutdown(wait=True)


PROGRAM = """
import threading
from retriable_kafka_client.workers.threads import DaemonThreads

begun = threading.Event()
def hold():
    begun.set()
    threading.Event().wait()
DaemonThreads(2).submit(hold)
begun.wait()
print("leaving")
"""


def test_a_handler_that_never_returns_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with Program(script, log=tmp_path / "log") as program:
        assert program.wait() == 0
        assert program.output == "leaving\n"
