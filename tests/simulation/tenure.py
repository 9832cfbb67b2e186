"""What the simulation writes down of one assignment, and what it calls a broken promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriable_kafka_client.core.offset_map import OffsetMap
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.wire.outbox import Output
from tests.simulation.records import Expected, Facts, Record

if TYPE_CHECKING:
    from tests.simulation.letters import Letter
    from tests.simulation.member import Member

__all__ = ["Cover", "Tenure", "Violation"]


class Violation(AssertionError):
    """A promise was broken."""

    def __init__(self, promise: str, text: str) -> None:
        self.promise = promise
        super().__init__(f"{promise}: {text}")


class Tenure:
    """One assignment as the simulation sees it."""

    def __init__(self, member: Member, assignment: Assignment) -> None:
        self.member = member
        self.assignment = assignment
        self.place = assignment.place
        self.uid = ""
        self.alive = True
        self.dirty = (
            member.evicted_until is not None
        )  # it ended, or is bound to end, in a way that lets messages run again
        self.fetched = False  # position and map were answered
        self.located = False  # it had no position, and was told where its log begins or ends
        self.floor = 0  # what was committed last in it, at first what it was restored from
        self.next = 0  # no lower offset may arrive
        self.cover: Cover | None = None  # what it was restored from
        self.begun: set[int] = set()
        self.held: dict[int, Record] = {}  # arrived and not known to the engine as complete
        self.done: set[int] = set()  # known to the engine as complete
        self.expected: dict[int, Expected] = {}  # failed runs and what must follow
        self.again: dict[int, Facts] = {}  # failed, and retried in place: what is true of them now
        self.suspected: dict[
            int, Facts
        ] = {}  # ran while the member's loop stood still: what is true of them now
        self.stuck: set[int] = set()  # of these, what held it up for certain
        self.sends: dict[int, tuple[Output, ...]] = {}  # succeeded, if these are published
        self.produced: set[int] = set()  # copies in transactions, by their objects' ids
        self.effects: set[int] = set()  # offsets of messages with copies or outputs that are visible
        self.running: dict[bytes, Record] = {}  # of each lane, in order
        self.last: dict[bytes, int] = {}  # offset that began last in each lane
        self.begin = -1  # the first offset that arrived
        self.read_ms = 0  # the last record's timestamp; at the log's end, the time
        self.came: dict[Letter, float] = {}  # when a chunk of it came last, by the monotonic clock
        self.firsts: dict[Letter, int] = {}  # where its first one stood
        self.first_ms: dict[
            Letter, int
        ] = {}  # and its timestamp, or our time when it was read, if that was earlier
        self.orphans: set[Letter] = set()  # of which the first chunks cannot come any more
        self.indexes: set[tuple[Letter, int]] = set()  # chunks that came
        self.given_up: dict[Letter, str] = {}
        self.ran: set[Letter] = set()

    def facts(self, record: Record) -> Facts:
        """What is true of the record in this assignment."""
        return self.again.get(record.offset_) or self.came_as(record)

    def came_as(self, record: Record) -> Facts:
        """Likewise, before any run."""
        return self.suspected.get(record.offset_, record.facts)

    def __str__(self) -> str:
        return f"{self.member.name} {self.place.topic}/{self.place.partition}"


class Cover:
    """What a commit says is complete."""

    def __init__(self, position: int, known: OffsetMap) -> None:
        self.position = position
        self.known = known

    def has(self, offset: int) -> bool:
        if offset < self.position:
            return True
        known = self.known
        return offset < known.end and not any(first <= offset < stop for first, stop in known.incomplete)

    def above(self) -> list[int]:
        return [offset for offset in range(self.position, self.known.end) if self.has(offset)]
