"""The messages of one assignment that are here and with nobody: in which order they are handed out, and what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from retriable_kafka_client.core.accounts import Accounts
from retriable_kafka_client.core.entry import GONE, Entry
from retriable_kafka_client.core.lanes import Lanes, Reservation
from retriable_kafka_client.core.offsets import Tracker
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.progress import PartitionProgress
from retriable_kafka_client.core.schedule import DueQueue, Keep, ParkingRule

__all__ = ["Queues", "completes_quietly"]


class Queues:
    """What is due goes first, then what is ready; both only below the frontier that the offset map has room for.

    Active bytes are counted in the accounts as messages come and go; what waits has its bytes here.
    """

    __slots__ = (
        "_accounts",
        "_blocked_at",
        "_progress",
        "_solo",
        "_reported_blocked",
        "batches",
        "blocked",
        "due",
        "lanes",
        "lingering",
        "park_again_at",
        "ready",
        "scan_again_at",
        "solos",
        "waiting",
    )

    def __init__(
        self, accounts: Accounts, progress: PartitionProgress, lanes: Lanes | None, *, solo: bool
    ) -> None:
        self._accounts = accounts
        self._progress = progress
        self._solo = solo  # what is `alone` has the whole consumer to itself
        self.ready: deque[Entry] = deque()  # may be handed out as soon as there is room
        self.batches: deque[PlainBatch] = (
            deque()
        )  # may be handed out, too; only while `ready` and `blocked` are empty
        self.blocked: deque[Entry] = deque()  # ready, but above what the offset map can hold
        self._blocked_at = 0  # the frontier when `blocked` was last sorted out
        self._reported_blocked = False  # the user knows that `blocked` is not empty
        self.due: deque[Entry] = deque()  # had to wait for its time, which has come
        self.waiting = DueQueue()
        self.lanes = lanes  # None: in no order; else all that is queued above or under way is a lane's head
        self.solos: deque[Entry] = deque()  # may be run, with the whole consumer to itself
        # In order: overdue runs by offset. Their lane waits for them, as does the retry in place, if one follows.
        self.lingering: dict[int, Entry | None] = {}
        self.park_again_at = (
            0.0  # monotonic; before, searching `waiting` for what can be parked finds next to nothing
        )
        self.scan_again_at = 0.0  # monotonic; when `waiting` is next searched for what retention nears

    # Questions ---------------------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether something may be handed out as soon as there is room."""
        return bool(self.ready or self.batches)

    @property
    def has_active(self) -> bool:
        """Whether something is to be run whose time has come."""
        return bool(self.ready or self.batches or self.due or self.blocked or self.solos)

    @property
    def behind(self) -> int:
        """Messages that wait for an earlier one to be complete."""
        return self.lanes.waiting if self.lanes is not None else 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits for its time, or for an earlier message."""
        return self.waiting.bytes if self.lanes is None else self.waiting.bytes + self.lanes.bytes

    # Coming in ---------------------------------------------------------------------------------------------------------

    def take_in_batch(self, batch: PlainBatch) -> None:
        """Take in fresh messages that may run at once and in any order."""
        self._accounts.hold(batch.size)
        if self.ready or self.blocked:
            self.ready.extend(batch.entries())
        else:
            self.batches.append(batch)

    def unbatch(self) -> None:
        """Something else stands beside them now."""
        for batch in self.batches:
            self.ready.extend(batch.entries())
        self.batches.clear()

    def enqueue(self, entry: Entry) -> None:
        """What waited behind another, or came whole, may be handed out once it is due."""
        self._accounts.hold(entry.size)
        self.unbatch()
        self.ready.append(entry)

    def take_back(self, entries: Sequence[Entry]) -> None:
        """These come back from the workers, unstarted, and go out first when handing out goes on."""
        self.due.extendleft(entry for entry in reversed(entries) if entry.not_before_ms is not None)
        plain = [entry for entry in entries if entry.not_before_ms is None]
        self.unbatch()
        self.ready.extendleft(reversed(plain))

    # Going out ---------------------------------------------------------------------------------------------------------

    def take_batch(self, room: int) -> PlainBatch | None:
        """Remove and return up to ``room`` messages of one batch, if the offset map can hold all that has come."""
        if not self.batches:
            return None
        tracker = self._progress.tracker
        if self._raise_frontier(tracker) < tracker.next_offset:
            self.unbatch()
            return None
        batch = self.batches.popleft()
        if len(batch) > room:
            self.batches.appendleft(batch.part(room, len(batch)))
            batch = batch.part(0, room)
        return batch

    def take(self, room: int, wall_ms: int) -> list[Entry]:
        """Remove and return up to ``room`` ready messages that the offset map can hold."""
        return self._take_from(self.ready, room, wall_ms, self._raise_frontier(self._progress.tracker))

    def take_due(self, room: int, wall_ms: int) -> list[Entry]:
        """Remove and return up to ``room`` messages, as ``take`` does, of those that had to wait for their time."""
        return self._take_from(self.due, room, wall_ms, self._raise_frontier(self._progress.tracker))

    def _raise_frontier(self, tracker: Tracker) -> int:
        frontier = tracker.admit(tracker.next_offset)
        if self.blocked and frontier > self._blocked_at:
            self.ready.extendleft(reversed(self.blocked))
            self.blocked.clear()
        self._blocked_at = frontier
        return frontier

    def _take_from(self, queue: deque[Entry], room: int, wall_ms: int, frontier: int) -> list[Entry]:
        taken: list[Entry] = []
        while queue and len(taken) < room:
            entry = queue.popleft()
            if entry.offset >= frontier or (entry.others and entry.last >= frontier):
                self.blocked.append(entry)
            elif entry.not_before_ms is not None and entry.not_before_ms > wall_ms and entry.verdict is None:
                self.put_off(entry)  # the wall clock was set back meanwhile
            elif self._solo and entry.alone and entry.verdict is None:
                self.solos.append(entry)
                break  # nothing more is started before it
            else:
                taken.append(entry)
        return taken

    def note_blocked(self) -> bool:
        """Take note of whether the offset map has no room for something; returns whether that is news."""
        blocked = bool(self.blocked)
        news = blocked and not self._reported_blocked
        self._reported_blocked = blocked
        return news

    def admit_beyond_map(self) -> None:
        """Let one of the blocked messages go all the same: commits will list less than is complete."""
        self._progress.tracker.admit_beyond(min(entry.last for entry in self.blocked) + 1)

    def wake_solo(self, wall_ms: int) -> bool:
        """Whether a message is to run alone now. What is not due any more, since the clock was set, goes back to wait."""
        while self.solos and (self.solos[0].not_before_ms or 0) > wall_ms:
            self.put_off(self.solos.popleft())
        return bool(self.solos)

    def take_solo(self) -> Entry:
        """Remove and return the first one that is to run alone."""
        return self.solos.popleft()

    # Waiting for their time --------------------------------------------------------------------------------------------

    def put_off(self, entry: Entry) -> None:
        """Move a message that is not due from the active ones to the waiting ones."""
        self._accounts.drop(entry.size)
        self.waiting.push(entry)

    def wake(self, wall_ms: int) -> None:
        """Move what has become due to where it goes out first."""
        for entry in self.waiting.pop_due(wall_ms):
            self._accounts.hold(entry.size)
            self.due.append(entry)

    def take_furthest(
        self, keep: Keep, below: int, wall_ms: int, rule: ParkingRule, again_at: float
    ) -> list[Entry]:
        """Remove and return what is to be parked, so that no more waits than ``keep`` says.

        A search of them all that finds next to nothing is not made again before ``again_at`` (monotonic).
        """
        taken = self.waiting.take_furthest(keep, below, wall_ms, rule)
        if len(taken) * 8 < len(self.waiting):
            self.park_again_at = again_at
        return taken

    def take_older(
        self, than_ms: int, below: int, wall_ms: int, rule: ParkingRule, again_at: float
    ) -> list[Entry]:
        """Remove and return what stands in the log since before ``than_ms``; the next search is due at ``again_at``."""
        self.scan_again_at = again_at
        return self.waiting.take_older(than_ms, below, wall_ms, rule)

    # In order ----------------------------------------------------------------------------------------------------------

    def step_on(self, entry: Entry) -> None:
        """``entry`` is complete: what stands behind it in its lane may go, unless an overdue run of it goes on."""
        if self.lanes is None or entry.offset in self.lingering:
            return
        if entry.is_part or entry.verdict is GONE:
            return  # it had no place of its own, and may stand where its message's is
        following = self.lanes.leave(entry)
        if following is not None:
            self.enqueue(following)

    def drop_reservation(self, reservation: Reservation) -> None:
        """A message will never be whole: what stood behind it may go."""
        assert self.lanes is not None
        following = self.lanes.drop(reservation)
        if following is not None:
            self.enqueue(following)

    def linger(self, entry: Entry) -> None:
        """Its run is overdue: the lane stays taken until ``release``."""
        if self.lanes is not None:
            self.lingering[entry.offset] = None

    def release(self, entry: Entry) -> None:
        """Its overdue run has come to its end."""
        if entry.offset not in self.lingering:
            return
        again = self.lingering.pop(entry.offset)
        if again is not None:
            self.put_off(again)
        elif not self._progress.tracker.is_incomplete(entry.offset):
            self.step_on(entry)

    def retry(self, entry: Entry) -> None:
        """Keep an active message that failed until its time comes again."""
        if entry.offset in self.lingering:
            self.lingering[entry.offset] = entry
        else:
            self.put_off(entry)

    # The end -----------------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything."""
        size = sum(batch.size for batch in self.batches)
        size += sum(again.size for again in self.lingering.values() if again is not None)
        for queue in (self.ready, self.blocked, self.due, self.solos):
            size += sum(entry.size for entry in queue)
            queue.clear()
        self._accounts.drop(size)
        self.batches.clear()
        self.waiting.clear()
        self.lingering.clear()
        if self.lanes is not None:
            self.lanes.clear()

    @property
    def held(self) -> int:
        """Messages in these queues, and retries that wait for their overdue runs."""
        count = len(self.ready) + len(self.due) + len(self.blocked) + len(self.solos) + len(self.waiting)
        count += sum(map(len, self.batches)) + self.behind
        return count + len(self.lingering) - list(self.lingering.values()).count(None)

    def validate(self) -> None:
        """Check the invariants."""
        self.waiting.validate()
        if not self._progress.has_begun:
            assert not self.has_active and not len(self.waiting)
            return
        tracker = self._progress.tracker
        assert not self.batches or (not self.ready and not self.blocked and self.lanes is None)
        for batch in self.batches:
            assert all(map(tracker.is_incomplete, batch.offsets))
        for entry in (*self.ready, *self.due):
            assert tracker.is_incomplete(entry.offset)
        if self.lanes is not None:
            self.lanes.validate()
            for entry in (*self.ready, *self.due, *self.blocked):
                assert completes_quietly(entry) or entry.is_part or self.lanes.is_head(entry)


def completes_quietly(entry: Entry) -> bool:
    """Whether it completes without a trace: that needs no order."""
    return entry.verdict is not None and entry.verdict.reason is None
