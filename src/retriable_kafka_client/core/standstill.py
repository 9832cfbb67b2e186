"""Partitions that stand: they are read no further because what was read fills the window, and hardly any of it completes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from retriable_kafka_client import events
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import Now

__all__ = ["STANDS_SECONDS", "Holder", "Standstills"]

LOOK_SECONDS = 1.0  # between two looks: no round pays for this
STANDS_SECONDS = 30.0  # paused for as long, with fewer completed messages than one a second: it stands
DIGITS = 12  # of a key's hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What holds a partition up: the first message of a lane that most are in, or the lowest that is not complete."""

    offset: int
    attempt: int | None  # the next run's number; None: it is not waiting for its time
    due_ms: int | None  # wall clock, in ms: when it runs; None: it is not waiting for its time
    key_hash: str | None  # in order of keys: the first digits of the key's SHA-256
    behind: int  # messages that wait for it to complete, as their key says
    since: float  # monotonic; since when the partition has been paused


@dataclass(slots=True)
class _Pause:
    since: float  # monotonic
    counted_at: float  # when `completed` was last taken
    completed: int
    stands: bool = False


class Standstills:
    """Looks now and then. What it yields is to be published."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._pauses: dict[Assignment, _Pause] = {}  # of those that are read no further
        self._standing: dict[Assignment, Holder] = {}

    @property
    def standing(self) -> Mapping[Assignment, Holder]:
        """Those that stand now, and by what."""
        return self._standing

    def look(self, assignments: Collection[Assignment], now: Now) -> Iterator[events.Event]:
        """Take note of who is paused, and how fast their messages complete."""
        if now.mono < self._look_at:
            return
        self._look_at = now.mono + LOOK_SECONDS
        held = dict.fromkeys(one for one in assignments if _is_held(one))
        for assignment in [one for one in self._pauses if one not in held]:
            del self._pauses[assignment]
            yield from self._moves(assignment)
        for assignment in held:
            completed = assignment.progress.completed
            pause = self._pauses.setdefault(assignment, _Pause(now.mono, now.mono, completed))
            if pause.stands:
                self._standing[assignment] = _holder(assignment, pause.since)
            if now.mono - pause.counted_at < STANDS_SECONDS:
                continue
            was, pause.stands = pause.stands, completed - pause.completed < now.mono - pause.counted_at
            pause.counted_at, pause.completed = now.mono, completed
            if not pause.stands:
                yield from self._moves(assignment)
            elif not was:
                holder = self._standing[assignment] = _holder(assignment, pause.since)
                yield _stands(assignment, holder, now)

    def _moves(self, assignment: Assignment) -> Iterator[events.Event]:
        stood = self._standing.pop(assignment, None) is not None
        if stood and assignment.hands_out:
            topic, partition = assignment.place
            yield events.PartitionMoves(topic=topic, partition=partition)


def _is_held(assignment: Assignment) -> bool:
    if not assignment.hands_out or not assignment.progress.incomplete:
        return False
    return assignment.paused or bool(assignment.queues.blocked)


def _holder(assignment: Assignment, since: float) -> Holder:
    queues = assignment.queues
    offset, behind, key_hash = assignment.progress.tracker.position, 0, None
    longest = queues.lanes.longest() if queues.lanes is not None else None
    if longest is not None and 2 * longest[1] >= assignment.messages:
        offset, behind, key = longest
        key_hash = hashlib.sha256(key).hexdigest()[:DIGITS] if key is not None else None
    waits = queues.waiting.find(offset)
    return Holder(
        offset=offset,
        attempt=waits.attempt if waits is not None else None,
        due_ms=waits.not_before_ms if waits is not None else None,
        key_hash=key_hash,
        behind=behind,
        since=since,
    )


def _stands(assignment: Assignment, holder: Holder, now: Now) -> events.Event:
    topic, partition = assignment.place
    return events.PartitionStands(
        topic=topic,
        partition=partition,
        offset=holder.offset,
        attempt=holder.attempt,
        due_in=None if holder.due_ms is None else max(0.0, holder.due_ms / 1000 - now.wall),
        key_hash=holder.key_hash,
        behind=holder.behind,
        incomplete=assignment.messages,
        seconds=now.mono - holder.since,
    )
