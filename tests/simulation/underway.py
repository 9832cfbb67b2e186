"""What a member has under way: each thing with the instants at which something becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment
from tests.simulation.broker import Committed
from tests.simulation.records import Outcome

__all__ = ["Copy", "Cursor", "Fetch", "Flight", "Job", "Look", "Mailing", "Rereading", "Revoke"]


@dataclass(slots=True)
class Cursor:
    """The client's view of one partition."""

    position: int | None  # None: the reset rule decides, which is "earliest"
    paused: bool = False
    before: int | None = None  # where the last poll that brought something began
    goes_back: bool = False  # and the next one begins there, too


@dataclass(slots=True)
class Rereading:
    """A recall under way."""

    recall: p.Recall
    position: int
    uid: str


@dataclass(slots=True)
class Job:
    """A run that a worker has begun."""

    entry: Entry
    ends_at: float
    outcome: Outcome
    overdue: bool = False  # it has been given up, and goes on until it ends


@dataclass(slots=True, eq=False)
class Copy:
    """A record that was produced."""

    handoff: p.HandOff
    uid: str  # of the assignment that made it
    lands_at: float
    answers_at: float
    landed: bool = False


@dataclass(slots=True, eq=False)
class Mailing:
    """Outputs that were produced."""

    publication: p.Publication
    lands_at: float
    answers_at: float
    landed: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """A commit that was sent."""

    commit: p.Commit
    generation: int
    lands_at: float
    answers_at: float
    last: bool  # of an assignment; its sender waits for it
    codes: dict[p.Place, str]
    landed: bool = False
    answered: bool = False
    confirmed: bool = False  # its sender knows that all of it landed


@dataclass(slots=True)
class Fetch:
    """A question for committed position and map."""

    place: p.Place
    token: Assignment  # who asks
    reads_at: float
    answers_at: float
    read: bool = False
    committed: Committed | None = None
    uid: str = ""


@dataclass(slots=True)
class Look:
    """A question for where a log begins or ends."""

    locate: p.Locate
    reads_at: float
    answers_at: float
    position: int | None = None


@dataclass(slots=True)
class Revoke:
    """Partitions are being given away."""

    places: tuple[p.Place, ...]
    reason: str
    deadline: float
    returns: bool = False  # the member comes back with a new client
    flight: Flight | None = None  # the last commit
    give_up_at: float = 0.0  # when no answer to it is waited for any longer
    retry_at: float = 0.0
    overrun: frozenset[p.Place] = frozenset()  # not drained when the last commit was made
