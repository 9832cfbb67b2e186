"""The unfinished chunk groups of all partitions together: their share of the bytes, and what is read again.

What waits for its time and what is assembled have half of the bytes together. The consumer's oldest group may always grow;
over the share the youngest ones are cut, that is forgotten but for their offsets. They are read again in *recalls*: passes
over the part of the log in which cut chunks lie. A group that is never cut during a whole pass, and was there when it began
or was begun before the pass cut any, has afterwards all that the log has of it; the oldest one is such a group. So each pass
completes a group or leaves it to its last chunk or its expiry, and the next one becomes the oldest. A group of which chunks
may be cut is not given up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from retriable_kafka_client.core import notices
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.chunks import Assembler, Group, GroupKey, Joiner, Part, Workshop, key_of
from retriable_kafka_client.core.engine_config import Counters, EngineConfig
from retriable_kafka_client.core.entry import GONE, PART, Entry
from retriable_kafka_client.core.partition import Assignment

__all__ = ["Assembly", "is_jammed"]

FIRST_PAUSE = (
    0.5  # seconds after a pass that left something cut, until the next; doubled as long as no group leaves
)
LONGEST_PAUSE = 30.0


class Assembly:
    """See the module's docstring. The engine's, and changed by it only."""

    def __init__(self, config: EngineConfig, joiner: Joiner | None, counters: Counters) -> None:
        self._counters = counters
        self.recall: p.Recall | None = None  # under way
        self._share = config.buffer_bytes // 2
        self._chunk_wait = config.chunk_wait
        self._shop = Workshop(joiner=joiner, message_bytes=config.message_bytes, chunk_wait=config.chunk_wait)
        self._next = 0  # what the recall comes to next
        self._has_cut = False  # a group was cut since it began
        self._begun_before = 0  # groups that were begun before the first one was cut
        self._again_at = 0.0  # monotonic; the next recall, unless a group leaves
        self._fruitless = 0  # recalls in a row after which something was left, and no group had gone
        self._left = 0  # groups that had gone when the last recall ended

    def assembler(self) -> Assembler:
        return Assembler(self._shop)

    # Bytes -------------------------------------------------------------------------------------------------------------

    def squeezed(self, waiting: int, assembling: int) -> int:
        """By how much the active messages' share shrinks for a group that has outgrown the others'; a quarter stays."""
        return min(max(0, waiting + assembling - self._share), self._share - self._share // 4)

    def trim(self, assignments: Collection[Assignment], waiting: int) -> None:
        """Cut the youngest groups until the rest, or the oldest alone, is within the share."""
        holders = [assignment.chunks for assignment in assignments if assignment.chunks.groups]
        excess = waiting + sum(chunks.bytes for chunks in holders) - self._share
        if excess <= 0 or not holders:
            return
        oldest = min(group.number for chunks in holders if (group := chunks.oldest) is not None)
        while excess > 0:
            chunks = max(holders, key=_youngest)
            if _youngest(chunks) <= oldest:
                return
            before = chunks.bytes
            chunks.cut_youngest()
            if not self._has_cut:
                self._has_cut, self._begun_before = True, self._shop.begun
            excess -= before - chunks.bytes

    # Time --------------------------------------------------------------------------------------------------------------

    def expire(self, assignment: Assignment, now: p.Now) -> None:
        """Give up groups whose chunks do not come. While nothing is read, what is late looks like what is lost."""
        wall_ms = math.floor(now.wall * 1000)
        log_ms = assignment.chunks.log_ms
        if assignment.paused:
            if not assignment.waits_for_chunks:
                return
            log_ms = wall_ms  # else nothing would ever be read again
        # Where nothing is read, the other ones' chunks may follow: they are read once the first one is out of the way.
        assignment.sorter.give_up_expired(wall_ms, now.mono, log_ms, first_only=assignment.paused)

    def tend(self, running: Collection[Assignment], now: p.Now) -> Sequence[p.Command]:
        """Give up what has waited for too long, and let go what waits for room in an offset map that has none."""
        if not any(one.queues.blocked or one.chunks or one.chunks.reservations for one in running):
            return ()
        out: list[p.Command] = []
        holds_up = any(assignment.paused for assignment in running)
        for assignment in running:
            if assignment.chunks.reservations and not assignment.chunks.cut:
                assignment.sorter.drop_lost_reservations()
            if is_jammed(assignment, holds_up=holds_up):
                assignment.queues.admit_beyond_map()
                out.append(p.Notify(notices.map_overflow(assignment)))
            if assignment.chunks.groups:
                self.expire(assignment, now)
                out += self.count_ended(assignment)
        return out

    def count_ended(self, assignment: Assignment) -> Sequence[p.Command]:
        """Count the groups that have become whole, or were given up, since the last call."""
        lost = assignment.chunks.take_lost()
        self._counters.given_up += len(lost)
        self._counters.assembled += assignment.chunks.take_whole()
        return [p.Notify(notices.given_up(assignment, one)) for one in lost]

    # Recalls -----------------------------------------------------------------------------------------------------------

    def next_recall(
        self, running: Collection[Assignment], active: int, waiting: int, now: p.Now
    ) -> p.Recall | None:
        """The recall to begin now: for the oldest group if it needs one, else where there is room for more."""
        cut = [assignment for assignment in running if assignment.chunks.cut]
        if self.recall is not None or not cut or active >= self._share:
            return None
        if now.mono < self._again_at and self._shop.left == self._left:
            return None
        oldest: Group | None = None
        chosen: Assignment | None = None
        for assignment in running:
            group = assignment.chunks.oldest
            if group is not None and (oldest is None or group.number < oldest.number):
                oldest, chosen = group, assignment
        if chosen is None or oldest is None:
            chosen = min(
                cut, key=lambda assignment: assignment.chunks.recalls
            )  # what comes will be the oldest
        elif not (oldest.maybe_cut and chosen.chunks.cut):
            if waiting + sum(assignment.chunks.bytes for assignment in running) > self._share // 2:
                return None
            chosen = min(cut, key=lambda assignment: assignment.chunks.recalls)
        first, stop = chosen.chunks.begin_recall()
        self._next, self._has_cut = first, False
        self.recall = p.Recall(chosen.place, first, stop)
        return self.recall

    def wanted(self, assignment: Assignment, event: p.Recalled) -> tuple[Sequence[int], Sequence[Any]]:
        """What of these records nobody holds. Cut chunks that the log has no longer are passed over."""
        chunks = assignment.chunks
        indexes = [
            index
            for index, offset in enumerate(event.offsets)
            if offset >= self._next and offset in chunks.cut
        ]
        if event.offsets and event.offsets[-1] >= self._next:
            self._pass_gone(assignment, event.offsets[-1] + 1, frozenset(event.offsets))
        return [event.offsets[index] for index in indexes], [event.raws[index] for index in indexes]

    def admit(self, assignment: Assignment, entries: Sequence[Entry]) -> list[Entry]:
        """Take from what was read again that for which there is room."""
        chunks = assignment.chunks
        taken: list[Entry] = []
        begun: set[GroupKey] = set()
        for entry in entries:
            if not isinstance(entry, Part) or entry.verdict is not PART:
                entry.verdict = GONE  # another log's: what was cut was a chunk
            elif (key := key_of(entry)) not in chunks.groups and key not in begun:
                if self._has_cut and not entry.begins:
                    continue  # of a group that was cut in this very pass, most likely
                begun.add(key)
            if isinstance(entry, Part):
                entry.recalled = True
            chunks.cut.remove(entry.offset)
            taken.append(entry)
        return taken

    def ended(self, assignment: Assignment, reached: bool, now: p.Now) -> None:
        recall, self.recall = self.recall, None
        assert recall is not None
        chunks = assignment.chunks
        if reached:
            self._pass_gone(assignment, recall.stop, frozenset())
            # Until the first cut of the pass every chunk that it came to was taken: a group that was begun in it lacks none.
            known = self._begun_before if self._has_cut else self._shop.begun
            for group in chunks.groups.values():
                if group.number <= known:
                    group.maybe_cut = False
        self._fruitless = self._fruitless + 1 if chunks.cut and self._shop.left == self._left else 0
        self._left = self._shop.left
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._fruitless, 10))
        self._again_at = now.mono + pause if chunks.cut else now.mono

    def cancel(self, assignment: Assignment) -> Sequence[p.Command]:
        """The assignment ends: the recall under way is cancelled if it is one of its."""
        recall = self.recall
        if recall is None or recall.place != assignment.place:
            return ()
        self.recall = None
        return (p.CancelRecall(recall),)

    def _pass_gone(self, assignment: Assignment, stop: int, there: frozenset[int]) -> None:
        for offset in list(assignment.chunks.cut.within(self._next, stop)):
            if offset not in there:
                assignment.sorter.pass_gone(assignment, offset)
        self._next = stop


def _youngest(chunks: Assembler) -> int:
    group = chunks.youngest
    return group.number if group is not None else 0


def is_jammed(assignment: Assignment, *, holds_up: bool) -> bool:
    """Whether nothing moves because the offset map has no room for what lies between a message's chunks.

    What stands in the way then is another message's chunks, or its own: waiting does not help where it keeps this partition,
    or others (``holds_up``), from being read.
    """
    accounts, queues = assignment.accounts, assignment.queues
    under_way = accounts.in_flight or accounts.on_the_way or accounts.refused or queues.ready or queues.due
    if not queues.blocked or under_way or not assignment.hands_out:
        return False
    if not assignment.chunks and not queues.behind and not any(entry.others for entry in queues.blocked):
        return False
    position = assignment.progress.position
    # In order, the lowest one may stand behind another that came whole before it, and is blocked.
    return holds_up or queues.behind > 0 or any(entry.offset == position for entry in queues.blocked)
