"""Whole programs that are killed, signalled and deployed anew, on real Kafka."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from retriable_kafka_client import Topic
from tests.shell.lab import Lab, settings_of
from tests.support.evidence import read_evidence
from tests.support.processes import Program
from tests.support.waiting import wait_until


class Worker:
    """`tests.shell.worker` on one topic, started as often as wanted."""

    def __init__(self, lab: Lab, folder: Path, stack: ExitStack) -> None:
        self.lab = lab
        self.entry: Topic = lab.entry()
        self.evidence = folder / "evidence"
        self.gate = folder / "gate"
        self._folder = folder
        self._stack = stack

    def start(self, **options: Any) -> Program:
        assert self.entry.retry and self.entry.retry.topic
        protocol = options.pop("protocol", None)
        told = {
            "servers": self.lab.servers,
            "settings": dict(self.lab.cluster(settings_of(protocol) if protocol else None).settings),
            "group": self.lab.group,
            "topic": self.entry.name,
            "retry": self.entry.retry.topic,
            "dead": self.entry.dead_letter,
            "evidence": str(self.evidence),
            "gate": str(self.gate),
            **options,
        }
        program = Program("-m tests.shell.worker", json.dumps(told), log=self._folder / "worker.log")
        return self._stack.enter_context(program)

    def events(self, event: str) -> list[dict[str, Any]]:
        return [one for one in read_evidence(self.evidence) if one["event"] == event]

    def count(self, event: str) -> Counter[int]:
        return Counter(one["i"] for one in self.events(event))

    def committed(self, partition: int, by: Program) -> list[float]:
        """When this program's commits of this partition of the entry topic were acknowledged.

        Those of other partitions say nothing of its progress: a first position is committed at once, at any time.
        """
        mine = {"pid": by.pid, "kind": "Committed", "topic": self.entry.name, "partition": partition}
        return [one["time"] for one in self.events("told") if mine.items() <= one.items()]

    def wait_stopping(self) -> None:
        """Wait until the program says that it stops."""
        wait_until(lambda: any("stopping" in one["reasons"] for one in self.events("health")))


@pytest.fixture
def worker(real_lab: Lab, tmp_path: Path) -> Iterator[Worker]:
    with ExitStack() as stack:
        yield Worker(real_lab, tmp_path, stack)


def numbers(first: int, stop: int) -> list[bytes]:
    return [b'{"i": %d}' % i for i in range(first, stop)]


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_kill_behind_a_slow_head_repeats_only_what_no_commit_knew(worker: Worker, protocol: str) -> None:
    worker.lab.fill(worker.entry, numbers(0, 501), partition=0)
    killed = worker.start(protocol=protocol)
    wait_until(lambda: len(worker.events("done")) == 500)
    last = max(one["time"] for one in worker.events("done"))
    # The third commit that is told of from now on was sent when all of these were done: the first may have been
    # acknowledged before, and the second sent.
    for told in (1, 2, 3):
        wait_until(lambda: sum(at > last for at in worker.committed(0, killed)) >= told)  # noqa: B023
        worker.lab.fill(worker.entry, numbers(500 + told, 501 + told), partition=0)
    # More work, and the kill in its middle.
    worker.lab.fill(worker.entry, numbers(504, 4000), partition=0)
    wait_until(lambda: len(worker.events("done")) >= 1000)
    killed.kill9()

    known = worker.committed(0, killed)[
        -3
    ]  # what was done before it was told of is in the last one for certain
    done = {one["i"]: one["time"] for one in worker.events("done")}
    worker.gate.touch()
    again = worker.start(protocol=protocol)
    worker.lab.caught_up(worker.entry, timeout=60)
    again.terminate()
    assert again.wait() == 0
    runs = worker.count("ran")
    assert set(runs) == set(range(4000))
    doubles = {i for i, count in runs.items() if count > 1}
    assert 0 in doubles
    unexplained = {i for i in doubles if i in done and done[i] < known}
    assert not unexplained
    assert not doubles & set(range(1, 501))
    assert max(runs.values()) == 2


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_who_follows_a_killed_member_keeps_the_order_of_keys(worker: Worker, protocol: str) -> None:
    lanes = [f"k{i}" for i in range(20)]

    def fill(first: int, stop: int) -> None:
        messages = [(lane, n) for n in range(first, stop) for lane in lanes]
        bodies = [json.dumps(one).encode() for one in messages]
        worker.lab.fill(worker.entry, bodies, keys=[lane.encode() for lane, _ in messages])

    def of(program: Program, event: str) -> list[dict[str, Any]]:
        return [one for one in worker.events(event) if one["pid"] == program.pid]

    fill(0, 10)
    killed = worker.start(protocol=protocol, ordering="key")
    wait_until(lambda: len(worker.events("done")) == 200)
    survivor = worker.start(protocol=protocol, ordering="key")
    wait_until(lambda: any(one["ready"] for one in of(survivor, "health")))
    fill(10, 200)
    wait_until(lambda: len(of(killed, "done")) >= 600 and of(survivor, "done"))
    killed.kill9()
    worker.lab.caught_up(worker.entry, timeout=60)
    survivor.terminate()
    assert survivor.wait() == 0

    partitions = {one["lane"]: one["partition"] for one in of(killed, "begin")}
    last_run = max(one["time"] for one in of(killed, "begin"))
    done = {(one["lane"], one["n"]): one["time"] for one in of(killed, "done")}
    for lane in lanes:
        ran: dict[int, list[tuple[str, int]]] = {killed.pid: [], survivor.pid: []}
        for one in read_evidence(worker.evidence):
            if one.get("lane") == lane:
                ran[one["pid"]].append((one["event"], one["n"]))
        for pid, events in ran.items():
            whole = []
            for n in range(events[0][1] if events else 0, 200):
                whole += [("begin", n), ("failed", n)] * (n % 10 == 4) + [("begin", n), ("done", n)]
            assert events == whole[: len(events)], (lane, pid)
        assert {n for events in ran.values() for what, n in events if what == "done"} == set(range(200))
        # What runs twice was done after the last commits, or was under way.
        again = {n for _, n in ran[killed.pid]} & {n for _, n in ran[survivor.pid]}
        known = [0.0, 0.0, 0.0, *worker.committed(partitions.get(lane, 0), killed)][-3]
        assert not {n for n in again if done.get((lane, n), last_run) < known}, lane


def test_a_deploy_behind_a_slow_head_repeats_the_head_alone(worker: Worker) -> None:
    worker.lab.fill(worker.entry, numbers(0, 501), partition=0)
    old = worker.start(drain=1.0)
    wait_until(lambda: len(worker.events("done")) == 500)
    began = time.monotonic()
    old.terminate()
    assert old.wait() == 0
    assert time.monotonic() - began < 1.0 + 5.0
    assert worker.events("ended")[0]["handled"] == 500
    new = worker.start()
    wait_until(lambda: worker.count("ran")[0] == 2)
    worker.gate.touch()
    worker.lab.caught_up(worker.entry)
    new.terminate()
    assert new.wait() == 0
    assert worker.count("ran") == {i: 2 if i == 0 else 1 for i in range(501)}


@pytest.mark.parametrize("options", [{}, {"signals": "own"}, {"processes": True}], ids=["run", "own", "pool"])
def test_sigterm_drains_commits_and_ends_the_program(worker: Worker, options: dict[str, Any]) -> None:
    worker.lab.fill(worker.entry, numbers(0, 50))
    program = worker.start(**options)
    wait_until(lambda: len(worker.events("ran")) == 50)
    assert len(worker.events("done")) == 49
    workers = psutil.Process(program.pid).children(recursive=True)
    program.terminate()
    worker.wait_stopping()
    worker.gate.touch()
    assert program.wait() == 0
    assert len(worker.events("done")) == 50
    worker.lab.caught_up(worker.entry)
    assert worker.count("ran") == dict.fromkeys(range(50), 1)
    wait_until(lambda: not any(one.is_running() for one in workers), what="no worker process is left")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_without_the_drain(worker: Worker, signum: signal.Signals) -> None:
    worker.lab.fill(worker.entry, numbers(0, 50))
    program = worker.start(drain=60.0)
    wait_until(lambda: len(worker.events("done")) == 49)
    program.send_signal(signum)
    worker.wait_stopping()
    assert program.poll() is None
    began = time.monotonic()
    program.send_signal(signum)
    assert program.wait(15) == 0
    assert time.monotonic() - began < 10
    worker.gate.touch()
    again = worker.start()
    worker.lab.caught_up(worker.entry)
    again.terminate()
    assert again.wait() == 0
    assert worker.count("ran") == {i: 2 if i == 0 else 1 for i in range(50)}
