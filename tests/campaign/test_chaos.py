"""The short chaos run: minutes of faults on three brokers, judged by the checker."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.report import explained, memory
from tests.chaos.run import Plan, run_chaos

GUARANTEES = ("at_least_once", "exactly_once")


@pytest.mark.kafka
def test_no_promise_is_broken(tmp_path: Path, report: Callable[..., None]) -> None:
    """The guarantees by turns, from day to day, and with them the seed."""
    day = datetime.datetime.now(datetime.UTC).date().toordinal()
    plan = Plan(seconds=100.0, seed=day, guarantee=GUARANTEES[day % len(GUARANTEES)], rate=100.0)
    outcome = run_chaos(plan, tmp_path)
    facts, verdict = outcome.facts, outcome.verdict
    assert facts.end.drained is not None
    report(
        guarantee=plan.guarantee,
        seed=plan.seed,
        messages=len(facts.sent),
        runs=len(facts.runs),
        faults=len(facts.faults),
        doubles=sum(explained(facts).values()),
        lag_0_after_s=facts.end.drained - facts.end.healed,
        peak_mib=max(max(peaks) for peaks in memory(facts).values()),
    )
    assert verdict.good, f"seed {plan.seed}, evidence in {tmp_path}\n{verdict.table()}"
    assert len(facts.faults) >= 4
    # What is taken from this very evidence is missed.
    taken = next(run for run in facts.runs if run.end == "done" and facts.sent[run.id].acked)
    facts.runs = [run for run in facts.runs if run.id != taken.id]
    assert not check(facts).good
