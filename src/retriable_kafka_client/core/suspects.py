"""Messages that may have held the whole process up, so that its partitions were lost: each runs again alone.

A handler in C that keeps the interpreter's lock stops every thread, the loop's as well. What ran meanwhile is suspect. It is
remembered here, beyond the assignment, and runs with nothing else of this consumer beside it: an innocent one is cleared by
that, and one that does it again is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from retriable_kafka_client.core.entry import STUCK, Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.protocol import Place, Suspect

__all__ = ["Suspects"]

MOST = 2_000  # remembered; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class _Suspicion:
    attempt: int  # the run that was lost
    certain: bool  # it was lost while nothing else ran


class Suspects:
    """Of all partitions, those that are not ours at present included."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Place, str, int], _Suspicion] = OrderedDict()
        self._places: dict[Place, int] = {}  # how many are known of each

    def note(self, suspects: Iterable[Suspect]) -> None:
        """Their partitions were lost while they ran."""
        for one in suspects:
            key = one.place, one.uid, one.offset
            self._forget(key)
            self._known[key] = _Suspicion(one.attempt, one.alone)
            self._places[one.place] = self._places.get(one.place, 0) + 1
            if len(self._known) > MOST:
                self._forget(next(iter(self._known)))

    def clear(self, entry: Entry) -> None:
        """It ran, and the loop went on."""
        assignment = entry.assignment
        self._forget((assignment.place, assignment.uid, entry.offset))

    def settle(self, assignment: Assignment, position: int | None) -> None:
        """The partition is ours again: forget what is complete, and what was of another log."""
        if assignment.place in self._places:
            for key in [key for key in self._known if key[0] == assignment.place]:
                if key[1] != assignment.uid or (position is not None and key[2] < position):
                    self._forget(key)

    def sift(
        self, assignment: Assignment, taken: list[Entry] | PlainBatch, now_ms: int
    ) -> list[Entry] | PlainBatch:
        """Mark those that are known, of what has arrived. One look for each poll where none is."""
        if assignment.place not in self._places:
            return taken
        entries = taken.entries() if isinstance(taken, PlainBatch) else taken
        self.mark(entries, now_ms)
        return entries

    def mark(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Let those of ``entries``, which have just arrived, that are known run alone, with their lost runs counted."""
        if not self._known:
            return
        for entry in entries:
            known = self._known.get((entry.assignment.place, entry.assignment.uid, entry.offset))
            if known is None or entry.verdict is not None:
                continue
            # A run that is known to hold the loop up has just failed, so to say: what follows is the policy's.
            failed = max(entry.marks.failed, known.attempt - known.certain)
            first_ms = entry.marks.first_failure_ms
            entry.marks = replace(
                entry.marks, failed=failed, first_failure_ms=now_ms if first_ms is None else first_ms
            )
            entry.alone = True
            if known.certain:
                entry.verdict = STUCK

    def _forget(self, key: tuple[Place, str, int]) -> None:
        if self._known.pop(key, None) is not None:
            left = self._places[key[0]] - 1
            if left:
                self._places[key[0]] = left
            else:
                del self._places[key[0]]
