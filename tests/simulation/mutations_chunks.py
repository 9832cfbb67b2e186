"""More bugs that somebody could make: about messages that come in chunks."""
# ruff: noqa: SLF001 - as in mutations

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.core import assembly as assembly_module
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.chunks import Assembler, Group, GroupKey, Part
from retriable_kafka_client.core.entry import Entry, Owner, Verdict
from retriable_kafka_client.core.lanes import Lanes, Reservation
from retriable_kafka_client.core.partition import Assignment
from tests.simulation.mutations import Mutation

__all__ = ["CHUNK_MUTATIONS"]

_take = Assembler.take
_leave = Assembler._leave
_cut_youngest = Assembler.cut_youngest
_expire = Assembly.expire
_next_recall = Assembly.next_recall
_wanted = Assembly.wanted
_give_up = Assembler._give_up
_join = Intake.join
_drop = Lanes.drop
_reserve = Lanes.reserve
_admit = Assembly.admit
_trim = Assembly.trim


def _forgets_others(self: Assignment, entry: Entry) -> None:
    self.accounts.part(len(entry.others))


def _runs_twice(self: Assembler, assignment: Owner, part: Part, wall_ms: int, mono: float) -> Sequence[Entry]:
    released = _take(self, assignment, part, wall_ms, mono)
    return [*released, *released] if released and released[0].others else released


def _takes_duplicates(
    self: Assembler, assignment: Owner, part: Part, wall_ms: int, mono: float
) -> Sequence[Entry]:
    """A duplicate passes for the chunk that is missing."""
    chunk = part.marks.chunk
    assert chunk is not None
    group = self.groups.get((chunk.group, chunk.count))
    if group is not None and chunk.index in group.parts:
        missing = next(index for index in range(chunk.count) if index not in group.parts)
        part.marks = replace(part.marks, chunk=replace(chunk, index=missing))
    return _take(self, assignment, part, wall_ms, mono)


def _expires_while_paused(self: Assembly, assignment: Assignment, now: p.Now) -> None:
    paused, assignment.paused = assignment.paused, False
    assignment.chunks.log_ms = max(assignment.chunks.log_ms, int(now.wall * 1000))
    _expire(self, assignment, now)
    assignment.paused = paused


