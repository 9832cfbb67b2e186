"""The consumer's decisions: ``handle(event, now)`` in, commands out. No I/O, no clock, no randomness.

The engine owns every assignment, the counts and bytes that all of them share, hand-offs until they are acknowledged, and
the one commit in flight. The shell performs the commands in order and reports what came of them as further events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from retriable_kafka_client import events
from retriable_kafka_client.core import notices, retry
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.chunks import Joiner
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.entry import DUPLICATE, FOREIGN, Entry
from retriable_kafka_client.core.handoff import HandOffs, dead_letter, parked, retry_copy
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.parking import Parking
from retriable_kafka_client.core.partition import YEAR_MS, Assignment, Phase, within
from retriable_kafka_client.core.settings import Counters, EngineConfig, Route

__all__ = ["Counters", "Engine", "EngineConfig", "Route"]

OFFSET_OF, ASSIGNMENT_OF, SIZE_OF = attrgetter("offset"), attrgetter("assignment"), attrgetter("size")
SHARE = 500  # messages that one partition hands out before the next has its turn
LEAST_POLL = 4  # records, however large


class Engine:
    """See the module's docstring.

    ``read`` makes an Entry of each opaque record, and adds up their bytes if all are plain, that is: may run at once; it
    must not raise.
    """

    def __init__(
        self,
        config: EngineConfig,
        read: Callable[[Assignment, Sequence[int], Sequence[Any]], tuple[list[Entry], int | None]],
        joiner: Joiner | None = None,
    ) -> None:
        self.counters = Counters()
        self.stopping = False
        self.on_hold = False
        self._config = config
        self._read = read
        self._routing = config.routing
        self._assignments: dict[p.Place, Assignment] = {}
        self._out: list[p.Command] = []
        self._in_flight = 0
        self._overrun = 0  # of those in flight, the ones whose assignment has ended
        # What outlives its message or its assignment: what workers still run, and copies and outputs on their way.
        self._left_bytes = 0
        self._typical = 1  # bytes of a record that was polled of late
        self._turn = 0  # which partition hands out first
        self._parking = Parking(config)
        self._assembly = Assembly(config, joiner)
        self._handoffs = HandOffs()
        self._commits = Commits(config.commit_interval, config.map_units)

    # What the shell may ask --------------------------------------------------------------------------------------------

    @property
    def assignments(self) -> Mapping[p.Place, Assignment]:
        return self._assignments

    @property
    def in_flight(self) -> int:
        """Messages with the workers, those of ended assignments included."""
        return self._in_flight

    @property
    def overrun(self) -> int:
        """Messages with the workers whose assignment has ended."""
        return self._overrun

    @property
    def refusals(self) -> Mapping[str, str]:
        """Topics that refuse copies at present, with the error code."""
        return self._handoffs.refusals

    @property
    def unclear(self) -> Mapping[str, str]:
        """Topics that were given to us and are not read, because they are not clearly one entry's; with the reason."""
        found = {place.topic: self._routing.unclear(place.topic) for place in self._assignments}
        return {topic: reason for topic, reason in found.items() if reason is not None}

    @property
    def active_bytes(self) -> int:
        """Bytes of messages that are due, with the workers, or being handed off; of ended assignments too."""
        return sum(assignment.active_bytes for assignment in self._assignments.values()) + self._left_bytes

    @property
    def waiting_bytes(self) -> int:
        return sum(assignment.waiting_bytes for assignment in self._assignments.values())

    @property
    def assembling_bytes(self) -> int:
        """Bytes of chunks whose messages are not whole."""
        return sum(assignment.chunks.bytes for assignment in self._assignments.values())

    def recall_appetite(self, most: int) -> int:
        """How many records a Recall may take now, at most ``most``; 0: it has to wait."""
        if self.on_hold or self.active_bytes >= self._config.buffer_bytes // 2:
            return 0
        return min(most, self._mouthful)

    @property
    def held_up(self) -> bool:
        """Whether messages at hand wait for others to end: for one before them, or for room with the workers."""
        full = self._in_flight >= self._config.in_flight - self._config.reserve
        return any(a.behind or (full and (a.ready or a.due)) for a in self._assignments.values())

    @property
    def _mouthful(self) -> int:
        """Large records are taken a few at a time: what a poll brings cannot be given back."""
        return max(LEAST_POLL, self._config.buffer_bytes // 8 // self._typical)

    def appetite(self, most: int) -> int:
        """How many records to poll at once so that no window is overrun, at most ``most`` and at least 1."""
        room = min(most, self._mouthful)
        for assignment in self._assignments.values():
            if assignment.phase is Phase.RUNNING and not assignment.paused:
                room = min(room, self._config.window - assignment.held)
        return max(1, room)

    def drained(self, places: Iterable[p.Place]) -> bool:
        """Whether nothing of these is with the workers or on its way to another topic."""
        return all(self._assignments[place].drained for place in places if place in self._assignments)

    def last_progress(self, places: Iterable[p.Place]) -> Sequence[p.Progress]:
        """What a last commit of these has to say, whatever another commit in flight says; answer with CommitAnswered."""
        found: list[p.Progress] = []
        for place in places:
            assignment = self._assignments.get(place)
            if assignment is not None:
                assignment.dirty = True  # a commit in flight may never be answered
                progress = assignment.progress()
                if progress is not None:
                    found.append(progress)
        return found

    # Events ------------------------------------------------------------------------------------------------------------

    def handle(self, event: p.EngineEvent, now: p.Now) -> list[p.Command]:
        """Take note of ``event`` and return what is to be done, in order."""
        match event:
            case p.Arrived():
                self._on_arrived(event, now)
            case p.Finished():
                self._on_finished(event, now)
            case p.Tick():
                self._on_tick(now)
            case p.HandOffAnswered():
                self._on_handoff_answered(event, now)
            case p.Published():
                self._on_published(event, now)
            case p.CommitAnswered():
                self._on_commit_answered(event)
            case p.Withdrawn():
                self._on_withdrawn(event)
            case p.Idle():
                self._on_idle(event, now)
            case p.Recalled() | p.RecallEnded():
                self._on_recall(event, now)
            case _:
                self._on_turn(event, now)
        if not self.stopping and not self.on_hold:
            self._release(now)
        out, self._out = self._out, []
        return out

    def _on_turn(
        self,
        event: p.Assigned | p.Restored | p.Revoking | p.Ended | p.TopicChanged | p.Stopping | p.Hold,
        now: p.Now,
    ) -> None:
        match event:
            case p.Assigned():
                self._on_assigned(event)
            case p.Restored():
                self._on_restored(event)
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
        clear = [place for place in event.places if self._routing.role(place.topic) is not None]
        for place in event.places:
            reason = self._routing.unclear(place.topic)
            if reason is not None:  # it stays as it is, and nothing of it is read
                self._notify(events.TopicUnclear(topic=place.topic, partition=place.partition, reason=reason))
        if clear:
            self._out.append(p.FetchCommitted(clear))

    def _assignment(self, place: p.Place) -> Assignment:
        ordering = self._config.ordering
        return Assignment(
            place,
            parks=self._routing.is_retry_topic(place.topic),
            budget_units=self._commits.map_units,
            least_units=self._config.least_map_units,
            lanes=Lanes(by_key=ordering == "key") if ordering != "unordered" else None,
            on_hold=self.on_hold,
            chunks=self._assembly.assembler(),
        )

    def _on_restored(self, event: p.Restored) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.STARTING:
            return
        assignment.uid = event.uid
        assignment.retention_ms = event.retention_ms
        assignment.earliest = event.earliest
        assignment.restore(event.position, event.metadata)
        if assignment.restore_problem is not None:
            self._notify(notices.map_ignored(assignment, assignment.restore_problem))
        self._notify(notices.started(assignment, event.position))
        self._start(assignment)

    def _start(self, assignment: Assignment) -> None:
        earliest = assignment.earliest and assignment.begin is None
        self._out.append(p.Start(assignment.place, assignment.begin, earliest=earliest))
        if self.on_hold:
            assignment.paused = True
            self._out.append(p.Pause(assignment.place))

    def _on_arrived(self, event: p.Arrived, now: p.Now) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.RUNNING:
            return  # polled before it was taken away
        offsets, raws = event.offsets, event.raws
        for index in range(1, len(offsets)):
            if offsets[index] <= offsets[index - 1]:  # the log was cut back within one poll
                self._on_arrived(replace(event, offsets=offsets[:index], raws=raws[:index]), now)
                self._on_arrived(replace(event, offsets=offsets[index:], raws=raws[index:]), now)
                return
        first = offsets[0]
        if assignment.tracker is not None and first < assignment.tracker.next_offset:
            assignment = self._reset(assignment, assignment.uid, assignment.retention_ms, first)
        fresh = assignment.register(offsets)
        self.counters.arrived += len(offsets)
        if len(fresh) == 1 and fresh[0][1] - fresh[0][0] == len(offsets):
            entries, plain_bytes = self._read(assignment, offsets, raws)
        else:
            kept = within(offsets, fresh)
            self.counters.restored += len(offsets) - len(kept)
            entries, plain_bytes = self._read(assignment, [offsets[i] for i in kept], [raws[i] for i in kept])
        if assignment.chunks.begin is None:
            assignment.chunks.begin = first
        wall_ms = math.floor(now.wall * 1000)
        if plain_bytes is None or assignment.lanes is not None:
            assignment.take_in(entries, wall_ms, now.mono)
            self._tell_lost(assignment)
        else:
            assignment.take_in_plain(entries, plain_bytes)
        if entries:
            size = sum(entry.size for entry in entries) if plain_bytes is None else plain_bytes
            self._typical = max(1, size // len(entries))
        if assignment.chunks:
            assignment.chunks.log_ms = min(event.stamp_ms, wall_ms)
            assignment.chunks.passed(offsets[-1] + 1, now.mono)
            self._assembly.trim(self._assignments.values(), self.waiting_bytes)
        if assignment.parks and assignment.waiting:
            self._park(assignment, now)
        self._throttle(assignment, self.active_bytes, self.waiting_bytes)

    def _on_idle(self, event: p.Idle, now: p.Now) -> None:
        assignment = self._assignments.get(event.place)
        if assignment is not None and assignment.phase is Phase.RUNNING:
            assignment.pass_over(event.position)
            assignment.chunks.log_ms = math.floor(now.wall * 1000)

    # Chunks ------------------------------------------------------------------------------------------------------------

    def _on_recall(self, event: p.Recalled | p.RecallEnded, now: p.Now) -> None:
        if event.recall is not self._assembly.recall:
            return
        assignment = self._assignments[event.recall.place]
        if isinstance(event, p.RecallEnded):
            self._assembly.ended(assignment, event.reached, now)
            return
        offsets, raws = self._assembly.wanted(assignment, event)
        if offsets:
            entries, _ = self._read(assignment, offsets, raws)
            taken = self._assembly.admit(assignment, entries)
            self.counters.recalled += len(taken)
            assignment.take_in(taken, math.floor(now.wall * 1000), now.mono)
            self._assembly.trim(self._assignments.values(), self.waiting_bytes)
        self._tell_lost(assignment)

    def _tend_chunks(self, now: p.Now) -> None:
        """Give up what has waited for too long, and have read again what there is room for."""
        running = [a for a in self._assignments.values() if a.phase is Phase.RUNNING]
        holds_up = any(assignment.paused for assignment in running)
        for assignment in running:
            if assignment.chunks.seats and not assignment.chunks.cut:
                assignment.drop_lost_seats()
            if assignment.is_jammed(holds_up=holds_up):
                assignment.admit_beyond_map()
                self._notify(notices.map_overflow(assignment))
            if assignment.chunks.groups:
                self._assembly.expire(assignment, now)
                self._tell_lost(assignment)
        recall = self._assembly.next_recall(running, self.active_bytes, self.waiting_bytes, now)
        if recall is not None:
            self._out.append(recall)

    def _tell_lost(self, assignment: Assignment) -> None:
        lost = assignment.chunks.lost
        if lost:
            self.counters.given_up += len(lost)
            for one in lost:
                self._notify(notices.given_up(assignment, one))
            lost.clear()
        self.counters.assembled += assignment.chunks.take_whole()

    def _cancel_recall(self, assignment: Assignment) -> None:
        cancelled = self._assembly.cancel(assignment)
        if cancelled is not None:
            self._out.append(p.CancelRecall(cancelled))

    # Handing out -------------------------------------------------------------------------------------------------------

    def _release(self, now: p.Now) -> None:
        """Hand out what is due, then what is ready, partition by partition, as far as there is room."""
        config = self._config
        running = [a for a in self._assignments.values() if a.phase is Phase.RUNNING]
        wall_ms = math.floor(now.wall * 1000)
        for assignment in running:
            room = config.in_flight - self._in_flight
            if assignment.due and room > 0:
                self._hand_out(assignment, assignment.take_due(room, wall_ms), urgent=True)
        # A full house of ordinary messages would make those wait whose time comes.
        most = config.in_flight - config.reserve
        able = [a for a in running if a.ready or a.blocked]
        self._turn += 1
        while able and self._in_flight < most:
            still: list[Assignment] = []
            for index in range(len(able)):
                assignment = able[(index + self._turn) % len(able)]
                room = min(most - self._in_flight, SHARE if len(able) > 1 else most)
                if room > 0:
                    plain = assignment.plain
                    self._hand_out(assignment, assignment.take(room, wall_ms), plain=plain)
                    if assignment.ready:
                        still.append(assignment)
            able = still

    def _hand_out(
        self, assignment: Assignment, entries: list[Entry], *, plain: bool = False, urgent: bool = False
    ) -> None:
        self._tell_blocked(assignment)
        if not plain and any(entry.verdict is not None for entry in entries):
            entries = self._settle(entries)
        if entries:
            assignment.in_flight += len(entries)
            self._in_flight += len(entries)
            self._out.append(p.Run(entries, urgent))

    def _settle(self, entries: Sequence[Entry]) -> list[Entry]:
        """Complete or dead-letter what is not to be run, and return the rest."""
        run: list[Entry] = []
        for entry in entries:
            verdict = entry.verdict
            if verdict is None:
                run.append(entry)
            elif verdict.reason is None:
                if verdict.counted:
                    self.counters.filtered += 1
                elif verdict is FOREIGN:
                    self.counters.foreign += 1
                elif verdict is DUPLICATE:
                    self.counters.duplicates += 1
                self._complete(entry)
            else:
                failure = retry.Failure(
                    reason=verdict.reason, retry_in=None, error=verdict.error, text=verdict.text
                )
                self._dead_letter(entry, failure, entry.marks.failed)
        return run

    def _tell_blocked(self, assignment: Assignment) -> None:
        blocked = bool(assignment.blocked)
        if blocked and not assignment.told_blocked:
            self._notify(notices.blocked(assignment))
        assignment.told_blocked = blocked

    def _throttle(self, assignment: Assignment, active: int, waiting: int) -> None:
        """Pause a partition that holds too much, resume one that has come down to half.

        ``active`` and ``waiting`` are the bytes of all partitions.
        """
        if assignment.phase is not Phase.RUNNING or assignment.on_hold:
            return
        window, share = self._config.window, self._config.buffer_bytes // 2
        squeezed = self._assembly.squeezed(waiting, self.assembling_bytes)
        if not assignment.paused:
            if assignment.holds_too_much(window, share, active, waiting, squeezed):
                assignment.paused = True
                self._out.append(p.Pause(assignment.place))
        # One less than "too much" at the half of everything.
        elif not assignment.holds_too_much(window // 2 + 1, share // 2 + 1, active, waiting, squeezed // 2):
            assignment.paused = False
            self._out.append(p.Resume(assignment.place))

    def _on_hold(self, on: bool) -> None:
        if on == self.on_hold:
            return
        self.on_hold = on
        for assignment in self._assignments.values():
            assignment.on_hold = on
            if on and assignment.phase is Phase.RUNNING and not assignment.paused:
                assignment.paused = True
                self._out.append(p.Pause(assignment.place))
        if on:
            self._out.append(p.Withdraw())
        else:
            active, waiting = self.active_bytes, self.waiting_bytes
            for assignment in self._assignments.values():
                self._throttle(assignment, active, waiting)

    # Outcomes ----------------------------------------------------------------------------------------------------------

    def _on_finished(self, event: p.Finished, now: p.Now) -> None:
        self._on_done(event.done)
        if self.counters.assembled:
            for entry in event.done:
                if entry.others and entry.assignment.phase is not Phase.ENDED:
                    entry.assignment.complete_others(entry)
        if self._config.ordering != "unordered":
            for entry in event.done:
                entry.assignment.step_on(entry)
        for entry, failure in event.failed:
            if self._back(entry):
                self.counters.failed += 1
                self._failed(entry, failure, now)
        for entry in event.died:
            if self._back(entry):
                self.counters.failed += 1
                self._notify(notices.died(entry))
                entry.alone = True
                policy = self._config.routes[entry.route].policy
                self._failed(entry, retry.judge_death(policy, entry.attempt, event.chance), now)
        for entry, outputs in event.sent:
            if self._back(entry):
                self._publish(p.Publication(entry, outputs, event.chance))
        for entry, failure in event.overdue:
            if self._overdue(entry):
                self.counters.failed += 1
                self._failed(entry, failure, now)
        for entry in event.released:
            self._released(entry)

    def _on_done(self, done: Sequence[Entry]) -> None:
        """Complete entries, run by run: neighbours in a partition mostly finish together."""
        if not done:
            return
        assignment, first, size = done[0].assignment, done[0].offset, 0
        offsets = list(map(OFFSET_OF, done))
        if offsets == list(range(first, first + len(done))):
            owners = list(map(ASSIGNMENT_OF, done))
            if owners.count(assignment) == len(done):
                self._complete_run(assignment, first, first + len(done), sum(map(SIZE_OF, done)))
                return
        stop = first
        for entry in done:
            offset = entry.offset
            if offset != stop or entry.assignment is not assignment:
                self._complete_run(assignment, first, stop, size)
                assignment, first, size = entry.assignment, offset, 0
            stop = offset + 1
            size += entry.size
        self._complete_run(assignment, first, stop, size)

    def _complete_run(self, assignment: Assignment, first: int, stop: int, size: int) -> None:
        count = stop - first
        self._in_flight -= count
        assignment.in_flight -= count
        if assignment.phase is Phase.ENDED:
            self._overrun -= count
            self._left_bytes -= size
            return
        self.counters.handled += count
        assignment.complete(first, stop, size)

    def _back(self, entry: Entry) -> bool:
        """An entry came back from the workers; whether its assignment still lives."""
        assignment = entry.assignment
        self._in_flight -= 1
        assignment.in_flight -= 1
        if assignment.phase is Phase.ENDED:
            self._overrun -= 1
            self._left_bytes -= entry.size
            return False
        return True

    def _overdue(self, entry: Entry) -> bool:
        """A run has failed for its time limit, and goes on; whether its assignment still lives."""
        assignment = entry.assignment
        assignment.linger(entry)
        if assignment.phase is Phase.ENDED:
            return False  # its bytes count as left behind already
        self._left_bytes += entry.size  # it holds its record, whatever becomes of the message
        return True

    def _released(self, entry: Entry) -> None:
        """An overdue run has come to its end."""
        self._back(entry)
        if entry.assignment.phase is not Phase.ENDED:
            self._left_bytes -= entry.size
        entry.assignment.release(entry)

    def _complete(self, entry: Entry) -> None:
        entry.assignment.complete(entry.offset, entry.offset + 1, entry.size)
        if entry.others:
            entry.assignment.complete_others(entry)
        entry.assignment.step_on(entry)

    def _on_withdrawn(self, event: p.Withdrawn) -> None:
        resumed: dict[Assignment, list[Entry]] = {}
        for entry in event.entries:
            if not self._back(entry):
                continue
            if entry.assignment.phase is Phase.RUNNING:
                resumed.setdefault(entry.assignment, []).append(entry)
            else:
                entry.assignment.active_bytes -= entry.size  # its assignment drains: the next owner runs it
        for assignment, entries in resumed.items():
            assignment.take_back(entries)

    # Outputs -----------------------------------------------------------------------------------------------------------

    def _publish(self, publication: p.Publication) -> None:
        assignment = publication.entry.assignment
        assignment.sending += 1
        assignment.active_bytes += publication.size
        self._out.append(p.Publish(publication))

    def _on_published(self, event: p.Published, now: p.Now) -> None:
        publication, code = event.publication, event.code
        entry, assignment = publication.entry, publication.entry.assignment
        assignment.sending -= 1
        if assignment.phase is Phase.ENDED:
            self._left_bytes -= entry.size + publication.size
            return
        assignment.active_bytes -= publication.size
        if code is None:
            self.counters.handled += 1
            self.counters.published += len(publication.outputs)
            self._complete(entry)
            return
        self.counters.failed += 1
        policy = self._config.routes[entry.route].policy
        self._failed(entry, retry.judge_output(policy, entry.attempt, publication.chance, code), now)

    # Hand-offs ---------------------------------------------------------------------------------------------------------

    def _failed(self, entry: Entry, failure: retry.Failure, now: p.Now) -> None:
        route = self._config.routes[entry.route]
        in_place = route.retry_topic is None
        target = self._routing.retry_target(entry.route, entry.assignment.topic)
        if failure.retry_in is None or (target is None and not in_place):
            if failure.retry_in is not None and route.retry_topic is not None:
                self._notify(notices.nowhere(entry, route.retry_topic))
            self._dead_letter(entry, failure, entry.attempt)
        elif failure.retry_in * 1000 > YEAR_MS:
            too_far = retry.Failure(
                reason=retry.REASON_NOT_BEFORE, retry_in=None, error=failure.error, text=failure.text
            )
            self._dead_letter(entry, too_far, entry.attempt)
        else:
            # Rounded up: a copy may run later by a millisecond, never earlier.
            not_before_ms = math.ceil((now.wall + failure.retry_in) * 1000)
            now_ms = math.floor(now.wall * 1000)
            if target is None:
                self._retry_in_place(entry, failure, now_ms, not_before_ms)
            else:
                self._send(retry_copy(entry, failure, target, self._config.group, now_ms, not_before_ms))

    def _retry_in_place(self, entry: Entry, failure: retry.Failure, now_ms: int, not_before_ms: int) -> None:
        assignment = entry.assignment
        if assignment.phase is not Phase.RUNNING:
            assignment.active_bytes -= entry.size  # the next owner runs it
            return
        self.counters.retried += 1
        self._notify(notices.retried_in_place(entry, failure, entry.attempt))
        assignment.retry(entry.again(now_ms, not_before_ms))

    def _dead_letter(self, entry: Entry, failure: retry.Failure, attempts: int) -> None:
        target = self._config.routes[entry.route].dead_letter
        if target is not None:
            self._send(dead_letter(entry, failure, target, self._config.group, attempts))
            return
        self.counters.dropped += 1
        self._notify(notices.dropped(entry, failure, attempts))
        self._complete(entry)

    def _park(self, assignment: Assignment, now: p.Now) -> None:
        """Re-publish messages that are due far off, to make room for what stands behind them."""
        others = self._assignments.values()
        taken = self._parking.take_crowding(assignment, others, self.waiting_bytes, now)
        taken += self._parking.take_ageing(assignment, now)
        wall_ms = math.floor(now.wall * 1000)
        for entry in taken:
            assignment.active_bytes += entry.size
            self._send(parked(entry, self._config.group, wall_ms))

    def _send(self, handoff: p.HandOff) -> None:
        handoff.entry.assignment.sending += 1
        self._out.append(p.Produce(handoff))

    def _on_handoff_answered(self, event: p.HandOffAnswered, now: p.Now) -> None:
        handoff, code = event.handoff, event.code
        entry, assignment = handoff.entry, handoff.entry.assignment
        assignment.sending -= 1
        if assignment.phase is Phase.ENDED:
            self._left_bytes -= entry.size
            return
        if code is None:
            self._handoffs.accepted(handoff)
            self._count_handoff(handoff, now)
            self._complete(entry)
            return
        self.counters.refused += 1
        assignment.refused += 1
        again_in = self._handoffs.refused(handoff, code, now)
        self._notify(notices.refused(handoff, code, again_in))

    def _count_handoff(self, handoff: p.HandOff, now: p.Now) -> None:
        if handoff.kind is p.HandOffKind.PARK:
            self.counters.parked += 1
        elif handoff.kind is p.HandOffKind.RETRY:
            self.counters.retried += 1
        else:
            self.counters.dead_lettered += 1
        self._notify(notices.accepted(handoff, now))

    # Time and commits --------------------------------------------------------------------------------------------------

    def _on_tick(self, now: p.Now) -> None:
        wall_ms = math.floor(now.wall * 1000)
        for handoff in self._handoffs.due(now):
            handoff.entry.assignment.refused -= 1
            self._send(handoff)
        for assignment in self._assignments.values():
            if assignment.phase is Phase.RUNNING and assignment.waiting:
                assignment.wake(wall_ms)
                if assignment.parks and assignment.waiting:
                    self._park(assignment, now)
        self._tend_chunks(now)
        active, waiting = self.active_bytes, self.waiting_bytes
        for assignment in self._assignments.values():
            self._throttle(assignment, active, waiting)
        commit = self._commits.due(self._assignments.values(), now)
        if commit is not None:
            self._out.append(commit)

    def _on_commit_answered(self, event: p.CommitAnswered) -> None:
        for told in self._commits.answered(event, self._assignments.values()):
            self._notify(told)

    # Ends --------------------------------------------------------------------------------------------------------------

    def _drain(self, places: Sequence[p.Place], now: p.Now) -> None:
        draining = [self._assignments[place] for place in places if place in self._assignments]
        for assignment in draining:
            self._cancel_recall(assignment)
            assignment.drain()
            self._handoffs.hurry(assignment, now)
        if draining:
            self._out.append(p.Withdraw())

    def _on_ended(self, event: p.Ended) -> None:
        ending = [self._assignments.pop(place) for place in event.places if place in self._assignments]
        undrained = [assignment for assignment in ending if assignment.phase is Phase.RUNNING]
        for assignment in undrained:
            assignment.drain()
        if undrained:
            self._out.append(p.Withdraw())
        for assignment in ending:
            self._end(assignment, event.reason)

    def _end(self, assignment: Assignment, reason: str) -> None:
        topic, partition = assignment.place
        unfinished = assignment.messages + len(assignment.chunks.groups)
        self._cancel_recall(assignment)
        assignment.end()
        for handoff in self._handoffs.forget(assignment):
            assignment.active_bytes -= handoff.entry.size  # the next owner runs it, and makes the copy anew
        assignment.refused = 0
        self._overrun += assignment.in_flight
        self._left_bytes += assignment.active_bytes
        if assignment.in_flight and reason in ("revoked", "stopped"):
            self._notify(events.DrainOverrun(topic=topic, partition=partition, running=assignment.in_flight))
        self._notify(
            events.AssignmentEnded(topic=topic, partition=partition, reason=reason, unfinished=unfinished)
        )

    def _reset(self, old: Assignment, uid: str, retention_ms: int | None, position: int | None) -> Assignment:
        """The log is another one: what we know of the old one does not hold for it."""
        place = old.place
        self._out.append(p.Withdraw())
        self._end(old, "reset")
        new = self._assignment(place)
        new.uid, new.retention_ms, new.paused = uid, retention_ms, old.paused
        new.restore(None, "")
        self._assignments[place] = new
        self._notify(notices.reset(new, position))
        return new

    def _on_topic_changed(self, event: p.TopicChanged) -> None:
        old = self._assignments.get(event.place)
        if old is None or old.phase is not Phase.RUNNING or old.uid == event.uid:
            return
        new = self._reset(old, event.uid, event.retention_ms, None)
        new.paused, new.earliest = False, True
        self._start(new)

    def _notify(self, event: events.Event) -> None:
        self._out.append(p.Notify(event))

    def validate(self) -> None:
        """Check the invariants; for tests, after every step."""
        assert self._in_flight == sum(a.in_flight for a in self._assignments.values()) + self._overrun
        assert 0 <= self._overrun <= self._in_flight <= self._config.in_flight
        assert self._left_bytes >= 0
        for place, assignment in self._assignments.items():
            assert assignment.place == place and assignment.phase is not Phase.ENDED
            assignment.validate()
