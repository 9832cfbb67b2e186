"""Planted bugs in transactions: in the core, and in what the shell finds out and the brokers promise. See mutations.py."""
# ruff: noqa: SLF001 - as in mutations

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from tests.simulation.broker import Broker
from tests.simulation.mutations import Mutation
from tests.simulation.transacting import Flight, Stage, Transactor

__all__ = ["TRANSACTION_MUTATIONS"]

# What goes into one --------------------------------------------------------------------------------------------------

_begin = Transactions.begin
_take = Transactions._take
_forget = Transactions.forget
_next_commit = Assignment.next_commit
_publish = Outcomes._publish
_send = Outcomes._send


def _outputs_are_left_out(
    self: Transactions, assignments: Collection[Assignment], *, timely: bool
) -> p.Transact:
    made = _take(self, assignments, timely=timely)
    return p.Transact(made.handoffs, [], made.progress)


def _copies_are_left_out(
    self: Transactions, assignments: Collection[Assignment], *, timely: bool
) -> p.Transact:
    made = _take(self, assignments, timely=timely)
    return p.Transact([], made.publications, made.progress)


def _progress_is_for_the_next(
    self: Assignment, besides: Collection[int] = (), **how: Any
) -> p.Progress | None:
    self.progress.dirty = self.progress.dirty or bool(besides)
    return _next_commit(self, **how)


def _progress_is_forgotten(self: Assignment, besides: Collection[int] = (), **how: Any) -> p.Progress | None:
    made = _next_commit(self, besides, **how)
    return made if not besides or self.parks else None


def _map_is_dropped(self: Assignment, besides: Collection[int] = (), **how: Any) -> p.Progress | None:
    made = _next_commit(self, besides, **how)
    return replace(made, metadata="") if made is not None and besides else made


def _position_goes_ahead(self: Assignment, besides: Collection[int] = (), **how: Any) -> p.Progress | None:
    made = _next_commit(self, besides, **how)
    if made is None or not besides:
        return made
    return replace(made, position=max(made.position, max(besides) + 1), metadata="")


def _two_in_flight(
    self: Transactions, assignments: Collection[Assignment], now: p.Now, *, ticks: bool
) -> Sequence[p.Command]:
    if self._publications or self._handoffs:
        self.in_flight = None
    return _begin(self, assignments, now, ticks=ticks)


def _ended_ones_go_too(
    self: Transactions, assignments: Collection[Assignment], now: p.Now, *, ticks: bool
) -> Sequence[p.Command]:
    ended = {one for part in self._pending if isinstance(one := part.entry.assignment, Assignment)} - set(
        assignments
    )
    return _begin(self, [*assignments, *ended], now, ticks=ticks)


def _nothing_is_forgotten(self: Transactions, assignment: Assignment) -> Sequence[p.HandOff | p.Publication]:
    handoffs, publications = self._handoffs, self._publications
    _forget(self, assignment)
    self._handoffs, self._publications = handoffs, publications
    return ()


def _outputs_complete_at_once(self: Outcomes, publication: p.Publication) -> Sequence[p.Command]:
    commands = _publish(self, publication)
    self.complete(publication.entry)
    return commands


def _copies_complete_at_once(self: Outcomes, handoff: p.HandOff) -> Sequence[p.Command]:
    commands = _send(self, handoff)
    if not handoff.tries:
        self.complete(handoff.entry)
    return commands


def _outputs_free_the_lane(self: Outcomes, publication: p.Publication) -> Sequence[p.Command]:
    commands = _publish(self, publication)
    publication.entry.assignment.step_on(publication.entry)
    return commands


def _all_can_be_listed(
    self: Transactions, assignment: Assignment, entries: list[Entry], *, holds_up: bool
) -> list[Entry]:
    return entries


# What the answer says ------------------------------------------------------------------------------------------------

_transacted = Outcomes.transacted
_published = Outcomes.published
_answered = Transactions.answered
_on_transacted = Engine._on_transacted


def _abort_forgets_outputs(self: Outcomes, event: p.Transacted, now: p.Now) -> list[p.Command]:
    commands = _transacted(self, event, now)
    if not event.landed and self._transactions is not None:
        self._transactions._publications.clear()
    return commands


def _abort_forgets_copies(self: Outcomes, event: p.Transacted, now: p.Now) -> list[p.Command]:
    commands = _transacted(self, event, now)
    if not event.landed and self._transactions is not None:
        self._transactions._handoffs.clear()
    return commands


def _abort_runs_again(self: Outcomes, event: p.Transacted, now: p.Now) -> list[p.Command]:
    commands = _transacted(self, event, now)
    for publication in event.transact.publications if not event.landed else ():
        entry = publication.entry
        if (
            isinstance(entry.assignment, Assignment)
            and entry.assignment.phase is Phase.RUNNING
            and publication not in event.refused
        ):
            assert self._transactions is not None
            self._transactions._publications.remove(publication)
            entry.assignment.accounts.answer(entry.size, publication.size)
            entry.assignment.accounts.drop(entry.size)
            entry.assignment.queues.enqueue(entry)
    return commands


def _refused_copies_count(self: Outcomes, event: p.Transacted, now: p.Now) -> list[p.Command]:
    commands: list[p.Command] = []
    for part in list(event.refused):
        if isinstance(part, p.HandOff):
            commands += self.answered(p.HandOffAnswered(part, None), now)
    others = [handoff for handoff in event.transact.handoffs if handoff not in event.refused]
    transact = p.Transact(others, event.transact.publications, event.transact.progress)
    return commands + _transacted(self, replace(event, transact=transact), now)


