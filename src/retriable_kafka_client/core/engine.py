"""The consumer's decisions: ``handle(event, now)`` in, commands out. No I/O, no clock, no randomness.

The engine owns every assignment, and the parts that look after all of them together: handing out (``dispatch``), what
becomes of a run (``outcomes``), parking, unfinished chunk groups (``assembly``), and commits. The shell performs the
commands in order and reports what came of them as further events.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from retriable_kafka_client import events
from retriable_kafka_client.core import notices
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.assembly import Assembly, is_jammed
from retriable_kafka_client.core.chunks import Joiner
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.dispatch import Dispatch
from retriable_kafka_client.core.engine_config import Counters, EngineConfig, Route
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.parking import Parking
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.runs import within
from retriable_kafka_client.core.standstill import Holder, Standstills
from retriable_kafka_client.core.suspects import Suspects

__all__ = ["Counters", "Engine", "EngineConfig", "Route"]

LEAST_POLL = 4  # records, however large


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
        self.on_hold = False
        self._config = config
        self._read = read
        self._routing = config.routing
        self._assignments: dict[p.Place, Assignment] = {}
        # Of these, all that are not idle, and perhaps some that are, until the next tick: an idle one costs nothing.
        self._busy: dict[Assignment, None] = {}
        self._touched: set[p.Place] = set()  # figures of these may have changed since they were last taken
        self._unclear: dict[str, str] = {}
        self._out: list[p.Command] = []  # what is to be done for the event under way
        self._typical = 1  # bytes of a record that was polled of late
        self._load = Load()
        self._commits = Commits(config.commit_interval, config.map_units)
        self._transactions: Transactions | None = None
        if config.exactly_once:
            self._transactions = Transactions(self._commits, config.commit_interval, config.transaction_bytes)
        self._outcomes = Outcomes(config, self.counters, self._transactions)
        self._suspects = Suspects()
        self._dispatch = Dispatch(config, self._load, self._outcomes, self.counters, self._suspects)
        self._parking = Parking(config)
        self._assembly = Assembly(config, joiner)
        self._standstills = Standstills()

    # What the shell may ask --------------------------------------------------------------------------------------------

    @property
    def assignments(self) -> Mapping[p.Place, Assignment]:
        return self._assignments

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
        return self._unclear

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
        return sum(assignment.accounts.active_bytes for assignment in self._busy) + self._load.left_bytes

    @property
    def waiting_bytes(self) -> int:
        return sum(assignment.queues.waiting_bytes for assignment in self._busy)

    @property
    def assembling_bytes(self) -> int:
        """Bytes of chunks whose messages are not whole."""
        return sum(assignment.chunks.bytes for assignment in self._busy)

    def recall_appetite(self, most: int) -> int:
        """How many records a Recall may take now, at most ``most``; 0: it has to wait."""
        if self.on_hold or self.active_bytes >= self._config.buffer_bytes // 2:
            return 0
        return min(most, self._mouthful)

    @property
    def busy(self) -> Collection[Assignment]:
        """Assignments that hold something, or have something to say; the others wait for records alone."""
        return self._busy.keys()

    def take_touched(self) -> set[p.Place]:
        """Partitions whose figures may have changed since the last call; those that are gone among them."""
        touched, self._touched = self._touched, set()
        touched.update(assignment.place for assignment in self._busy)
        return touched

    def rest(self, now: p.Now, most: float) -> float:
        """For how long, at most so many seconds, nothing is to be done unless something happens outside; 0: there is
        something under way.
        """
        if self._load.in_flight or self.on_hold or self.stopping:
            return 0.0
        for assignment in self._busy:
            due_ms = assignment.rests_until_ms
            if due_ms is not None:
                most = min(most, due_ms / 1000 - now.wall)
        return max(0.0, most)

    @property
    def held_up(self) -> bool:
        """Whether messages at hand wait for others to end: for one before them, or for room with the workers."""
        full = self._load.in_flight >= self._config.in_flight - self._config.reserve
        return any(a.queues.behind or (full and (a.queues.is_ready or a.queues.due)) for a in self._busy)

    @property
    def _mouthful(self) -> int:
        """Large records are taken a few at a time: what a poll brings cannot be given back."""
        return max(LEAST_POLL, self._config.buffer_bytes // 8 // self._typical)

    def appetite(self, most: int) -> int:
        """How many records to poll at once so that no window is overrun, at most ``most`` and at least 1."""
        room = min(most, self._mouthful, self._config.window)
        for assignment in self._busy:
            if assignment.phase is Phase.RUNNING and not assignment.paused:
                room = min(room, self._config.window - assignment.held)
        return max(1, room)

    def drained(self, places: Iterable[p.Place]) -> bool:
        """Whether nothing of these is with the workers or on its way to another topic; in transactions, nor uncommitted."""
        live = [self._assignments[place] for place in places if place in self._assignments]
        if self._transactions is not None and not self._transactions.settled(live):
            return False
        return all(assignment.drained for assignment in live)

    def uncommitted(self, places: Iterable[p.Place]) -> int:
        """In transactions: in how many of these something is done that is not known to be in."""
        live = [self._assignments[place] for place in places if place in self._assignments]
        return sum(self._is_uncommitted(assignment) for assignment in live)

    def last_progress(self, places: Iterable[p.Place]) -> Sequence[p.Progress]:
        """What a last commit of these has to say, also what another commit in flight says, which may never be answered.

        Who commits it says so to ``mark_sent``, and answers with CommitAnswered. Nothing in transactions: what there is goes
        with a Transact, before these are drained.
        """
        if self._transactions is not None:
            return []
        live = [self._assignments[place] for place in places if place in self._assignments]
        return [one for assignment in live if (one := assignment.next_commit(anyway=True)) is not None]

    def mark_sent(self, commit: p.Commit) -> None:
        """This last commit is on its way: regular ones leave out what it says."""
        for one in commit.progress:
            one.owner.progress.mark_sent()

    # Events ------------------------------------------------------------------------------------------------------------

    def handle(self, event: p.EngineEvent, now: p.Now) -> list[p.Command]:
        """Take note of ``event`` and return what is to be done, in order."""
        match event:
            case p.Arrived():
                self._on_arrived(event, now)
            case p.Finished():
                self._out += self._outcomes.finished(event, now)
                self._dispatch.solo.note(event)
            case p.Tick():
                self._on_tick(now)
            case p.HandOffAnswered():
                self._out += self._outcomes.answered(event, now)
            case p.Published():
                self._out += self._outcomes.published(event, now)
            case p.CommitAnswered():
                self._on_commit_answered(event)
            case p.Transacted():
                self._on_transacted(event, now)
            case p.Withdrawn():
                self._outcomes.withdrawn(event)
                self._dispatch.solo.note(event)
            case p.Idle():
                self._on_idle(event, now)
            case p.Recalled() | p.RecallEnded():
                self._on_recall(event, now)
            case _:
                self._on_lifecycle(event, now)
        if not self.stopping and not self.on_hold:
            self._out += self._dispatch.release(self._busy, now)
        if self._transactions is not None:
            ticks = isinstance(event, p.Tick)
            self._out += self._transactions.begin(self._busy, now, ticks=ticks)
        out, self._out = self._out, []
        return out

    def _on_lifecycle(
        self,
        event: p.Assigned
        | p.Restored
        | p.Located
        | p.Revoking
        | p.Ended
        | p.TopicChanged
        | p.Stopping
        | p.Hold,
        now: p.Now,
    ) -> None:
        match event:
            case p.Assigned():
                self._on_assigned(event)
            case p.Restored():
                self._on_restored(event)
            case p.Located():
                self._on_located(event)
            case p.Revoking():
                self._drain(event.places, now)
            case p.Ended():
                self._on_ended(event)
            case p.TopicChanged():
                self._on_topic_changed(event)
            case p.Stopping():
                self.stopping = True
                self._drain(tuple(self._assignments), now)
            case p.Hold():
                self._on_hold(event.on)

    def _on_assigned(self, event: p.Assigned) -> None:
        for place in event.places:
            assert place not in self._assignments, f"{place} is assigned already"
            self._assignments[place] = self._assignment(place)
            self._touched.add(place)
        self._find_unclear()
        clear = [place for place in event.places if self._routing.role(place.topic) is not None]
        for place in event.places:
            reason = self._routing.unclear(place.topic)
            if reason is not None:  # it stays as it is, and nothing of it is read
                self._notify(events.TopicUnclear(topic=place.topic, partition=place.partition, reason=reason))
        if clear:
            self._out.append(p.FetchCommitted(clear))

    def _find_unclear(self) -> None:
        found = {
            topic: self._routing.unclear(topic) for topic in {place.topic for place in self._assignments}
        }
        self._unclear = {topic: reason for topic, reason in found.items() if reason is not None}

    def _assignment(self, place: p.Place) -> Assignment:
        ordering = self._config.ordering
        return Assignment(
            place,
            parks=self._routing.is_retry_topic(place.topic),
            map_units=self._commits.map_units,
            least_units=self._config.least_map_units if self._transactions is None else 0,
            load=self._load,
            lanes=Lanes(by_key=ordering == "key") if ordering != "unordered" else None,
            on_hold=self.on_hold,
            chunks=self._assembly.assembler(),
            solo=self._config.solo,
            mark=self._suspects.mark,
        )

    def _on_restored(self, event: p.Restored) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.STARTING:
            return
        assignment.identify(event)
        if event.position is None and self._begins_at_end(assignment):
            self._out.append(p.Locate(event.place, assignment, end=True))
            return
        assignment.restore(event.position, event.metadata)
        self._suspects.settle(assignment, assignment.begin)
        believed = assignment.restore_problem is None
        if self._transactions is not None and event.position is not None and believed:
            assignment.progress.mark_taken(event.position, event.metadata)
        if assignment.restore_problem is not None:
            self._notify(notices.map_ignored(assignment, assignment.restore_problem))
        self._notify(notices.started(assignment, event.position))
        self._start(assignment)

    def _begins_at_end(self, assignment: Assignment) -> bool:
        """Whether it begins, without a position, at the log's end."""
        return self._config.reset == "latest" and not assignment.earliest

    def _on_located(self, event: p.Located) -> None:
        """A first position is committed at once: else the next owner would find none, and might begin behind what comes."""
        assignment, position = self._assignments.get(event.locate.place), event.position
        if assignment is None or assignment is not event.locate.token:
            return
        if assignment.phase is Phase.STARTING:
            if position is None:
                assignment.restore(None, "")
            else:
                assignment.begin_at(position)
            self._notify(notices.started(assignment, position))
            self._start(assignment, locate=False)
        elif assignment.phase is Phase.RUNNING and position is not None and not assignment.progress.has_begun:
            self._touch(assignment)
            assignment.progress.pass_over(position)
        if assignment.progress.dirty:
            self._commits.hurry()
            if self._transactions is not None:
                self._transactions.commit_soon()

    def _touch(self, assignment: Assignment) -> None:
        """It may not be idle any more."""
        self._busy[assignment] = None

    def _start(self, assignment: Assignment, *, locate: bool = True) -> None:
        self._touch(assignment)
        earliest = assignment.earliest and assignment.begin is None
        self._out.append(p.Start(assignment.place, assignment.begin, earliest=earliest))
        if locate and assignment.begin is None and (earliest or self._config.reset == "earliest"):
            self._out.append(p.Locate(assignment.place, assignment))
        if self.on_hold:
            assignment.pause()
            self._out.append(p.Pause(assignment.place))

    def _on_arrived(self, event: p.Arrived, now: p.Now) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.RUNNING:
            return  # polled before it was taken away
        offsets, raws = event.offsets, event.raws
        first, following, known = offsets[0], assignment.progress.next_offset, 0
        if following is not None and first < following:
            if assignment.comes_again(first, event.first_ms):
                known = bisect_left(offsets, following)
            else:
                assignment = self._reset(assignment, None, assignment.retention_ms, first)
        self._touch(assignment)
        assignment.note_poll(first, event.first_ms, offsets[-1] + 1)
        if known:
            self.counters.duplicates += known
            offsets, raws = offsets[known:], raws[known:]
            if not offsets:
                return
        fresh = assignment.progress.register(offsets)
        self.counters.arrived += len(offsets)
        if len(fresh) == 1 and fresh[0][1] - fresh[0][0] == len(offsets):
            taken = self._read(assignment, offsets, raws)
        else:
            kept = within(offsets, fresh)
            self.counters.restored += len(offsets) - len(kept)
            taken = self._read(assignment, [offsets[i] for i in kept], [raws[i] for i in kept])
        assignment.chunks.note_poll(offsets[0])
        wall_ms = math.floor(now.wall * 1000)
        taken = self._suspects.sift(assignment, taken, wall_ms)
        if isinstance(taken, PlainBatch):
            assignment.queues.take_in_batch(taken)
            size = taken.size
        else:
            assignment.take_in(taken, wall_ms, now.mono)
            self._count_ended_groups(assignment)
            size = sum(entry.size for entry in taken)
        if taken:
            self._typical = max(1, size // len(taken))
        if assignment.chunks:
            assignment.chunks.note_log(min(event.stamp_ms, wall_ms))
            assignment.chunks.passed(offsets[-1] + 1, now.mono)
            self._assembly.trim(self._busy, self.waiting_bytes)
        if assignment.parks and assignment.queues.waiting:
            self._park(assignment, now)
        waiting = self.waiting_bytes
        self._throttle(assignment, self.active_bytes, waiting, self._squeezed(waiting))

    def _on_idle(self, event: p.Idle, now: p.Now) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is not None and assignment.phase is Phase.RUNNING:
            self._touch(assignment)
            assignment.progress.pass_over(event.position)
            assignment.chunks.note_log(math.floor(now.wall * 1000))

    # Chunks ------------------------------------------------------------------------------------------------------------

    def _on_recall(self, event: p.Recalled | p.RecallEnded, now: p.Now) -> None:
        if event.recall is not self._assembly.recall:
            return
        assignment = self._assignments[event.recall.place]
        self._touch(assignment)
        if isinstance(event, p.RecallEnded):
            self._assembly.ended(assignment, event.reached, now)
            return
        offsets, raws = self._assembly.wanted(assignment, event)
        if offsets:
            read = self._read(assignment, offsets, raws)
            taken = self._assembly.admit(assignment, read.entries() if isinstance(read, PlainBatch) else read)
            self.counters.recalled += len(taken)
            assignment.take_in(taken, math.floor(now.wall * 1000), now.mono)
            self._assembly.trim(self._busy, self.waiting_bytes)
        self._count_ended_groups(assignment)

    def _tend_chunks(self, now: p.Now) -> None:
        """Give up what has waited for too long, and have read again what there is room for."""
        running = [a for a in self._busy if a.phase is Phase.RUNNING]
        if not any(
            assignment.queues.blocked or assignment.chunks or assignment.chunks.reservations
            for assignment in running
        ):
            return
        holds_up = any(assignment.paused for assignment in running)
        for assignment in running:
            if assignment.chunks.reservations and not assignment.chunks.cut:
                assignment.drop_lost_reservations()
            if is_jammed(assignment, holds_up=holds_up):
                assignment.queues.admit_beyond_map()
                self._notify(notices.map_overflow(assignment))
            if assignment.chunks.groups:
                self._assembly.expire(assignment, now)
                self._count_ended_groups(assignment)
        recall = self._assembly.next_recall(running, self.active_bytes, self.waiting_bytes, now)
        if recall is not None:
            self._out.append(recall)

    def _count_ended_groups(self, assignment: Assignment) -> None:
        for lost in assignment.chunks.take_lost():
            self.counters.given_up += 1
            self._notify(notices.given_up(assignment, lost))
        self.counters.assembled += assignment.chunks.take_whole()

    def _cancel_recall(self, assignment: Assignment) -> None:
        cancelled = self._assembly.cancel(assignment)
        if cancelled is not None:
            self._out.append(p.CancelRecall(cancelled))

    # Reading on --------------------------------------------------------------------------------------------------------

    def _throttle_all(self) -> None:
        active, waiting = self.active_bytes, self.waiting_bytes
        squeezed = self._squeezed(waiting)
        share = self._config.buffer_bytes // 2
        # Those that hold nothing pause only for what the others hold.
        tight = active >= share - squeezed or waiting >= share
        for assignment in tuple(self._assignments.values() if tight else self._busy):
            self._throttle(assignment, active, waiting, squeezed)

    def _squeezed(self, waiting: int) -> int:
        return self._assembly.squeezed(waiting, self.assembling_bytes)

    def _throttle(self, assignment: Assignment, active: int, waiting: int, squeezed: int) -> None:
        """Pause a partition that holds too much, resume one that has come down to half.

        ``active`` and ``waiting`` are the bytes of all partitions; ``squeezed``: see ``holds_too_much``.
        """
        if assignment.phase is not Phase.RUNNING or assignment.on_hold:
            return
        window, share = self._config.window, self._config.buffer_bytes // 2
        if not assignment.paused:
            if assignment.holds_too_much(window, share, active, waiting, squeezed):
                assignment.pause()
                self._touch(assignment)
                self._out.append(p.Pause(assignment.place))
        # One less than "too much" at the half of everything.
        elif not assignment.holds_too_much(window // 2 + 1, share // 2 + 1, active, waiting, squeezed // 2):
            assignment.resume()
            self._out.append(p.Resume(assignment.place))

    def _on_hold(self, on: bool) -> None:
        if on == self.on_hold:
            return
        self.on_hold = on
        for assignment in self._assignments.values():
            assignment.hold(on)
            self._touch(assignment)
            if on and assignment.phase is Phase.RUNNING and not assignment.paused:
                assignment.pause()
                self._out.append(p.Pause(assignment.place))
        if on:
            self._out.append(p.Withdraw())
        else:
            self._throttle_all()

    def _park(self, assignment: Assignment, now: p.Now) -> None:
        """Re-publish messages that are due far off, to make room for what stands behind them."""
        taken = self._parking.take_crowding(assignment, self._busy, self.waiting_bytes, now)
        taken += self._parking.take_ageing(assignment, now)
        self._out += self._outcomes.park(taken, now)

    # Time and commits --------------------------------------------------------------------------------------------------

    def _on_tick(self, now: p.Now) -> None:
        wall_ms = math.floor(now.wall * 1000)
        self._touched.update(assignment.place for assignment in self._busy)
        self._busy = {one: None for one in self._busy if not one.is_idle or one.awaits_commit}
        self._out += self._outcomes.send_again(now)
        for assignment in self._busy:
            if assignment.phase is Phase.RUNNING and assignment.queues.waiting:
                assignment.queues.wake(wall_ms)
                if assignment.parks and assignment.queues.waiting:
                    self._park(assignment, now)
        self._tend_chunks(now)
        self._throttle_all()
        for event in self._standstills.look(self._busy, now):
            self._notify(event)
        if self._dispatch.solo.wants_commit:
            self._commits.hurry()
        if self._transactions is None:
            commit = self._commits.due(self._busy, now)
            if commit is not None:
                self._out.append(commit)

    def _on_commit_answered(self, event: p.CommitAnswered) -> None:
        units = self._commits.map_units
        for news in self._commits.answered(event, self._assignments.values()):
            self._notify(news)
        self._touch_again(event.commit.progress, units)

    def _touch_again(self, progress: Iterable[p.Progress], units: int) -> None:
        """A commit was answered: what it held may have to be said again, and all of it if maps have become shorter."""
        for one in progress:
            assignment = self._assignments.get(one.place)
            if assignment is not None and assignment is one.owner:
                self._touch(assignment)
        if self._commits.map_units != units:
            self._busy.update(dict.fromkeys(self._assignments.values()))

    def _on_transacted(self, event: p.Transacted, now: p.Now) -> None:
        if self._transactions is None or event.transact is not self._transactions.in_flight:
            return
        units = self._commits.map_units
        for news in self._transactions.answered(event, self._assignments.values(), now):
            self._notify(news)
        self._touch_again(event.transact.progress, units)
        # What completes now is what has just been committed.
        landed = [one.owner.progress for one in event.transact.progress if event.landed]
        marks = [(progress, progress.mark()) for progress in landed]
        self._out += self._outcomes.transacted(event, now)
        for progress, mark in marks:
            progress.mark_included(mark)

    # Ends --------------------------------------------------------------------------------------------------------------

    def _drain(self, places: Sequence[p.Place], now: p.Now) -> None:
        draining = [self._assignments[place] for place in places if place in self._assignments]
        for assignment in draining:
            self._touch(assignment)
            self._cancel_recall(assignment)
            assignment.drain()
            self._outcomes.hurry(assignment, now)
        if draining:
            self._out.append(p.Withdraw())
            if self._transactions is not None:
                self._transactions.hurry(now)

    def _on_ended(self, event: p.Ended) -> None:
        ending = [self._assignments.pop(place) for place in event.places if place in self._assignments]
        undrained = [assignment for assignment in ending if assignment.phase is Phase.RUNNING]
        for assignment in undrained:
            assignment.drain()
        if undrained:
            self._out.append(p.Withdraw())
        for assignment in ending:
            self._end(assignment, event.reason)
        self._find_unclear()
        if event.suspects:
            self._suspects.note(event.suspects)
            for suspect in event.suspects:
                self._notify(notices.stuck(suspect, event.stood))

    def _end(self, assignment: Assignment, reason: str) -> None:
        self._busy.pop(assignment, None)
        self._touched.add(assignment.place)
        topic, partition = assignment.place
        unfinished = assignment.messages + len(assignment.chunks.groups)
        self._cancel_recall(assignment)
        if reason in ("revoked", "stopped") and self._is_uncommitted(assignment):
            self._notify(events.CommitFailed(topic=topic, partition=partition, code="_TIMED_OUT"))
        self._outcomes.forget(assignment)
        assignment.end()
        running = assignment.accounts.in_flight
        if running and reason in ("revoked", "stopped"):
            self._notify(events.DrainOverrun(topic=topic, partition=partition, running=running))
        self._notify(
            events.AssignmentEnded(topic=topic, partition=partition, reason=reason, unfinished=unfinished)
        )

    def _is_uncommitted(self, assignment: Assignment) -> bool:
        """In transactions: whether something of it is done and not known to be in. Else its last commit says."""
        transactions = self._transactions
        return transactions is not None and bool(
            assignment.accounts.sending or not transactions.settled((assignment,))
        )

    def _reset(
        self, old: Assignment, topic_id: str | None, retention_ms: int | None, position: int | None
    ) -> Assignment:
        """The log is another one: what we know of the old one does not hold for it. ``topic_id``: if that is another one."""
        place = old.place
        self._out.append(p.Withdraw())
        self._end(old, "reset")
        new = self._assignment(place)
        new.succeed(old, topic_id, retention_ms)
        self._assignments[place] = new
        self._touch(new)
        self._notify(notices.reset(new, position))
        return new

    def _on_topic_changed(self, event: p.TopicChanged) -> None:
        old = self._assignments.get(event.place)
        if old is None or old.phase not in (Phase.STARTING, Phase.RUNNING) or old.uid in ("", event.uid):
            return  # of what is to begin, where it stands is asked for after what the topic is
        self._start(self._reset(old, event.uid, event.retention_ms, None))

    def _notify(self, event: events.Event) -> None:
        self._out.append(p.Notify(event))

    def validate(self) -> None:
        """Check the invariants; for tests, after every step."""
        self._load.validate([assignment.accounts for assignment in self._assignments.values()])
        assert all(self._assignments.get(assignment.place) is assignment for assignment in self._busy)
        assert self._load.in_flight <= self._config.in_flight
        for place, assignment in self._assignments.items():
            assert assignment.place == place and assignment.phase is not Phase.ENDED
            assert assignment in self._busy or assignment.is_idle
            assignment.validate()
        if self._transactions is not None:
            self._transactions.validate()
