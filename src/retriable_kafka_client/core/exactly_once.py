"""Exactly once: what goes into the next transaction, and what the answer to the last one says.

A transaction holds copies, outputs, and the progress that includes them: a message with an effect outside is incomplete in
the tracker until its transaction has landed, and only the progress that goes with it counts it as complete. So an abort has
nothing to undo. A message without an effect is complete at once; its progress goes with whichever transaction is next.

What has landed must stay committed: a later map that listed less would let a message run again whose effects are visible.
Maps that fit list everything. Where they do not, because the broker took less than was admitted, messages above what the map
can list wait. The lowest incomplete one never has to; nor do any where chunks cannot be read on before they are gone, and
OffsetMapOverflow says so. A map may always be as long as the one that the broker took last, and completing never makes it
longer, so it reaches at least as far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from retriable_kafka_client import events
from retriable_kafka_client.core import notices
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import (
    Command,
    HandOff,
    Notify,
    Now,
    Place,
    Progress,
    Publication,
    Transact,
    Transacted,
)

__all__ = ["Transactions", "has_landed"]

FIRST_PAUSE = 0.1  # seconds after a transaction that did not land, until the next; doubled by each
LONGEST_PAUSE = 5.0
DRAIN_PAUSE = 0.5  # the longest one while an assignment is to be given away


class Transactions:
    """One in flight at a time."""

    def __init__(self, commits: Commits, interval: float, most_bytes: int) -> None:
        self._most_bytes = most_bytes  # of copies and outputs in one
        self.in_flight: Transact | None = None
        self._commits = commits  # for the length of offset maps
        self._interval = interval
        self._handoffs: list[HandOff] = []
        self._publications: list[Publication] = []
        self._next_at = 0.0  # monotonic; when progress alone is worth a transaction
        self._again_at = 0.0  # monotonic; the pause after one that did not land
        self._failures = 0  # in a row
        self._withheld = False  # none of what is pending can be listed before other messages are complete
        self._overflown: list[Assignment] = []  # of these, more is committed than the map can list

    @property
    def _pending(self) -> list[HandOff | Publication]:
        return [*self._handoffs, *self._publications]

    def hand_off(self, handoff: HandOff) -> None:
        """Let the copy go with the next transaction."""
        self._handoffs.append(handoff)

    def publish(self, publication: Publication) -> None:
        """Let the outputs go with the next transaction."""
        self._publications.append(publication)

    # The next one ------------------------------------------------------------------------------------------------------

    def begin(self, assignments: Collection[Assignment], now: Now, *, ticks: bool) -> Sequence[Command]:
        """Commit what there is, unless one is in flight, or it is not time. ``ticks``: also what needs no haste."""
        if self.in_flight is not None or now.mono < self._again_at:
            return ()
        pending = bool(self._handoffs or self._publications) and (ticks or not self._withheld)
        timely = (ticks or pending) and now.mono >= self._next_at
        if not (pending or timely or any(map(_hastens, assignments))):
            return ()
        if timely:
            self._next_at = now.mono + self._interval
        transact = self._take(assignments, timely=timely)
        self._withheld = pending and not (transact.handoffs or transact.publications)
        out: list[Command] = [Notify(notices.map_overflow(assignment)) for assignment in self._overflown]
        self._overflown.clear()
        if transact.progress:
            self.in_flight = transact
            out.append(transact)
        return out

    def _take(self, assignments: Collection[Assignment], *, timely: bool) -> Transact:
        """``timely``: with the progress of all partitions, not only of those that have an effect: encoding maps costs."""
        for assignment in assignments:
            assignment.accounts.withhold(0)
        pending = self._pending
        first = self._first(pending)
        by_assignment = self._listable(first, assignments)
        if len(first) < len(pending) and not any(by_assignment.values()):
            by_assignment = self._listable(pending, assignments)
        taken = {entry for entries in by_assignment.values() for entry in entries}
        progress: list[Progress] = []
        for assignment in assignments:
            entries = by_assignment.get(assignment)
            made = None
            if entries or timely or _hastens(assignment):
                made = assignment.next_commit(_offsets(entries or ()))
            if made is None:
                continue
            assignment.progress.mark_sent()
            if (made.position, made.metadata) != assignment.progress.last_committed:
                progress.append(made)
            elif entries:  # the map has no room for them
                progress.append(replace(made, news=False))
            else:  # the map has no room for what is new: there is nothing to commit
                assignment.progress.mark_committed()
        handoffs = [one for one in self._handoffs if one.entry in taken]
        publications = [one for one in self._publications if one.entry in taken]
        if handoffs:
            self._handoffs = [one for one in self._handoffs if one.entry not in taken]
        if publications:
            self._publications = [one for one in self._publications if one.entry not in taken]
        return Transact(handoffs, publications, progress)

    def _first(self, pending: list[HandOff | Publication]) -> list[HandOff | Publication]:
        """As many as one transaction takes, at least one."""
        size = 0
        for index, one in enumerate(pending):
            size += one.size if isinstance(one, Publication) else one.entry.size
            if size > self._most_bytes and index:
                return pending[:index]
        return pending

    def _listable(
        self, pending: Iterable[HandOff | Publication], assignments: Collection[Assignment]
    ) -> dict[Owner, list[Entry]]:
        """Their messages, by assignment, but for those that the map cannot list as complete."""
        holds_up = any(assignment.paused for assignment in assignments)
        listable: dict[Owner, list[Entry]] = {}
        for one in pending:
            listable.setdefault(one.entry.assignment, []).append(one.entry)
        for assignment in assignments:
            entries = listable.get(assignment)
            if entries is not None:
                kept = listable[assignment] = self._fitting(assignment, entries, holds_up=holds_up)
                assignment.accounts.withhold(len(entries) - len(kept))
        return listable

    def _fitting(self, assignment: Assignment, entries: list[Entry], *, holds_up: bool) -> list[Entry]:
        """Those of the entries that the map can list as complete. ``holds_up``: a partition is paused.

        Where they hold up the chunks, or in order the message, that would make room in it, all of them go.
        """
        tracker = assignment.progress.tracker
        kept = entries
        while tracker.overfull:
            end = assignment.progress.encoded_end(_offsets(kept))
            fit = [entry for entry in kept if entry.last < end or entry.offset == tracker.position]
            if len(fit) == len(kept):
                break
            kept = fit
        if len(kept) < len(entries) and _jams(assignment, entries, kept, holds_up=holds_up):
            self._overflown.append(assignment)
            return entries
        return kept

    # Its answer --------------------------------------------------------------------------------------------------------

    def answered(
        self, event: Transacted, assignments: Collection[Assignment], now: Now
    ) -> list[events.Event]:
        """Take note of the answer. What becomes of copies and outputs is the caller's matter."""
        self.in_flight = None
        self._withheld = False
        if event.landed:
            self._failures = 0
            return [_landed(one) for one in event.transact.progress if one.owner.phase is not Phase.ENDED]
        for one in event.transact.progress:
            one.owner.progress.demand_commit()
        code = event.code or next(iter(event.refused.values()), "")
        news: list[events.Event] = []
        units = self._commits.map_units
        if code == "OFFSET_METADATA_TOO_LARGE":
            longest = max(event.transact.progress, key=lambda one: len(one.metadata))
            news.append(self._commits.shorten(longest, assignments))
            self._next_at = now.mono
        again_in = 0.0
        if event.refused or self._commits.map_units < units:
            self._failures = 0  # the next one goes without them, or with shorter maps
        else:
            again_in = self._pause(assignments)
        self._again_at = now.mono + again_in
        aborted = events.TransactionAborted(
            topic="", partition=-1, code=code, refused=len(event.refused), again_in=again_in
        )
        return [aborted, *news]

    def _pause(self, assignments: Iterable[Assignment]) -> float:
        drains = any(assignment.phase is Phase.DRAINING for assignment in assignments)
        pause = FIRST_PAUSE * 2 ** min(self._failures, 10)
        self._failures += 1
        return float(min(pause, DRAIN_PAUSE if drains else LONGEST_PAUSE))

    # Ends --------------------------------------------------------------------------------------------------------------

    def hurry(self, now: Now) -> None:
        """An assignment is to be given away: what of it is not committed goes at once."""
        self._again_at = min(self._again_at, now.mono)

    def commit_soon(self) -> None:
        """Progress is not to wait for the interval."""
        self._next_at = 0.0

    def settled(self, assignments: Iterable[Assignment]) -> bool:
        """Whether all progress of these is committed."""
        under_way = self.in_flight.progress if self.in_flight is not None else ()
        return not any(
            assignment.progress.has_uncommitted or any(one.owner is assignment for one in under_way)
            for assignment in assignments
        )

    def forget(self, assignment: Assignment) -> Sequence[HandOff | Publication]:
        """It has ended: remove and return what of it is in no transaction yet."""
        dropped = [one for one in self._pending if one.entry.assignment is assignment]
        self._handoffs = [one for one in self._handoffs if one.entry.assignment is not assignment]
        self._publications = [one for one in self._publications if one.entry.assignment is not assignment]
        return dropped

    def validate(self) -> None:
        """Check the invariants; for tests, after every step."""
        pending = [one.entry for one in self._pending]
        assert all(entry.assignment.phase is not Phase.ENDED for entry in pending)
        if self.in_flight is not None:
            pending += [one.entry for one in self.in_flight.handoffs]
            pending += [one.entry for one in self.in_flight.publications]
        assert len(set(pending)) == len(pending), "a message has two copies, or a copy and outputs"
        for entry in pending:
            owner = entry.assignment
            assert owner.phase is Phase.ENDED or owner.progress.tracker.is_incomplete(entry.offset)


