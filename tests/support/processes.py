"""Child processes that never outlive the test run, and Python programs run as such."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.errors import HarnessError
from tests.support.waiting import WAIT

__all__ = ["REPOSITORY", "GuardedProcess", "Program"]

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout that the tests run from."""

GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A command under `guard.py`: it and all its descendants die when this process dies, even by SIGKILL.

    stdout and stderr go to the end of the file `log`. The constructor returns when the command was started.
    Used from one thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        remove_if_orphaned: Path | None = None,
    ) -> None:
        self.command = tuple(command)
        self.log = log
        self._code: int | None = None
        self._said = b""
        self._status, write_end = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(write_end)]
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(
                    [*guard, str(remove_if_orphaned or ""), "--", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    pass_fds=[write_end],
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        os.set_blocking(self._status, False)
        while b"\n" not in self._said:
            if not self._read(WAIT):
                self.close()
                raise HarnessError(f"could not start {command[0]}: see {log}")
        self.pid = int(self._said.split(b"\n", 1)[0])
        """The command's own process id, not the guard's."""

    def _read(self, timeout: float) -> bool:
        """Take what the guard has written; False at a time-out or when nothing more can come."""
        if not select.select([self._status], [], [], timeout)[0]:
            return False
        said = os.read(self._status, 100)
        self._said += said
        return bool(said)

    @property
    def output(self) -> str:
        """Everything that it has printed until now."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        """The exit code, minus the signal's number if a signal ended it; None while it runs."""
        return self._look(0.0)

    def _look(self, timeout: float) -> int | None:
        if self._code is None:
            gone = self._guard.poll() is not None  # looked at first: what it wrote before is read after
            if self._said.count(b"\n") >= 2 or self._read(timeout):
                self._code = int(self._said.split(b"\n")[1]) if self._said.count(b"\n") >= 2 else None
            elif gone:
                self._code = -signal.SIGKILL  # the guard was killed, and its child with it
        return self._code

    def wait(self, timeout: float = WAIT) -> int:
        """Wait for the command's end and return its exit code; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._look(max(0.0, min(0.5, deadline - time.monotonic()))) is None:
            if time.monotonic() >= deadline:
                raise AssertionError(
                    f"process {self.pid} still runs after {timeout:g} s: see {self.log}, which ends with "
                    f"{self.output[-2000:]}"
                )
        assert self._code is not None
        return self._code

    def send_signal(self, signum: int) -> None:
        """Send a signal to the command alone; nothing happens when it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def pause(self) -> None:
        """SIGSTOP."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self.send_signal(signal.SIGTERM)

    def kill9(self) -> None:
        """SIGKILL, and wait until it is gone. Its own children are not touched before `close()`."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """Kill the command and every process of its group that is left; harmless when repeated."""
        if self._guard.poll() is None:
            self._guard.terminate()
        self._guard.wait()
        self.poll()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
            if self._code is None:
                self._code = -signal.SIGKILL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Program(GuardedProcess):
    """A Python program as a guarded subprocess, its output in a file.

    `script` is a path, or `-m` and a module's name as one string ("-m tests.campaigns.worker"). It runs in
    the checkout with the interpreter of the tests; the checkout and its `src` are importable.
    """

    def __init__(
        self,
        script: str | Path,
        *args: str,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        start = (
            script.split(" ", 1) if isinstance(script, str) and script.startswith("-m ") else [str(script)]
        )
        path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
        super().__init__(
            [sys.executable, "-u", *start, *args],
            log=log,
            env={**os.environ, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", **(env or {})},
            cwd=REPOSITORY,
        )
