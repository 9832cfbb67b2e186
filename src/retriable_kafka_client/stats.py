"""Figures of a consumer at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["PartitionStats", "Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStats:
    """One partition that is ours."""

    position: int | None  # the lowest offset that is not complete; None: nothing has been read yet
    incomplete: int  # messages that were read and are not complete
    waiting: int  # of these, the ones that are not due yet
    behind: int  # of these, the ones that wait for an earlier message of their key, or of the partition
    in_flight: int  # of these, the ones with the workers
    assembling: int  # besides, messages of which chunks are missing
    end: int | None = None  # where the log ends: one past its last record; None: not known yet
    # What is left to do: records that were not read, or are not complete. What is complete above the position does not
    # count. None: not known yet.
    lag: int | None = None
    paused: bool  # nothing is read: the window or the byte budget is full, or the consumer is paused
    held_by: int | None = None  # the offset of the message that has held it up for half a minute or more
    held_for: float = 0.0  # seconds that it has been paused then


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts of messages since the consumer began, and what it holds now. A snapshot: it never changes."""

    handled: int = 0  # runs that succeeded
    failed: int = 0  # runs that did not
    retried: int = 0  # copies acknowledged by a retry topic, and retries in place
    published: int = 0  # records that handlers sent, acknowledged
    dead_lettered: int = 0  # copies acknowledged by a dead-letter topic
    dropped: int = 0  # would be dead letters, but their topic says DISCARD
    filtered: int = 0
    foreign: int = 0  # retry copies of other groups, passed over
    assembled: int = 0  # messages that came in chunks, and became whole
    given_up: int = 0  # messages that came in chunks, and never become whole
    duplicates: int = 0  # records that came twice: chunks that stand twice, and what the client read twice
    recalled: int = 0  # chunks that were read again, for want of memory the first time
    parked: int = 0  # re-published because they are due far off
    restored: int = 0  # passed over because the offset map says that they are done
    refused: int = 0  # copies that were refused and are sent again
    arrived: int = 0  # records read
    lost_records: int = 0  # deleted by the brokers before they were read
    hanging: int = 0  # partitions that another producer's transaction holds up at present, by not ending
    lost_events: int = 0  # not handed to on_event, which was too slow
    on_hold: bool = False  # paused by Consumer.pause()
    in_flight: int = 0  # with the workers now
    overrun: int = 0  # of these, the ones whose partition is no longer ours
    overdue: int = 0  # of these, the ones beyond their time limit whose partition is ours
    buffered_bytes: int = 0  # held in memory for messages that are not complete
    assembling_bytes: int = 0  # of these, chunks whose messages are not whole
    partitions: Mapping[tuple[str, int], PartitionStats] = field(default_factory=lambda: MappingProxyType({}))
