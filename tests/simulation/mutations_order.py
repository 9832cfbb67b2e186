"""More bugs that somebody could make: about order, retries in place, outputs, overdue runs and holds."""
# ruff: noqa: SLF001 - as in mutations

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.accounts import Accounts
from retriable_kafka_client.core.dispatch import Dispatch
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.ownership import Ownership
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.queues import Queues
from retriable_kafka_client.core.throttle import Throttle
from retriable_kafka_client.wire.headers import Marks
from tests.simulation.mutations import Mutation

__all__ = ["ORDER_MUTATIONS"]

# Lanes ---------------------------------------------------------------------------------------------------------------

_hand_out = Dispatch._hand_out
_failed = Outcomes._failed
_send = Outcomes._send
_withdrawn = Outcomes.withdrawn
_enter = Lanes._enter
_next = Lanes._next
_finished = Outcomes.finished


def _next_goes_with_the_head(
    self: Dispatch, assignment: Assignment, entries: list[Entry], **how: bool
) -> Sequence[p.Command]:
    commands = _hand_out(self, assignment, entries, **how)
    for entry in entries:
        if assignment.progress.tracker.is_incomplete(entry.offset):
            assignment.step_on(entry)
    return commands


def _failure_frees_the_lane(
    self: Outcomes, entry: Entry, failure: retry.Failure, now: p.Now
) -> Sequence[p.Command]:
    commands = _failed(self, entry, failure, now)
    entry.assignment.step_on(entry)
    return commands


def _hand_off_frees_the_lane(self: Outcomes, handoff: p.HandOff) -> Sequence[p.Command]:
    commands = _send(self, handoff)
    handoff.entry.assignment.step_on(handoff.entry)
    return commands


def _withdrawal_frees_the_lane(self: Outcomes, event: p.Withdrawn) -> None:
    _withdrawn(self, event)
    for entry in event.entries:
        entry.assignment.step_on(entry)


def _last_come_first_served(self: Lanes, lane: bytes, one: Any) -> bool:
    if lane not in self._heads:
        return _enter(self, lane, one)
    _enter(self, lane, one)
    self._behind[lane].rotate(1)
    return False


def _a_key_is_forgotten(self: Lanes, lane: bytes) -> Entry | None:
    """What came behind two others is not behind anything any more."""
    following = _next(self, lane)
    if following is not None and lane not in self._behind:
        del self._heads[lane]
    return following


def _nobody_steps_on(self: Outcomes, event: p.Finished, now: p.Now) -> list[p.Command]:
    ordering, self._config = self._config.ordering, replace(self._config, ordering="unordered")
    try:
        return _finished(self, event, now)
    finally:
        self._config = replace(self._config, ordering=ordering)


def _failures_lead(self: Lanes, entry: Entry) -> bool:
    """Bad records overtake."""
    return entry.verdict is not None or _lanes_enter(self, entry)


_lanes_enter = Lanes.enter


# In place ------------------------------------------------------------------------------------------------------------

_again = Entry.again


def _attempt_stays(self: Entry, now_ms: int, not_before_ms: int) -> Entry:
    entry = _again(self, now_ms, not_before_ms)
    entry.marks = replace(entry.marks, failed=self.marks.failed)
    return entry


def _due_at_once(self: Entry, now_ms: int, not_before_ms: int) -> Entry:
    return _again(self, now_ms, now_ms)


def _forgets_alone(self: Entry, now_ms: int, not_before_ms: int) -> Entry:
    entry = _again(self, now_ms, not_before_ms)
    entry.alone = False
    return entry


def _completes_in_place(
    self: Outcomes, entry: Entry, failure: retry.Failure, now_ms: int, not_before_ms: int
) -> Sequence[p.Command]:
    self.complete(entry)
    return ()


def _waits_while_draining(
    self: Outcomes, entry: Entry, failure: retry.Failure, now_ms: int, not_before_ms: int
) -> Sequence[p.Command]:
    entry.assignment.retry(entry.again(now_ms, not_before_ms))
    return ()


def _starts_over(self: Entry, now_ms: int, not_before_ms: int) -> Entry:
    entry = _again(self, now_ms, not_before_ms)
    entry.marks = Marks(failed=1, not_before_ms=not_before_ms)
    return entry


# Outputs -------------------------------------------------------------------------------------------------------------

_publish = Outcomes._publish
_published = Outcomes.published


def _complete_before_published(self: Outcomes, publication: p.Publication) -> Sequence[p.Command]:
    commands = _publish(self, publication)
    self.complete(publication.entry)
    return commands


def _refused_is_sent(self: Outcomes, event: p.Published, now: p.Now) -> Sequence[p.Command]:
    return _published(self, replace(event, code=None), now)


def _publishes_twice(self: Outcomes, publication: p.Publication) -> Sequence[p.Command]:
    return [*_publish(self, publication), p.Publish(publication)]


def _sending_is_no_work(self: Outcomes, publication: p.Publication) -> Sequence[p.Command]:
    """A drain does not wait for outputs."""
    commands = _publish(self, publication)
    publication.entry.assignment.accounts.sending -= 1
    return commands


def _refusals_are_no_attempts(
    policy: retry.Policy | None, attempt: int, chance: float, code: str
) -> retry.Failure:
    return retry.Failure(reason=events.REASON_EXHAUSTED, retry_in=0.1)


