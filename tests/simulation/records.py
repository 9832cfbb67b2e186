"""What stands in the fake logs, and what the simulation itself knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from retriable_kafka_client.core.protocol import Place
from retriable_kafka_client.wire.headers import Origin

if TYPE_CHECKING:
    from tests.simulation.letters import Letter
    from tests.simulation.tenure import Tenure

__all__ = ["Expected", "Facts", "Kind", "Outcome", "PartRecord", "Record", "Script", "Whole"]


class Kind(Enum):
    """What the engine must make of a record."""

    RUN = "run"
    FILTERED = "filtered"
    FOREIGN = "foreign"
    MALFORMED = "malformed"
    PART = "part"  # a chunk of a message
    NO_ORIGIN = "no origin"
    TOO_FAR = "too far"
    TOO_LARGE = "too large"
    KEPT = "kept"  # in a dead-letter topic, which nobody reads

    @property
    def silent(self) -> bool:
        """Whether it completes without a trace outside the consumer."""
        return self in _SILENT


_SILENT = frozenset({Kind.FILTERED, Kind.FOREIGN, Kind.KEPT})


class Outcome(Enum):
    """What the handler does with one run."""

    DONE = "done"
    FAIL = "fail"
    AFTER = "retry after"
    REJECT = "reject"
    GIVE_UP = "give up"
    DIE = "die"
    SEND = "send"  # succeeds, and sends something
    OVERDUE = "overdue"  # does not end in time


@dataclass(frozen=True, slots=True)
class Script:
    """How a message's runs end, attempt by attempt; the last one is repeated."""

    outcomes: tuple[Outcome, ...]
    stalls: bool = False  # each run holds the whole process up, and then succeeds

    def outcome(self, attempt: int) -> Outcome:
        return self.outcomes[min(attempt, len(self.outcomes)) - 1]


@dataclass(slots=True, kw_only=True)
class Facts:
    """What is true of a record, kept apart from what its headers say."""

    kind: Kind
    script: Script
    route: int
    failed: int = 0  # failed runs so far
    alone: bool = False
    not_before_ms: int | None = None
    id: str | None = None  # None: follows from where it stands
    origin: Origin | None = None  # None: itself
    first_failure_ms: int | None = None
    parked_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must follow one failed run: a copy, or a retry in place; None for a retry's reason."""

    reason: str | None
    attempts: int
    alone: bool
    not_before_ms: int = 0
    failed_ms: int = 0


_NOWHERE = Place("", -1)


@dataclass(slots=True, eq=False)
class Record:
    """One log entry, with the accessors of the client's messages."""

    body: bytes
    headers_: list[tuple[str, bytes | None]] | None
    facts: Facts
    key_: bytes | None = None
    place: Place = _NOWHERE
    offset_: int = -1
    stamp_ms: int = 0
    gone: bool = False  # compacted away
    resolved: bool = False  # handled, handed off, or of a kind that completes by itself
    begun: list[Tenure] = field(default_factory=list)  # the assignments in which a worker began it

    def value(self) -> bytes | None:
        return self.body

    def key(self) -> bytes | None:
        return self.key_

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.headers_

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.partition

    def offset(self) -> int:
        return self.offset_

    def timestamp(self) -> tuple[int, int]:
        return 1, self.stamp_ms

    def __len__(self) -> int:
        return len(self.body)

    def __str__(self) -> str:
        return f"{self.place.topic}/{self.place.partition}/{self.offset_}"


@dataclass(slots=True, eq=False, kw_only=True)
class PartRecord(Record):
    """One chunk."""

    letter: Letter
    index: int

    def __str__(self) -> str:
        return f"{Record.__str__(self)} ({self.index + 1} of {len(self.letter.bodies)})"


@dataclass(slots=True, eq=False, kw_only=True)
class Whole(Record):
    """A message of several chunks, as a worker sees it; it stands in no log."""

    letter: Letter
    records: list[PartRecord]

    def __str__(self) -> str:
        return f"{Record.__str__(self)} (+{len(self.records) - 1})"
