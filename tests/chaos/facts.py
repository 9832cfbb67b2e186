"""What is known of a chaos run, as the checker thinks of it: plain values, nothing computed.

Times are wall clock, s. A *member* is one consumer process, by the number that the harness gave it: process ids come
again. A *tenure* is one period in which a member owned a partition.
"""

from dataclasses import dataclass, field

from tests.campaign.commits import CommitLog
from tests.campaign.evidence import Spot
from tests.chaos.orders import Order

__all__ = [
    "Ack",
    "Death",
    "End",
    "Facts",
    "Fault",
    "Letter",
    "Member",
    "Name",
    "Output",
    "Run",
    "Sample",
    "Sent",
    "Stored",
    "Tenure",
]

Name = tuple[int, int, int]
"""A run's: its member, the process that ran it, and a number."""


@dataclass(slots=True)
class Sent:
    """A message that a producer was given."""

    order: Order
    stamp: str
    at: float  # before it was given to the producer
    acked: bool = True  # False: nobody knows
    spot: Spot | None = None  # where the brokers said that it stands, its first chunk


@dataclass(slots=True)
class Run:
    """One run of the handler."""

    id: int
    attempt: int
    spot: Spot
    name: Name
    began: float
    ended: float | None  # None: cut off
    end: str  # "done", "failed", "rejected"; "" if cut off
    stamp: str

    @property
    def member(self) -> int:
        return self.name[0]


@dataclass(slots=True)
class Stored:
    """A record of a base topic, or of the retry topic, as it stands there at the end."""

    spot: Spot
    id: int
    failed: int = 0  # attempts that had failed before it was written: above 0, it is a retry copy
    at: float = 0.0
    group: str = ""  # of its chunks; empty: a whole message
    parked: bool = False
    visible: bool = True  # to a reader of committed records


@dataclass(slots=True)
class Letter:
    """A dead letter."""

    spot: Spot
    id: int
    reason: str
    attempts: int
    at: float
    chunk: str = ""  # which part of a message that never became whole, or of one that goes in chunks
    stamp: str = ""  # empty: a chunk
    visible: bool = True


@dataclass(slots=True)
class Output:
    """A record that a handler sent."""

    spot: Spot
    id: int  # of the message that was handled
    part: int  # which of that message's outputs
    run: Name
    at: float
    visible: bool = True


@dataclass(slots=True)
class Tenure:
    """One period of owning a partition, as its member told it."""

    member: int
    topic: str
    partition: int
    began: float
    position: int | None
    ended: float | None = None  # None: its member was killed, or never told
    reason: str = ""
    overrun: int = 0  # handlers that were still at work
    silent: bool = False  # its member told that a commit, or a transaction, failed or had no answer
    unfinished: int = 0  # messages that were left to the next owner

    @property
    def place(self) -> tuple[str, int]:
        return self.topic, self.partition


@dataclass(slots=True)
class Ack:
    """A member was told that its commit is in."""

    member: int
    topic: str
    partition: int
    position: int
    at: float

    @property
    def place(self) -> tuple[str, int]:
        return self.topic, self.partition


@dataclass(slots=True)
class Death:
    """A member told that a worker process died under this message."""

    member: int
    spot: Spot
    attempt: int
    at: float


@dataclass(slots=True)
class Member:
    """One consumer process."""

    number: int
    executor: str
    began: float
    ended: float | None = None
    code: int | None = None
    asked: float | None = None  # SIGTERM
    killed: float | None = None  # SIGKILL
    orphans: int = 0  # of its own processes, still there after its end


@dataclass(slots=True)
class Fault:
    """Something that was done to the system; `member` and `broker` are 0 where it is not about one."""

    kind: str
    began: float
    ended: float
    member: int = 0
    broker: int = 0


@dataclass(slots=True)
class Sample:
    """The resident memory of a process, MiB."""

    member: int
    kind: str
    at: float
    mib: float


@dataclass(slots=True)
class End:
    """How the system was once all faults had been undone."""

    healed: float
    drained: float | None = None  # when nothing was left to be read; None: never
    lag: dict[str, int] = field(default_factory=dict)  # topic: what was left when we gave up waiting
    unready: dict[int, str] = field(default_factory=dict)  # member: why it says that it is not well
    hanging: dict[str, int] = field(default_factory=dict)
    """Topic and partition: how many offsets a reader of committed records cannot pass."""


@dataclass(slots=True)
class Facts:
    """All of it."""

    guarantee: str
    end: End
    sent: dict[int, Sent] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    skipped: dict[int, float] = field(default_factory=dict)  # by the filter, first time
    stored: list[Stored] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    tenures: list[Tenure] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    members: dict[int, Member] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    commits: CommitLog = field(default_factory=lambda: CommitLog([]))