def _outlived_outputs_count(self: Outcomes, event: p.Published, now: p.Now) -> Sequence[p.Command]:
    assignment = event.publication.entry.assignment
    if isinstance(assignment, Assignment) and assignment.phase is Phase.ENDED:
        assignment.phase, assignment.accounts.has_ended = Phase.DRAINING, False
    return _published(self, event, now)


# Overdue -------------------------------------------------------------------------------------------------------------


def _overdue_frees_the_slot(self: Accounts, size: int) -> bool:
    return self.back(1, size)


def _released_keeps_the_slot(self: Accounts, size: int) -> None:
    self.overdue -= 1


def _overdue_frees_the_lane(self: Queues, entry: Entry) -> None:
    """What comes behind it does not wait."""


def _released_forgets_the_retry(self: Queues, entry: Entry) -> None:
    self.lingering.pop(entry.offset, None)


def _released_forgets_the_lane(self: Queues, entry: Entry) -> None:
    again = self.lingering.pop(entry.offset, None)
    if again is not None:
        self.put_off(again)


# Hold ----------------------------------------------------------------------------------------------------------------

_apply = Throttle._apply
_start = Ownership._start


def _hold_hands_out(self: Throttle, on: bool) -> Sequence[p.Command]:
    """Only reading is paused."""
    commands: list[p.Command] = []
    for assignment in self._assignments.by_place.values():
        if on and assignment.phase is Phase.RUNNING and not assignment.paused:
            assignment.pause()
            commands.append(p.Pause(assignment.place))
    return commands


def _hold_reads_on(
    self: Throttle, assignment: Assignment, active: int, waiting: int, squeezed: int
) -> Sequence[p.Command]:
    held, assignment.on_hold = assignment.on_hold, False
    commands = _apply(self, assignment, active, waiting, squeezed)
    assignment.on_hold = held
    return commands


def _hold_is_not_for_new_ones(
    self: Ownership, assignment: Assignment, *, locate: bool = True
) -> list[p.Command]:
    held, self._throttle.on_hold = self._throttle.on_hold, False
    commands = _start(self, assignment, locate=locate)
    self._throttle.on_hold = held
    return commands


def _hold_withdraws_nothing(self: Throttle, on: bool) -> Sequence[p.Command]:
    return [one for one in _hold(self, on) if not isinstance(one, p.Withdraw)]


_hold = Throttle.hold


def _hold_loses_what_comes_back(self: Queues, entries: Sequence[Entry]) -> None:
    """Nobody hands it out again."""


def _hold_is_for_ever(self: Throttle, on: bool) -> Sequence[p.Command]:
    return _hold(self, on) if on else ()


def _one(name: str, owner: object, attribute: str, wrong: Callable[..., Any]) -> Mutation:
    return Mutation(name, ((owner, attribute, wrong),))


ORDER_MUTATIONS: tuple[Mutation, ...] = (
    _one("hand out the next of a lane with its head", Dispatch, "_hand_out", _next_goes_with_the_head),
    _one("let a lane go on after a failure", Outcomes, "_failed", _failure_frees_the_lane),
    _one("let a lane go on before its dead letter is in", Outcomes, "_send", _hand_off_frees_the_lane),
    _one("lose the lane of what is withdrawn", Outcomes, "withdrawn", _withdrawal_frees_the_lane),
    _one("last come, first served", Lanes, "_enter", _last_come_first_served),
    _one("forget a lane too early", Lanes, "_next", _a_key_is_forgotten),
    _one("never let the next of a lane go", Outcomes, "finished", _nobody_steps_on),
    _one("let bad records overtake", Lanes, "enter", _failures_lead),
    _one("do not count an attempt in place", Entry, "again", _attempt_stays),
    _one("count every attempt in place as the first", Entry, "again", _starts_over),
    _one("retry in place at once", Entry, "again", _due_at_once),
    _one("forget in place that a worker died", Entry, "again", _forgets_alone),
    _one("complete what is retried in place", Outcomes, "_retry_in_place", _completes_in_place),
    _one("wait for a retry while draining", Outcomes, "_retry_in_place", _waits_while_draining),
    _one("complete before the outputs are in", Outcomes, "_publish", _complete_before_published),
    _one("take a refused output for published", Outcomes, "published", _refused_is_sent),
    _one("publish twice", Outcomes, "_publish", _publishes_twice),
    _one("end a drain while outputs are in the air", Outcomes, "_publish", _sending_is_no_work),
    _one("do not count a refused output as an attempt", retry, "judge_output", _refusals_are_no_attempts),
    _one("act on outputs after the end", Outcomes, "published", _outlived_outputs_count),
    _one("free the slot of an overdue run", Accounts, "begin_overdue", _overdue_frees_the_slot),
    _one("lose the slot of an overdue run", Accounts, "end_overdue", _released_keeps_the_slot),
    _one("free the lane of an overdue run", Queues, "linger", _overdue_frees_the_lane),
    _one("forget the retry of an overdue run", Queues, "release", _released_forgets_the_retry),
    _one("forget the lane of an overdue run", Queues, "release", _released_forgets_the_lane),
    _one("hand out while on hold", Throttle, "hold", _hold_hands_out),
    _one("read while on hold", Throttle, "_apply", _hold_reads_on),
    _one("read new partitions while on hold", Ownership, "_start", _hold_is_not_for_new_ones),
    _one("begin what was handed out before a hold", Throttle, "hold", _hold_withdraws_nothing),
    _one("lose what a hold withdraws", Queues, "take_back", _hold_loses_what_comes_back),
    _one("hold for ever", Throttle, "hold", _hold_is_for_ever),
)
