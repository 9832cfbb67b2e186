"""What the engine is made with, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from retriable_kafka_client.core.progress import LEAST_MAP_UNITS
from retriable_kafka_client.core.retry import Policy
from retriable_kafka_client.core.routing import Routing

__all__ = ["Counters", "EngineConfig", "Ordering", "Reset", "Route"]

Ordering = Literal["unordered", "key", "partition"]
Reset = Literal["earliest", "latest", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One Topic entry of the consumer."""

    topic: str  # a name, or a pattern that begins with "^"
    retry_topic: (
        str | None
    )  # a name or pattern, too; None: failures are retried in place, if the policy retries at all
    dead_letter: str | None  # None: exhausted messages are dropped and counted
    policy: Policy | None  # None: one attempt
    formerly: tuple[str, ...] = ()  # other names under which copies may name where their message stood first


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What never changes while a consumer runs."""

    group: str
    routes: tuple[Route, ...]
    in_flight: int  # messages with the workers at any time
    window: int  # incomplete messages per partition
    buffer_bytes: int  # half for what waits for its time, half for what is under way
    commit_interval: float  # seconds
    parking_interval: float  # seconds
    map_units: int = 4095  # UTF-16 units of commit metadata that the broker takes
    ordering: Ordering = "unordered"
    message_bytes: int = 2**63 - 1  # the largest message that is put together of chunks
    chunk_wait: float = 900.0  # seconds of log time until a message of which chunks are missing is given up
    transaction_bytes: int = (
        8 * 1024 * 1024
    )  # of copies and outputs in one: it must be sent within its time-out
    least_map_units: int = LEAST_MAP_UNITS  # with less, positions are committed without a map
    # Nothing is produced or committed but in transactions: Transact takes the place of Produce, Publish and Commit.
    exactly_once: bool = False
    reset: Reset = (
        "earliest"  # where base topics begin without a position; retry topics always at their beginning
    )
    # What is `alone` has the whole consumer to itself: handlers share the loop's interpreter, and can hold it up.
    solo: bool = False
    solo_patience: float = 300.0  # seconds for which the others wait then
    routing: Routing = field(
        init=False, repr=False, compare=False
    )  # of `routes`; the loop's thread alone asks it

    def __post_init__(self) -> None:
        object.__setattr__(self, "routing", Routing(self.routes))

    @property
    def reserve(self) -> int:
        """How much of ``in_flight`` is kept for messages whose time comes.

        Nothing where that is small: room comes with the next message that ends, and all of it may be wanted at once.
        """
        return self.in_flight // 8 if self.in_flight >= 64 else 0


@dataclass(slots=True)
class Counters:
    """Messages since the consumer began."""

    handled: int = 0  # runs that succeeded
    failed: int = 0  # runs that did not
    retried: int = 0  # retry copies acknowledged, and retries that wait in memory
    published: int = 0  # records that handlers sent, acknowledged
    dead_lettered: int = 0  # dead letters acknowledged
    dropped: int = 0  # would be dead letters, but the topic says DISCARD
    filtered: int = 0
    foreign: int = 0  # another group's retry copies
    assembled: int = 0  # messages that came in chunks, and are whole
    given_up: int = 0  # messages that came in chunks, and will never be whole
    duplicates: int = (
        0  # records that were there before: chunks that stand twice, and what the client read twice
    )
    recalled: int = 0  # chunks that were read again, for want of memory the first time
    parked: int = 0
    restored: int = 0  # done before, as the offset map says
    refused: int = 0  # copies that were refused and sent again
    arrived: int = 0
