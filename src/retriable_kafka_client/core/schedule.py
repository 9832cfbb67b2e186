"""The due queue of one assignment, and which of its messages are parked.

A message that is not due waits here, incomplete. Far-off ones must not fill the window, or nothing behind them is read:
they are *parked*: re-published to the retry topic's end, which completes them here. The nearest-due stay.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from retriable_kafka_client.core.entry import Entry

__all__ = ["DueQueue", "Keep", "ParkingRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingRule:
    """When a message may be parked."""

    interval_ms: int  # each message at most once per interval, and only while it is due later than that

    def allows(self, entry: Entry, wall_ms: int) -> bool:
        """Whether ``entry`` may be re-published now."""
        assert entry.not_before_ms is not None
        if entry.not_before_ms <= wall_ms + self.interval_ms:
            return False
        parked = entry.marks.parked_ms
        return parked is None or not wall_ms - self.interval_ms < parked <= wall_ms + self.interval_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much may go on waiting in a due queue that is being relieved."""

    messages: int
    bytes: int
    early: int  # of those that may be parked as to their offset


class DueQueue:
    """Messages of one assignment that wait for their not-before, by wall clock."""

    __slots__ = ("_heap", "bytes")

    def __init__(self) -> None:
        # (not-before, offset, entry): the offset makes the order total and first come, first served.
        self._heap: list[tuple[int, int, Entry]] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_due_ms(self) -> int | None:
        """When the nearest message is due; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def push(self, entry: Entry) -> None:
        assert entry.not_before_ms is not None
        heapq.heappush(self._heap, (entry.not_before_ms, entry.offset, entry))
        self.bytes += entry.size

    def pop_due(self, wall_ms: int) -> list[Entry]:
        """Remove and return what is due at ``wall_ms``, nearest first."""
        due: list[Entry] = []
        heap = self._heap
        while heap and heap[0][0] <= wall_ms:
            entry = heapq.heappop(heap)[2]
            self.bytes -= entry.size
            due.append(entry)
        return due

    def take_furthest(self, keep: Keep, below: int, wall_ms: int, rule: ParkingRule) -> list[Entry]:
        """Remove and return what to park so that only the nearest remain, no more than ``keep`` says.

        O(n log n); what ``rule`` does not allow, or stands at offset ``below`` or above, stays wherever it is in the order.
        """
        kept: list[tuple[int, int, Entry]] = []
        taken: list[Entry] = []
        size = early = 0
        for position, item in enumerate(sorted(self._heap)):
            entry = item[2]
            is_early = entry.last < below
            near = (
                position < keep.messages
                and size + entry.size <= keep.bytes
                and not (is_early and early >= keep.early)
            )
            if near or not is_early or not rule.allows(entry, wall_ms):
                kept.append(item)
                size += entry.size
                early += is_early
            else:
                taken.append(entry)
        return self._replace(kept, taken)

    def count_below(self, offset: int) -> int:
        """How many stand at lower offsets. O(n)."""
        return sum(1 for item in self._heap if item[2].last < offset)

    def find(self, offset: int) -> Entry | None:
        """The message of this offset, if it waits here. O(n)."""
        return next((item[2] for item in self._heap if item[1] == offset), None)

    def take_older(self, before_ms: int, below: int, wall_ms: int, rule: ParkingRule) -> list[Entry]:
        """Remove and return what came into the log before ``before_ms`` and, as above, may be parked."""
        kept: list[tuple[int, int, Entry]] = []
        taken: list[Entry] = []
        for item in self._heap:
            entry = item[2]
            if 0 < entry.born_ms < before_ms and entry.last < below and rule.allows(entry, wall_ms):
                taken.append(entry)
            else:
                kept.append(item)
        heapq.heapify(kept)
        return self._replace(kept, taken)

    def clear(self) -> list[Entry]:
        """Remove and return everything."""
        return self._replace([], [item[2] for item in self._heap])

    def _replace(self, kept: list[tuple[int, int, Entry]], taken: list[Entry]) -> list[Entry]:
        self._heap = kept  # sorted or heapified by the caller
        for entry in taken:
            self.bytes -= entry.size
        return taken

    def validate(self) -> None:
        assert self.bytes == sum([item[2].size for item in self._heap])
        for index in range(1, len(self._heap)):
            assert self._heap[(index - 1) // 2] <= self._heap[index]
