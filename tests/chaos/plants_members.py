"""Violations of what must hold of commits, assignments and processes: C, O, V, X."""

from dataclasses import replace

from retriable_kafka_client.core.offset_map import OffsetMap
from tests.campaign.commits import CommitLog, Committed
from tests.campaign.evidence import Spot
from tests.chaos.facts import Ack, Facts, Member, Tenure
from tests.chaos.planting import (
    Unfit,
    again,
    clean,
    plant,
    recommit,
    recommit_with,
    runs,
    stopped,
)

__all__: list[str] = []


# C


@plant("C", "nonmonotonic-commit")
def a_position_falls(facts: Facts) -> None:
    last = next(one for one in reversed(facts.commits.commits) if one.position > 1)
    recommit_with(facts, replace(last, position=last.position - 1, map=None, at=last.at + 0.1))


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


# O


@plant("O", "zombie-commit")
def a_former_owner_commits(facts: Facts) -> None:
    for tenure in facts.tenures:
        if tenure.reason != "lost":
            continue
        assert tenure.ended is not None
        heirs = [one for one in facts.tenures if one.place == tenure.place and one.began > tenure.ended]
        if heirs and heirs[0].member != tenure.member:
            at = heirs[0].began + 0.2
            facts.acks.append(Ack(tenure.member, tenure.topic, tenure.partition, 0, at))
            return
    raise Unfit


@plant("O", "zombie-commit")
def somebody_commits_after_giving_it_away_in_order(facts: Facts) -> None:
    tenure = next((one for one in facts.tenures if one.reason in ("revoked", "stopped")), None)
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
    tenure.ended, tenure.reason = (run.ended or 0.0) + 0.1, "revoked"
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


# V


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


# X


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
