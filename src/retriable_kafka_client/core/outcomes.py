"""What becomes of a message: after its run, after a refusal, after an answer for its copy or its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retriable_kafka_client import events
from retriable_kafka_client.core import notices, retry
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine_config import Counters, EngineConfig
from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.handoff import HandOffs, dead_letter, parked, retry_copy
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.plain_batch import Succeeded
from retriable_kafka_client.core.runs import runs_of
from retriable_kafka_client.core.sorting import YEAR_MS

__all__ = ["Outcomes"]


class Outcomes:
    """Completes messages, or sends them on, and keeps hand-offs until they are acknowledged.

    Every verb returns what is to be done, in order.
    """

    def __init__(
        self,
        config: EngineConfig,
        counters: Counters,
        transactions: Transactions | None = None,
    ) -> None:
        self._config = config
        self._transactions = transactions  # exactly once: what is sent goes with the next of them
        self._counters = counters
        self._handoffs = HandOffs()

    @property
    def refusals(self) -> Mapping[str, str]:
        """Topics that refuse copies at present, with the error code."""
        return self._handoffs.refusals

    # Runs --------------------------------------------------------------------------------------------------------------

    def finished(self, event: p.Finished, now: p.Now) -> list[p.Command]:
        """Runs have ended, or have failed for their time limit."""
        out: list[p.Command] = []
        self._on_succeeded(event.succeeded)
        self._on_done(event.done)
        for entry in event.filtered:
            if _is_back(entry):
                self._counters.filtered += 1
                self.complete(entry)
        for entry, failure in event.failed:
            if _is_back(entry):
                out += self._failed(entry, failure, now)
        for entry in event.died:
            if _is_back(entry):
                out.append(p.Notify(notices.died(entry)))
                entry.alone = True
                policy = self._config.routes[entry.route].policy
                out += self._failed(entry, retry.judge_death(policy, entry.attempt, event.chance), now)
        for entry, outputs in event.sent:
            if _is_back(entry):
                out += self._publish(p.Publication(entry, outputs, event.chance))
        for entry, failure in event.overdue:
            if entry.assignment.begin_overdue(entry):
                out += self._failed(entry, failure, now)
        for entry in event.released:
            entry.assignment.end_overdue(entry)
        return out

    def _on_succeeded(self, succeeded: Sequence[Succeeded]) -> None:
        for one in succeeded:
            size = one.size
            for first, stop in runs_of(one.offsets):
                self._complete_run(one.assignment, first, stop, size)
                size = 0

    def _on_done(self, done: Sequence[Entry]) -> None:
        """Complete entries, run by run: neighbours in a partition mostly finish together."""
        if not done:
            return
        self._complete_runs(done)
        if self._counters.assembled:
            for entry in done:
                if entry.others and entry.assignment.phase is not Phase.ENDED:
                    entry.assignment.complete_others(entry)
        if self._config.ordering != "unordered":
            for entry in done:
                entry.assignment.step_on(entry)

    def _complete_runs(self, done: Sequence[Entry]) -> None:
        assignment, first, size = done[0].assignment, done[0].offset, 0
        stop = first
        for entry in done:
            offset = entry.offset
            if offset != stop or entry.assignment is not assignment:
                self._complete_run(assignment, first, stop, size)
                assignment, first, size = entry.assignment, offset, 0
            stop = offset + 1
            size += entry.size
        self._complete_run(assignment, first, stop, size)

    def _complete_run(self, assignment: Owner, first: int, stop: int, size: int) -> None:
        if assignment.accounts.back(stop - first, size):
            self._counters.handled += stop - first
            assignment.complete(first, stop, size)

    def complete(self, entry: Entry) -> None:
        """An active message needs no more work."""
        entry.assignment.complete(entry.offset, entry.offset + 1, entry.size)
        if entry.others:
            entry.assignment.complete_others(entry)
        entry.assignment.step_on(entry)

    def withdrawn(self, event: p.Withdrawn) -> None:
        """Messages come back from the workers as they went."""
        resumed: dict[Owner, list[Entry]] = {}
        for entry in event.entries:
            if not _is_back(entry):
                continue
            if entry.assignment.phase is Phase.RUNNING:
                resumed.setdefault(entry.assignment, []).append(entry)
            else:
                entry.assignment.accounts.drop(entry.size)  # its assignment drains: the next owner runs it
        for assignment, entries in resumed.items():
            assignment.take_back(entries)

    # Outputs -----------------------------------------------------------------------------------------------------------

    def _publish(self, publication: p.Publication) -> Sequence[p.Command]:
        publication.entry.assignment.accounts.send(publication.size)
        if self._transactions is None:
            return (p.Publish(publication),)
        self._transactions.publish(publication)
        return ()

    def published(self, event: p.Published, now: p.Now) -> Sequence[p.Command]:
        """A run that succeeded is done when what it wanted to send is in."""
        publication, code, entry = event.publication, event.code, event.publication.entry
        if not entry.assignment.accounts.answer(entry.size, publication.size):
            return ()
        if code is None:
            self._counters.handled += 1
            self._counters.published += len(publication.outputs)
            self.complete(entry)
            return ()
        policy = self._config.routes[entry.route].policy
        return self._failed(entry, retry.judge_output(policy, entry.attempt, publication.chance, code), now)

    # Hand-offs ---------------------------------------------------------------------------------------------------------

    def failed_unrun(self, entry: Entry, failure: retry.Failure, now: p.Now) -> Sequence[p.Command]:
        """The filter could not decide now whether it is to be run: a failed attempt."""
        entry.unsifted = True
        return self._failed(entry, failure, now)

    def _failed(self, entry: Entry, failure: retry.Failure, now: p.Now) -> Sequence[p.Command]:
        self._counters.failed += 1
        route = self._config.routes[entry.route]
        in_place = route.retry_topic is None
        target = self._config.routing.retry_target(entry.route, entry.assignment.place.topic)
        if failure.retry_in is None or (target is None and not in_place):
            sent = self.dead_letter(entry, failure, entry.attempt)
            if failure.retry_in is not None and route.retry_topic is not None:
                return (p.Notify(notices.nowhere(entry, route.retry_topic)), *sent)
            return sent
        if failure.retry_in * 1000 > YEAR_MS:
            too_far = replace(failure, reason=events.REASON_NOT_BEFORE, retry_in=None)
            return self.dead_letter(entry, too_far, entry.attempt)
        # Rounded up: a copy may run later by a millisecond, never earlier.
        not_before_ms = math.ceil((now.wall + failure.retry_in) * 1000)
        now_ms = math.floor(now.wall * 1000)
        if target is None:
            return self._retry_in_place(entry, failure, now_ms, not_before_ms)
        return self._send(retry_copy(entry, failure, target, self._config.group, now_ms, not_before_ms))

    def stuck(self, entry: Entry, now: p.Now) -> Sequence[p.Command]:
        """A message that is at hand held the process up in its last run, which counts as failed."""
        policy = self._config.routes[entry.route].policy
        return self._failed(entry, retry.judge_stuck(policy, entry.attempt, 0.5), now)

    def _retry_in_place(
        self, entry: Entry, failure: retry.Failure, now_ms: int, not_before_ms: int
    ) -> Sequence[p.Command]:
        assignment = entry.assignment
        if assignment.phase is not Phase.RUNNING:
            assignment.accounts.drop(entry.size)  # the next owner runs it
            return ()
        self._counters.retried += 1
        notice = p.Notify(notices.retried_in_place(entry, failure, entry.attempt))
        assignment.retry(entry.again(now_ms, not_before_ms))
        return (notice,)

    def dead_letter(self, entry: Entry, failure: retry.Failure, attempts: int) -> Sequence[p.Command]:
        """It is not run again: keep it for people, or drop it where nobody wants it."""
        target = self._config.routes[entry.route].dead_letter
        if target is not None:
            return self._send(dead_letter(entry, failure, target, self._config.group, attempts))
        self._counters.dropped += 1
        self.complete(entry)
        return (p.Notify(notices.dropped(entry, failure, attempts)),)

    def park(self, entries: Sequence[Entry], now: p.Now) -> list[p.Command]:
        """Publish waiting messages again at their retry topic's end."""
        wall_ms = math.floor(now.wall * 1000)
        out: list[p.Command] = []
        for entry in entries:
            entry.assignment.accounts.hold(entry.size)
            out += self._send(parked(entry, self._config.group, wall_ms))
        return out

    def send_again(self, now: p.Now) -> list[p.Command]:
        """Send the copies that were refused and whose pause is over."""
        out: list[p.Command] = []
        for handoff in self._handoffs.due(now):
            handoff.entry.assignment.accounts.leave_refused()
            out += self._send(handoff)
        return out

    def hurry(self, assignment: Assignment, now: p.Now) -> None:
        """It drains: send its refused copies at the next opportunity."""
        self._handoffs.hurry(assignment, now)

    def forget(self, assignment: Assignment) -> None:
        """It has ended: the next owner runs what was refused here, and makes the copies anew."""
        refused = self._handoffs.forget(assignment)
        unsent = self._transactions.forget(assignment) if self._transactions is not None else ()
        size = sum(one.entry.size for one in refused)
        assignment.accounts.forget(size, len(unsent), sum(map(_held_by, unsent)))

    def _send(self, handoff: p.HandOff) -> Sequence[p.Command]:
        handoff.entry.assignment.accounts.send()
        if self._transactions is None:
            return (p.Produce(handoff),)
        self._transactions.hand_off(handoff)
        return ()

    def answered(self, event: p.HandOffAnswered, now: p.Now) -> Sequence[p.Command]:
        """A copy is in, or was refused."""
        handoff, code, entry = event.handoff, event.code, event.handoff.entry
        accounts = entry.assignment.accounts
        if not accounts.answer(entry.size):
            return ()
        if code is None:
            self._handoffs.accepted(handoff)
            self._count(handoff)
            self.complete(entry)
            return (p.Notify(notices.accepted(handoff, now)),)
        self._counters.refused += 1
        accounts.refuse()
        again_in = self._handoffs.refused(handoff, code, now)
        return (p.Notify(notices.refused(handoff, code, again_in)),)

    # Transactions ------------------------------------------------------------------------------------------------------

    def transacted(self, event: p.Transacted, now: p.Now) -> list[p.Command]:
        """All of it is in; or none, and what was not refused itself goes again: nothing of it runs again."""
        assert self._transactions is not None
        out: list[p.Command] = []
        for handoff in event.transact.handoffs:
            if event.landed or handoff in event.refused:
                out += self.answered(p.HandOffAnswered(handoff, event.refused.get(handoff)), now)
            elif not _is_left_behind(handoff):
                self._transactions.hand_off(handoff)
        for publication in event.transact.publications:
            if event.landed or publication in event.refused:
                out += self.published(p.Published(publication, event.refused.get(publication)), now)
            elif not _is_left_behind(publication):
                self._transactions.publish(publication)
        return out

    def _count(self, handoff: p.HandOff) -> None:
        if handoff.kind is p.HandOffKind.PARK:
            self._counters.parked += 1
        elif handoff.kind is p.HandOffKind.RETRY:
            self._counters.retried += 1
        else:
            self._counters.dead_lettered += 1


def _is_back(entry: Entry) -> bool:
    """An entry came back from the workers; whether its assignment still lives."""
    return entry.assignment.accounts.back(1, entry.size)


def _is_left_behind(one: p.HandOff | p.Publication) -> bool:
    """It is not to be sent again if its assignment has ended, since the next owner makes it anew; whether that is so."""
    accounts = one.entry.assignment.accounts
    return accounts.has_ended and not accounts.answer(_held_by(one))


def _held_by(one: p.HandOff | p.Publication) -> int:
    """Bytes that it holds while it is on its way."""
    return one.entry.size + (one.size if isinstance(one, p.Publication) else 0)
