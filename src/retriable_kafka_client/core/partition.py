"""One assignment: the period from when a partition is given to us until it is taken away.

It composes the accounts, the queues, the progress and the unfinished chunk groups of that partition, and is their lifecycle.
What concerns all partitions together (slots, bytes, hand-offs, commits) is not here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from retriable_kafka_client.core.accounts import Accounts, Load
from retriable_kafka_client.core.chunks import Assembler
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.offset_map import Binding, OffsetMap, OffsetMapError
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.place import Place
from retriable_kafka_client.core.progress import LEAST_MAP_UNITS, PartitionProgress
from retriable_kafka_client.core.protocol import Progress, Restored
from retriable_kafka_client.core.queues import Queues
from retriable_kafka_client.core.runs import runs_of
from retriable_kafka_client.core.sorting import Sorter

__all__ = ["Assignment"]


HEADS = 4  # polls that may be read again from their beginning
MOST_RESERVATIONS = (
    2_000  # unfinished chunk groups that may keep a place, in order: cut ones cost memory there
)


class Assignment:
    """State of one partition. Only the engine and its parts call it, on the loop's thread."""

    __slots__ = (
        "_heads",
        "_knows_topic",
        "_read_to",
        "_solo",
        "accounts",
        "begin",
        "chunks",
        "earliest",
        "on_hold",
        "parks",
        "paused",
        "phase",
        "place",
        "progress",
        "queues",
        "restore_problem",
        "restored",
        "retention_ms",
        "sorter",
        "uid",
    )

    def __init__(
        self,
        place: Place,
        *,
        parks: bool,
        map_units: int,
        least_units: int = LEAST_MAP_UNITS,
        load: Load | None = None,
        lanes: Lanes | None = None,
        on_hold: bool = False,
        chunks: Assembler | None = None,
        solo: bool = False,
        mark: Callable[[Sequence[Entry], int], None] | None = None,
    ) -> None:
        self.place = place
        self.parks = parks  # a retry topic: far-off messages may be re-published to its end
        self.phase = Phase.STARTING
        self.accounts = Accounts(load if load is not None else Load())
        self.progress = PartitionProgress(map_units, least_units)
        self.queues = Queues(self.accounts, self.progress, lanes, solo=solo)
        self.chunks = chunks if chunks is not None else Assembler()
        self.sorter = Sorter(self.accounts, self.queues, self.chunks, mark)
        self.uid = ""  # names the topic's incarnation in ids of messages
        self.retention_ms: int | None = None
        self.paused = False  # the client fetches nothing of it
        self.on_hold = on_hold  # the whole consumer pauses
        self.begin: int | None = None  # where consuming begins; None: where `earliest` says
        self.earliest = (
            parks  # without a position, begin where the log does; what waits for a retry must not be skipped
        )
        self.restored = 0  # messages that the restored map knows as done
        self.restore_problem: str | None = None
        self._knows_topic = False  # whether the brokers name the topic's id
        self._solo = solo  # what is `alone` has the whole consumer to itself
        self._read_to: int | None = None  # where the last poll ended
        self._heads: deque[tuple[int, int]] = deque(
            maxlen=HEADS
        )  # offset and timestamp of what polls began with

    # Questions ---------------------------------------------------------------------------------------------------------

    @property
    def hands_out(self) -> bool:
        """Whether its messages may still be started. Read by other threads, once per withdrawal."""
        return self.phase is Phase.RUNNING and not self.on_hold

    @property
    def messages(self) -> int:
        """Incomplete messages; chunks of unfinished ones do not count."""
        return self.progress.incomplete - self.accounts.beside - self.chunks.count - len(self.chunks.cut)

    @property
    def held(self) -> int:
        """Incomplete messages but those whose copy is in the air: these leave as soon as the broker answers.

        They do not count against the window: when a retry topic's window is made room in by parking, pausing for the few
        milliseconds of an acknowledgement would throw the prefetch away and cost a fetch's time.
        """
        return self.messages - self.accounts.sending

    @property
    def is_still(self) -> bool:
        """Whether nothing is with the workers, to be run, or to be sent again: what is left is being sent, or waits."""
        accounts, queues = self.accounts, self.queues
        return not (accounts.in_flight or accounts.refused or queues.has_active or len(queues.waiting))

    @property
    def drained(self) -> bool:
        """Whether nothing is under way. An overdue run changes nothing any more, but in order: the next owner must wait."""
        accounts = self.accounts
        running = accounts.in_flight
        if self.queues.lanes is None:
            running -= accounts.overdue
        return running == 0 and accounts.sending == 0 and accounts.refused == 0

    @property
    def is_idle(self) -> bool:
        """Whether it waits for records and holds none, and has nothing to commit; or does not read at all."""
        if self.phase is Phase.STARTING:
            return True
        accounts, progress = self.accounts, self.progress
        holds = progress.incomplete or accounts.in_flight or accounts.sending or accounts.active_bytes
        stays = holds or self.paused or self.on_hold or progress.has_uncommitted
        return self.phase is Phase.RUNNING and not stays

    @property
    def awaits_commit(self) -> bool:
        """Whether a commit of it is under way, which a message that is to have the consumer to itself waits for."""
        return self._solo and self.progress.awaits_answer

    @property
    def rests_until_ms(self) -> int | None:
        """When (wall clock) the nearest of its messages is due, if that is all there is to wait for; 0: it is not; None:
        it is idle.
        """
        if self.is_idle:
            return None
        queues = self.queues
        waiting = len(queues.waiting)
        only_waits = waiting and waiting == self.messages
        only_waits = only_waits and not (self.chunks or self.paused or self.progress.has_uncommitted)
        return (
            queues.waiting.next_due_ms
            if only_waits and not self.accounts.in_flight and not queues.lanes
            else 0
        )

    @property
    def has_many_reservations(self) -> bool:
        """In order: whether so many messages are not whole that no further ones may begin."""
        return len(self.chunks.reservations) >= MOST_RESERVATIONS

    @property
    def waits_for_chunks(self) -> bool:
        """In order: whether nothing moves, and nothing is read, before a message is whole or given up."""
        accounts, queues = self.accounts, self.queues
        if queues.lanes is None or not self.chunks.groups or self.on_hold:
            return False
        return self.has_many_reservations or (self.is_still and not accounts.sending)

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
        queues = self.queues
        return waiting >= share and (self.parks or len(queues.waiting) > 0 or queues.behind > 0)

    def comes_again(self, first: int, first_ms: int) -> bool:
        """Whether records below the next offset are those that came before, and not another log's.

        In a rebalance the client may go back to where its last poll began, and reads on from there (DESIGN.md). A log that
        was made anew or cut back is read from its beginning, which does not lie above the commit position.
        """
        goes_on = self._read_to is not None and first >= self._read_to
        return goes_on or first > self.progress.tracker.position or (first, first_ms) in self._heads

    def next_commit(self, besides: Collection[int] = (), *, anyway: bool = False) -> Progress | None:
        """What a commit should say now; None when there is nothing to say. Whoever sends it says so to ``progress``.

        ``besides``: these offsets, which are incomplete, are complete once the commit is in. ``anyway``: also what a commit
        under way says already.
        """
        progress = self.progress
        if not progress.has_begun or self.phase is Phase.ENDED or not (progress.dirty or besides or anyway):
            return None
        position, metadata = progress.encode(besides)
        return Progress(place=self.place, position=position, metadata=metadata, owner=self)

    # Beginning and end -------------------------------------------------------------------------------------------------

    def identify(self, restored: Restored) -> None:
        """Take note of which topic of which cluster it is."""
        self.uid = restored.uid
        self.retention_ms = restored.retention_ms
        self.earliest = self.earliest or restored.earliest
        self._knows_topic = restored.topic_id is not None
        self.progress.binding = Binding(
            f"{self.place.topic}/{self.place.partition}".encode(),
            (restored.uid if restored.topic_id is None else restored.topic_id).encode(),
            restored.cluster.encode(),
            restored.fallback_uid.encode() if self._knows_topic else None,
        )

    def succeed(self, old: Assignment, topic_id: str | None, retention_ms: int | None) -> None:
        """It is the same partition as ``old``; of another incarnation, which is read from its beginning, if ``topic_id`` is
        given.
        """
        self.uid, self._knows_topic = old.uid, old._knows_topic
        self.progress.binding, self.retention_ms = old.progress.binding, retention_ms
        if topic_id is None:
            self.paused = old.paused
        else:
            self.uid, self._knows_topic, self.earliest = topic_id, True, True
            self.progress.binding = self.progress.binding._replace(incarnation=topic_id.encode())
        self.restore(None, "")

    def restore(self, position: int | None, metadata: str) -> None:
        """Begin at the committed position with the completed offsets that its map names.

        A map of another incarnation says that the topic was made anew, if the brokers name them: then its
        position says nothing of the new one. In every other case the position counts.
        """
        self.phase = Phase.RUNNING
        if position is None:
            return
        restored: OffsetMap | None = None
        if metadata:
            try:
                restored = self.progress.decode(position, metadata)
            except OffsetMapError as error:
                self.restore_problem = error.reason
                if error.reason == "topic" and self._knows_topic:
                    self.earliest = True
                    return
        self.begin = position
        self.progress.begin(position, restored)
        self.restored = restored.completed if restored is not None else 0

    def begin_at(self, position: int) -> None:
        """Nothing is committed: begin here, and let the next commit say so, though nothing has come yet."""
        self.restore(position, "")
        self.progress.demand_commit()

    def pause(self) -> None:
        """Nothing more of it is fetched."""
        self.paused = True

    def resume(self) -> None:
        """Fetching goes on."""
        self.paused = False

    def hold(self, on: bool) -> None:
        """The whole consumer pauses, or goes on."""
        self.on_hold = on

    def drain(self) -> None:
        """Hand out nothing more and forget what has not been handed out."""
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.DRAINING
        self.queues.clear()
        self.chunks.clear()

    def end(self) -> None:
        """Commit nothing more; what is under way is left behind."""
        self.drain()
        self.phase = Phase.ENDED
        self.accounts.end()

    # Taking in ---------------------------------------------------------------------------------------------------------

    def note_poll(self, first: int, first_ms: int, stop: int) -> None:
        """A poll brought what stands from ``first`` up to ``stop``."""
        self._heads.append((first, first_ms))
        self._read_to = stop

    def take_back(self, entries: Sequence[Entry]) -> None:
        """These come back from the workers, unstarted, and go out first when handing out goes on."""
        self.queues.take_back(entries)

    # What becomes of messages ------------------------------------------------------------------------------------------

    def complete(self, first: int, stop: int, size: int) -> None:
        """These offsets, of active messages of ``size`` bytes, need no more work."""
        self.progress.complete(first, stop)
        self.accounts.drop(size)

    def complete_others(self, entry: Entry) -> None:
        """The offsets of the message's other chunks need no more work."""
        for first, stop in runs_of(entry.others):
            self.progress.complete(first, stop)
        self.accounts.part(len(entry.others))

    def step_on(self, entry: Entry) -> None:
        """``entry`` is complete and nobody runs it: what stands behind it in its lane may go."""
        self.queues.step_on(entry)

    def retry(self, entry: Entry) -> None:
        """Keep an active message that failed until its time comes again."""
        self.queues.retry(entry)

    def begin_overdue(self, entry: Entry) -> bool:
        """Its run has failed for its time limit, and goes on; whether the assignment still lives."""
        if self.phase is Phase.RUNNING:
            self.queues.linger(entry)
        return self.accounts.begin_overdue(entry.size)

    def end_overdue(self, entry: Entry) -> None:
        """Its overdue run has come to its end."""
        self.accounts.end_overdue(entry.size)
        self.queues.release(entry)

    def validate(self) -> None:
        """Check the invariants that no single step can break unnoticed."""
        accounts, queues = self.accounts, self.queues
        accounts.validate()
        self.progress.validate()
        queues.validate()
        if not self.progress.has_begun:
            return
        assert 0 <= len(queues.lingering) <= accounts.overdue
        if self.phase is Phase.DRAINING:
            assert not queues.has_active and not queues.waiting
        if self.phase is Phase.RUNNING:
            # What is neither queued nor in flight is being handed off.
            held = queues.held + accounts.in_flight - accounts.overdue
            assert held + accounts.sending <= self.messages, (held, accounts.sending, self.messages)
        self.chunks.validate()
