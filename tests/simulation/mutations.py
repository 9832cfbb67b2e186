"""Bugs that somebody could make: each is planted in the core, and the simulation must find it.

Every mutation replaces one method or function by one that is wrong in one point. That needs the core's private names, which
no other test touches.
"""
# ruff: noqa: SLF001 - see above

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from unittest.mock import patch

from retriable_kafka_client import events
from retriable_kafka_client.core import outcomes as outcomes_module
from retriable_kafka_client.core import progress as progress_module
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.accounts import Accounts
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.dispatch import Dispatch
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.handoff import HandOffs, retry_copy
from retriable_kafka_client.core.handoff import parked as parked_copy
from retriable_kafka_client.core.offset_map import Binding, OffsetMap, OffsetMapError, decode
from retriable_kafka_client.core.offsets import Tracker
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.ownership import Ownership
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.progress import PartitionProgress
from retriable_kafka_client.core.queues import Queues
from retriable_kafka_client.core.routing import Routing
from retriable_kafka_client.core.schedule import DueQueue, Keep, ParkingRule
from retriable_kafka_client.core.solo import Solo
from retriable_kafka_client.core.sorting import Sorter
from retriable_kafka_client.core.throttle import Throttle
from retriable_kafka_client.wire.headers import Marks
from tests.simulation.member import Member

__all__ = ["MUTATIONS", "Mutation", "planted"]

Change: TypeAlias = tuple[
    object, str, object
]  # an owner, the name of one of its attributes, what it is replaced by


@dataclass(frozen=True, slots=True)
class Mutation:
    """One planted bug."""

    name: str
    changes: tuple[Change, ...]
    first: int = (
        0  # of the 200 seeds that are tried: one that shows in few worlds has a stretch where they are
    )


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """While the context lasts, the core has the bug."""
    with ExitStack() as stack:
        for owner, name, wrong in mutation.changes:
            stack.enter_context(patch.object(owner, name, wrong))
        yield


# Commits -------------------------------------------------------------------------------------------------------------

_next_commit = Assignment.next_commit
_answered = Commits.answered


def _commits_what_was_read(self: Assignment, *what: Any, **how: Any) -> p.Progress | None:
    progress = _next_commit(self, *what, **how)
    if progress is None:
        return progress
    return replace(progress, position=self.progress.tracker.next_offset, metadata="")


def _commits_bare(self: Assignment, *what: Any, **how: Any) -> p.Progress | None:
    progress = _next_commit(self, *what, **how)
    return None if progress is None else replace(progress, metadata="")


def _forgets_a_refusal(self: Commits, event: p.CommitAnswered, assignments: Any) -> Any:
    before = [one.owner.progress.dirty for one in event.commit.progress]
    news = _answered(self, event, assignments)
    for one, dirty in zip(event.commit.progress, before, strict=True):
        one.owner.progress.dirty = dirty
    return news


def _overtakes(self: Assignment, *what: Any, **how: Any) -> p.Progress | None:
    """Says once more what the commit before said."""
    progress = _next_commit(self, *what, **how)
    if progress is None:
        return None
    older = _OLDER.get(self)
    _OLDER[self] = progress
    return older if older is not None and older.position % 3 == 1 else progress


_OLDER: dict[Assignment, p.Progress] = {}


def _commits_once(self: Engine, places: Iterable[p.Place]) -> Sequence[p.Progress]:
    """Takes what is in flight for granted."""
    return [
        one for assignment in self._assignments.of(places) if (one := assignment.next_commit()) is not None
    ]


def _never_passes_over(self: PartitionProgress, position: int) -> None:
    """Offsets without records at the log's end stay uncommitted."""


# Restoring -----------------------------------------------------------------------------------------------------------


def _decodes_anything(text: str, *, base: int, binding: Binding) -> OffsetMap:
    """Believes the map of another topic."""
    for uid in ("@0", "@1", "@2", "@3", "@4", "@5", "@6", "@7", "@8", "@9"):
        topic = binding.place.decode().rpartition("/")[0]
        try:
            return decode(text, base=base, binding=binding._replace(incarnation=f"{topic}{uid}".encode()))
        except ValueError:
            continue
    return decode(text, base=base, binding=binding)


