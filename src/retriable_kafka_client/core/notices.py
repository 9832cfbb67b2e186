"""What users are told about one message, made from what the engine knows of it."""

from __future__ import annotations

from retriable_kafka_client import events
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.protocol import HandOff, HandOffKind, Now
from retriable_kafka_client.core.retry import Failure

__all__ = ["accepted", "died", "dropped", "nowhere", "refused"]


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
