"""The promises hold in thousands of worlds; a failing one is named with the command that shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.campaign import failures
from tests.simulation.tenure import Violation
from tests.simulation.trace import Trace
from tests.simulation.world import World, run

PIECE = 250
SEEDS = 2_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, SEEDS, PIECE))
def test_the_promises_hold(first: int) -> None:
    found = failures(range(first, first + PIECE))
    report = [f"python -m tests.simulation --seed {seed} --trace: {text}" for seed, text in found]
    assert not report, "\n".join(report)


def digest(seed: int) -> str:
    trace = Trace()
    run(seed, trace=trace)
    assert len(trace.lines) > 100
    return trace.digest


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_a_trace(seed: int) -> None:
    assert digest(seed) == digest(seed)


def test_other_seeds_are_other_traces() -> None:
    assert len({digest(seed) for seed in range(5)}) == 5


def test_a_trace_is_the_same_in_another_process() -> None:
    code = "from tests.simulation.test_simulation import digest; print(digest(7))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": salt,
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            },
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()
        for salt in ("1", "2")
    }
    assert found == {digest(7)}


def test_tracing_changes_nothing() -> None:
    plain, traced = World(11), World(11, trace=Trace())
    plain.run()
    traced.run()
    assert plain.mono == traced.mono
    assert {place: log.end for place, log in plain.broker.logs.items()} == {
        place: log.end for place, log in traced.broker.logs.items()
    }


def test_the_worlds_are_nasty() -> None:
    """What the mutations rely on does happen: each of these stands in some trace."""
    wanted = {
        "crashes", "is evicted", "is stopped", "the broker is down", "copies to", "commits are refused",
        "the wall clock is set", "is deleted and made again", "is compacted away", "MessageParked", "AdmissionBlocked",
        "OffsetMapShortened", "OffsetMapIgnored", "MessageDropped", "DrainOverrun", "WorkerDied", "TopicReset",
        "a tool rewrites", "_TIMED_OUT", "ILLEGAL_GENERATION", "HandOffRefused", "Withdrawn", "Idle", "Pause", "Resume",
        "ordering='key'", "ordering='partition'", "retry_topic=None", "Publish ", "TOPIC_AUTHORIZATION_FAILED",
        "Hold(on=True)", "released=[<", "its mirror takes over", "the run of", "the coordinator: wait-coord",
        "stands still", "HandlerStuck", "worker-stuck",
    }  # fmt: skip
    missing = set(wanted)
    for seed in range(200):
        trace = Trace()
        run(seed, trace=trace)
        text = "\n".join(trace.lines)
        missing = {word for word in missing if word not in text}
        if not missing:
            return
    raise AssertionError(f"never happened: {sorted(missing)}")


def test_the_command_shows_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "Commit" in said
    assert "seed 3: passed" in said


def test_the_command_runs_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--start", "20", "--jobs", "1"]) == 0
    assert "3 seeds from 20: 0 failed" in capsys.readouterr().out


def test_a_violation_says_which_promise() -> None:
    violation = Violation("L", "one/0/3 is lost")
    assert violation.promise == "L"
    assert str(violation) == "L: one/0/3 is lost"
