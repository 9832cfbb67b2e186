"""The checker finds each planted violation and names it, and finds nothing in good runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriable_kafka_client.core.offset_map import OffsetMap
from tests.campaign.commits import CommitLog, Committed
from tests.campaign.evidence import Spot
from tests.chaos.checker import PROMISES, check
from tests.chaos.facts import Ack, Facts, Fault, Letter, Member, Output, Run, Sent, Stored, Tenure
from tests.chaos.model import good_facts
from tests.chaos.orders import MAX_ATTEMPTS, Kind, Order

GUARANTEES = ("at_least_once", "exactly_once")
SEEDS = range(12)

Plant = Callable[[Facts], None]
PLANTS: list[tuple[str, str, str, Plant]] = []


class Unfit(LookupError):
    """This run has nothing to plant it in."""


def plant(promise: str, name: str, guarantee: str = "") -> Callable[[Plant], Plant]:
    """Take note of a violation to plant, and how it is to be named; in one guarantee only, if it is of that one."""

    def note(function: Plant) -> Plant:
        PLANTS.extend((promise, name, one, function) for one in ((guarantee,) if guarantee else GUARANTEES))
        return function

    return note


def runs(facts: Facts, wanted: Callable[[Run, Order], bool]) -> list[Run]:
    """The runs of such a kind; Unfit when there are none."""
    found = [run for run in facts.runs if wanted(run, facts.sent[run.id].order)]
    if not found:
        raise Unfit
    return found


def clean(facts: Facts) -> Run:
    """A first and only run, successful, of a plain message that sent something and was acknowledged."""
    often: dict[int, int] = {}
    for run in facts.runs:
        often[run.id] = often.get(run.id, 0) + 1
    return runs(
        facts,
        lambda run, order: (
            often[run.id] == 1
            and run.end == "done"
            and order.outputs > 0
            and not order.split
            and order.topic in ("orders", "bills")
            and facts.sent[run.id].acked
        ),
    )[0]


def spot_of_nothing(topic: str) -> Spot:
    return Spot(topic, 0, 1_000_000)


def recommit(facts: Facts, change: Callable[[Committed], Committed | None]) -> None:
    """Change commits, or leave some out."""
    facts.commits = CommitLog([new for old in facts.commits.commits if (new := change(old)) is not None])


# L --------------------------------------------------------------------------------------------------------------------


@plant("L", "lost-write")
def an_acknowledged_record_is_nowhere(facts: Facts) -> None:
    run = clean(facts)
    facts.stored = [one for one in facts.stored if one.id != run.id]


@plant("L", "poll-skip")
def a_message_is_passed_over(facts: Facts) -> None:
    run = clean(facts)
    facts.runs.remove(run)


@plant("L", "lost-write")
def a_failed_message_has_no_copy(facts: Facts) -> None:
    run = runs(
        facts,
        lambda run, order: (
            run.end == "failed" and order.succeeds and order.topic != "local" and facts.sent[run.id].acked
        ),
    )[0]
    facts.stored = [one for one in facts.stored if one.id != run.id or not one.failed]
    facts.runs = [one for one in facts.runs if one.id != run.id or one.attempt == 1]


@plant("L", "lost-write")
def a_dead_letter_is_lost(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "rejected" and facts.sent[run.id].acked)[0]
    facts.letters = [letter for letter in facts.letters if letter.id != run.id]


@plant("L", "lost-write")
def a_poisoned_messages_letter_is_lost(facts: Facts) -> None:
    poison = [one.order.id for one in facts.sent.values() if one.order.kind is Kind.POISON and one.acked]
    if not poison:
        raise Unfit
    facts.letters = [letter for letter in facts.letters if letter.id != poison[0]]


@plant("L", "lost-write")
def an_aborted_dead_letter_counts_for_nothing(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "rejected" and facts.sent[run.id].acked)[0]
    for letter in facts.letters:
        if letter.id == run.id:
            letter.visible = False


@plant("L", "lost-output")
def an_output_is_lost(facts: Facts) -> None:
    run = clean(facts)
    facts.outputs = [one for one in facts.outputs if one.id != run.id]


@plant("L", "lost-output", "at_least_once")
def one_of_two_outputs_is_lost(facts: Facts) -> None:
    run = runs(
        facts, lambda run, order: run.end == "done" and order.outputs == 2 and facts.sent[run.id].acked
    )[0]
    facts.outputs = [one for one in facts.outputs if one.id != run.id or one.part]


@plant("L", "lost-write")
def a_filtered_message_was_never_filtered(facts: Facts) -> None:
    skipped = [number for number in facts.skipped if facts.sent[number].acked]
    if not skipped:
        raise Unfit
    del facts.skipped[skipped[0]]


# C --------------------------------------------------------------------------------------------------------------------


@plant("C", "nonmonotonic-commit")
def a_position_falls(facts: Facts) -> None:
    last = next(one for one in reversed(facts.commits.commits) if one.position > 1)
    recommit_with(facts, replace(last, position=last.position - 1, map=None, at=last.at + 0.1))


def recommit_with(facts: Facts, commit: Committed) -> None:
    facts.commits = CommitLog([*facts.commits.commits, commit])


@plant("C", "early-commit")
def a_commit_comes_before_the_run_has_ended(facts: Facts) -> None:
    run = clean(facts)
    assert run.ended is not None
    early = Committed(
        topic=run.spot.topic, partition=run.spot.partition, position=run.spot.offset + 1, at=run.began - 0.1
    )
    facts.commits = CommitLog(sorted([*facts.commits.commits, early], key=lambda one: one.at))


@plant("C", "early-commit")
def a_map_holds_too_much(facts: Facts) -> None:
    def generous(commit: Committed) -> Committed:
        if commit.map is None:
            return commit
        return replace(commit, map=OffsetMap(commit.map.base, (), commit.map.end + 3))

    recommit(facts, generous)


@plant("C", "early-commit")
def a_commit_comes_before_the_output(facts: Facts) -> None:
    run = clean(facts)
    for output in facts.outputs:
        if output.run == run.name:
            output.at += 50.0


@plant("C", "early-commit")
def a_commit_comes_before_the_copy(facts: Facts) -> None:
    copy = [one for one in facts.stored if one.failed == 1 and one.visible and not one.group]
    if not copy:
        raise Unfit
    copy[0].at += 100.0


@plant("C", "early-commit")
def a_commit_comes_before_the_letter(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "rejected")[0]
    for letter in facts.letters:
        if letter.id == run.id:
            letter.at += 50.0


@plant("C", "inconsistent-offsets")
def an_owner_begins_beyond_what_was_committed(facts: Facts) -> None:
    tenure = next(one for one in facts.tenures if one.position is not None)
    assert tenure.position is not None
    tenure.position += 5


# D --------------------------------------------------------------------------------------------------------------------


def again(facts: Facts, run: Run, **changes: object) -> Run:
    second = replace(run, name=(run.name[0], run.name[1], 100_000), **changes)  # type: ignore[arg-type]
    facts.runs.append(second)
    return second


@plant("D", "nonmonotonic-poll")
def a_message_runs_twice_in_one_assignment(facts: Facts) -> None:
    run = clean(facts)
    assert run.ended is not None
    again(facts, run, began=run.ended + 0.01, ended=run.ended + 0.02)


@plant("D", "duplicate")
def a_message_runs_again_although_a_commit_held_it(facts: Facts) -> None:
    run = clean(facts)
    covered = facts.commits.covered_at(run.spot)
    assert covered is not None
    again(facts, run, began=covered + 0.2, ended=covered + 0.3)


@plant("D", "duplicate")
def a_message_of_a_killed_member_runs_again_although_a_map_held_it(facts: Facts) -> None:
    run = clean(facts)
    covered = facts.commits.covered_at(run.spot)
    assert covered is not None
    member = facts.members[run.member]
    if member.killed is None or member.killed < covered:
        raise Unfit
    second = again(facts, run, began=member.killed + 1.0, ended=member.killed + 2.0)
    second.name = (max(facts.members), 1, 1)


@plant("D", "duplicate")
def two_members_run_one_message_at_once(facts: Facts) -> None:
    run = clean(facts)
    other = next(number for number in facts.members if number != run.member)
    facts.tenures.append(Tenure(other, run.spot.topic, run.spot.partition, run.began - 0.6, None))
    again(facts, run, began=run.began + 0.001).name = (other, 1, 1)


@plant("D", "duplicate")
def a_kill_after_the_second_run_excuses_nothing(facts: Facts) -> None:
    victim = next((one for one in facts.members.values() if one.killed is not None), None)
    if victim is None:
        raise Unfit
    assert victim.killed is not None
    run = runs(
        facts, lambda run, order: run.member == victim.number and run.end == "done" and not order.split
    )[0]
    other = next(number for number in facts.members if number != victim.number)
    again(facts, run, began=run.began + 0.1).name = (other, 1, 1)
    victim.killed += 100.0
    facts.commits = CommitLog([])


@plant("D", "duplicate")
def an_orderly_hand_over_excuses_nothing(facts: Facts) -> None:
    tenure = next((one for one in facts.tenures if one.reason == "revoked" and not one.overrun), None)
    if tenure is None:
        raise Unfit
    assert tenure.ended is not None
    run = next((one for one in facts.runs if (one.spot.topic, one.spot.partition) == tenure.place
                and tenure.began <= one.began <= tenure.ended and one.end == "done"), None)  # fmt: skip
    if run is None:
        raise Unfit
    heir = next(
        (one for one in facts.tenures if one.place == tenure.place and one.began > tenure.ended), None
    )
    if heir is None:
        raise Unfit
    second = again(facts, run, began=heir.began + 0.6, ended=heir.began + 0.7)
    second.name = (heir.member, 1, 1)
    facts.commits = CommitLog([])


@plant("D", "duplicate-copy", "at_least_once")
def a_failure_makes_two_copies(facts: Facts) -> None:
    copies = [one for one in facts.stored if one.failed and not one.group and one.visible]
    extra = replace(copies[0], spot=spot_of_nothing(copies[0].spot.topic))
    for _ in range(30):  # more than its runs can explain
        facts.stored.append(extra)
        extra = replace(extra, spot=extra.spot._replace(offset=extra.spot.offset + 1))


@plant("D", "duplicate-copy", "at_least_once")
def a_success_makes_a_copy(facts: Facts) -> None:
    run = clean(facts)
    if facts.members[run.member].executor == "processes":
        raise Unfit
    facts.stored.append(Stored(spot_of_nothing("retries"), run.id, 1, run.began))


@plant("D", "duplicate-output", "at_least_once")
def an_output_is_there_more_often_than_it_was_sent(facts: Facts) -> None:
    run = clean(facts)
    output = next(one for one in facts.outputs if one.run == run.name)
    facts.outputs.append(replace(output, spot=spot_of_nothing("out")))


@plant("D", "duplicate-write")
def a_record_is_written_twice(facts: Facts) -> None:
    run = clean(facts)
    facts.stored.append(Stored(spot_of_nothing(run.spot.topic), run.id))


# T --------------------------------------------------------------------------------------------------------------------


@plant("T", "aborted-read")
def a_failed_run_sends_something(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "failed")[0]
    facts.outputs.append(Output(spot_of_nothing("out"), run.id, 0, run.name, run.began))


@plant("T", "aborted-read")
def a_run_that_was_cut_off_sends_something(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "")[0]
    facts.outputs.append(Output(spot_of_nothing("out"), run.id, 0, run.name, run.began))


@plant("T", "aborted-read")
def nobody_sent_it(facts: Facts) -> None:
    run = clean(facts)
    facts.outputs.append(Output(spot_of_nothing("out"), run.id, 0, (9, 9, 9), run.began))


@plant("T", "duplicate", "exactly_once")
def an_effect_is_visible_twice(facts: Facts) -> None:
    run = clean(facts)
    output = next(one for one in facts.outputs if one.run == run.name)
    facts.outputs.append(replace(output, spot=spot_of_nothing("out")))


@plant("T", "duplicate", "exactly_once")
def an_aborted_effect_is_visible(facts: Facts) -> None:
    hidden = [
        one
        for one in facts.outputs
        if not one.visible and any(other.visible and other.id == one.id for other in facts.outputs)
    ]
    if not hidden:
        raise Unfit
    hidden[0].visible = True


@plant("T", "duplicate", "exactly_once")
def a_copy_is_visible_twice(facts: Facts) -> None:
    copy = next(one for one in facts.stored if one.failed and not one.group and one.visible)
    facts.stored.append(replace(copy, spot=spot_of_nothing("retries")))


@plant("T", "duplicate", "exactly_once")
def a_dead_letter_is_visible_twice(facts: Facts) -> None:
    letter = next(one for one in facts.letters if one.visible)
    facts.letters.append(replace(letter, spot=spot_of_nothing("dead")))


@plant("T", "fractured-read", "exactly_once")
def half_of_a_message_is_visible(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.end == "done" and order.outputs == 2)[-1]
    facts.outputs = [one for one in facts.outputs if one.id != run.id or one.part]
    if not any(one.id == run.id and one.visible for one in facts.outputs):
        raise Unfit


@plant("T", "fractured-read", "exactly_once")
def the_outputs_of_a_message_are_of_two_runs(facts: Facts) -> None:
    for output in facts.outputs:
        order = facts.sent[output.id].order
        others = [
            run for run in facts.runs if run.id == output.id and run.end == "done" and run.name != output.run
        ]
        if output.visible and output.part == 1 and others and order.outputs == 2:
            output.run = others[0].name
            return
    raise Unfit


@plant("T", "fractured-read", "exactly_once")
def a_message_is_both_handled_and_dead(facts: Facts) -> None:
    run = clean(facts)
    facts.letters.append(Letter(spot_of_nothing("dead"), run.id, "exhausted", 4, run.began))


@plant("T", "precommitted-read", "exactly_once")
def an_effect_is_visible_and_its_progress_is_not(facts: Facts) -> None:
    run = clean(facts)
    recommit(facts, lambda one: None if (one.topic, one.partition) == run.spot[:2] else one)


# N --------------------------------------------------------------------------------------------------------------------


@plant("N", "early")
def a_job_runs_before_its_time(facts: Facts) -> None:
    run = runs(facts, lambda run, order: order.delay > 0 and run.attempt == 1)[0]
    facts.sent[run.id].at = run.began - facts.sent[run.id].order.delay + 0.01


@plant("N", "early")
def a_retry_runs_before_its_time(facts: Facts) -> None:
    run = runs(facts, lambda run, order: run.attempt == 2 and order.topic != "local")[0]
    for before in facts.runs:
        if before.id == run.id and before.attempt == 1:
            before.began, before.ended = run.began - 0.2, run.began - 0.1
            before.end = "failed"


@plant("N", "late")
def a_message_runs_long_after_all_is_well(facts: Facts) -> None:
    run = clean(facts)
    run.began = facts.end.healed + 200.0
    run.ended = run.began + 1.0


# B --------------------------------------------------------------------------------------------------------------------


@plant("B", "corrupt")
def a_body_is_another(facts: Facts) -> None:
    clean(facts).stamp = "other"


@plant("B", "corrupt")
def a_retry_copys_header_is_another(facts: Facts) -> None:
    runs(facts, lambda run, order: run.attempt == 2)[0].stamp = "other"


@plant("B", "corrupt")
def a_dead_letters_body_is_another(facts: Facts) -> None:
    next(one for one in facts.letters if one.stamp).stamp = "other"


@plant("B", "phantom")
def a_message_runs_that_nobody_sent(facts: Facts) -> None:
    del facts.sent[clean(facts).id]


@plant("B", "phantom")
def a_record_stands_that_nobody_sent(facts: Facts) -> None:
    facts.stored.append(Stored(spot_of_nothing("orders"), 999_999))


# A --------------------------------------------------------------------------------------------------------------------


@plant("A", "burnt")
def an_attempt_is_burnt_without_a_failure(facts: Facts) -> None:
    run = clean(facts)
    if facts.members[run.member].executor == "processes":
        raise Unfit
    again(facts, run, attempt=2, spot=spot_of_nothing("retries"), began=run.began + 5.0)


@plant("A", "burnt")
def an_attempt_is_skipped(facts: Facts) -> None:
    runs(facts, lambda run, order: run.attempt == 1 and run.end == "done")[0].attempt = 3


@plant("A", "too-many")
def there_are_too_many_attempts(facts: Facts) -> None:
    runs(facts, lambda run, order: run.attempt == MAX_ATTEMPTS)[0].attempt = MAX_ATTEMPTS + 1


@plant("A", "miscounted")
def a_dead_letter_says_too_few_attempts(facts: Facts) -> None:
    letter = next((one for one in facts.letters if one.reason == "exhausted" and one.visible), None)
    if letter is None:
        raise Unfit
    letter.attempts = 2


@plant("A", "miscounted")
def a_letter_says_exhausted_too_soon(facts: Facts) -> None:
    run = runs(facts, lambda run, order: order.fails == 1 and run.end == "failed" and order.topic != "local")[
        0
    ]
    facts.letters.append(Letter(spot_of_nothing("dead"), run.id, "exhausted", 1, run.began))


# G --------------------------------------------------------------------------------------------------------------------


@plant("G", "partial-run")
def a_message_runs_without_all_of_its_chunks(facts: Facts) -> None:
    partial = next(one for one in facts.stored if facts.sent[one.id].order.kind is Kind.PARTIAL)
    again(facts, clean(facts), id=partial.id, spot=partial.spot, stamp=facts.sent[partial.id].stamp)


@plant("G", "group-run-twice")
def a_message_in_chunks_runs_twice_in_one_assignment(facts: Facts) -> None:
    run = runs(facts, lambda run, order: order.split and run.attempt == 1 and run.ended is not None)[0]
    assert run.ended is not None
    again(facts, run, began=run.ended + 0.001, ended=run.ended + 0.002)


# O --------------------------------------------------------------------------------------------------------------------


@plant("O", "zombie-commit")
def a_former_owner_commits(facts: Facts) -> None:
    tenure = next((one for one in facts.tenures if one.reason == "lost"), None)
    if tenure is None:
        raise Unfit
    assert tenure.ended is not None
    facts.acks.append(Ack(tenure.member, tenure.topic, tenure.partition, 0, tenure.ended + 0.2))


@plant("O", "zombie-commit")
def somebody_commits_who_was_never_the_owner(facts: Facts) -> None:
    facts.acks.append(Ack(99, "orders", 0, 0, facts.end.healed))


@plant("O", "zombie-commit")
def a_commit_is_in_the_log_when_nobody_owned_it(facts: Facts) -> None:
    last = facts.commits.commits[-1]
    recommit_with(facts, replace(last, at=facts.end.healed + 1000.0))


@plant("O", "zombie-run")
def a_former_owner_begins_a_run(facts: Facts) -> None:
    tenure = next((one for one in facts.tenures if one.reason == "lost"), None)
    if tenure is None:
        raise Unfit
    assert tenure.ended is not None
    run = clean(facts)
    spot = Spot(tenure.topic, tenure.partition, 500_000)
    again(facts, run, spot=spot, began=tenure.ended + 8.0).name = (tenure.member, 1, 1)
    facts.tenures = [one for one in facts.tenures if one.member != tenure.member or one.began <= tenure.began]


@plant("O", "zombie-write")
def a_former_owners_output_is_sent(facts: Facts) -> None:
    run = clean(facts)
    tenure = next(
        one
        for one in facts.tenures
        if one.member == run.member and one.place == run.spot[:2] and one.began <= run.began
    )
    tenure.ended, tenure.reason = (run.ended or 0.0) + 0.1, "lost"
    for output in facts.outputs:
        if output.run == run.name:
            output.at = tenure.ended + 2.0


@plant("O", "two-owners")
def two_members_own_one_partition(facts: Facts) -> None:
    tenure = next(
        (one for one in facts.tenures if one.ended is not None and one.reason in ("revoked", "stopped")), None
    )
    if tenure is None:
        raise Unfit
    facts.tenures.append(Tenure(99, tenure.topic, tenure.partition, tenure.began + 1.0, tenure.position))


# P --------------------------------------------------------------------------------------------------------------------


@plant("P", "ran")
def a_message_that_cannot_be_decoded_runs(facts: Facts) -> None:
    poison = next(one for one in facts.stored if facts.sent[one.id].order.kind is Kind.POISON)
    again(facts, clean(facts), id=poison.id, spot=poison.spot, stamp=facts.sent[poison.id].stamp)


@plant("P", "ran")
def a_filtered_message_runs(facts: Facts) -> None:
    skipped = next(one for one in facts.stored if facts.sent[one.id].order.kind is Kind.SKIPPED)
    again(facts, clean(facts), id=skipped.id, spot=skipped.spot, stamp=facts.sent[skipped.id].stamp)


@plant("P", "succeeded")
def a_killers_run_is_taken_for_a_success(facts: Facts) -> None:
    runs(facts, lambda run, order: order.kind is Kind.KILLER)[0].end = "done"


@plant("P", "innocent")
def a_neighbour_gets_a_dead_letter(facts: Facts) -> None:
    run = clean(facts)
    facts.letters.append(Letter(spot_of_nothing("dead"), run.id, "undecodable", 1, run.began))


@plant("P", "wrong-reason")
def a_dead_letter_has_no_reason(facts: Facts) -> None:
    next(one for one in facts.letters if one.reason == "undecodable" and one.visible).reason = ""


@plant("P", "wrong-reason")
def a_rejected_message_is_called_undecodable(facts: Facts) -> None:
    runs(facts, lambda run, order: run.end == "rejected")
    letter = next((one for one in facts.letters if one.reason == "rejected" and one.visible), None)
    if letter is None:
        raise Unfit
    letter.reason = "undecodable"


# V --------------------------------------------------------------------------------------------------------------------


@plant("V", "unseen")
def a_message_waits_for_ever(facts: Facts) -> None:
    run = clean(facts)
    facts.runs.remove(run)
    recommit(facts, lambda one: None if (one.topic, one.partition) == run.spot[:2] else one)


@plant("V", "stuck")
def lag_stays(facts: Facts) -> None:
    facts.end.drained, facts.end.lag = None, {"orders": 3}


@plant("V", "slow")
def lag_takes_too_long(facts: Facts) -> None:
    facts.end.drained = facts.end.healed + 121.0


@plant("V", "unready")
def a_member_stays_unwell(facts: Facts) -> None:
    facts.end.unready[1] = "commits have had no answer"


@plant("V", "hanging-transaction")
def a_transaction_hangs(facts: Facts) -> None:
    facts.end.hanging["out/0"] = 2


@plant("V", "gave-up")
def a_member_ends_by_itself(facts: Facts) -> None:
    facts.members[50] = Member(50, "threads", 0.0, ended=5.0, code=1)


# X --------------------------------------------------------------------------------------------------------------------


def stopped(facts: Facts) -> Member:
    return next(one for one in reversed(list(facts.members.values())) if one.asked is not None)


@plant("X", "bad-exit")
def a_stop_ends_with_a_failure(facts: Facts) -> None:
    stopped(facts).code = 1


@plant("X", "slow-stop")
def a_stop_takes_too_long(facts: Facts) -> None:
    member = stopped(facts)
    assert member.ended is not None
    member.ended += 60.0


@plant("X", "endless")
def a_stop_never_ends(facts: Facts) -> None:
    stopped(facts).ended = None


@plant("X", "kept")
def a_partition_is_not_given_back(facts: Facts) -> None:
    member = stopped(facts)
    facts.tenures.append(Tenure(member.number, "orders", 7, 0.0, None))


@plant("X", "orphans")
def a_worker_process_is_left_behind(facts: Facts) -> None:
    stopped(facts).orphans = 1


@plant("X", "left-running")
def a_run_begins_after_the_end(facts: Facts) -> None:
    run = clean(facts)
    member = facts.members[run.member]
    member.asked, member.killed, member.ended, member.code = run.began - 3.0, None, run.began - 1.0, 0


# ----------------------------------------------------------------------------------------------------------------------


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

    def facts(tenure: Tenure, member: Member, faults: tuple[Fault, ...] = ()) -> Facts:
        made = good_facts(1, messages=0)
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
    for good in (
        facts(owned("", None), killed),
        facts(owned("lost"), well),
        facts(
            owned("lost", 85.0), late, (Fault("pause-long", 30.0, 84.5, member=1),)
        ),  # it learned of it late
        facts(owned("revoked", overrun=1), well),
        facts(owned("stopped", silent=True), well),
        facts(owned("revoked"), well, (Fault("broker-pause", 30.0, 45.0, broker=1),)),
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
        facts(owned("revoked"), well, (Fault("broker-pause", 1.0, 5.0, broker=1),)),
        facts(owned("revoked"), well, (Fault("freeze", 30.0, 45.0, member=1),)),
    ):
        assert check(bad).names["D", "duplicate"], check(bad).table()
