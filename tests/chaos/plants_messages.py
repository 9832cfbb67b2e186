"""Violations of what must hold of messages and their runs: L, D, T, N, B, A, G, P."""

from dataclasses import replace

from tests.campaign.commits import CommitLog
from tests.chaos.facts import Facts, Letter, Output, Stored, Tenure
from tests.chaos.orders import MAX_ATTEMPTS, Kind
from tests.chaos.planting import (
    Unfit,
    again,
    clean,
    plant,
    recommit,
    runs,
    spot_of_nothing,
)

__all__: list[str] = []


# L


@plant("L", "lost-write")
def an_acknowledged_record_is_nowhere(facts: Facts) -> None:
    run = clean(facts)
    facts.stored = [one for one in facts.stored if one.id != run.id]


@plant("L", "lost-write")
def another_record_stands_where_one_was_acknowledged(facts: Facts) -> None:
    run = clean(facts)
    facts.sent[run.id].spot = run.spot._replace(offset=run.spot.offset + 1)


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


# D


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
    _handed_over(facts)


@plant("D", "duplicate", "exactly_once")
def a_transaction_that_was_given_up_while_all_brokers_were_there_excuses_nothing(facts: Facts) -> None:
    _handed_over(facts).silent = True


def _handed_over(facts: Facts) -> Tenure:
    """Run something again after an orderly hand-over."""
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
    return tenure


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


# T


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


# N


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


# B


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


# A


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


# G


@plant("G", "partial-run")
def a_message_runs_without_all_of_its_chunks(facts: Facts) -> None:
    partial = next(one for one in facts.stored if facts.sent[one.id].order.kind is Kind.PARTIAL)
    again(facts, clean(facts), id=partial.id, spot=partial.spot, stamp=facts.sent[partial.id].stamp)


@plant("G", "group-run-twice")
def a_message_in_chunks_runs_twice_in_one_assignment(facts: Facts) -> None:
    run = runs(facts, lambda run, order: order.split and run.attempt == 1 and run.ended is not None)[0]
    assert run.ended is not None
    again(facts, run, began=run.ended + 0.001, ended=run.ended + 0.002)


# P


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