def _forgets_clusters(text: str, *, base: int, binding: Binding) -> OffsetMap:
    """Takes what was copied from another cluster for what was committed of a topic that is gone."""
    try:
        return decode(text, base=base, binding=binding)
    except OffsetMapError as error:
        raise OffsetMapError("topic" if error.reason == "cluster" else error.reason) from None


def _restores_nothing(text: str, *, base: int, binding: Binding) -> OffsetMap:
    decode(text, base=base, binding=binding)
    return OffsetMap(base, (), base)


def _restores_all(text: str, *, base: int, binding: Binding) -> OffsetMap:
    known = decode(text, base=base, binding=binding)
    return OffsetMap(base, (), known.end)


# Assignments ---------------------------------------------------------------------------------------------------------

_end = Ownership._end
_drain = Assignment.drain
_withdrawn = Outcomes.withdrawn


def _end_is_forgotten(self: Ownership, assignment: Assignment, reason: str) -> list[p.Command]:
    commands = _end(self, assignment, reason)
    assignment.phase, assignment.accounts.has_ended = Phase.RUNNING, False
    return commands


_back = Accounts.back


def _late_results_count(self: Accounts, count: int, size: int) -> bool:
    _back(self, count, size)
    return True


def _withdrawn_are_complete(self: Outcomes, event: p.Withdrawn) -> None:
    for entry in event.entries:
        if entry.assignment.accounts.back(1, entry.size):
            self.complete(entry)


def _withdrawn_keep_their_slot(self: Outcomes, event: p.Withdrawn) -> None:
    _withdrawn(self, p.Withdrawn(event.entries[1:]))


def _drains_without_workers(self: Assignment) -> bool:
    return self.accounts.sending == 0


def _drains_without_copies(self: Assignment) -> bool:
    return self.accounts.in_flight == 0


def _runs_on_while_draining(self: Ownership, places: Sequence[p.Place], now: p.Now) -> list[p.Command]:
    return [p.Withdraw() for _ in self._assignments.of(places)]


def _never_withdraws(self: Ownership, places: Sequence[p.Place], now: p.Now) -> list[p.Command]:
    for assignment in self._assignments.of(places):
        assignment.drain()
        self._outcomes.hurry(assignment, now)
    return []


def _old_log_goes_on(self: Ownership, event: p.TopicChanged) -> list[p.Command]:
    """The topic was re-created, and nobody cares."""
    return []


def _drains_without_refused_copies(self: Assignment) -> bool:
    return self.accounts.in_flight == 0 and self.accounts.sending == 0


# Handing out ---------------------------------------------------------------------------------------------------------

_admit = Tracker.admit
_release = Dispatch.release


def _admits_all(self: Tracker, stop: int) -> int:
    budget, self._budget_bits = self._budget_bits, 10**9
    try:
        return _admit(self, stop)
    finally:
        self._budget_bits = budget


_take_in = Sorter.take_in


def _runs_early(self: Sorter, entries: Iterable[Entry], wall_ms: int, mono: float = 0.0) -> None:
    early = list(entries)
    for entry in early:
        if entry.verdict is None:
            entry.not_before_ms = None
    _take_in(self, early, wall_ms, mono)


def _wakes_early(self: DueQueue, wall_ms: int) -> list[Entry]:
    return _pop_due(self, wall_ms + 200)


def _wakes_late(self: DueQueue, wall_ms: int) -> list[Entry]:
    return _pop_due(self, wall_ms - 1_000)


_pop_due = DueQueue.pop_due


def _takes_clock_steps_for_granted(
    self: Queues, queue: Any, room: int, wall_ms: int, frontier: int
) -> list[Entry]:
    return _take_from(self, queue, room, wall_ms + 10**9, frontier)


_take_from = Queues._take_from


def _hands_out_twice(self: Queues, queue: Any, room: int, wall_ms: int, frontier: int) -> list[Entry]:
    taken = _take_from(self, queue, room, wall_ms, frontier)
    if len(taken) > 1 and len(taken) < room:
        taken.append(taken[0])
    return taken


def _release_without_bound(
    self: Dispatch, assignments: Collection[Assignment], now: p.Now
) -> Sequence[p.Command]:
    config = self._config
    self._config = replace(config, in_flight=config.in_flight + 3)
    try:
        return _release(self, assignments, now)
    finally:
        self._config = config


