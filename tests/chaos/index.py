"""The facts of a run, sorted so that rules can look things up, and what excuses a second run."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.campaign.evidence import Spot
from tests.chaos.facts import Facts, Letter, Member, Name, Output, Run, Stored, Tenure
from tests.chaos.orders import Kind, Order

__all__ = ["CLOCK", "TOLD", "Index", "Violation", "letter_reasons"]

CLOCK = 0.005  # s; brokers and producers stamp whole milliseconds of the same clock
DRAIN = 15.0  # s before an assignment's end in which a broker's silence can have cost its last commits
HUNG = 60.0  # s likewise, where a transaction had no answer: the client may hang for 40 s, long after the broker is back
TOLD = 1.0  # s that a process may take to write down what it has just done
BROKERS = frozenset(
    {"broker-kill", "broker-stop", "broker-pause", "rolling", "slow-link", "cut-link", "stuck-link"}
)
"""Faults in which a broker may not answer."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise broken once. `name` is Jepsen's where its Kafka workload has one."""

    promise: str
    name: str
    witness: str


class Groups(dict[K, list[V]]):
    """Lists by key; what is not there is an empty one, and stays away."""

    def __missing__(self, key: K) -> list[V]:
        return []


def grouped(pairs: Iterable[tuple[K, V]]) -> Groups[K, V]:
    """The values of each key, in their order."""
    groups: Groups[K, V] = Groups()
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


