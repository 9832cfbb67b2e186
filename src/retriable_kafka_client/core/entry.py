"""One message on its way through a consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from retriable_kafka_client.core.accounts import Accounts
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.place import Place
from retriable_kafka_client.core.progress import PartitionProgress

if TYPE_CHECKING:
    from retriable_kafka_client.core.retry import Failure
    from retriable_kafka_client.wire.headers import Marks

__all__ = ["DUPLICATE", "FILTERED", "FOREIGN", "GONE", "PART", "STUCK", "Entry", "Owner", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a message is not run: it completes quietly, or is dead-lettered for ``reason``."""

    reason: str | None = None  # one of events.REASON_*; None: completes, nothing is sent
    counted: bool = False  # the user's filter dropped it, which is counted
    error: str | None = None  # the filter's exception type
    text: str | None = None
    place: str | None = None  # where in the filter's code it was raised
    failure: Failure | None = None  # it may be run again: the filter could not look into it now


FILTERED = Verdict(counted=True)
FOREIGN = Verdict()  # another group's retry copy
PART = Verdict()  # one chunk of a message: to be assembled. These four are distinguished by identity.
DUPLICATE = Verdict()  # a chunk that was there before
GONE = Verdict()  # a chunk that is no longer in the log
STUCK = Verdict(
    reason="worker-stuck"
)  # it held the loop up while it ran alone: that run has failed. By identity, too.


class Owner(Protocol):
    """What whoever holds an entry may ask, and want, of the assignment that it belongs to."""

    @property
    def place(self) -> Place:
        """The partition."""

    @property
    def uid(self) -> str:
        """Names the topic's incarnation in ids of messages."""

    @property
    def phase(self) -> Phase:
        """How far it has come."""

    @property
    def hands_out(self) -> bool:
        """Whether its messages may still be started. Read by other threads, once per withdrawal."""

    @property
    def accounts(self) -> Accounts:
        """Its counts and bytes."""

    @property
    def progress(self) -> PartitionProgress:
        """What of it is complete and committed."""

    def complete(self, first: int, stop: int, size: int) -> None:
        """These offsets, of active messages of ``size`` bytes, need no more work."""

    def complete_others(self, entry: Entry) -> None:
        """The offsets of the message's other chunks need no more work."""

    def step_on(self, entry: Entry) -> None:
        """``entry`` is complete and nobody runs it: what stands behind it in its lane may go."""

    def take_back(self, entries: Sequence[Entry]) -> None:
        """These come back from the workers, unstarted, and go out first when handing out goes on."""

    def retry(self, entry: Entry) -> None:
        """Keep an active message that failed until its time comes again."""

    def begin_overdue(self, entry: Entry) -> bool:
        """Its run has failed for its time limit, and goes on; whether the assignment still lives."""

    def end_overdue(self, entry: Entry) -> None:
        """Its overdue run has come to its end."""


class Entry:
    """A message between its arrival and its completion.

    Mutable and without dataclass machinery because one is built for every message. What only few messages have stands in
    the class, and in an instance's dictionary for those that have it: 0.2 us for a plain one, against 0.6 us for a frozen
    dataclass. Only the engine changes it; workers read ``raw``, ``marks``, ``route`` and ``alone``.
    """

    __slots__ = ("__dict__", "assignment", "marks", "offset", "raw", "route", "size")

    not_before_ms: int | None = None  # wall clock; None: at once
    born_ms: int = 0  # when the log took the record; 0: not known, or of no interest
    verdict: Verdict | None = None  # None: to be run
    key: bytes | None = None  # orders it, in key mode: the message's own
    others: Sequence[int] = ()  # offsets of the message's other chunks, in increasing order
    is_part: bool = False  # one chunk of a message
    unsifted: bool = (
        False  # retried in place because the filter could not look into it: it is to be asked again
    )
    alone: bool = False  # a worker died under it, or may have got stuck: it runs in a slice of its own

    def __init__(self, assignment: Owner, offset: int, size: int, raw: Any, marks: Marks, route: int) -> None:
        self.assignment = assignment
        self.offset = offset  # the lowest one of a message that came in chunks
        self.size = size  # bytes that holding this entry costs: body, key and headers
        self.raw = raw  # opaque to the core; the shell's record
        self.marks = marks
        self.route = route  # index of the Topic entry that it belongs to

    @classmethod
    def marked(
        cls,
        assignment: Owner,
        offset: int,
        size: int,
        raw: Any,
        marks: Marks,
        route: int,
        *,
        verdict: Verdict | None = None,
        born_ms: int = 0,
    ) -> Entry:
        """Make one of a record that is not plain: it may have to wait, or is not to be run."""
        entry = cls(assignment, offset, size, raw, marks, route)
        entry.not_before_ms = marks.not_before_ms
        entry.alone = marks.alone
        entry.verdict = verdict
        entry.born_ms = born_ms
        return entry

    @property
    def last(self) -> int:
        """The message's highest offset."""
        return self.others[-1] if self.others else self.offset

    @property
    def attempt(self) -> int:
        """1 for the first run."""
        return self.marks.failed + 1

    def again(self, now_ms: int, not_before_ms: int) -> Entry:
        """The same message after a failed run, for the next one in this assignment.

        Another object, because the failed run may be going on.
        """
        first_ms = self.marks.first_failure_ms
        marks = replace(
            self.marks, failed=self.attempt, first_failure_ms=now_ms if first_ms is None else first_ms
        )
        entry = Entry(self.assignment, self.offset, self.size, self.raw, marks, self.route)
        entry.not_before_ms, entry.key, entry.alone = not_before_ms, self.key, self.alone
        entry.others = self.others
        if self.unsifted:
            entry.unsifted = True
        return entry

    def __repr__(self) -> str:
        topic, partition = self.assignment.place
        return f"<Entry {topic}/{partition}/{self.offset} attempt {self.attempt}>"