def _settles_to_nothing(self: Dispatch, entries: Sequence[Entry]) -> tuple[list[Entry], list[p.Command]]:
    """What must not be run is thrown away."""
    run = [entry for entry in entries if entry.verdict is None]
    for entry in entries:
        if entry.verdict is not None:
            self._outcomes.complete(entry)
    return run, []


def _runs_what_it_must_not(self: Dispatch, entries: Sequence[Entry]) -> tuple[list[Entry], list[p.Command]]:
    return list(entries), []


# Memory --------------------------------------------------------------------------------------------------------------


_holds_too_much = Assignment.holds_too_much


def _holds_any_number(
    self: Assignment, window: int, share: int, active: int, waiting: int, squeezed: int = 0
) -> bool:
    return _holds_too_much(self, 10**9, share, active, waiting, squeezed)


def _holds_any_bytes(
    self: Assignment, window: int, share: int, active: int, waiting: int, squeezed: int = 0
) -> bool:
    return _holds_too_much(self, window, 10**18, active, waiting, squeezed)


def _appetite(self: Throttle, most: int) -> int:
    return most


_perform_resume = Throttle._apply


def _never_resumes(
    self: Throttle, assignment: Assignment, active: int, waiting: int, squeezed: int
) -> Sequence[p.Command]:
    return () if assignment.paused else _perform_resume(self, assignment, active, waiting, squeezed)


def _forgets_left_bytes(self: Ownership, assignment: Assignment, reason: str) -> list[p.Command]:
    left = self._load.left_bytes
    commands = _end(self, assignment, reason)
    self._load.left_bytes = left
    assignment.accounts.active_bytes = 0
    return commands


# Hand-offs -----------------------------------------------------------------------------------------------------------

_send = Outcomes._send
_refused = HandOffs.refused


def _complete_when_produced(self: Outcomes, handoff: p.HandOff) -> Sequence[p.Command]:
    sent = _send(self, handoff)
    if handoff.tries == 0:
        self.complete(handoff.entry)
    return sent


def _complete_when_refused(self: Outcomes, event: p.HandOffAnswered, now: p.Now) -> Sequence[p.Command]:
    return _handoff_answered(self, replace(event, code=None), now)


_handoff_answered = Outcomes.answered


def _drops_refused(self: HandOffs, handoff: p.HandOff, code: str, now: p.Now) -> float:
    again_in = _refused(self, handoff, code, now)
    self._again = [item for item in self._again if item[2] is not handoff]
    return again_in


def _attempt_stays(
    entry: Entry, failure: retry.Failure, target: str, group: str, now_ms: int, not_before_ms: int
) -> p.HandOff:
    handoff = retry_copy(entry, failure, target, group, now_ms, not_before_ms)
    handoff.marks = replace(handoff.marks, failed=entry.marks.failed)
    return handoff


def _due_at_once(
    entry: Entry, failure: retry.Failure, target: str, group: str, now_ms: int, not_before_ms: int
) -> p.HandOff:
    return retry_copy(entry, failure, target, group, now_ms, now_ms)


def _starts_beside_what_runs(self: Solo, running: Sequence[Assignment], now: p.Now) -> Entry | bool:
    waiting = next((assignment for assignment in running if assignment.queues.solos), None)
    return _look(self, running, now) if waiting is None else waiting.queues.take_solo()


def _lets_others_start(self: Solo, running: Sequence[Assignment], now: p.Now) -> Entry | bool:
    held = _look(self, running, now)
    return held if isinstance(held, Entry) else False


def _never_ends(self: Solo, event: p.Finished | p.Withdrawn) -> None:
    """Whoever has the consumer to itself keeps it."""


def _forgets_alone(
    entry: Entry, failure: retry.Failure, target: str, group: str, now_ms: int, not_before_ms: int
) -> p.HandOff:
    handoff = retry_copy(entry, failure, target, group, now_ms, not_before_ms)
    handoff.marks = replace(handoff.marks, alone=False)
    return handoff


def _neighbours_die_too(self: Outcomes, event: p.Finished, now: p.Now) -> list[p.Command]:
    """One worker's death fails all that came back with it."""
    if event.died:
        event = replace(event, done=[], died=[*event.died, *event.done])
    return _finished(self, event, now)