def has_landed(transact: Transact, stands: Mapping[Place, bool]) -> bool:
    """Whether a transaction came through. ``stands``: whether the group's position in a partition is what it says there.

    A partition that is ours even after that was read shows it for certain, since nobody else commits in it. One that is not
    shows nothing: its next owner may have come as far, or farther. Where none shows it, effects are made again rather than
    lost.
    """
    return any(
        stands[one.place]
        for one in transact.progress
        if one.news and one.owner.phase is not Phase.ENDED and one.place in stands
    )


def _jams(assignment: Assignment, entries: list[Entry], kept: list[Entry], *, holds_up: bool) -> bool:
    """Whether what would be withheld is what keeps the lowest incomplete offset from completing."""
    if assignment.paused and assignment.chunks:
        return True
    nothing_goes = not kept and len(entries) == assignment.accounts.sending and assignment.is_still
    return nothing_goes and (assignment.queues.behind > 0 or (holds_up and bool(assignment.chunks)))


def _hastens(assignment: Assignment) -> bool:
    """Whether its progress is to be committed at once: it is about to be given away."""
    return assignment.phase is Phase.DRAINING and assignment.progress.has_uncommitted


def _offsets(entries: Iterable[Entry]) -> list[int]:
    return [offset for entry in entries for offset in (entry.offset, *entry.others)]


def _landed(progress: Progress) -> events.Event:
    topic, partition = progress.place
    units = len(progress.metadata)
    progress.owner.progress.keep_committed(progress.position, progress.metadata)
    return events.Committed(topic=topic, partition=partition, position=progress.position, map_units=units)
