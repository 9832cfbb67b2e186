"""What must hold of commits, assignments and processes: C, O, V, X."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.facts import Member, Stored, Tenure
from tests.chaos.index import CLOCK, TOLD, Index, Violation
from tests.chaos.orders import Kind

__all__ = ["DRAINED", "STOP", "commits", "ended", "ended_work", "recovered"]

DRAINED = 120.0  # s from the last fault's end to lag 0
LATE_COMMIT = 30.0  # s for which a commit may be on its way
STOP = 40.0  # s from SIGTERM to the process's end: 10 for the drain, the rest for brokers that do not answer


def commits(index: Index) -> Iterator[Violation]:
    """C: a commit covers only what is complete, and no position falls."""
    log = index.facts.commits
    for fall in log.falls:
        yield Violation("C", "nonmonotonic-commit", fall)
    for spot, at in log.covered:
        stored = index.heads.get(spot)
        if stored is None or not stored.visible:
            continue  # a further chunk, a marker, an aborted record, or one of before the run
        done = _complete_at(index, stored)
        if done > at + CLOCK:
            when = "never" if math.isinf(done) else f"at {done:.3f}"
            yield Violation(
                "C",
                "early-commit",
                f"id {stored.id} at {tuple(spot)} was committed at {at:.3f}, complete {when}",
            )
    positions: defaultdict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for commit in log.commits:
        positions[commit.topic, commit.partition].append((commit.at, commit.position))
    for tenure in index.facts.tenures:
        if tenure.position is None:
            continue
        known = positions[tenure.place]
        count = bisect_right(known, tenure.began + CLOCK, key=lambda one: one[0])
        highest = max((position for _, position in known[:count]), default=0)
        if tenure.position > highest:
            yield Violation(
                "C",
                "inconsistent-offsets",
                f"{tenure.place}: {tenure.member} began at {tenure.position}, committed was {highest}",
            )


def _complete_at(index: Index, stored: Stored) -> float:
    """When the record needed no more work; infinity: never."""
    number = stored.id
    times = [letter.at for letter in index.letters_of[number]]
    order = index.order(number)
    if order is not None and order.kind is Kind.SKIPPED and number in index.facts.skipped:
        times.append(index.facts.skipped[number])
    failed = {stored.failed}
    for run in index.runs_at[stored.spot]:
        failed.add(run.attempt - 1)
        if run.end == "done" and run.ended is not None:
            times.append(max([run.ended, *(output.at for output in index.outputs_by.get(run.name, ()))]))
    # A copy that has seen one more failure, or the same message parked, took its place.
    times += [
        copy.at
        for copy in index.copies_of[number]
        if copy.spot != stored.spot
        and (copy.failed == stored.failed + 1 or (copy.parked and copy.failed in failed))
    ]
    return min(times, default=math.inf)


def ended_work(index: Index) -> Iterator[Violation]:
    """O: once an assignment has ended, nothing of it is committed, sent or begun."""
    for ack in index.facts.acks:
        tenure = index.tenure(ack.member, ack.topic, ack.partition, ack.at)
        if tenure is None or not _may_commit(index, tenure, ack.at, CLOCK):
            yield Violation(
                "O",
                "zombie-commit",
                f"{(ack.topic, ack.partition)}: {ack.member} committed {ack.position} at {ack.at:.3f}, not its owner",
            )
    yield from _unowned(index)
    for run in index.runs:
        tenure = index.tenure_of(run)
        if tenure is None or (tenure.ended is not None and run.began > tenure.ended + 5 * TOLD):
            yield Violation(
                "O",
                "zombie-run",
                f"id {run.id} at {tuple(run.spot)}: {run.member} began it at {run.began:.3f}, not its owner",
            )
    for output in index.facts.outputs:
        run_of = index.run_named.get(output.run)
        tenure = None if run_of is None else index.tenure_of(run_of)
        if (
            output.visible
            and tenure is not None
            and tenure.ended is not None
            and output.at > tenure.ended + TOLD
            # In a transaction it came in with the group's consent, as a commit does.
            and not (index.exactly_once and _may_commit(index, tenure, output.at, TOLD))
        ):
            yield Violation(
                "O",
                "zombie-write",
                f"output at {tuple(output.spot)} was sent at {output.at:.3f}, after {tenure.place} was given away",
            )
    yield from _two_owners(index)


def _may_commit(index: Index, tenure: Tenure, at: float, told: float) -> bool:
    """Whether a commit of that time can be the owner's.

    What it sent before it lost the partition, or was killed, may come in later, as long as nobody else has become the
    owner: whoever then does begins behind it, and before that the group takes no more of it.
    """
    ended, late = tenure.ended, tenure.reason == "lost"
    if ended is None:
        member = index.facts.members.get(tenure.member)
        if member is not None:
            ended, late = member.ended, member.killed is not None
    if ended is None or at <= ended + told:
        return True
    if not late or at > ended + LATE_COMMIT:
        return False
    return not index.taken_over(tenure.topic, tenure.partition, ended, at)


def _unowned(index: Index) -> Iterator[Violation]:
    owners: defaultdict[tuple[str, int], list[Tenure]] = defaultdict(list)
    for tenure in index.facts.tenures:
        owners[tenure.place].append(tenure)
    for commit in index.facts.commits.commits:
        place = (commit.topic, commit.partition)
        if not any(
            one.began - TOLD <= commit.at and _may_commit(index, one, commit.at, TOLD)
            for one in owners[place]
        ):
            yield Violation(
                "O",
                "zombie-commit",
                f"{place}: {commit.position} was committed at {commit.at:.3f}, when nobody had it",
            )


def _two_owners(index: Index) -> Iterator[Violation]:
    by_place: defaultdict[tuple[str, int], list[Tenure]] = defaultdict(list)
    for tenure in index.facts.tenures:
        by_place[tenure.place].append(tenure)
    for place, tenures in by_place.items():
        # Who was killed, has lost it, or is cut off while it gives it away cannot know that another one has it.
        given = [one for one in tenures if one.ended is not None and one.reason in ("revoked", "stopped")]
        for one in given:
            assert one.ended is not None
            for other in tenures:
                beside = other.member != one.member and one.began < other.began < one.ended - 2 * TOLD
                if beside and not index.was_overtaken(one, one.ended, other.began):
                    yield Violation(
                        "O",
                        "two-owners",
                        f"{place}: {other.member} began at {other.began:.3f}, {one.member} gave it away at {one.ended:.3f}",
                    )


def recovered(index: Index) -> Iterator[Violation]:
    """V: once the faults are undone, everything is read, and everybody is well, without help."""
    end = index.facts.end
    if end.drained is None:
        left = ", ".join(f"{topic}: {lag}" for topic, lag in end.lag.items() if lag) or "unknown"
        yield Violation("V", "stuck", f"lag did not come to 0, left: {left}")
    elif end.drained - end.healed > DRAINED:
        yield Violation("V", "slow", f"lag came to 0 only after {end.drained - end.healed:.0f} s")
    for number, why in end.unready.items():
        yield Violation("V", "unready", f"member {number} is not well: {why}")
    for place, offsets in end.hanging.items():
        yield Violation(
            "V", "hanging-transaction", f"{place}: the last {offsets} offsets cannot be read as committed"
        )
    for member in index.facts.members.values():
        if member.code is not None and member.asked is None and member.killed is None:
            yield Violation("V", "gave-up", f"member {member.number} ended by itself with {member.code}")


def ended(index: Index) -> Iterator[Violation]:
    """X: who is asked to stop gives everything back and is gone soon."""
    last: dict[int, float] = {}
    for run in index.runs:
        last[run.member] = run.began
    for member in index.facts.members.values():
        if member.asked is None or member.killed is not None:
            continue
        yield from _stopped(index, member)
        if member.ended is not None and last.get(member.number, 0.0) > member.ended + CLOCK:
            yield Violation("X", "left-running", f"member {member.number} ended and began a run after that")


def _stopped(index: Index, member: Member) -> Iterator[Violation]:
    assert member.asked is not None
    if member.ended is None:
        yield Violation("X", "endless", f"member {member.number} was asked to stop and never ended")
        return
    took = member.ended - member.asked - index.paused(member.number, member.asked, member.ended)
    if took > STOP:
        yield Violation("X", "slow-stop", f"member {member.number} took {took:.1f} s to stop")
    if member.code != 0:
        yield Violation(
            "X", "bad-exit", f"member {member.number} was asked to stop and ended with {member.code}"
        )
    elif any(tenure.member == member.number and tenure.ended is None for tenure in index.facts.tenures):
        yield Violation(
            "X", "kept", f"member {member.number} ended in order and gave not all of its partitions back"
        )
    if member.orphans:
        yield Violation("X", "orphans", f"member {member.number} left {member.orphans} processes behind")
