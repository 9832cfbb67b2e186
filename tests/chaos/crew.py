"""The members of a chaos run: processes that are started, stopped, killed and frozen."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil

from tests.campaign.evidence import Follower
from tests.chaos.worker import EXECUTORS, Role
from tests.support.evidence import EvidenceWriter
from tests.support.processes import Program
from tests.support.waiting import wait_until

__all__ = ["ChaosCrew", "Seat"]

STOP = 90.0  # s in which a member must have ended, or it is killed
REAP = 5.0  # s in which a member's own processes must be gone after it
MIB = 1 << 20


class Seat:
    """One place in the group: a member runs there, and another one after it. Used by one thread at a time."""

    def __init__(self, crew: "ChaosCrew", executor: str) -> None:
        self._crew = crew
        self.executor = executor
        self.member = 0
        self.program: Program | None = None

    def start(self) -> None:
        """Start the next member."""
        self.member, self.program = self._crew.launch(self.executor)

    def _running(self) -> Program:
        assert self.program is not None
        return self.program

    def _note(self, event: str, **fields: object) -> None:
        self._crew.told.write(event, m=self.member, **fields)

    def ended(self) -> bool:
        """Whether its member ended by itself, which is noted."""
        code = self._running().poll()
        if code is not None:
            self._note("ended", code=code, orphans=0)
        return code is not None

    def kill(self) -> None:
        """SIGKILL."""
        program = self._running()
        self._note("killed")
        program.kill9()
        self._note("ended", code=program.poll(), orphans=0)
        program.close()

    def wait_working(self, timeout: float = 60.0) -> None:
        """Wait until its member has owned a partition, or has ended, or for that long."""
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: self._crew.works(self.member) or self._running().poll() is not None,
                timeout,
                f"member {self.member} works",
                every=0.1,
            )

    def ask(self) -> None:
        """SIGTERM. Not before it has begun: an interpreter that starts knows nothing of an orderly end."""
        self.wait_working()
        self._note("asked")
        self._running().terminate()

    def wait(self) -> None:
        """Wait for the end of a member that was asked to stop."""
        program = self._running()
        try:
            code = program.wait(STOP)
        except AssertionError:
            return  # the evidence has no end of it
        at = time.time()
        _, alive = psutil.wait_procs(self._crew.children_of(program.pid), REAP)
        self._note("ended", code=code, orphans=len(alive), at=at)
        program.close()

    def pause(self) -> None:
        """SIGSTOP."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._running().resume()

    def freeze(self) -> None:
        """Block its event loop."""
        self._running().send_signal(signal.SIGUSR1)

    def kill_worker(self, index: int) -> bool:
        """SIGKILL to one of its worker processes; False when it has none."""
        workers = [child for child in self._crew.look(self._running().pid) if _is_worker(child)]
        if not workers:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            workers[index % len(workers)].kill()
        return True


class ChaosCrew:
    """Four seats. All processes are gone when the `with` block ends."""

    def __init__(self, role: Role, folder: Path) -> None:
        self._role = role
        self._folder = folder
        self._count = 0
        self._stack = ExitStack()
        self._children: dict[int, list[psutil.Process]] = {}
        self._lock = threading.Lock()  # covers the one above
        self._follower = Follower(Path(role.told))  # of the thread that has the seats
        self._working: set[int] = set()
        self.told = EvidenceWriter(role.told)
        self.seats = [Seat(self, executor) for executor in EXECUTORS]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def launch(self, executor: str) -> tuple[int, Program]:
        """Start a member."""
        self._count += 1
        role = replace(self._role, member=self._count, executor=executor)
        self.told.write("member", m=role.member, executor=executor)
        log = self._folder / f"member-{role.member}-{executor}.log"
        program = self._stack.enter_context(Program("-m tests.chaos.worker", role.to_json(), log=log))
        return role.member, program

    def works(self, member: int) -> bool:
        """Whether it has ever owned a partition."""
        self._working.update(
            event["m"] for event in self._follower.follow() if event["event"] == "AssignmentStarted"
        )
        self._follower.events.clear()
        return member in self._working

    def look(self, pid: int) -> list[psutil.Process]:
        """The process's descendants, remembered for its end."""
        try:
            found = psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        with self._lock:
            known = self._children.setdefault(pid, [])
            known += [one for one in found if one not in known]
        return found

    def children_of(self, pid: int) -> list[psutil.Process]:
        """All descendants that were ever seen."""
        with self._lock:
            return self._children.pop(pid, [])

    def sample(self) -> None:
        """Note the memory of every process."""
        for seat in self.seats:
            program = seat.program
            if program is None:
                continue
            for kind, process in self._processes(program.pid, seat.executor):
                with contextlib.suppress(psutil.Error):
                    mib = process.memory_info().rss / MIB
                    if mib > 1:  # else it is gone, or has just begun
                        self.told.write("memory", m=seat.member, kind=kind, mib=round(mib, 1))

    def _processes(self, pid: int, executor: str) -> Iterator[tuple[str, psutil.Process]]:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield executor, psutil.Process(pid)
            for child in self.look(pid):
                if _is_worker(child):
                    yield f"{executor}: worker", child


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:
        return False