def _refused_outputs_count(self: Outcomes, event: p.Published, now: p.Now) -> Sequence[p.Command]:
    return _published(self, replace(event, code=None), now)


def _refused_outputs_stay(self: Outcomes, event: p.Published, now: p.Now) -> Sequence[p.Command]:
    commands = _published(self, event, now)
    publication = event.publication
    ended = publication.entry.assignment.phase is Phase.ENDED
    if event.code is not None and not ended and self._transactions is not None:
        publication.entry.assignment.accounts.send(publication.size)
        self._transactions.publish(publication)
    return commands


def _abort_lands(self: Engine, event: p.Transacted, now: p.Now) -> Sequence[p.Command]:
    return _on_transacted(self, replace(event, landed=True, refused={}), now)


def _abort_is_progress(
    self: Transactions, event: p.Transacted, assignments: Collection[Assignment], now: p.Now
) -> list[events.Event]:
    dirty = {one.owner: one.owner.progress.dirty for one in event.transact.progress}
    news = _answered(self, event, assignments, now)
    for owner, before in dirty.items():
        owner.progress.dirty = before
    return news


def _meanwhile_is_committed(self: Engine, event: p.Transacted, now: p.Now) -> Sequence[p.Command]:
    commands = _on_transacted(self, event, now)
    for one in event.transact.progress:
        if event.landed:
            one.owner.progress.dirty = False
    return commands


def _settled_at_once(self: Transactions, assignments: Iterable[Assignment]) -> bool:
    return True


def _settled_in_flight(self: Transactions, assignments: Iterable[Assignment]) -> bool:
    return not any(assignment.progress.has_uncommitted for assignment in assignments)


# What the shell finds out, and what the brokers do -------------------------------------------------------------------


def _in_doubt_is_landed(self: Transactor, flight: Flight) -> bool:
    return True


def _in_doubt_is_aborted(self: Transactor, flight: Flight) -> bool:
    return False


def _open_ones_are_passed_over(self: Broker, place: p.Place, mono: float) -> bool:
    return False


_add_offsets = Transactor._add_offsets


def _anybody_may_commit(self: Transactor, flight: Flight) -> None:
    _add_offsets(self, flight)
    if flight.code == "ILLEGAL_GENERATION":
        flight.stage, flight.code = Stage.LOCKED, None
        for one in flight.transact.progress:
            flight.uids[one.place] = self._member.world.broker.logs[one.place].uid


def _one(name: str, owner: object, attribute: str, wrong: object, first: int = 0) -> Mutation:
    return Mutation(name, ((owner, attribute, wrong),), first)


TRANSACTION_MUTATIONS = (
    _one("commit without the outputs", Transactions, "_take", _outputs_are_left_out),
    _one("commit without the copies", Transactions, "_take", _copies_are_left_out),
    _one("commit effects one transaction before their progress", Assignment, "next_commit", _progress_is_for_the_next),
    _one("commit effects without their progress", Assignment, "next_commit", _progress_is_forgotten),
    _one("drop the map in a transaction", Assignment, "next_commit", _map_is_dropped),
    _one("commit past what the transaction does not hold", Assignment, "next_commit", _position_goes_ahead),
    _one("have two transactions in flight", Transactions, "begin", _two_in_flight),
    Mutation(
        "commit for an assignment that has ended",
        (
            (Transactions, "forget", _nothing_is_forgotten),
            (Transactions, "begin", _ended_ones_go_too),
        ),
    ),
    _one("complete when outputs are handed to a transaction", Outcomes, "_publish", _outputs_complete_at_once),
    _one("complete when a copy is handed to a transaction", Outcomes, "_send", _copies_complete_at_once),
    _one("free the lane before the outputs are in", Outcomes, "_publish", _outputs_free_the_lane),
    _one("send what the map cannot list", Transactions, "_fitting", _all_can_be_listed),
    _one("forget outputs after an abort", Outcomes, "transacted", _abort_forgets_outputs),
    _one("forget copies after an abort", Outcomes, "transacted", _abort_forgets_copies),
    _one("run again after an abort", Outcomes, "transacted", _abort_runs_again),
    _one("take refused copies for sent", Outcomes, "transacted", _refused_copies_count, 300),
    _one("take refused outputs for sent", Outcomes, "published", _refused_outputs_count),
    _one("keep the outputs of a failed attempt", Outcomes, "published", _refused_outputs_stay),
    _one("take an abort for landed", Engine, "_on_transacted", _abort_lands),
    _one("take aborted progress for committed", Transactions, "answered", _abort_is_progress),
    _one("take for committed what completed meanwhile", Engine, "_on_transacted", _meanwhile_is_committed),
    _one("end a drain before its last transaction", Transactions, "settled", _settled_at_once),
    _one("end a drain while its last transaction is in flight", Transactions, "settled", _settled_in_flight),
    _one("take what is in doubt for landed", Transactor, "has_landed", _in_doubt_is_landed),
    _one("take what is in doubt for aborted", Transactor, "has_landed", _in_doubt_is_aborted),
    _one("begin beside an open transaction", Broker, "is_locked", _open_ones_are_passed_over),
    _one("let a member commit that was thrown out", Transactor, "_add_offsets", _anybody_may_commit),
)  # fmt: skip
