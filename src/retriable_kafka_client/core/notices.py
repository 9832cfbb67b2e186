"""The events that are published about a message or an assignment, made from what the engine knows of it."""

from __future__ import annotations

from retriable_kafka_client import events
from retriable_kafka_client.core.chunks import Lost
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import HandOff, HandOffKind, Now, Suspect
from retriable_kafka_client.core.retry import Failure

__all__ = [
    "accepted",
    "blocked",
    "died",
    "dropped",
    "foreign_group",
    "given_up",
    "map_ignored",
    "map_overflow",
    "nowhere",
    "refused",
    "reset",
    "retried_in_place",
    "started",
    "stuck",
    "timed_out",
]


def started(assignment: Assignment, position: int | None) -> events.Event:
    """Consuming begins."""
    topic, partition = assignment.place
    return events.AssignmentStarted(
        topic=topic, partition=partition, position=position, restored=assignment.restored
    )


def map_ignored(assignment: Assignment, reason: str) -> events.Event:
    """What was committed beside the position is not to be believed."""
    topic, partition = assignment.place
    if reason == "topic":
        return reset(assignment, None)
    return events.OffsetMapIgnored(topic=topic, partition=partition, reason=reason)


def reset(assignment: Assignment, position: int | None) -> events.Event:
    """The log is another one than before."""
    topic, partition = assignment.place
    return events.TopicReset(topic=topic, partition=partition, position=position)


def foreign_group(entry: Entry, group: str) -> events.Event:
    """The retry copy is another group's, the first one of it that was met."""
    topic, partition = entry.assignment.place
    return events.ForeignCopies(topic=topic, partition=partition, offset=entry.offset, group=group)


def blocked(assignment: Assignment) -> events.Event:
    """The offset map has no room for what is ready."""
    topic, partition = assignment.place
    position = assignment.progress.tracker.position
    return events.AdmissionBlocked(topic=topic, partition=partition, position=position)


def map_overflow(assignment: Assignment) -> events.Event:
    """What is complete between a message's chunks is more than commits can list."""
    topic, partition = assignment.place
    position = assignment.progress.tracker.position
    return events.OffsetMapOverflow(topic=topic, partition=partition, position=position)


def given_up(assignment: Assignment, lost: Lost) -> events.Event:
    """A message will never be whole."""
    topic, partition = assignment.place
    return events.ChunksGivenUp(
        topic=topic,
        partition=partition,
        offset=lost.offset,
        reason=lost.reason,
        chunks=lost.chunks,
        expected=lost.count,
    )


def accepted(handoff: HandOff, now: Now) -> events.Event:
    """The copy is acknowledged."""
    entry, failure = handoff.entry, handoff.failure
    topic, partition = entry.assignment.place
    if handoff.kind is HandOffKind.PARK:
        return events.MessageParked(topic=topic, partition=partition, offset=entry.offset)
    assert failure is not None
    if handoff.kind is HandOffKind.RETRY:
        assert handoff.marks.not_before_ms is not None
        return events.MessageRetried(
            topic=topic,
            partition=partition,
            offset=entry.offset,
            attempt=handoff.attempts,
            error=failure.error,
            reason=failure.reason if failure.error is None else None,
            text=failure.text,
            place=failure.place,
            traceback=failure.traceback,
            delay=max(0.0, handoff.marks.not_before_ms / 1000 - now.wall),
            retry_topic=handoff.target,
        )
    return events.MessageDeadLettered(
        topic=topic,
        partition=partition,
        offset=entry.offset,
        attempts=handoff.attempts,
        reason=failure.reason,
        error=failure.error,
        text=failure.text,
        place=failure.place,
        traceback=failure.traceback,
        dead_letter_topic=handoff.target,
    )


def refused(handoff: HandOff, code: str, again_in: float) -> events.Event:
    """The copy was refused and is sent again."""
    topic, partition = handoff.entry.assignment.place
    return events.HandOffRefused(
        topic=topic,
        partition=partition,
        offset=handoff.entry.offset,
        target=handoff.target,
        code=code,
        again_in=again_in,
    )


def retried_in_place(entry: Entry, failure: Failure, attempt: int) -> events.Event:
    """The failed message waits in memory."""
    topic, partition = entry.assignment.place
    assert failure.retry_in is not None
    return events.MessageRetried(
        topic=topic,
        partition=partition,
        offset=entry.offset,
        attempt=attempt,
        error=failure.error,
        reason=failure.reason if failure.error is None else None,
        text=failure.text,
        place=failure.place,
        traceback=failure.traceback,
        delay=failure.retry_in,
        retry_topic=None,
    )


def dropped(entry: Entry, failure: Failure, attempts: int) -> events.Event:
    """The message is gone because its topic has no dead-letter topic."""
    topic, partition = entry.assignment.place
    return events.MessageDropped(
        topic=topic,
        partition=partition,
        offset=entry.offset,
        attempts=attempts,
        reason=failure.reason,
        error=failure.error,
        text=failure.text,
        place=failure.place,
        traceback=failure.traceback,
    )


def nowhere(entry: Entry, pattern: str) -> events.Event:
    """It failed, and its retry topic is a pattern, which names no topic to put the copy into."""
    topic, partition = entry.assignment.place
    return events.NoRetryTopic(
        topic=topic, partition=partition, offset=entry.offset, attempt=entry.attempt, pattern=pattern
    )


def died(entry: Entry) -> events.Event:
    """A worker process ended while it ran the message."""
    topic, partition = entry.assignment.place
    return events.WorkerDied(topic=topic, partition=partition, offset=entry.offset, attempt=entry.attempt)


def stuck(suspect: Suspect, stood: float) -> events.Event:
    """The message ran while the loop stood still, and its partition was lost."""
    topic, partition = suspect.place
    return events.HandlerStuck(
        topic=topic,
        partition=partition,
        offset=suspect.offset,
        attempt=suspect.attempt,
        seconds=stood,
        alone=suspect.alone,
    )


def timed_out(entry: Entry, *, running: bool) -> events.Event:
    """The message ran for longer than it may."""
    topic, partition = entry.assignment.place
    return events.HandlerTimedOut(
        topic=topic, partition=partition, offset=entry.offset, attempt=entry.attempt, running=running
    )
