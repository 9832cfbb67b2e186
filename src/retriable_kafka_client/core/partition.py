"""One assignment: the period from when a partition is given to us until it is taken away.

It composes the offset tracker, the due queue and the ready queue of that partition. What concerns all partitions together
(slots, bytes, hand-offs, commits) is the engine's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum

from retriable_kafka_client.core.chunks import Assembler, GroupKey, Part, key_of
from retriable_kafka_client.core.entry import GONE, PART, Entry, Verdict
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.offset_map import Binding, OffsetMap, OffsetMapError, decode
from retriable_kafka_client.core.offsets import Tracker
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.protocol import Place, Progress, Restored
from retriable_kafka_client.core.runs import runs_of
from retriable_kafka_client.core.schedule import DueQueue
from retriable_kafka_client.events import REASON_NOT_BEFORE
from retriable_kafka_client.wire.headers import PLAIN

__all__ = ["LEAST_MAP_UNITS", "YEAR_MS", "Assignment", "Phase"]


YEAR_MS = 366 * 24 * 3600 * 1000  # a not-before further off than this is a mistake, and dead-lettered
LEAST_MAP_UNITS = 100  # with less room than this for its map, a partition goes without
HEADS = 4  # polls that may be read again from their beginning
MOST_RESERVATIONS = (
    2_000  # unfinished chunk groups that may keep a place, in order: cut ones cost memory there
)
NO_MAP = 2**31  # a budget that holds nothing up


class Phase(Enum):
    """How far an assignment has come."""

    STARTING = "starting"  # position and map are being asked for; nothing is consumed
    RUNNING = "running"
    DRAINING = "draining"  # hands out nothing more; what runs may finish
    ENDED = "ended"  # commits nothing; late results are dropped


class Assignment:
    """State of one partition. Only the engine calls it, on the loop's thread."""

    __slots__ = (
        "_heads",
        "_least_units",
        "_told",
        "_read_to",
        "active_bytes",
        "batches",
        "begin",
        "beside",
        "blocked",
        "blocked_at",
        "budget_units",
        "chunks",
        "completed",
        "dirty",
        "due",
        "earliest",
        "in_flight",
        "lanes",
        "lingering",
        "mark",
        "on_hold",
        "overdue",
        "park_again_at",
        "parks",
        "paused",
        "phase",
        "place",
        "ready",
        "restore_problem",
        "restored",
        "retention_ms",
        "scanned_at",
        "refused",
        "sending",
        "sent_completed",
        "solo",
        "solos",
        "taken",
        "told_blocked",
        "told_completed",
        "tracker",
        "binding",
        "uid",
        "waiting",
        "withheld",
    )

    def __init__(
        self,
        place: Place,
        *,
        parks: bool,
        budget_units: int,
        least_units: int = LEAST_MAP_UNITS,
        lanes: Lanes | None = None,
        on_hold: bool = False,
        chunks: Assembler | None = None,
        solo: bool = False,
        mark: Callable[[Sequence[Entry], int], None] | None = None,
    ) -> None:
        self.place = place
        self.parks = parks  # a retry topic: far-off messages may be re-published to its end
        self.phase = Phase.STARTING
        self.uid = ""  # names the topic's incarnation in ids of messages
        self.binding = Binding(b"", b"")  # what an offset map of this partition is bound to
        self._told = False  # whether the brokers tell the topic's id
        self.retention_ms: int | None = None
        self.tracker: Tracker | None = None  # None until the first offset is known
        self._read_to: int | None = None  # where the last poll ended
        self._heads: deque[tuple[int, int]] = deque(
            maxlen=HEADS
        )  # offset and timestamp of what polls began with
        self.budget_units = budget_units  # of the offset map
        self._least_units = least_units  # with a smaller budget there is no map
        self.ready: deque[Entry] = deque()  # may be handed out as soon as there is room
        self.batches: deque[PlainBatch] = deque()  # likewise; only while `ready` and `blocked` are empty
        self.blocked: deque[Entry] = deque()  # ready, but above what the offset map can hold
        self.blocked_at = 0  # the frontier when `blocked` was last sorted out
        self.due: deque[Entry] = deque()  # had to wait for its time, which has come
        self.waiting = DueQueue()
        self.lanes = lanes  # None: in no order; else all that is queued above or under way is a lane's head
        self.chunks = chunks if chunks is not None else Assembler()
        self.completed = 0  # offsets, since it began
        self.sent_completed = 0  # of these, what the last commit says
        self.told_completed = 0  # and what an acknowledged one does
        self.mark = mark  # what is known of them from before; at this time of the wall clock
        self.solo = solo  # what is `alone` has the whole consumer to itself
        self.solos: deque[Entry] = deque()  # of these, what may be run
        self.beside = 0  # offsets of whole messages besides their lowest ones
        self.in_flight = 0  # handed to the workers
        self.overdue = 0  # of these, failed for their time limit, and running still
        # In order: overdue runs by offset. Their lane waits for them, as does the retry in place, if one follows.
        self.lingering: dict[int, Entry | None] = {}
        self.refused = 0  # copies that were refused, and wait to be sent again
        self.sending = 0  # copies produced and not answered
        self.active_bytes = (
            0  # of all incomplete entries that neither wait in `waiting` nor behind a lane's head
        )
        self.paused = False
        self.on_hold = on_hold  # the whole consumer pauses
        self.told_blocked = False  # the user knows that `blocked` is not empty
        self.dirty = False  # there is progress that no acknowledged commit holds
        self.withheld = 0  # exactly once: of `sending`, what no offset map could tell yet as complete
        self.taken: tuple[int, str] = (-1, "")  # exactly once: position and map that the broker took last
        self.begin: int | None = None  # where consuming begins; None: where `earliest` says
        self.earliest = (
            parks  # without a position, begin where the log does; what waits for a retry must not be skipped
        )
        self.restored = 0  # messages that the restored map knows as done
        self.restore_problem: str | None = None
        self.park_again_at = 0.0  # monotonic; before, searching `waiting` for what can be parked is in vain
        self.scanned_at = 0.0  # monotonic; when `waiting` was last searched for what retention nears

    @property
    def topic(self) -> str:
        return self.place.topic

    @property
    def partition(self) -> int:
        return self.place.partition

    @property
    def hands_out(self) -> bool:
        """Whether its messages may still be started. Read by other threads, once per withdrawal."""
        return self.phase is Phase.RUNNING and not self.on_hold

    @property
    def _map_room(self) -> int:
        """What admission reckons with. Where no map fits, positions are committed bare rather than work held up."""
        return self.budget_units if self.has_map else NO_MAP

    @property
    def has_map(self) -> bool:
        """Whether its commits carry an offset map."""
        return self.budget_units >= self._least_units

    @property
    def incomplete(self) -> int:
        return self.tracker.incomplete if self.tracker is not None else 0

    @property
    def held(self) -> int:
        """Incomplete messages but those whose copy is in the air: these leave as soon as the broker answers.

        They do not count against the window: when a retry topic's window is made room in by parking, pausing for the few
        milliseconds of an acknowledgement would throw the prefetch away and cost a fetch's time.
        """
        return self.messages - self.sending

    @property
    def messages(self) -> int:
        """Incomplete messages; chunks of unfinished ones do not count."""
        return self.incomplete - self.beside - self.chunks.count - len(self.chunks.cut)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits for its time, or for an earlier message."""
        return self.waiting.bytes if self.lanes is None else self.waiting.bytes + self.lanes.bytes

    @property
    def behind(self) -> int:
        """Messages that wait for an earlier one to be complete."""
        return self.lanes.waiting if self.lanes is not None else 0

    @property
    def is_still(self) -> bool:
        """Whether nothing is with the workers, to be run, or to be sent again: what is left is being sent, or waits."""
        moves = (
            self.in_flight
            or self.is_ready
            or self.due
            or self.blocked
            or self.solos
            or self.refused
            or len(self.waiting)
        )
        return not moves

    @property
    def drained(self) -> bool:
        """Whether nothing is under way. An overdue run changes nothing any more, but in order: the next owner must wait."""
        running = self.in_flight if self.lanes is not None else self.in_flight - self.overdue
        return running == 0 and self.sending == 0 and self.refused == 0

    @property
    def owes(self) -> bool:
        """Whether there is something to commit."""
        return self.dirty and self.tracker is not None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for records and holds none, and has nothing to commit; or does not read at all."""
        if self.phase is Phase.STARTING:
            return True
        holds = self.incomplete or self.in_flight or self.sending or self.active_bytes
        return self.phase is Phase.RUNNING and not (holds or self.paused or self.on_hold or self.owes)

    @property
    def is_unanswered(self) -> bool:
        """Whether a commit of it is under way, which a message that is to have the consumer to itself waits for."""
        return self.solo and self.told_completed < self.sent_completed

    @property
    def rests_until_ms(self) -> int | None:
        """When the nearest of its messages is due, if that is all there is to wait for; 0: it is not; None: it is idle."""
        waiting = len(self.waiting)
        if self.is_idle:
            return None
        only_waits = waiting and waiting == self.messages and not (self.chunks or self.paused or self.owes)
        return self.waiting.next_due_ms if only_waits and not self.in_flight and not self.lanes else 0

    # Beginning ---------------------------------------------------------------------------------------------------------

    def identify(self, restored: Restored) -> None:
        """Take note of which topic of which cluster it is."""
        self.uid = restored.uid
        self._told = restored.topic_id is not None
        self.binding = Binding(
            f"{self.place.topic}/{self.place.partition}".encode(),
            (restored.uid if restored.topic_id is None else restored.topic_id).encode(),
            restored.cluster.encode(),
            restored.untold_uid.encode() if self._told else None,
        )

    def succeed(self, old: Assignment, topic_id: str | None) -> None:
        """It is the same partition as ``old``; of another incarnation, if ``topic_id`` is given."""
        self.uid, self.binding, self._told = old.uid, old.binding, old._told
        if topic_id is not None:
            self.uid, self._told = topic_id, True
            self.binding = old.binding._replace(incarnation=topic_id.encode())

    def restore(self, position: int | None, metadata: str) -> None:
        """Begin at the committed position with the completed offsets that its map names.

        A map of another incarnation says that the topic was made anew, if the brokers tell incarnations apart: then its
        position says nothing of the new one. In every other case the position counts.
        """
        self.phase = Phase.RUNNING
        if position is None:
            return
        restored: OffsetMap | None = None
        if metadata:
            try:
                restored = decode(metadata, base=position, binding=self.binding)
            except OffsetMapError as error:
                self.restore_problem = error.reason
                if error.reason == "topic" and self._told:
                    self.earliest = True
                    return
        self.begin = position
        self.tracker = Tracker(position, restored, budget_units=self._map_room)
        self.restored = restored.completed if restored is not None else 0

    def begin_at(self, position: int) -> None:
        """Nothing is committed: begin here, and let the next commit say so, though nothing has come yet."""
        self.restore(position, "")
        self.dirty = True

    def comes_again(self, first: int, first_ms: int) -> bool:
        """Whether records below the next offset are those that came before, and not another log's.

        In a rebalance the client may go back to where its last poll began, and reads on from there (DESIGN.md). A log that
        was made anew or cut back is read from its beginning, which does not lie above the commit position.
        """
        assert self.tracker is not None
        goes_on = self._read_to is not None and first >= self._read_to
        return goes_on or first > self.tracker.position or (first, first_ms) in self._heads

    def note_poll(self, first: int, first_ms: int, stop: int) -> None:
        """A poll brought what stands from ``first`` up to ``stop``."""
        self._heads.append((first, first_ms))
        self._read_to = stop

    def register(self, offsets: Sequence[int]) -> list[tuple[int, int]]:
        """Take note of delivered offsets (increasing) and return the runs of them that are not done already."""
        if self.tracker is None:
            self.tracker = Tracker(offsets[0], budget_units=self._map_room)
        self.dirty = True
        fresh: list[tuple[int, int]] = []
        for first, stop in runs_of(offsets):
            fresh += self.tracker.register(first, stop)
        return fresh

    def take_in_batch(self, batch: PlainBatch) -> None:
        """Take in fresh messages that may run at once and in any order."""
        self.active_bytes += batch.size
        if self.ready or self.blocked:
            self.ready.extend(batch.entries())
        else:
            self.batches.append(batch)

    def _unbatch(self) -> None:
        """Something else stands beside them now."""
        for batch in self.batches:
            self.ready.extend(batch.entries())
        self.batches.clear()

    def take_in(self, entries: Iterable[Entry], wall_ms: int, mono: float = 0.0) -> None:
        """Sort fresh messages into what is ready, what is due and what waits: for its time, or for more chunks."""
        active = 0
        lanes = self.lanes
        self._unbatch()
        for entry in entries:
            if entry.verdict is PART:
                assert isinstance(entry, Part)
                self._assemble(entry, wall_ms, mono)
                continue
            not_before_ms = entry.not_before_ms
            if not_before_ms is not None:
                _refuse_far_off(entry, not_before_ms, wall_ms)
            if lanes is not None and not _is_silent(entry) and not lanes.enter(entry):
                continue
            if not_before_ms is not None and entry.verdict is None:
                if not_before_ms > wall_ms:
                    self.waiting.push(entry)
                    continue
                self.due.append(entry)
                active += entry.size
                continue
            self.ready.append(entry)
            active += entry.size
        self.active_bytes += active

    def _assemble(self, part: Part, wall_ms: int, mono: float) -> None:
        chunks, key = self.chunks, key_of(part)
        released = chunks.take(self, part, wall_ms, mono)
        if self.lanes is not None and key in chunks.groups and key not in chunks.reservations:
            chunks.reservations[key] = self.lanes.reserve(part.key, part.offset)
        self._let_go(key, released, wall_ms)

    def give_up_expired(self, wall_ms: int, mono: float, log_ms: int, *, first_only: bool = False) -> None:
        """Wait no longer for chunks that should have come by now, when the log stands at ``log_ms``.

        ``first_only``: of the group alone that begins first.
        """
        expired = self.chunks.expired(mono, log_ms)
        if first_only:
            expired = sorted(expired, key=lambda key: self.chunks.groups[key].first)[:1]
        for key in expired:
            self._let_go(key, self.chunks.expire(key), wall_ms)

    def _let_go(self, key: GroupKey, released: Sequence[Entry], wall_ms: int) -> None:
        """Sort what has left the assembler: a whole message, or chunks with a verdict, which need no order."""
        if not released:
            return
        if self.mark is not None:
            self.mark(released, wall_ms)
        reservation = self.chunks.reservations.pop(key, None) if key not in self.chunks.groups else None
        for entry in released:
            self.beside += len(entry.others)
            due_ms = entry.not_before_ms
            if due_ms is not None:
                _refuse_far_off(entry, due_ms, wall_ms)
            if reservation is not None and not isinstance(entry, Part):
                assert self.lanes is not None
                entry.key = reservation.key  # who names another key in a later chunk changes nothing
                if not self.lanes.fill(reservation, entry):
                    return
            if entry.verdict is None and due_ms is not None and due_ms > wall_ms:
                self.waiting.push(entry)
            else:
                self.enqueue(entry)
        if reservation is not None and isinstance(released[0], Part):
            assert self.lanes is not None
            following = self.lanes.drop(reservation)
            if following is not None:
                self.enqueue(following)

    def drop_lost_reservations(self) -> None:
        """Nothing is cut: a message whose chunks are not held either has gone from the log, and nobody waits for it."""
        for key in [key for key in self.chunks.reservations if key not in self.chunks.groups]:
            assert self.lanes is not None
            following = self.lanes.drop(self.chunks.reservations.pop(key))
            if following is not None:
                self.enqueue(following)

    def pass_gone(self, offset: int) -> None:
        """A chunk that was cut is no longer in the log."""
        self.chunks.cut.remove(offset)
        self.enqueue(Entry.marked(self, offset, 0, None, PLAIN, 0, verdict=GONE))

    def holds_too_much(self, window: int, share: int, active: int, waiting: int, squeezed: int = 0) -> bool:
        """Whether it is time to read no further.

        ``active`` and ``waiting`` are the bytes of all partitions: each kind has a ``share`` of its own, so that what
        waits for its time cannot starve what is at hand. ``squeezed``: what a large chunk group takes of the active's.
        """
        if active >= share - squeezed or self.has_many_reservations:
            return True
        # What stands behind a message that is not whole goes on only when its other chunks are read: the bytes alone count.
        if (self.held >= window or self.messages >= 2 * window) and not self.waits_for_chunks:
            return True
        # What a retry topic brings next will mostly wait.
        return waiting >= share and (self.parks or len(self.waiting) > 0 or self.behind > 0)

    def pass_over(self, position: int) -> None:
        """Nothing came up to ``position``: markers and compaction leave offsets without records, which a commit must tell.

        A log that holds nothing else begins there.
        """
        if self.tracker is None:
            self.tracker = Tracker(position, budget_units=self._map_room)
            self.dirty = True
        elif self.tracker.incomplete == 0 and position > self.tracker.next_offset:
            self.tracker.advance(position)
            self.dirty = True

    # Handing out -------------------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether something may be handed out as soon as there is room."""
        return bool(self.ready or self.batches)

    def take_batch(self, room: int) -> PlainBatch | None:
        """Remove and return up to ``room`` messages of one batch, if the offset map can hold all that has come."""
        if not self.batches:
            return None
        tracker = self.tracker
        assert tracker is not None
        if self._raise_frontier(tracker) < tracker.next_offset:
            self._unbatch()
            return None
        batch = self.batches.popleft()
        if len(batch) > room:
            self.batches.appendleft(batch.part(room, len(batch)))
            batch = batch.part(0, room)
        return batch

    def take(self, room: int, wall_ms: int) -> list[Entry]:
        """Remove and return up to ``room`` ready messages that the offset map can hold."""
        tracker = self.tracker
        assert tracker is not None
        return self._take_from(self.ready, room, wall_ms, self._raise_frontier(tracker))

    def take_due(self, room: int, wall_ms: int) -> list[Entry]:
        """Likewise of what had to wait for its time, which goes before everything else."""
        tracker = self.tracker
        assert tracker is not None
        return self._take_from(self.due, room, wall_ms, self._raise_frontier(tracker))

    def _raise_frontier(self, tracker: Tracker) -> int:
        frontier = tracker.admit(tracker.next_offset)
        if self.blocked and frontier > self.blocked_at:
            self.ready.extendleft(reversed(self.blocked))
            self.blocked.clear()
        self.blocked_at = frontier
        return frontier

    def _take_from(self, queue: deque[Entry], room: int, wall_ms: int, frontier: int) -> list[Entry]:
        taken: list[Entry] = []
        while queue and len(taken) < room:
            entry = queue.popleft()
            if entry.offset >= frontier or (entry.others and entry.last >= frontier):
                self.blocked.append(entry)
            elif entry.not_before_ms is not None and entry.not_before_ms > wall_ms and entry.verdict is None:
                self.put_off(entry)  # the wall clock was set back meanwhile
            elif self.solo and entry.alone and entry.verdict is None:
                self.solos.append(entry)
                break  # nothing more is started before it
            else:
                taken.append(entry)
        return taken

    def has_solo(self, wall_ms: int) -> bool:
        """Whether a message waits to run alone. What is not due any more, since the clock was set, waits on."""
        while self.solos and (self.solos[0].not_before_ms or 0) > wall_ms:
            self.put_off(self.solos.popleft())
        return bool(self.solos)

    def put_off(self, entry: Entry) -> None:
        """Move a message that is not due from the active ones to the waiting ones."""
        self.active_bytes -= entry.size
        self.waiting.push(entry)

    def wake(self, wall_ms: int) -> None:
        """Move what has become due to where it goes out first."""
        for entry in self.waiting.pop_due(wall_ms):
            self.active_bytes += entry.size
            self.due.append(entry)

    def step_on(self, entry: Entry) -> None:
        """``entry`` is complete and nobody runs it: what stands behind it in its lane may go."""
        if self.lanes is None or entry.offset in self.lingering:
            return
        if isinstance(entry, Part) or entry.verdict is GONE:
            return  # it had no place of its own, and may stand where its message's is
        following = self.lanes.leave(entry)
        if following is not None:
            self.enqueue(following)

    def enqueue(self, entry: Entry) -> None:
        """What waited behind another, or came whole, may be handed out once it is due."""
        self.active_bytes += entry.size
        self._unbatch()
        self.ready.append(entry)

    def take_back(self, entries: Sequence[Entry]) -> None:
        """These come back from the workers, unstarted, and go out first when handing out goes on."""
        self.due.extendleft(entry for entry in reversed(entries) if entry.not_before_ms is not None)
        plain = [entry for entry in entries if entry.not_before_ms is None]
        self._unbatch()
        self.ready.extendleft(reversed(plain))

    def linger(self, entry: Entry) -> None:
        """Its run is overdue: the lane stays taken until ``release``."""
        self.overdue += 1
        if self.lanes is not None and self.phase is Phase.RUNNING:
            self.lingering[entry.offset] = None

    def release(self, entry: Entry) -> None:
        """Its overdue run has come to its end."""
        self.overdue -= 1
        if entry.offset not in self.lingering:
            return
        again = self.lingering.pop(entry.offset)
        assert self.tracker is not None
        if again is not None:
            self.put_off(again)
        elif not self.tracker.is_incomplete(entry.offset):
            self.step_on(entry)

    def retry(self, entry: Entry) -> None:
        """Keep an active message that failed until its time comes again."""
        if entry.offset in self.lingering:
            self.lingering[entry.offset] = entry
        else:
            self.put_off(entry)

    # Progress ----------------------------------------------------------------------------------------------------------

    def complete(self, first: int, stop: int, size: int) -> None:
        """These offsets, of active messages of ``size`` bytes, need no more work."""
        assert self.tracker is not None
        self.tracker.complete(first, stop)
        self.completed += stop - first
        self.active_bytes -= size
        self.dirty = True

    def complete_others(self, entry: Entry) -> None:
        """Likewise of the message's other chunks."""
        for first, stop in runs_of(entry.others):
            self.complete(first, stop, 0)
        self.beside -= len(entry.others)

    def admit_beyond_map(self) -> None:
        """Let one of the blocked messages go all the same: commits will tell less than is complete."""
        assert self.tracker is not None
        self.tracker.admit_beyond(min(entry.last for entry in self.blocked) + 1)

    @property
    def has_many_reservations(self) -> bool:
        """In order: whether so many messages are not whole that no further ones may begin."""
        return len(self.chunks.reservations) >= MOST_RESERVATIONS

    @property
    def waits_for_chunks(self) -> bool:
        """In order: whether nothing moves, and nothing is read, before a message is whole or given up."""
        if self.lanes is None or not self.chunks.groups or self.on_hold:
            return False
        under_way = (
            self.in_flight
            or self.sending
            or self.refused
            or self.ready
            or self.due
            or self.blocked
            or self.solos
        )
        return self.has_many_reservations or (not under_way and not len(self.waiting))

    def progress(self, besides: Collection[int] = ()) -> Progress | None:
        """What a commit should say now; None when there is nothing to say. Marks the progress as on its way.

        ``besides``: these offsets, which are incomplete, are complete once the commit is in.
        """
        if self.tracker is None or not (self.dirty or besides) or self.phase is Phase.ENDED:
            return None
        self.dirty = False
        self.sent_completed = self.completed
        metadata = ""
        if self.has_map:
            metadata = self.tracker.encode(self.binding, besides, units=len(self.taken[1]))
        return Progress(
            place=self.place, position=self.tracker.position_with(besides), metadata=metadata, token=self
        )

    def told_with(self, besides: Collection[int]) -> int:
        """Where the map ends that a commit with these can carry: it tells nothing from there on."""
        assert self.tracker is not None
        text = self.tracker.encode(self.binding, besides, units=len(self.taken[1]))
        return decode(text, base=self.tracker.position_with(besides), binding=self.binding).end

    def shorten_map(self, budget_units: int) -> None:
        """The broker takes no more than this for an offset map."""
        self.budget_units = budget_units
        if self.tracker is not None:
            self.tracker.set_budget(self._map_room)
        self.dirty = True

    def drain(self) -> None:
        """Hand out nothing more and forget what has not been handed out."""
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.DRAINING
        for queue in (self.ready, self.blocked, self.due, self.solos):
            for entry in queue:
                self.active_bytes -= entry.size
            queue.clear()
        self.active_bytes -= sum(batch.size for batch in self.batches)
        self.batches.clear()
        self.waiting.clear()
        self.chunks.clear()
        for again in self.lingering.values():
            self.active_bytes -= again.size if again is not None else 0
        self.lingering.clear()
        if self.lanes is not None:
            self.lanes.clear()

    def end(self) -> None:
        self.drain()
        self.phase = Phase.ENDED

    def validate(self) -> None:
        """Check the invariants that no single step can break unnoticed."""
        self.waiting.validate()
        assert self.active_bytes >= 0 and self.in_flight >= 0 and self.sending >= 0
        if self.tracker is None:
            assert not self.is_ready and not self.due and not self.blocked and not len(self.waiting)
            return
        self.tracker.validate()
        held = len(self.ready) + len(self.due) + len(self.blocked) + len(self.waiting) + self.behind
        held += len(self.solos)
        held += sum(map(len, self.batches)) + self.in_flight - self.overdue
        held += len(self.lingering) - list(self.lingering.values()).count(None)
        assert 0 <= self.withheld <= self.sending
        assert 0 <= len(self.lingering) <= self.overdue <= self.in_flight
        if self.phase is Phase.DRAINING:
            assert not self.is_ready and not self.due and not self.blocked and not self.waiting
        if self.phase is Phase.RUNNING:
            # What is neither queued nor in flight is being handed off.
            assert held + self.sending <= self.messages, (held, self.sending, self.messages)
        self.chunks.validate()
        assert self.beside >= 0
        assert not self.batches or (not self.ready and not self.blocked and self.lanes is None)
        for batch in self.batches:
            assert all(map(self.tracker.is_incomplete, batch.offsets))
        for entry in (*self.ready, *self.due):
            assert self.tracker.is_incomplete(entry.offset)
        if self.lanes is not None:
            self.lanes.validate()
            for entry in (*self.ready, *self.due, *self.blocked):
                assert _is_silent(entry) or isinstance(entry, Part) or self.lanes.is_head(entry)


def _refuse_far_off(entry: Entry, not_before_ms: int, wall_ms: int) -> None:
    """A time more than a year from now is a mistake, and not waited for."""
    if entry.verdict is None and not_before_ms > wall_ms + YEAR_MS:
        entry.verdict = Verdict(REASON_NOT_BEFORE)


def _is_silent(entry: Entry) -> bool:
    """Whether it completes without a trace: that needs no order."""
    return entry.verdict is not None and entry.verdict.reason is None
