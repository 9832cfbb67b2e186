"""kill -9 at each step of the commit cycle, in several groups side by side: each effect stands once."""

import itertools
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.conftest import Report
from tests.campaign.crash_worker import STEPS
from tests.campaign.sizes import FULL
from tests.support.evidence import read_evidence
from tests.support.kafka import Kafka
from tests.support.names import Topics
from tests.support.processes import Program
from tests.support.records import Read, group_lag, produce_many, read_all
from tests.support.waiting import wait_until

GROUPS, LIVES = (10, 20) if FULL else (5, 4)
EACH = 60  # messages for each life


@dataclass
class Line:
    """One group: its topics, and one process after the other."""

    kafka: Kafka
    topics: Topics
    folder: Path
    steps: list[tuple[str, int]]
    number: int
    sent: int = 0
    delays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.group = f"{self.topics.group}-{self.number}"
        self.names = {
            role: self.topics(f"{role}{self.number}", 2) for role in ("topic", "retry", "dead", "out")
        }
        self.evidence = self.folder / f"evidence-{self.number}"

    def _program(self, life: int, step: tuple[str, int] | None) -> Program:
        told: dict[str, Any] = {
            **self.names,
            "servers": self.kafka.bootstrap_servers,
            "group": self.group,
            "evidence": str(self.evidence),
            "step": step,
        }
        log = self.folder / f"log-{self.number}-{life}"
        return Program("-m tests.campaign.crash_worker", json.dumps(told), log=log)

    def _more(self) -> None:
        values = [b"%d" % i for i in range(self.sent, self.sent + EACH)]
        self.sent += produce_many(self.kafka.bootstrap_servers, self.names["topic"], values)

    def _ran(self) -> int:
        return sum(one["event"] == "ran" for one in read_evidence(self.evidence))

    def live(self) -> None:
        """Let it die at each of its steps, and then finish."""
        died = None
        for life, step in enumerate([*self.steps, None]):
            self._more()
            before = self._ran()
            with self._program(life, step) as program:
                if died is not None and (step is None or step[0] not in ("initialising", "initialised")):
                    wait_until(lambda before=before: self._ran() > before, 90, f"group {self.number} goes on")  # type: ignore[misc]
                    self.delays.append(time.monotonic() - died)
                if step is not None:
                    assert program.wait(90) == -9, program.output
                    died = time.monotonic()
                    continue
                wait_until(lambda: self._lag() == 0, 120, f"group {self.number} catches up", every=0.2)
                program.terminate()
                assert program.wait() == 0, program.output

    def _lag(self) -> int:
        return sum(
            group_lag(self.kafka.bootstrap_servers, self.group, self.names[role])
            for role in ("topic", "retry")
        )

    def counts(self, role: str, wanted: int) -> Counter[int]:
        """How often each message stands in a topic, for readers of what is committed.

        What a killed member left open hides what stands behind it, until the brokers end it.
        """

        def read() -> list[Read]:
            return read_all(self.kafka.bootstrap_servers, self.names[role])

        wait_until(lambda: len(read()) >= wanted, 60, f"{wanted} records in {self.names[role]}", every=0.5)
        return Counter(json.loads(one.value or b"") for one in read())


def test_a_kill_at_any_step_leaves_each_effect_once(
    kafka: Kafka, topics: Topics, tmp_path: Path, report: Report
) -> None:
    chance = random.Random(5)
    steps = itertools.cycle(STEPS)
    lines = [
        Line(kafka, topics, tmp_path, [(next(steps), chance.randint(1, 3)) for _ in range(LIVES)], number)
        for number in range(GROUPS)
    ]
    for line in lines:
        # There is one producer in a life.
        line.steps = [(step, 1 if step.startswith("init") else n) for step, n in line.steps]
    with ThreadPoolExecutor(GROUPS) as pool:
        for done in [pool.submit(line.live) for line in lines]:
            done.result()
    twice = 0
    for line in lines:
        lost = {i for i in range(line.sent) if i % 31 == 3}
        again = {i for i in range(line.sent) if i % 7 == 1} | lost
        for role, expected in (("out", set(range(line.sent)) - lost), ("retry", again), ("dead", lost)):
            assert line.counts(role, len(expected)) == dict.fromkeys(expected, 1)
        evidence = read_evidence(line.evidence)
        assert [one["step"] for one in evidence if one["event"] == "killed"] == [
            step for step, _ in line.steps
        ]
        ran = Counter((one["i"], one["attempt"]) for one in evidence if one["event"] == "ran")
        twice += sum(count - 1 for count in ran.values())
    delays = [one for line in lines for one in line.delays]
    report(
        kills=GROUPS * LIVES,
        messages=sum(line.sent for line in lines),
        runs_again=twice,
        slowest_successor=max(delays),
    )