def _joins_as_they_came(self: Intake, assignment: Owner, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
    return _join(self, assignment, sorted(parts, key=lambda part: part.offset), seal)


def _believes_the_sums(self: Intake, assignment: Owner, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
    for part in parts:
        chunk = part.marks.chunk
        assert chunk is not None
        part.marks = replace(part.marks, chunk=replace(chunk, total=None, checksum=None))
    return _join(self, assignment, parts, seal)


def _cuts_without_first(self: Assembler) -> None:
    youngest = self.youngest
    assert youngest is not None
    _cut_youngest(self)
    self.cut.remove(youngest.first)


def _recalls_too_high(self: Assembly, *arguments: Any) -> p.Recall | None:
    recall = _next_recall(self, *arguments)
    if recall is None:
        return None
    self._next += 1
    self.recall = replace(recall, first=recall.first + 1)
    return self.recall


def _never_recalls(self: Assembly, *arguments: Any) -> p.Recall | None:
    return None


def _knows_no_orphans(self: Assembler, offset: int, index: int) -> bool:
    return False


def _cuts_nothing(self: Assembly, assignments: Collection[Assignment], waiting: int) -> None:
    """Any number of bytes."""


def _takes_the_cut_for_read(self: Assembly, assignments: Collection[Assignment], waiting: int) -> None:
    """One pass says all of whatever is there at its end."""
    _trim(self, assignments, waiting)
    self._begun_before = 2**63


def _forgets_what_ended(self: Assembler, key: GroupKey, group: Group, reason: str | None) -> None:
    _leave(self, key, group, reason)
    del self._ended[key]


def _is_impatient(self: Assembler, mono: float, log_ms: int) -> list[GroupKey]:
    return [key for key, group in self.groups.items() if log_ms > group.first_ms + 1_000]


def _gives_up_what_is_cut(self: Assembler, mono: float, log_ms: int) -> list[GroupKey]:
    wait = self._shop.chunk_wait
    return [
        key
        for key, group in self.groups.items()
        if log_ms >= group.first_ms + wait * 1000 and mono >= group.read_at + min(60.0, wait)
    ]


def _never_gives_up(self: Assembler, mono: float, log_ms: int) -> list[GroupKey]:
    return []


def _loses_a_chunk(self: Assembler, key: GroupKey, group: Group, reason: str) -> Sequence[Entry]:
    return _give_up(self, key, group, reason)[: len(group.parts) - 1 or None]


def _throws_chunks_away(self: Assembler, key: GroupKey, group: Group, reason: str) -> Sequence[Entry]:
    parts = _give_up(self, key, group, reason)
    for part in parts:
        part.verdict = Verdict()
    return parts


def _takes_the_gone_for_there(self: Assembly, assignment: Assignment, stop: int, there: object) -> None:
    self._next = stop


def _first_is_last(self: Entry) -> int:
    return self.offset


def _counts_chunks(self: Assignment) -> int:
    return self.progress.incomplete


def _keeps_the_lane(self: Lanes, reservation: Reservation) -> Entry | None:
    """What stands behind a message that was given up waits for ever."""
    return None


def _is_never_jammed(assignment: Assignment, *, holds_up: bool) -> bool:
    return False


def _leaves_the_group(self: Assembly, assignment: Assignment, entries: Sequence[Entry]) -> list[Entry]:
    """Of what was read again, one chunk is forgotten."""
    taken = _admit(self, assignment, entries)
    return taken[:-1] if len(taken) > 2 else taken


def _one(name: str, owner: object, attribute: str, wrong: object, first: int = 0) -> Mutation:
    return Mutation(name, ((owner, attribute, wrong),), first)


CHUNK_MUTATIONS: tuple[Mutation, ...] = (
    _one("complete a message's first chunk only", Assignment, "complete_others", _forgets_others),
    _one("run a whole message twice", Assembler, "take", _runs_twice),
    _one("take a duplicate for the missing chunk", Assembler, "take", _takes_duplicates),
    _one("give up while nothing is read", Assembly, "expire", _expires_while_paused),
    _one("join chunks in the order in which they came", Intake, "join", _joins_as_they_came),
    _one("check neither size nor checksum", Intake, "join", _believes_the_sums),
    _one("forget an offset of what is cut", Assembler, "cut_youngest", _cuts_without_first),
    _one("recall too little", Assembly, "next_recall", _recalls_too_high),
    _one("never recall", Assembly, "next_recall", _never_recalls),
    _one("lose a chunk that was recalled", Assembly, "admit", _leaves_the_group),
    _one("wait for what orphans lack", Assembler, "_is_orphan", _knows_no_orphans),
    _one("assemble any number of bytes", Assembly, "trim", _cuts_nothing, 200),
    _one("take what was cut in a pass for read in it", Assembly, "trim", _takes_the_cut_for_read),
    _one("begin an ended group anew", Assembler, "_leave", _forgets_what_ended),
    _one("give up too soon", Assembler, "expired", _is_impatient),
    _one("give up what is cut", Assembler, "expired", _gives_up_what_is_cut),
    _one("never give up", Assembler, "expired", _never_gives_up),
    _one("lose a chunk of what is given up", Assembler, "_give_up", _loses_a_chunk),
    _one("throw away what is given up", Assembler, "_give_up", _throws_chunks_away),
    _one("wait for cut chunks that are gone", Assembly, "_pass_gone", _takes_the_gone_for_there, 1200),
    _one("admit a message by its first chunk", Entry, "last", property(_first_is_last)),
    _one("count chunks against the window", Assignment, "messages", property(_counts_chunks)),
    _one("keep the lane of what is given up", Lanes, "drop", _keeps_the_lane),
    _one("wait for room in the map that never comes", assembly_module, "is_jammed", _is_never_jammed),
)
