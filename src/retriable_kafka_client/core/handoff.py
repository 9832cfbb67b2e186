"""Copies on their way to retry and dead-letter topics, until the broker has them.

A copy that was refused is sent again with growing pauses, for ever; its message's offset is held meanwhile.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import HandOff, HandOffKind, Now
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.wire.headers import Marks, Origin

__all__ = ["HandOffs", "dead_letter", "parked", "retry_copy"]

FIRST_BACKOFF = 0.25  # seconds until a refused copy is sent again; doubled by each refusal
LONGEST_BACKOFF = 15.0
DRAIN_BACKOFF = 0.5  # the longest pause while the assignment is to be given away


def retry_copy(
    entry: Entry, failure: Failure, target: str, group: str, now_ms: int, not_before_ms: int
) -> HandOff:
    """The copy that makes the next attempt."""
    marks = replace(
        _identity(entry, group),
        failed=entry.attempt,
        not_before_ms=not_before_ms,
        first_failure_ms=entry.marks.first_failure_ms if entry.marks.first_failure_ms is not None else now_ms,
        alone=entry.alone,
    )
    return HandOff(
        entry=entry,
        kind=HandOffKind.RETRY,
        target=target,
        marks=marks,
        failure=failure,
        attempts=entry.attempt,
    )


def dead_letter(entry: Entry, failure: Failure, target: str, group: str, attempts: int) -> HandOff:
    """The copy that is kept for people."""
    return HandOff(
        entry=entry,
        kind=HandOffKind.DEAD_LETTER,
        target=target,
        marks=_identity(entry, group),
        failure=failure,
        attempts=attempts,
    )


def parked(entry: Entry, group: str, now_ms: int) -> HandOff:
    """The same message again, at its retry topic's end."""
    marks = replace(
        _identity(entry, group),
        failed=entry.marks.failed,
        not_before_ms=entry.not_before_ms,
        alone=entry.alone,
        parked_ms=now_ms,
    )
    return HandOff(
        entry=entry,
        kind=HandOffKind.PARK,
        target=entry.assignment.place.topic,
        marks=marks,
        failure=None,
        attempts=entry.marks.failed,
    )


def _identity(entry: Entry, group: str) -> Marks:
    """What every copy says of its message. A missing origin timestamp is the record's own, which the shell knows."""
    marks, uid = entry.marks, entry.assignment.uid
    topic, partition = entry.assignment.place
    return Marks(
        group=group,
        origin=marks.origin or Origin(topic, partition, entry.offset),
        origin_timestamp_ms=marks.origin_timestamp_ms,
        id=marks.id or f"{uid}-{partition}-{entry.offset}",
        first_failure_ms=marks.first_failure_ms,
    )


class HandOffs:
    """Which copies wait to be sent again, and which topics refuse at present."""

    def __init__(self) -> None:
        self._again: list[tuple[float, int, HandOff]] = []  # heap by monotonic time
        self._sequence = 0  # makes its order total
        self._refusals: dict[str, str] = {}

    @property
    def refusals(self) -> Mapping[str, str]:
        """Topics whose latest answer was a refusal, with its code."""
        return self._refusals

    @property
    def waiting(self) -> int:
        """Copies that wait to be sent again."""
        return len(self._again)

    def accepted(self, handoff: HandOff) -> None:
        self._refusals.pop(handoff.target, None)

    def refused(self, handoff: HandOff, code: str, now: Now) -> float:
        """Keep the copy for another try; returns in how many seconds."""
        longest = LONGEST_BACKOFF if handoff.entry.assignment.phase is Phase.RUNNING else DRAIN_BACKOFF
        pause = float(min(longest, FIRST_BACKOFF * 2 ** min(handoff.tries, 10)))
        handoff.tries += 1
        self._refusals[handoff.target] = code
        self._sequence += 1
        heapq.heappush(self._again, (now.mono + pause, self._sequence, handoff))
        return pause

    def due(self, now: Now) -> list[HandOff]:
        """Remove and return what is to be sent again now."""
        due: list[HandOff] = []
        while self._again and self._again[0][0] <= now.mono:
            due.append(heapq.heappop(self._again)[2])
        return due

    def hurry(self, handoffs_of: object, now: Now) -> None:
        """Send the copies of an assignment that drains at the next opportunity: there will not be many."""
        self._again = [
            (now.mono if handoff.entry.assignment is handoffs_of else at, number, handoff)
            for at, number, handoff in self._again
        ]
        heapq.heapify(self._again)

    def forget(self, handoffs_of: object) -> list[HandOff]:
        """Remove and return the copies of an assignment that are not to be sent again."""
        dropped = [item[2] for item in self._again if item[2].entry.assignment is handoffs_of]
        self._again = [item for item in self._again if item[2].entry.assignment is not handoffs_of]
        heapq.heapify(self._again)
        targets = {item[2].target for item in self._again}
        self._refusals = {target: code for target, code in self._refusals.items() if target in targets}
        return dropped