class Index:
    """Read-only. Spots of chunks stand for the lowest one of their group, as everywhere in the library."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.exactly_once = facts.guarantee == "exactly_once"
        runs = sorted(facts.runs, key=lambda run: run.began)
        self.runs = runs
        self.runs_of: Groups[int, Run] = grouped((run.id, run) for run in runs)
        self.run_named: dict[Name, Run] = {run.name: run for run in runs}
        self.runs_at: Groups[Spot, Run] = grouped((run.spot, run) for run in runs)
        self.outputs_of: Groups[int, Output] = grouped((one.id, one) for one in facts.outputs if one.visible)
        self.outputs_by: Groups[Name, Output] = grouped(
            (one.run, one) for one in facts.outputs if one.visible
        )
        self.letters_of: Groups[int, Letter] = grouped((one.id, one) for one in facts.letters if one.visible)
        self.ids = {one.spot: one.id for one in facts.stored}
        self.heads = _heads(facts.stored)
        self.stored_of: Groups[int, Stored] = grouped(
            (one.id, one) for one in self.heads.values() if one.visible and not one.failed
        )
        """Each message as it was first written, one for each group of chunks."""
        self.copies_of: Groups[int, Stored] = grouped(
            (one.id, one) for one in self.heads.values() if one.visible and one.failed
        )
        self.deaths = {(death.spot, death.attempt) for death in facts.deaths}
        self._tenures = {
            place: sorted(group, key=lambda tenure: tenure.began)
            for place, group in grouped(((t.member, *t.place), t) for t in facts.tenures).items()
        }
        self._begun = {
            place: sorted(group)
            for place, group in grouped((t.place, t.began) for t in facts.tenures).items()
        }
        self._outages = [fault for fault in facts.faults if fault.kind in BROKERS]

    def order(self, id: int) -> Order | None:
        """The order of that number, if it was ever sent."""
        sent = self.facts.sent.get(id)
        return None if sent is None else sent.order

    def member(self, run: Run) -> Member | None:
        return self.facts.members.get(run.member)

    def tenure(self, member: int, topic: str, partition: int, at: float) -> Tenure | None:
        """The latest period of that member with that partition which had begun by then, or a little later if none lasted."""
        tenures = self._tenures.get((member, topic, partition), [])
        index = bisect_right(tenures, at, key=lambda tenure: tenure.began)
        before = tenures[index - 1] if index else None
        if before is not None and (before.ended is None or at <= before.ended):
            return before
        if index < len(tenures) and tenures[index].began <= at + TOLD / 2:
            return tenures[index]
        return before

    def tenure_of(self, run: Run) -> Tenure | None:
        """The period of ownership in which it began."""
        return self.tenure(run.member, run.spot.topic, run.spot.partition, run.began)

    def taken_over(self, topic: str, partition: int, since: float, until: float) -> bool:
        """Whether somebody became the owner of the partition between."""
        begun = self._begun.get((topic, partition), [])
        return bisect_right(begun, since) < bisect_right(begun, until - CLOCK)

    def covered(self, spot: Spot) -> float | None:
        """When a commit first said that the record is done."""
        return self.facts.commits.covered_at(spot)

    def paused(self, member: int, since: float, until: float) -> float:
        """For how many seconds of that time the member was stopped by the kernel, or its host was as good as gone."""
        return sum(
            max(0.0, min(until, fault.ended) - max(since, fault.began))
            for fault in self.facts.faults
            if fault.member == member and fault.kind in ("pause-short", "pause-long")
        )

    def outage(self, since: float, until: float) -> bool:
        """Whether some broker may not have answered at some time between."""
        return any(fault.began <= until and since <= fault.ended for fault in self._outages)

    def refused(self, since: float, until: float) -> bool:
        """Whether the retry topic took no copies at some time between."""
        return any(
            fault.kind == "refuse" and fault.began <= until and since <= fault.ended
            for fault in self.facts.faults
        )

    def died_under(self, run: Run) -> bool:
        """Whether its worker process was lost, which counts as a failed attempt."""
        if (run.spot, run.attempt) in self.deaths:
            return True
        member = self.member(run)
        if member is None or member.executor != "processes":
            return False
        # The member itself may have been killed before it could tell.
        told = member.killed is None or member.killed > (run.ended or run.began) + 2 * TOLD
        return run.end == "" or (run.end == "done" and not told)

    def failed(self, id: int, attempt: int) -> Iterator[Run]:
        """The runs that make another attempt necessary."""
        for run in self.runs_of[id]:
            if run.attempt == attempt and (run.end in ("failed", "rejected") or self.died_under(run)):
                yield run

    def excuse(self, first: Run, second: Run) -> str | None:
        """What explains that a record was run again; None: nothing does."""
        member = self.member(first)
        if member is not None and member.killed is not None:
            moved = second.member != first.member
            if moved and first.began - CLOCK <= member.killed <= second.began:
                return "killed"
        tenure = self.tenure_of(first)
        if tenure is None:
            return None
        again = self.tenure_of(second)
        if again is tenure:
            return None
        if again is not None and again.began < tenure.began and self._was_cut_off(again):
            return "lost"  # until it learned of that, the old owner went on with what it had in hand
        if tenure.ended is None:
            return None
        if tenure.reason == "lost" and (
            tenure.ended <= second.began + TOLD or self.was_overtaken(tenure, tenure.ended, second.began)
        ):
            return "lost"
        if tenure.ended > second.began + TOLD:
            # It gave the partition away for long, and the brokers heard nothing of that: the group did so without it.
            return "unanswered" if self.was_overtaken(tenure, tenure.ended, second.began) else None
        if tenure.overrun:
            return "overrun"
        order = self.order(first.id)
        if order is not None and order.topic == "local" and first.end == "failed":
            return "in place"  # a retry from memory that did not come to pass
        if (
            tenure.unfinished
            and first.end in ("failed", "")
            and self.refused(tenure.ended - DRAIN, tenure.ended)
        ):
            return "copy refused"  # until the drain was over
        return "unanswered" if self._is_unanswered(tenure, tenure.ended) else None

    def _is_unanswered(self, tenure: Tenure, ended: float) -> bool:
        """Whether the last that its member had to commit had no answer.

        With exactly once the member must have told so, and a broker have been away: it gives up no transaction for nothing.
        """
        if self.exactly_once:
            return tenure.silent and self.outage(ended - HUNG, ended)
        return tenure.silent or self.outage(ended - DRAIN, ended)

    def _was_cut_off(self, tenure: Tenure) -> bool:
        if tenure.ended is None or tenure.reason != "lost":
            return False
        paused = self.paused(tenure.member, tenure.began, tenure.ended) > 0
        return paused or self.outage(tenure.began, tenure.ended)

    def was_overtaken(self, tenure: Tenure, ended: float, taken: float) -> bool:
        """Whether the group may have given it to another one at that time: who is cut off learns of it late."""
        cut_off = self.paused(tenure.member, tenure.began, ended) > 0 or self.outage(taken - 30.0, ended)
        return cut_off and ended < taken + 60.0


def _heads(stored: Iterable[Stored]) -> dict[Spot, Stored]:
    """One for each message: a whole record, or the first chunk of its group."""
    heads: dict[Spot, Stored] = {}
    groups: dict[tuple[str, int, str], Stored] = {}
    for one in stored:
        if not one.group:
            heads[one.spot] = one
            continue
        key = (one.spot.topic, one.spot.partition, one.group)
        head = groups.get(key)
        if head is None or one.spot.offset < head.spot.offset:
            groups[key] = one
    heads.update((one.spot, one) for one in groups.values())
    return heads


def letter_reasons(order: Order) -> frozenset[str]:
    """The reasons that its dead letter may have; empty: it is to have none."""
    match order.kind:
        case Kind.REJECTED:
            return frozenset({"rejected"})
        case Kind.KILLER:
            return frozenset({"worker-died", "exhausted"})
        case Kind.POISON:
            return frozenset({"undecodable"})
        case Kind.PARTIAL:
            return frozenset({"incomplete", "orphan"})
        case Kind.PLAIN if not order.succeeds:
            return frozenset({"exhausted"})
        case _:
            return frozenset()