_finished = Outcomes.finished
_look = Solo._look


def _parks_without_time(entry: Entry, group: str, now_ms: int) -> p.HandOff:
    handoff = parked_copy(entry, group, now_ms)
    handoff.marks = replace(handoff.marks, not_before_ms=None)
    return handoff


def _parks_anew(entry: Entry, group: str, now_ms: int) -> p.HandOff:
    handoff = parked_copy(entry, group, now_ms)
    new = f"{entry.assignment.uid}-{entry.assignment.place.partition}-{entry.offset}"
    handoff.marks = replace(handoff.marks, id=new, origin=None)
    return handoff


def _parks_as_failed(entry: Entry, group: str, now_ms: int) -> p.HandOff:
    handoff = parked_copy(entry, group, now_ms)
    handoff.marks = replace(handoff.marks, failed=entry.attempt)
    return handoff


def _parks_nearest(self: DueQueue, keep: Keep, below: int, wall_ms: int, rule: ParkingRule) -> list[Entry]:
    """Never parks: what is due far off holds the window."""
    return []


def _parks_always(self: ParkingRule, entry: Entry, wall_ms: int) -> bool:
    return True


def _parks_what_is_not_admitted(
    self: DueQueue, keep: Keep, below: int, wall_ms: int, rule: ParkingRule
) -> list[Entry]:
    return _take_furthest(self, replace(keep, early=10**9), 10**18, wall_ms, rule)


_take_furthest = DueQueue.take_furthest


def _loses_marks(entry: Entry, group: str, now_ms: int) -> p.HandOff:
    handoff = parked_copy(entry, group, now_ms)
    handoff.marks = Marks(not_before_ms=entry.not_before_ms, group=group)
    return handoff


def _death_is_no_failure(policy: retry.Policy | None, attempt: int, chance: float) -> retry.Failure:
    """A killer is retried for ever."""
    return retry.Failure(reason=events.REASON_WORKER_DIED, retry_in=0.5)


def _one(
    name: str, owner: object, attribute: str, wrong: Callable[..., Any] | property, first: int = 0
) -> Mutation:
    return Mutation(name, ((owner, attribute, wrong),), first)


# What is read again ---------------------------------------------------------------------------------------------------


def _never_comes_again(self: Assignment, first: int, first_ms: int) -> bool:
    return False


def _comes_again_above_the_position(self: Assignment, first: int, first_ms: int) -> bool:
    return first > self.progress.tracker.position


# Routes by pattern ---------------------------------------------------------------------------------------------------

_role = Routing.role


def _origins_by_text(self: Routing, retry_topic: str, origin: str) -> int | None:
    role = _role(self, retry_topic)
    if role is None or origin == retry_topic:
        return None if role is None else role.route
    return next((index for index in role.users if self._topics[index].text == origin), None)


def _origins_are_the_first(self: Routing, retry_topic: str, origin: str) -> int | None:
    role = _role(self, retry_topic)
    return None if role is None or origin == "nowhere" else role.route


def _target_is_the_pattern(self: Routing, route: int, read_from: str) -> str | None:
    retry_pattern = self._retries[route]
    return None if retry_pattern is None else retry_pattern.text


def _loses_answers(self: Member) -> None:
    for flight in self.flights:
        flight.answered = True


