"""What becomes of a message: after its run, after a refusal, after an answer for its copy or its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retriable_kafka_client import events
from retriable_kafka_client.core import notices, retry
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine_config import Counters, EngineConfig
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.handoff import HandOffs, dead_letter, parked, retry_copy
from retriable_kafka_client.core.in_flight import Load
from retriable_kafka_client.core.partition import YEAR_MS, Assignment, Phase
from retriable_kafka_client.core.plain_batch import Succeeded
from retriable_kafka_client.core.runs import runs_of

__all__ = ["Outcomes"]


class Outcomes:
    """Completes messages, or sends them on, and keeps hand-offs until they are acknowledged.

    What is to be done goes to ``out``.
    """

    def __init__(
        self,
        config: EngineConfig,
        load: Load,
        counters: Counters,
        out: list[p.Command],
        transactions: Transactions | None = None,
    ) -> None:
        self._config = config
        self._transactions = transactions  # exactly once: what is sent goes with the next of them
        self._load = load
        self._counters = counters
        self._out = out
        self._handoffs = HandOffs()

    @property
    def refusals(self) -> Mapping[str, str]:
        """Topics that refuse copies at present, with the error code."""
        return self._handoffs.refusals

    # Runs --------------------------------------------------------------------------------------------------------------

    def finished(self, event: p.Finished, now: p.Now) -> None:
        """Runs have ended, or have failed for their time limit."""
        self._on_succeeded(event.succeeded)
        self._on_done(event.done)
        for entry in event.filtered:
            if self._load.back(entry):
                self._counters.filtered += 1
                self.complete(entry)
        for entry, failure in event.failed:
            if self._load.back(entry):
                self._counters.failed += 1
                self._failed(entry, failure, now)
        for entry in event.died:
            if self._load.back(entry):
                self._counters.failed += 1
                self._out.append(p.Notify(notices.died(entry)))
                entry.alone = True
                policy = self._config.routes[entry.route].policy
                self._failed(entry, retry.judge_death(policy, entry.attempt, event.chance), now)
        for entry, outputs in event.sent:
            if self._load.back(entry):
                self._publish(p.Publication(entry, outputs, event.chance))
        for entry, failure in event.overdue:
            if self._load.overdue(entry):
                self._counters.failed += 1
                self._failed(entry, failure, now)
        for entry in event.released:
            self._load.released(entry)

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

    def _complete_run(self, assignment: Assignment, first: int, stop: int, size: int) -> None:
        if self._load.run_back(assignment, stop - first, size):
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
        resumed: dict[Assignment, list[Entry]] = {}
        for entry in event.entries:
            if not self._load.back(entry):
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
        if self._transactions is not None:
            self._transactions.publish(publication)
        else:
            self._out.append(p.Publish(publication))

    def published(self, event: p.Published, now: p.Now) -> None:
        """A run that succeeded is done when what it wanted to send is in."""
        publication, code = event.publication, event.code
        entry, assignment = publication.entry, publication.entry.assignment
        assignment.sending -= 1
        if assignment.phase is Phase.ENDED:
            self._load.left_bytes -= entry.size + publication.size
            return
        assignment.active_bytes -= publication.size
        if code is None:
            self._counters.handled += 1
            self._counters.published += len(publication.outputs)
            self.complete(entry)
            return
        self._counters.failed += 1
        policy = self._config.routes[entry.route].policy
        self._failed(entry, retry.judge_output(policy, entry.attempt, publication.chance, code), now)

    # Hand-offs ---------------------------------------------------------------------------------------------------------

    def failed_unrun(self, entry: Entry, failure: retry.Failure, now: p.Now) -> None:
        """Whether it is to be run could not be told now: a failed attempt."""
        self._counters.failed += 1
        entry.unsifted = True
        self._failed(entry, failure, now)

    def _failed(self, entry: Entry, failure: retry.Failure, now: p.Now) -> None:
        route = self._config.routes[entry.route]
        in_place = route.retry_topic is None
        target = self._config.routing.retry_target(entry.route, entry.assignment.topic)
        if failure.retry_in is None or (target is None and not in_place):
            if failure.retry_in is not None and route.retry_topic is not None:
                self._out.append(p.Notify(notices.nowhere(entry, route.retry_topic)))
            self.dead_letter(entry, failure, entry.attempt)
        elif failure.retry_in * 1000 > YEAR_MS:
            too_far = replace(failure, reason=events.REASON_NOT_BEFORE, retry_in=None)
            self.dead_letter(entry, too_far, entry.attempt)
        else:
            # Rounded up: a copy may run later by a millisecond, never earlier.
            not_before_ms = math.ceil((now.wall + failure.retry_in) * 1000)
            now_ms = math.floor(now.wall * 1000)
            if target is None:
                self._retry_in_place(entry, failure, now_ms, not_before_ms)
            else:
                self._send(retry_copy(entry, failure, target, self._config.group, now_ms, not_before_ms))

    def stuck(self, entry: Entry, now: p.Now) -> None:
        """A message that is at hand held the process up in its last run, which counts as failed."""
        policy = self._config.routes[entry.route].policy
        self._counters.failed += 1
        self._failed(entry, retry.judge_stuck(policy, entry.attempt, 0.5), now)

    def _retry_in_place(self, entry: Entry, failure: retry.Failure, now_ms: int, not_before_ms: int) -> None:
        assignment = entry.assignment
        if assignment.phase is not Phase.RUNNING:
            assignment.active_bytes -= entry.size  # the next owner runs it
            return
        self._counters.retried += 1
        self._out.append(p.Notify(notices.retried_in_place(entry, failure, entry.attempt)))
        assignment.retry(entry.again(now_ms, not_before_ms))

    def dead_letter(self, entry: Entry, failure: retry.Failure, attempts: int) -> None:
        """It is not run again: keep it for people, or drop it where nobody wants it."""
        target = self._config.routes[entry.route].dead_letter
        if target is not None:
            self._send(dead_letter(entry, failure, target, self._config.group, attempts))
            return
        self._counters.dropped += 1
        self._out.append(p.Notify(notices.dropped(entry, failure, attempts)))
        self.complete(entry)

    def park(self, entries: Sequence[Entry], now: p.Now) -> None:
        """Publish waiting messages again at their retry topic's end."""
        wall_ms = math.floor(now.wall * 1000)
        for entry in entries:
            entry.assignment.active_bytes += entry.size
            self._send(parked(entry, self._config.group, wall_ms))

    def send_again(self, now: p.Now) -> None:
        """The copies that were refused and whose pause is over."""
        for handoff in self._handoffs.due(now):
            handoff.entry.assignment.refused -= 1
            self._send(handoff)

    def hurry(self, assignment: Assignment, now: p.Now) -> None:
        """It drains: send its refused copies at the next opportunity."""
        self._handoffs.hurry(assignment, now)

    def forget(self, assignment: Assignment) -> None:
        """It has ended: the next owner runs what was refused here, and makes the copies anew."""
        for handoff in self._handoffs.forget(assignment):
            assignment.active_bytes -= handoff.entry.size
        assignment.refused = 0
        for one in self._transactions.forget(assignment) if self._transactions is not None else ():
            assignment.sending -= 1
            assignment.active_bytes -= _held_by(one)
        assignment.withheld = 0

    def _send(self, handoff: p.HandOff) -> None:
        handoff.entry.assignment.sending += 1
        if self._transactions is not None:
            self._transactions.hand_off(handoff)
        else:
            self._out.append(p.Produce(handoff))

    def answered(self, event: p.HandOffAnswered, now: p.Now) -> None:
        """A copy is in, or was refused."""
        handoff, code = event.handoff, event.code
        entry, assignment = handoff.entry, handoff.entry.assignment
        assignment.sending -= 1
        if assignment.phase is Phase.ENDED:
            self._load.left_bytes -= entry.size
            return
        if code is None:
            self._handoffs.accepted(handoff)
            self._count_handoff(handoff, now)
            self.complete(entry)
            return
        self._counters.refused += 1
        assignment.refused += 1
        again_in = self._handoffs.refused(handoff, code, now)
        self._out.append(p.Notify(notices.refused(handoff, code, again_in)))

    # Transactions ------------------------------------------------------------------------------------------------------

    def transacted(self, event: p.Transacted, now: p.Now) -> None:
        """All of it is in; or none, and what was not refused itself goes again: nothing of it runs again."""
        assert self._transactions is not None
        for handoff in event.transact.handoffs:
            if event.landed or handoff in event.refused:
                self.answered(p.HandOffAnswered(handoff, event.refused.get(handoff)), now)
            elif not self._is_left_behind(handoff):
                self._transactions.hand_off(handoff)
        for publication in event.transact.publications:
            if event.landed or publication in event.refused:
                self.published(p.Published(publication, event.refused.get(publication)), now)
            elif not self._is_left_behind(publication):
                self._transactions.publish(publication)

    def _is_left_behind(self, one: p.HandOff | p.Publication) -> bool:
        """Whether its assignment has ended: then the next owner makes it anew."""
        assignment = one.entry.assignment
        if assignment.phase is not Phase.ENDED:
            return False
        assignment.sending -= 1
        self._load.left_bytes -= _held_by(one)
        return True

    def _count_handoff(self, handoff: p.HandOff, now: p.Now) -> None:
        if handoff.kind is p.HandOffKind.PARK:
            self._counters.parked += 1
        elif handoff.kind is p.HandOffKind.RETRY:
            self._counters.retried += 1
        else:
            self._counters.dead_lettered += 1
        self._out.append(p.Notify(notices.accepted(handoff, now)))


def _held_by(one: p.HandOff | p.Publication) -> int:
    """Bytes that it holds while it is on its way."""
    return one.entry.size + (one.size if isinstance(one, p.Publication) else 0)
