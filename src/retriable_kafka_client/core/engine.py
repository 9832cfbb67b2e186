"""The consumer's decisions: ``handle(event, now)`` in, commands out. No I/O, no clock, no randomness.

The engine passes each event to the part whose matter it is: which partitions are ours (``ownership``), handing out
(``dispatch``), what becomes of a run (``outcomes``), pausing (``throttle``), unfinished chunk groups (``assembly``), parking
and commits. Every part returns commands. The shell performs them in order and reports what came of them as further events.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.assignments import Assignments
from retriable_kafka_client.core.chunks import Joiner
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.dispatch import Dispatch
from retriable_kafka_client.core.engine_config import Counters, EngineConfig, Route
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.ownership import Ownership, OwnershipEvent
from retriable_kafka_client.core.parking import Parking
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.runs import within
from retriable_kafka_client.core.standstill import Holder, Standstills
from retriable_kafka_client.core.suspects import Suspects
from retriable_kafka_client.core.throttle import Throttle

__all__ = ["Counters", "Engine", "EngineConfig", "Route"]


class Engine:
    """See the module's docstring.

    ``read`` makes an Entry of each opaque record, or a PlainBatch of all if all are plain; it must not raise.
    """

    def __init__(
        self,
        config: EngineConfig,
        read: Callable[[Assignment, Sequence[int], Sequence[Any]], list[Entry] | PlainBatch],
        joiner: Joiner | None = None,
    ) -> None:
        self.counters = Counters()
        self.stopping = False
        self._config = config
        self._read = read
        self._load = Load()
        self._assignments = Assignments()
        self._commits = Commits(config.commit_interval, config.map_units)
        self._transactions: Transactions | None = None
        if config.exactly_once:
            self._transactions = Transactions(self._commits, config.commit_interval, config.transaction_bytes)
        self._outcomes = Outcomes(config, self.counters, self._transactions)
        self._suspects = Suspects()
        self._dispatch = Dispatch(config, self._load, self._outcomes, self.counters, self._suspects)
        self._parking = Parking(config)
        self._assembly = Assembly(config, joiner, self.counters)
        self._throttle = Throttle(config, self._load, self._assignments, self._assembly)
        self._standstills = Standstills()
        self._ownership = Ownership(
            config,
            self._load,
            self._assignments,
            commits=self._commits,
            transactions=self._transactions,
            outcomes=self._outcomes,
            assembly=self._assembly,
            throttle=self._throttle,
            suspects=self._suspects,
        )

    # What the shell may ask --------------------------------------------------------------------------------------------

    @property
    def assignments(self) -> Mapping[p.Place, Assignment]:
        """All partitions that are ours."""
        return self._assignments.by_place

    @property
    def busy(self) -> Collection[Assignment]:
        """Assignments that hold something, or have something to commit; the others wait for records alone."""
        return self._assignments.busy.keys()

    @property
    def on_hold(self) -> bool:
        """Whether the whole consumer pauses."""
        return self._throttle.on_hold

    @property
    def in_flight(self) -> int:
        """Messages with the workers, those of ended assignments included."""
        return self._load.in_flight

    @property
    def overrun(self) -> int:
        """Messages with the workers whose assignment has ended."""
        return self._load.overrun

    @property
    def refusals(self) -> Mapping[str, str]:
        """Topics that refuse copies at present, with the error code."""
        return self._outcomes.refusals

    @property
    def unclear(self) -> Mapping[str, str]:
        """Topics that were given to us and are not read, because they are not clearly one entry's; with the reason."""
        return self._ownership.unclear

    @property
    def is_solo(self) -> bool:
        """Whether one message has all of the workers to itself, or waits for that."""
        return self._dispatch.solo.holds

    @property
    def standing(self) -> Mapping[Assignment, Holder]:
        """Partitions that have been read no further for a while, and what holds them."""
        return self._standstills.standing

    @property
    def active_bytes(self) -> int:
        """Bytes of messages that are due, with the workers, or being handed off; of ended assignments too."""
        return self._throttle.active_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits for its time, or for an earlier message."""
        return self._assignments.waiting_bytes

    @property
    def assembling_bytes(self) -> int:
        """Bytes of chunks whose messages are not whole."""
        return self._assignments.assembling_bytes

    @property
    def held_up(self) -> bool:
        """Whether messages at hand wait for others to end: for one before them, or for room with the workers."""
        return self._dispatch.is_held_up(self._assignments.busy)

    def poll_budget(self, most: int) -> int:
        """How many records to poll at once so that no window is overrun, at most ``most`` and at least 1."""
        return self._throttle.poll_budget(most)

    def reread_budget(self, most: int) -> int:
        """How many records a Recall may take now, at most ``most``; 0: it has to wait."""
        return self._throttle.reread_budget(most)

    def rest(self, now: p.Now, most: float) -> float:
        """For how long, at most so many seconds, nothing is to be done unless something happens outside; 0: there is
        something under way.
        """
        if self._load.in_flight or self.on_hold or self.stopping:
            return 0.0
        for assignment in self._assignments.busy:
            due_ms = assignment.rests_until_ms
            if due_ms is not None:
                most = min(most, due_ms / 1000 - now.wall)
        return max(0.0, most)

    def drained(self, places: Iterable[p.Place]) -> bool:
        """Whether nothing of these is with the workers or on its way to another topic; in transactions, nor uncommitted."""
        live = self._assignments.of(places)
        if self._transactions is not None and not self._transactions.settled(live):
            return False
        return all(assignment.drained for assignment in live)

    def uncommitted(self, places: Iterable[p.Place]) -> int:
        """In transactions: in how many of these something is done that is not known to be in."""
        return sum(map(self._ownership.is_uncommitted, self._assignments.of(places)))

    def last_progress(self, places: Iterable[p.Place]) -> Sequence[p.Progress]:
        """What a last commit of these has to say, also what another commit in flight says, which may never be answered.

        Who commits it says so to ``mark_sent``, and answers with CommitAnswered. Nothing in transactions: what there is goes
        with a Transact, before these are drained.
        """
        live = self._assignments.of(places) if self._transactions is None else ()
        return [one for assignment in live if (one := assignment.next_commit(anyway=True)) is not None]

    # What the shell may do besides passing events ----------------------------------------------------------------------

    def mark_sent(self, commit: p.Commit) -> None:
        """This last commit is on its way: regular ones leave out what it says."""
        for one in commit.progress:
            one.owner.progress.mark_sent()

    def take_touched(self) -> set[p.Place]:
        """Partitions whose figures may have changed since the last call; those that are gone among them."""
        return self._assignments.take_touched()

    # Events ------------------------------------------------------------------------------------------------------------

    def handle(self, event: p.EngineEvent, now: p.Now) -> list[p.Command]:
        """Take note of ``event`` and return what is to be done, in order."""
        out: list[p.Command] = []
        match event:
            case p.Arrived():
                out += self._on_arrived(event, now)
            case p.Finished():
                out += self._outcomes.finished(event, now)
                self._dispatch.solo.note(event)
            case p.Tick():
                out += self._on_tick(now)
            case p.HandOffAnswered():
                out += self._outcomes.answered(event, now)
            case p.Published():
                out += self._outcomes.published(event, now)
            case p.CommitAnswered():
                out += self._on_commit_answered(event)
            case p.Transacted():
                out += self._on_transacted(event, now)
            case p.Withdrawn():
                self._outcomes.withdrawn(event)
                self._dispatch.solo.note(event)
            case p.Idle():
                self._on_idle(event, now)
            case p.Recalled() | p.RecallEnded():
                out += self._on_recall(event, now)
            case _:
                out += self._on_lifecycle(event, now)
        if not self.stopping and not self.on_hold:
            out += self._dispatch.release(self._assignments.busy, now)
        if self._transactions is not None:
            ticks = isinstance(event, p.Tick)
            out += self._transactions.begin(self._assignments.busy, now, ticks=ticks)
        return out

    def _on_lifecycle(self, event: OwnershipEvent | p.Stopping | p.Hold, now: p.Now) -> Sequence[p.Command]:
        match event:
            case p.Stopping():
                self.stopping = True
                return self._ownership.drain(tuple(self.assignments), now)
            case p.Hold():
                return self._throttle.hold(event.on)
            case _:
                return self._ownership.handle(event, now)

    # Records -----------------------------------------------------------------------------------------------------------

    def _on_arrived(self, event: p.Arrived, now: p.Now) -> list[p.Command]:
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.RUNNING:
            return []  # polled before it was taken away
        out: list[p.Command] = []
        offsets, raws = event.offsets, event.raws
        first, following, known = offsets[0], assignment.progress.next_offset, 0
        if following is not None and first < following:
            if assignment.comes_again(first, event.first_ms):
                known = bisect_left(offsets, following)
            else:
                out += self._ownership.reset(assignment, None, assignment.retention_ms, first)
                assignment = self.assignments[event.place]
        self._assignments.touch(assignment)
        assignment.note_poll(first, event.first_ms, offsets[-1] + 1)
        if known:
            self.counters.duplicates += known
            offsets, raws = offsets[known:], raws[known:]
            if not offsets:
                return out
        fresh = assignment.progress.register(offsets)
        self.counters.arrived += len(offsets)
        if len(fresh) == 1 and fresh[0][1] - fresh[0][0] == len(offsets):
            taken = self._read(assignment, offsets, raws)
        else:
            kept = within(offsets, fresh)
            self.counters.restored += len(offsets) - len(kept)
            taken = self._read(assignment, [offsets[i] for i in kept], [raws[i] for i in kept])
        chunks = assignment.chunks
        chunks.note_poll(offsets[0])
        wall_ms = math.floor(now.wall * 1000)
        taken = self._suspects.sift(assignment, taken, wall_ms)
        if isinstance(taken, PlainBatch):
            assignment.queues.take_in_batch(taken)
            size = taken.size
        else:
            assignment.sorter.take_in(taken, wall_ms, now.mono)
            out += self._assembly.count_ended(assignment)
            size = sum(entry.size for entry in taken)
        if taken:
            self._throttle.note_poll(len(taken), size)
        if chunks:
            chunks.note_log(min(event.stamp_ms, wall_ms))
            chunks.passed(offsets[-1] + 1, now.mono)
            self._assembly.trim(self._assignments.busy, self.waiting_bytes)
        if assignment.parks and assignment.queues.waiting:
            out += self._park(assignment, now)
        out += self._throttle.apply(assignment)
        return out

    def _on_idle(self, event: p.Idle, now: p.Now) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is not None and assignment.phase is Phase.RUNNING:
            self._assignments.touch(assignment)
            assignment.progress.pass_over(event.position)
            assignment.chunks.note_log(math.floor(now.wall * 1000))

    def _on_recall(self, event: p.Recalled | p.RecallEnded, now: p.Now) -> Sequence[p.Command]:
        if event.recall is not self._assembly.recall:
            return ()
        assignment = self.assignments[event.recall.place]
        self._assignments.touch(assignment)
        if isinstance(event, p.RecallEnded):
            self._assembly.ended(assignment, event.reached, now)
            return ()
        offsets, raws = self._assembly.wanted(assignment, event)
        if offsets:
            read = self._read(assignment, offsets, raws)
            taken = self._assembly.admit(assignment, read.entries() if isinstance(read, PlainBatch) else read)
            self.counters.recalled += len(taken)
            assignment.sorter.take_in(taken, math.floor(now.wall * 1000), now.mono)
            self._assembly.trim(self._assignments.busy, self.waiting_bytes)
        return self._assembly.count_ended(assignment)

    def _park(self, assignment: Assignment, now: p.Now) -> list[p.Command]:
        """Re-publish messages that are due far off, to make room for what stands behind them."""
        taken = self._parking.take_crowding(assignment, self._assignments.busy, self.waiting_bytes, now)
        taken += self._parking.take_ageing(assignment, now)
        return self._outcomes.park(taken, now)

    # Time and commits --------------------------------------------------------------------------------------------------

    def _on_tick(self, now: p.Now) -> list[p.Command]:
        wall_ms = math.floor(now.wall * 1000)
        self._assignments.settle()
        busy = self._assignments.busy
        out = self._outcomes.send_again(now)
        for assignment in busy:
            if assignment.phase is Phase.RUNNING and assignment.queues.waiting:
                assignment.queues.wake(wall_ms)
                if assignment.parks and assignment.queues.waiting:
                    out += self._park(assignment, now)
        running = [assignment for assignment in busy if assignment.phase is Phase.RUNNING]
        out += self._assembly.tend(running, now)
        recall = self._assembly.next_recall(running, self.active_bytes, self.waiting_bytes, now)
        if recall is not None:
            out.append(recall)
        out += self._throttle.apply_all()
        out += [p.Notify(event) for event in self._standstills.look(self._assignments.busy, now)]
        if self._dispatch.solo.wants_commit:
            self._commits.hurry()
        if self._transactions is None:
            commit = self._commits.due(self._assignments.busy, now)
            if commit is not None:
                out.append(commit)
        return out

    def _on_commit_answered(self, event: p.CommitAnswered) -> list[p.Command]:
        units = self._commits.map_units
        news = self._commits.answered(event, self.assignments.values())
        self._touch_again(event.commit.progress, units)
        return [p.Notify(one) for one in news]

    def _touch_again(self, progress: Iterable[p.Progress], units: int) -> None:
        """A commit was answered: what it held may have to be said again, and all of it if maps have become shorter."""
        self._assignments.touch_owners(progress)
        if self._commits.map_units != units:
            self._assignments.touch_all()

    def _on_transacted(self, event: p.Transacted, now: p.Now) -> Sequence[p.Command]:
        if self._transactions is None or event.transact is not self._transactions.in_flight:
            return ()
        units = self._commits.map_units
        news = self._transactions.answered(event, self.assignments.values(), now)
        self._touch_again(event.transact.progress, units)
        # What completes now is what has just been committed.
        landed = [one.owner.progress for one in event.transact.progress if event.landed]
        checkpoints = [(progress, progress.checkpoint()) for progress in landed]
        commands = self._outcomes.transacted(event, now)
        for progress, checkpoint in checkpoints:
            progress.count_included(checkpoint)
        return [*map(p.Notify, news), *commands]

    def validate(self) -> None:
        """Check the invariants; for tests, after every step."""
        self._load.validate([assignment.accounts for assignment in self.assignments.values()])
        assert self._load.in_flight <= self._config.in_flight
        self._assignments.validate()
        if self._transactions is not None:
            self._transactions.validate()
