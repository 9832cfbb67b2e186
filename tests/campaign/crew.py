"""The consumer processes of one campaign, and the file in which all of them write."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from tests.campaign.commits import CommitLog, commits_of
from tests.campaign.evidence import End, Follower, Run, ends_of, runs_of
from tests.campaign.judge import Kill
from tests.campaign.worker import Plan
from tests.support.kafka import Kafka
from tests.support.processes import Program
from tests.support.records import group_lag
from tests.support.waiting import wait_until

__all__ = ["Crew"]

JOIN = 120.0  # seconds for a new member to get an assignment, with a session that must time out first
STOP = 90.0


class Crew:
    """Starts and ends consumer processes; all are gone when the `with` block ends. Used from one thread."""

    def __init__(self, kafka: Kafka, plan: Plan, folder: Path) -> None:
        self.kafka = kafka
        self.plan = plan
        self.follower = Follower(Path(plan.evidence))
        self.members: list[Program] = []
        """Those that run, the oldest first."""
        self.kills: list[Kill] = []
        self._folder = folder
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def start(self, **changes: Any) -> Program:
        """Start a process, with these changes to the plan."""
        self._count += 1
        plan = replace(self.plan, **changes)
        log = self._folder / f"worker-{self._count}.log"
        member = self._stack.enter_context(Program("-m tests.campaign.worker", plan.to_json(), log=log))
        self.members.append(member)
        return member

    def stop(self, member: Program) -> float:
        """SIGTERM; wait for its orderly end, and return how many seconds that took."""
        self.members.remove(member)
        began = time.monotonic()
        member.terminate()
        code = member.wait(STOP)
        assert code == 0, f"a consumer ended with {code}:\n{member.output[-4000:]}"
        return time.monotonic() - began

    def kill(self, member: Program) -> None:
        """SIGKILL."""
        self.members.remove(member)
        assert member.poll() is None, f"a consumer ended by itself:\n{member.output[-4000:]}"
        member.kill9()
        self.kills.append(Kill(member.pid, time.time()))

    def wait_working(self, member: Program, timeout: float = JOIN) -> None:
        """Wait until it owns a partition."""
        wait_until(
            lambda: self._alive() and self.follower.of("AssignmentStarted", pid=member.pid),
            timeout,
            f"process {member.pid} owns a partition, see {member.log}",
            every=0.05,
        )

    def wait_done(self, count: int, timeout: float) -> None:
        """Wait for so many successful runs."""
        wait_until(
            lambda: self._alive() and self.follower.count("done") >= count,
            timeout,
            f"{count} runs are done",
            every=0.05,
        )

    def wait_handled(self, ids: Iterable[int], timeout: float) -> None:
        """Wait until each id has a run that succeeded."""
        missing = set(ids)
        seen = 0
        begun: dict[tuple[int, int], int] = {}

        def all_handled() -> bool:
            nonlocal seen
            self._alive()
            self.follower.follow()
            for event in self.follower.events[seen:]:
                if event["event"] == "start":
                    begun[event["pid"], event["n"]] = event["i"]
                elif event["event"] == "done":
                    missing.discard(begun[event["pid"], event["n"]])
            seen = len(self.follower.events)
            return not missing

        try:
            wait_until(all_handled, timeout, "every id is handled", every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; {len(missing)} are not: {sorted(missing)[:10]}") from None

    def wait_no_lag(self, timeout: float = 60.0) -> None:
        """Wait until everything is committed."""
        servers, group = self.kafka.bootstrap_servers, self.plan.group
        wait_until(
            lambda: self._alive() and not any(group_lag(servers, group, topic) for topic in self.topics),
            timeout,
            f"no lag on {self.topics}",
            every=0.2,
        )

    def _alive(self) -> bool:
        for member in self.members:
            code = member.poll()
            assert code is None, f"a consumer ended by itself with {code}:\n{member.output[-4000:]}"
        return True

    @property
    def topics(self) -> list[str]:
        return [name for name in (self.plan.topic, self.plan.retry) if name is not None]

    def runs(self) -> list[Run]:
        self.follower.follow()
        return runs_of(self.follower.events)

    def ends(self) -> list[End]:
        self.follower.follow()
        return ends_of(self.follower.events)

    def commits(self) -> CommitLog:
        return commits_of(self.kafka, self.plan.group, self.topics)
