"""What ``on_event`` is given: frozen values, one type for each thing that can happen.

None holds a payload, a key or a secret. They are made on the consumer's loop and handed over on a thread of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "REASON_CORRUPT",
    "REASON_EXHAUSTED",
    "REASON_FILTER",
    "REASON_GIVEN_UP",
    "REASON_INCOMPLETE",
    "REASON_MALFORMED",
    "REASON_NOT_BEFORE",
    "REASON_NO_ORIGIN",
    "REASON_ORPHAN",
    "REASON_REJECTED",
    "REASON_TOO_LARGE",
    "REASON_UNDECODABLE",
    "REASON_WORKER_DIED",
    "REASON_WORKER_STUCK",
    "AdmissionBlocked",
    "AssignmentEnded",
    "AssignmentStarted",
    "BrokerTrouble",
    "ChunksGivenUp",
    "CommitFailed",
    "Committed",
    "ConsumerEnded",
    "DrainOverrun",
    "Event",
    "ForeignCopies",
    "HandOffRefused",
    "HandlerStuck",
    "HandlerTimedOut",
    "MessageDeadLettered",
    "MessageDropped",
    "MessageParked",
    "MessageRetried",
    "NoRetryTopic",
    "OffsetMapIgnored",
    "OffsetMapOverflow",
    "OffsetMapShortened",
    "PartitionMoves",
    "PartitionStands",
    "RecordsLost",
    "TopicReset",
    "TopicUnclear",
    "TransactionAborted",
    "TransactionEnded",
    "TransactionHangs",
    "WorkerDied",
]

# The reasons for which a message is dead-lettered or dropped. They stand on the wire and in metrics: never rename one.
REASON_EXHAUSTED = "exhausted"  # failed max_attempts times
REASON_GIVEN_UP = "given-up"  # raised one of Retry.give_up_on
REASON_REJECTED = "rejected"  # the handler raised Reject
REASON_UNDECODABLE = "undecodable"  # the payload is not what the deserializer reads
REASON_WORKER_DIED = "worker-died"  # killed its worker process max_attempts times
# Held the whole process up, until the partitions were lost, max_attempts times.
REASON_WORKER_STUCK = "worker-stuck"
REASON_FILTER = "filter-failed"  # the filter raised
REASON_MALFORMED = "malformed-header"  # a library header that cannot be what it says
REASON_NO_ORIGIN = "unknown-origin"  # a retry copy of a topic that this consumer does not handle
REASON_NOT_BEFORE = "not-before-too-far"  # to run more than a year from now
REASON_CORRUPT = "corrupt"  # whole, but not of the size or checksum that its sender wrote
REASON_INCOMPLETE = "incomplete"  # one chunk of a message of which others never came
REASON_ORPHAN = "orphan"  # one chunk of a message whose first ones had been committed, or were gone, before
REASON_TOO_LARGE = "too-large"  # above Limits.message_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The common root. ``topic`` and ``partition`` name where the record stands that this is about."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentStarted(Event):
    """A partition is ours and consuming begins at ``position``; ``restored`` messages above it are known as done."""

    position: (
        int | None
    )  # None: nothing is committed; at the log's beginning, unless auto.offset.reset is "error"
    restored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentEnded(Event):
    """A partition is no longer ours. ``reason``: "revoked", "lost", "stopped" or "reset"."""

    reason: str
    unfinished: int  # messages that were begun or waiting and are left to the next owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Event):
    """The broker acknowledged ``position``, with an offset map of ``map_units`` UTF-16 units (0: a bare position)."""

    position: int
    map_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFailed(Event):
    """The broker refused a commit, or did not answer; the next one carries the same progress.

    Just before AssignmentEnded, with ``_TIMED_OUT``: the last commit, or with exactly once the last transaction, had no good
    answer in time. The progress in it may not be committed, and then runs again with the next owner.
    """

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionAborted(Event):
    """Nothing of a transaction became visible; no handler runs again, what it held goes into the next one.

    ``code`` says why; ``refused`` records of it were refused themselves, and the next one goes without them. The next begins
    in ``again_in`` seconds. ``topic`` is empty and ``partition`` -1.

    Of partitions that were given away meanwhile nothing goes into the next one: their messages run again with the next
    owner. ``_DESTROY``: the consumer ended before there was an answer. Whether the transaction became visible is not known
    then, and there is no next one here. If it did not, its messages run again elsewhere; nothing becomes visible twice.
    """

    code: str
    refused: int
    again_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetMapIgnored(Event):
    """The committed metadata is not this library's map for this position; messages above it may run again.

    ``reason``: ``not-ours``, ``version``, ``malformed``, ``checksum`` or ``base`` (somebody else wrote it, or moved it),
    ``cluster`` (it was copied from another cluster: the position counts), ``binding`` (of another partition), ``topic`` (of
    another incarnation of the topic: it was made anew, and is read from its beginning).
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetMapShortened(Event):
    """The broker takes less commit metadata than asked for: the budget is now ``budget_units``."""

    budget_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionBlocked(Event):
    """New messages wait because one that is not complete would let the offset map overflow."""

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStands(Event):
    """Nothing more of a partition has been read for ``seconds``, because ``incomplete`` messages of it fill the window, the
    memory or the offset map, and fewer than one a second of them have completed of late.

    ``offset`` is that of the message that holds it up: the lowest one that is not complete or, in order of keys, the one for
    which the most others wait.
    """

    offset: int
    attempt: int | None  # the run that it waits for; None: it waits for no time, but is with the workers, say
    due_in: float | None  # seconds until that run
    key_hash: str | None  # ordering="key": the first 12 digits of the SHA-256 of its key
    behind: int  # ordered: messages that wait for it
    incomplete: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionMoves(Event):
    """A partition that stood is read again, or at least a message a second of it completes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetMapOverflow(Event):
    """The chunks of a message lie so far apart that a commit has no room for all that is complete between them.

    After a crash or a rebalance before they can, some of it runs again, or ends as "orphan" or "incomplete".
    """

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunksGivenUp(Event):
    """A message that was sent in chunks will never run; the ``chunks`` of it that were read go to the dead-letter topic.

    ``offset`` is that of the first of them. ``reason``: "incomplete", "orphan", "too-large" or "corrupt".
    """

    offset: int
    reason: str
    chunks: int
    expected: int  # how many there should have been, as the sender says


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicReset(Event):
    """The log is another one than before, and is read from its beginning; or, where ``position`` is given, it was cut back
    before what had been read, and is read from there on.
    """

    position: int | None  # None: from its beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsLost(Event):
    """``count`` records from offset ``first`` on were deleted (retention, DeleteRecords) before they were read.

    Compacted ones and transaction markers may be among them.
    """

    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionHangs(Event):
    """Nothing from ``position`` on is given out since ``since``: another producer's transaction is open there.

    ``held_back``: how many records stand behind it. It ends when its producer commits or aborts, or with its time-out.
    """

    position: int
    held_back: int
    since: datetime  # when the consumer first waited for it


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionEnded(Event):
    """The partition of an earlier TransactionHangs goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicUnclear(Event):
    """A topic that appeared while the consumer ran is not clearly one entry's; nothing of it is read or committed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCopies(Event):
    """Retry copies of ``group`` are passed over, from this one on. One event for each group, for a hundred groups at most.

    Where that was this consumer's ``group_id`` before, ``Consumer(former_groups=…)`` runs them. A name of more than 255
    characters is cut.
    """

    offset: int
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRetryTopic(Event):
    """Run number ``attempt`` failed in a topic of first attempts, and ``Retry.topic`` is a pattern: where to put a copy
    are not known, so the message counts as exhausted.
    """

    offset: int
    attempt: int
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRetried(Event):
    """Run number ``attempt`` failed; the copy in ``retry_topic`` is acknowledged and runs ``delay`` seconds later.

    ``retry_topic`` None: the message waits in memory. ``error`` None: it was no exception that ended the run, and ``reason``
    says what it was: ``worker-died`` or ``worker-stuck``.
    """

    offset: int
    attempt: int
    error: str | None
    reason: str | None = None
    text: str | None = None  # the exception's, or what Reject was given; with Consumer(error_text=True) only
    place: str | None = None  # where in the user's code it was raised: "module:line function"
    traceback: str | None = None  # with Consumer(error_text=True) only
    delay: float
    retry_topic: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeadLettered(Event):
    """The message is in ``dead_letter_topic``, acknowledged. ``reason`` is one of REASON_*."""

    offset: int
    attempts: int
    reason: str
    error: str | None
    text: str | None = None  # the exception's, or what Reject was given; with Consumer(error_text=True) only
    place: str | None = None  # where in the user's code it was raised: "module:line function"
    traceback: str | None = None  # with Consumer(error_text=True) only
    dead_letter_topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(Event):
    """The message is gone by configuration: ``reason`` would have dead-lettered it, but the topic says DISCARD."""

    offset: int
    attempts: int
    reason: str
    error: str | None
    text: str | None = None  # the exception's, or what Reject was given; with Consumer(error_text=True) only
    place: str | None = None  # where in the user's code it was raised: "module:line function"
    traceback: str | None = None  # with Consumer(error_text=True) only


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageParked(Event):
    """A message that is due far off was re-published to its retry topic's end, to make room in the window."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOffRefused(Event):
    """``target`` refused a copy. The offset is held and the copy is sent again in ``again_in`` seconds, for ever."""

    offset: int
    target: str
    code: str
    again_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied(Event):
    """A worker process ended while it ran this message."""

    offset: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStuck(Event):
    """The consumer's loop could not run for ``seconds``, so that its partitions were lost, and this message ran meanwhile.

    It runs again with nothing else of this consumer beside it. ``alone``: it did so already, and so it is the one.
    """

    offset: int
    attempt: int
    seconds: float
    alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerTimedOut(Event):
    """A run took longer than ``Consumer.timeout``, and counts as failed.

    ``running``: it could not be ended, and keeps its place with the workers until it returns.
    """

    offset: int
    attempt: int
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerEnded(Event):
    """The consumer has ended by itself, not by a stop; the last event. ``topic`` is empty and ``partition`` -1.

    ``error``: the exception's type. ``join`` and ``run`` raise it, ``health()`` says more.
    """

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOverrun(Event):
    """The partition had to be given away while ``running`` handlers of it were still at work."""

    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTrouble(Event):
    """The client reported an error; ``topic`` is empty and ``partition`` -1 where it concerns no partition."""

    code: str
    fatal: bool