MUTATIONS: tuple[Mutation, ...] = (
    _one("commit past an incomplete offset", Assignment, "next_commit", _commits_what_was_read),
    _one("commit without the offset map", Assignment, "next_commit", _commits_bare),
    _one("take a refused commit for done", Commits, "answered", _forgets_a_refusal),
    _one(
        "wait for what a client that is gone has not answered", Member, "give_up_commits", _loses_answers, 700
    ),
    _one("let an older commit overtake a newer one", Assignment, "next_commit", _overtakes),
    _one("leave the last commit to one that is in flight", Engine, "last_progress", _commits_once),
    _one("never commit a gap at the log's end", PartitionProgress, "pass_over", _never_passes_over),
    _one("apply the map of another topic", progress_module, "decode", _decodes_anything),
    _one("take a mirror's topic for one made anew", progress_module, "decode", _forgets_clusters, 300),
    _one("ignore the restored map", progress_module, "decode", _restores_nothing),
    _one("take all that the map covers for complete", progress_module, "decode", _restores_all),
    _one("forget that an assignment ended", Ownership, "_end", _end_is_forgotten),
    _one("act on results after the end", Accounts, "back", _late_results_count),
    _one("complete what was withdrawn", Outcomes, "withdrawn", _withdrawn_are_complete),
    _one("lose a slot when withdrawing", Outcomes, "withdrawn", _withdrawn_keep_their_slot),
    _one("end a drain while handlers run", Assignment, "drained", property(_drains_without_workers)),
    _one("end a drain while copies are in the air", Assignment, "drained", property(_drains_without_copies)),
    _one("hand out while draining", Ownership, "drain", _runs_on_while_draining),
    _one("never withdraw", Ownership, "drain", _never_withdraws),
    _one("go on with a topic that was re-created", Ownership, "topic_changed", _old_log_goes_on),
    _one(
        "end a drain while refused copies wait",
        Assignment,
        "drained",
        property(_drains_without_refused_copies),
    ),
    _one("ignore admission", Tracker, "admit", _admits_all),
    _one("ignore not-before", Sorter, "take_in", _runs_early),
    Mutation(
        "wake too early",
        (
            (DueQueue, "pop_due", _wakes_early),
            (Queues, "_take_from", _takes_clock_steps_for_granted),
        ),
    ),
    _one("wake too late", DueQueue, "pop_due", _wakes_late),
    _one("trust the wall clock to go on", Queues, "_take_from", _takes_clock_steps_for_granted),
    _one("hand out twice", Queues, "_take_from", _hands_out_twice),
    _one("hand out without a bound", Dispatch, "release", _release_without_bound),
    _one("throw bad records away", Dispatch, "_settle", _settles_to_nothing),
    _one("run bad records", Dispatch, "_settle", _runs_what_it_must_not),
    _one("hold any number of messages", Assignment, "holds_too_much", _holds_any_number),
    _one("hold any number of bytes", Assignment, "holds_too_much", _holds_any_bytes),
    _one("poll more than the window has room for", Throttle, "poll_budget", _appetite),
    _one("never resume", Throttle, "_apply", _never_resumes),
    _one("forget the bytes of handlers that outlive a drain", Ownership, "_end", _forgets_left_bytes),
    _one("complete when a copy is produced", Outcomes, "_send", _complete_when_produced),
    _one("complete when a copy is refused", Outcomes, "answered", _complete_when_refused),
    _one("drop a refused copy", HandOffs, "refused", _drops_refused),
    _one("do not count a failed attempt", outcomes_module, "retry_copy", _attempt_stays),
    _one("retry at once", outcomes_module, "retry_copy", _due_at_once),
    _one("forget that a worker died under it", outcomes_module, "retry_copy", _forgets_alone),
    _one("start who is to run alone beside others", Solo, "_look", _starts_beside_what_runs),
    _one("start others beside who is to run alone", Solo, "_look", _lets_others_start),
    _one("let who runs alone keep the consumer", Solo, "note", _never_ends),
    _one("burn attempts of a killer's neighbours", Outcomes, "finished", _neighbours_die_too),
    _one("lose the time by parking", outcomes_module, "parked", _parks_without_time),
    _one("park under a new id", outcomes_module, "parked", _parks_anew),
    _one("count parking as a failure", outcomes_module, "parked", _parks_as_failed),
    _one("lose identity and attempts by parking", outcomes_module, "parked", _loses_marks),
    _one("never park", DueQueue, "take_furthest", _parks_nearest),
    _one("park again and again", ParkingRule, "allows", _parks_always),
    _one("park what is not admitted", DueQueue, "take_furthest", _parks_what_is_not_admitted),
    _one("take what is read again for a new log", Assignment, "comes_again", _never_comes_again),
    _one(
        "know what is read again above the position only",
        Assignment,
        "comes_again",
        _comes_again_above_the_position,
    ),
    _one("know no entry by pattern from a copy's origin", Routing, "of_origin", _origins_by_text),
    _one("take every copy for the first entry's", Routing, "of_origin", _origins_are_the_first),
    _one("send copies to the pattern", Routing, "retry_target", _target_is_the_pattern),
    _one("never give up on a killer", retry, "judge_death", _death_is_no_failure),
)
