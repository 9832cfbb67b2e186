"""What the engine handles (events) and what it wants done (commands).

The commands of one event are complete when they are returned, and belong to the caller. While it performs them, some are
answered at once (``Withdraw``; a ``Commit`` that fails before it is sent): it may pass the engine that answer, and perform
what follows from it, before the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retriable_kafka_client.core.copies import HandOff, HandOffKind, Publication
from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.core.place import Place
from retriable_kafka_client.core.plain_batch import PlainBatch, Succeeded
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.events import Event
from retriable_kafka_client.wire.outbox import Output

__all__ = [
    "Arrived",
    "Assigned",
    "CancelRecall",
    "Command",
    "Commit",
    "CommitAnswered",
    "Ended",
    "EngineEvent",
    "FetchCommitted",
    "Finished",
    "HandOff",
    "HandOffAnswered",
    "HandOffKind",
    "Hold",
    "Idle",
    "Locate",
    "Located",
    "Notify",
    "Now",
    "Outcome",
    "Pause",
    "Place",
    "Produce",
    "Progress",
    "Publication",
    "Publish",
    "Published",
    "Recall",
    "RecallEnded",
    "Recalled",
    "Restored",
    "Resume",
    "Revoking",
    "Run",
    "RunBatch",
    "Start",
    "Stopping",
    "Suspect",
    "Tick",
    "TopicChanged",
    "Transact",
    "Transacted",
    "Withdraw",
    "Withdrawn",
]


@dataclass(frozen=True, slots=True)
class Now:
    """One instant on both clocks, in seconds. Not-before is wall time; intervals and backoff are monotonic."""

    wall: float
    mono: float


Outcome = Failure | tuple[Output, ...] | None
"""How a run ended: it failed; it succeeded and sent something; None: it succeeded."""

# Events --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours; each stands paused until its Start."""

    places: Sequence[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What the broker holds of the group for one partition, and what the topic is."""

    place: Place
    position: int | None  # None: nothing is committed
    metadata: str
    uid: str  # names the topic's incarnation in ids of messages: its topic id, or cluster id and name
    retention_ms: int | None = None  # None: unknown or unlimited
    cluster: str = ""  # the cluster's id
    topic_id: str | None = None  # None: the brokers do not say
    fallback_uid: str = ""  # what ``uid`` is while they do not
    earliest: bool = False  # without a position, begin where the log does


@dataclass(frozen=True, slots=True)
class Located:
    """Where the log begins or ends, as ``locate`` asks; ``position`` None: the brokers do not say."""

    locate: Locate
    position: int | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records that were polled from one partition, in log order: ``raws[i]`` at ``offsets[i]``, which increase."""

    place: Place
    offsets: Sequence[int]
    raws: Sequence[Any]
    first_ms: int = 0  # the first one's timestamp; 0: it has none
    stamp_ms: int = 0  # the last one's timestamp; 0: it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What ended with the workers since the last time; a runner fills it, and afterwards nobody changes it.

    An entry stands in one list, and comes once only; but what is ``overdue`` stands in ``released`` too, of the same or a
    later one.
    """

    done: list[Entry] = field(default_factory=list)  # succeeded
    succeeded: list[Succeeded] = field(
        default_factory=list
    )  # parts of plain batches, whose messages have no Entry
    sent: list[tuple[Entry, tuple[Output, ...]]] = field(
        default_factory=list
    )  # succeeded; publish these first
    failed: list[tuple[Entry, Failure]] = field(default_factory=list)
    died: list[Entry] = field(default_factory=list)  # their worker process ended while it ran them
    # Ran for too long, and still run, because nothing can end them: the slot, and an ordered key, are free when it is
    # released.
    overdue: list[tuple[Entry, Failure]] = field(default_factory=list)
    released: list[Entry] = field(default_factory=list)
    filtered: list[Entry] = field(default_factory=list)  # not to be run after all: see Entry.unsifted
    chance: float = 0.5  # in [0, 1), for the jitter of delays that no worker judges

    def __bool__(self) -> bool:
        """Whether anything ended."""
        ended = self.done or self.succeeded or self.failed or self.sent
        return bool(ended or self.died or self.overdue or self.released or self.filtered)

    def note(self, entry: Entry, outcome: Outcome) -> None:
        """Put an entry into the list that its outcome belongs to."""
        if outcome is None:
            self.done.append(entry)
        elif isinstance(outcome, Failure):
            self.failed.append((entry, outcome))
        else:
            self.sent.append((entry, outcome))


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Entries that were handed out and come back unstarted."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class HandOffAnswered:
    """The broker acknowledged a copy (``code`` None), or refused it for good: it is certainly not in the log."""

    handoff: HandOff
    code: str | None


@dataclass(frozen=True, slots=True)
class Published:
    """The brokers acknowledged all outputs (``code`` None), or refused one for good."""

    publication: Publication
    code: str | None


@dataclass(frozen=True, slots=True)
class CommitAnswered:
    """The answer to the Commit in flight: an error code for each partition that was not committed."""

    commit: Commit
    codes: Mapping[Place, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transacted:
    """What has become of the Transact in flight, for certain.

    ``landed``: all of it is visible. Else nothing of it is, nor ever will be, and what was committed is as before; but with
    ``_DESTROY``, at the very end, nobody knows.
    """

    transact: Transact
    landed: bool
    refused: Mapping[HandOff | Publication, str] = field(default_factory=dict)  # these alone, with the codes
    code: str | None = None  # why else it did not land


@dataclass(frozen=True, slots=True)
class Idle:
    """A poll came back empty while the client stood at this position: what lies below has been read.

    Of a partition with unfinished chunk groups it comes only where the log ends there.
    """

    place: Place
    position: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """What stands next in the log that ``recall`` asks for; records in between are gone."""

    recall: Recall
    offsets: Sequence[int]
    raws: Sequence[Any]


@dataclass(frozen=True, slots=True)
class RecallEnded:
    """All of it was read (``reached``), or it cannot be read at present."""

    recall: Recall
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Revoking:
    """These partitions are to be given away after a drain."""

    places: Sequence[Place]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A message that ran while the loop stood still, for so long that partitions were lost."""

    place: Place
    uid: str
    offset: int
    attempt: int
    alone: bool = False  # nothing else ran


@dataclass(frozen=True, slots=True)
class Ended:
    """These assignments are over: nothing is committed for them any more. ``reason`` as in AssignmentEnded.

    ``suspects``: these may have held the loop up for ``stood`` seconds, which is why the partitions were lost.
    """

    places: Sequence[Place]
    reason: str
    suspects: Sequence[Suspect] = ()
    stood: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChanged:
    """The topic behind a partition is another one than before."""

    place: Place
    uid: str
    retention_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """Hand out nothing more; what runs may finish."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Start nothing and read nothing until further notice (``on``), or go on."""

    on: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


EngineEvent = (
    Assigned
    | Restored
    | Located
    | Arrived
    | Finished
    | Withdrawn
    | HandOffAnswered
    | Published
    | CommitAnswered
    | Transacted
    | Idle
    | Recalled
    | RecallEnded
    | Revoking
    | Ended
    | TopicChanged
    | Stopping
    | Hold
    | Tick
)

# Commands ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchCommitted:
    """Ask the broker for position and metadata of these, until Restored or Ended."""

    places: Sequence[Place]


@dataclass(frozen=True, slots=True)
class Start:
    """Consume from ``offset`` (None: where ``auto.offset.reset`` says; EARLIEST: the log's beginning), not paused.

    A Pause may follow before the client has begun.
    """

    place: Place
    offset: int | None
    earliest: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Locate:
    """Nothing is committed for this partition: ask where its log begins, or (``end``) where it ends for readers of what is
    committed, until Located or Ended.
    """

    place: Place
    token: object = field(repr=False)  # the assignment that wants it
    end: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Let the client fetch nothing more of this partition."""

    place: Place


@dataclass(frozen=True, slots=True)
class Resume:
    """Undo Pause."""

    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Recall:
    """Read the log again from ``first`` up to ``stop``, beside what is consumed; one at a time.

    Answer with Recalled, as ``Engine.reread_budget`` says, and with RecallEnded: once ``stop`` is reached, or, as not
    reached, at the end of what the broker gives out before it.
    """

    place: Place
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class CancelRecall:
    """Nothing more of this is wanted."""

    recall: Recall


@dataclass(frozen=True, slots=True)
class Run:
    """Hand these to the workers, in this order where they can take them."""

    entries: Sequence[Entry]
    urgent: bool = False  # before all that has not started: they had to wait for their time


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Hand these to the workers."""

    batch: PlainBatch


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Give back (as Withdrawn) what has not started of assignments that hand out nothing at present."""


@dataclass(frozen=True, slots=True)
class Produce:
    """Send the copy; answer with HandOffAnswered once it is certain whether it is in the log."""

    handoff: HandOff


@dataclass(frozen=True, slots=True)
class Publish:
    """Send the outputs; answer with Published once it is certain that all are in their logs, or that one is not."""

    publication: Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One partition's part of a commit."""

    place: Place
    position: int
    metadata: str
    owner: Owner = field(repr=False)
    news: bool = (
        True  # in a Transact: it differs from what the broker took last, and so shows whether this one landed
    )


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit all of these in one request; one is in flight at a time."""

    progress: Sequence[Progress]

    def failed(self, code: str) -> dict[Place, str]:
        """The codes of an answer by which nothing of it was committed."""
        return dict.fromkeys((one.place for one in self.progress), code)


@dataclass(slots=True, eq=False)
class Transact:
    """Send and commit all of this in one transaction; one is in flight at a time. Answer with Transacted.

    Copies, outputs and progress belong together: ``progress`` says what is complete once the rest is visible.
    """

    handoffs: Sequence[HandOff]
    publications: Sequence[Publication]
    progress: Sequence[Progress]


@dataclass(frozen=True, slots=True)
class Notify:
    """Publish the event to the user."""

    event: Event


Command = (
    FetchCommitted
    | Start
    | Locate
    | Pause
    | Resume
    | Recall
    | CancelRecall
    | Run
    | RunBatch
    | Withdraw
    | Produce
    | Publish
    | Commit
    | Transact
    | Notify
)
