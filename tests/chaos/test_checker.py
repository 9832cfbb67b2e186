"""The checker finds each planted violation and names it, and finds nothing in good runs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.campaign.commits import CommitLog, Committed
from tests.campaign.evidence import Spot
from tests.chaos import plants_members, plants_messages
from tests.chaos.checker import PROMISES, check
from tests.chaos.facts import Ack, Facts, Fault, Member, Run, Sent, Stored, Tenure
from tests.chaos.model import good_facts
from tests.chaos.orders import Order
from tests.chaos.planting import GUARANTEES, PLANTS, Plant, Unfit, stopped

SEEDS = range(12)


@given(seed=st.integers(0, 1 << 32), guarantee=st.sampled_from(GUARANTEES), messages=st.integers(12, 80))
@settings(max_examples=60)
def test_good_runs_have_no_violation(seed: int, guarantee: str, messages: int) -> None:
    verdict = check(good_facts(seed, guarantee, messages))
    assert verdict.good, verdict.table()


@pytest.mark.parametrize(
    ("promise", "name", "guarantee", "function"),
    [pytest.param(*one, id=f"{one[3].__name__}-{one[2]}") for one in PLANTS],
)
def test_a_planted_violation_is_found_and_named(
    promise: str, name: str, guarantee: str, function: Plant
) -> None:
    planted = 0
    for seed in SEEDS:
        facts = good_facts(seed, guarantee)
        try:
            function(facts)
        except Unfit:
            continue
        planted += 1
        verdict = check(facts)
        assert verdict.names[promise, name], f"seed {seed}\n{verdict.table()}"
        if planted == 3:
            return
    assert planted, "no run had anything to plant it in"


def test_every_promise_is_broken_by_some_plant() -> None:
    modules = {function.__module__ for *_, function in PLANTS}
    assert modules == {plants_members.__name__, plants_messages.__name__}
    assert {promise for promise, *_ in PLANTS} == set(PROMISES)
    assert len({function for *_, function in PLANTS}) >= 40


def test_the_table_shows_each_promise_with_its_first_witness() -> None:
    facts = good_facts(1)
    stopped(facts).orphans = 2
    table = check(facts).table()
    assert all(f"| {promise} |" in table for promise in PROMISES)
    assert "orphans: member" in table and "left 2 processes behind" in table


def test_what_excuses_a_second_run() -> None:
    """One message, run by 1 and then by 2, in every way in which an assignment can end."""
    spot = Spot("orders", 0, 0)

    def facts(
        tenure: Tenure, member: Member, faults: tuple[Fault, ...] = (), guarantee: str = "at_least_once"
    ) -> Facts:
        made = good_facts(1, guarantee, messages=0)
        made.sent[0] = Sent(Order(0), "s", 0.0)
        made.stored.append(Stored(spot, 0))
        made.runs += [
            Run(0, 1, spot, (1, 1, 1), 10.0, None, "", "s"),
            Run(0, 1, spot, (2, 2, 1), 60.0, 61.0, "done", "s"),
        ]
        made.tenures = [tenure, Tenure(2, "orders", 0, 55.0, None, 90.0, "stopped")]
        made.members = {1: member, 2: Member(2, "threads", 0.0, 91.0, 0, asked=89.0)}
        made.faults += faults
        made.commits = CommitLog([Committed(topic="orders", partition=0, position=1, at=70.0)])
        made.end.healed = made.end.drained = 80.0
        return made

    def owned(reason: str, ended: float | None = 50.0, **more: Any) -> Tenure:
        return Tenure(1, "orders", 0, 5.0, None, ended, reason, **more)

    well = Member(1, "threads", 0.0, 52.0, 0, asked=40.0)
    late = replace(well, ended=87.0, asked=86.0)
    killed = Member(1, "threads", 0.0, 50.0, -9, killed=50.0)
    away, far_back = Fault("broker-stop", 5.0, 20.0, broker=1), Fault("broker-stop", -30.0, -15.0, broker=1)
    for good in (
        facts(owned("", None), killed),
        facts(owned("lost"), well),
        facts(
            owned("lost", 85.0), late, (Fault("pause-long", 30.0, 84.5, member=1),)
        ),  # it learned of it late
        facts(owned("revoked", overrun=1), well),
        facts(owned("stopped", silent=True), well),
        facts(owned("revoked"), well, (Fault("broker-pause", 30.0, 45.0, broker=1),)),
        facts(owned("stopped", silent=True), well, (away,), "exactly_once"),
        facts(owned("stopped", unfinished=1), well, (Fault("refuse", 30.0, 45.0),)),
    ):
        assert check(good).good, check(good).table()
    for bad in (
        facts(owned("", None), replace(killed, killed=65.0, ended=65.0)),
        facts(owned("", None), replace(killed, killed=9.0, ended=9.0)),
        facts(owned("lost", 85.0), late),
        facts(owned("revoked", 85.0, overrun=1), late),
        facts(owned("revoked"), well),
        facts(owned("stopped"), well),
        facts(owned("reset"), well),
        facts(owned("stopped"), well, (away,), "exactly_once"),  # and its member said nothing
        facts(owned("stopped", silent=True), well, (), "exactly_once"),
        facts(owned("stopped", silent=True), well, (far_back,), "exactly_once"),
        facts(owned("revoked"), well, (Fault("broker-pause", 30.0, 45.0, broker=1),), "exactly_once"),
        facts(owned("revoked"), well, (Fault("broker-pause", 1.0, 5.0, broker=1),)),
        facts(owned("stopped"), well, (Fault("refuse", 30.0, 45.0),)),
        facts(owned("stopped", unfinished=1), well, (Fault("refuse", 11.0, 20.0),)),
        facts(owned("revoked"), well, (Fault("freeze", 30.0, 45.0, member=1),)),
    ):
        assert check(bad).names["D", "duplicate"], check(bad).table()


def test_a_commit_on_its_way_may_come_in_until_somebody_else_has_the_partition() -> None:
    facts = good_facts(1)
    tenure = Tenure(1, "bills", 9, 1000.0, None, 1010.0, "lost")
    late = Committed(topic="bills", partition=9, position=1, at=1012.0)
    facts.tenures.append(tenure)
    facts.acks.append(Ack(1, "bills", 9, 1, 1012.1))
    facts.commits = CommitLog([*facts.commits.commits, late])
    assert not check(facts).names["O", "zombie-commit"]
    facts.tenures.append(Tenure(2, "bills", 9, 1011.0, None, 1012.05, "revoked"))
    assert check(facts).names["O", "zombie-commit"] == 1  # the answer; the log does not name its writer
    del facts.tenures[-1]
    tenure.reason = "revoked"
    assert check(facts).names["O", "zombie-commit"] == 2
