"""Copies of messages, and outputs of runs, on their way to other topics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.wire.headers import Marks
from retriable_kafka_client.wire.outbox import Output

__all__ = ["HandOff", "HandOffKind", "Publication"]


class HandOffKind(Enum):
    """Why a copy is made."""

    RETRY = "retry"
    DEAD_LETTER = "dead-letter"
    PARK = "park"


@dataclass(slots=True, eq=False, kw_only=True)
class HandOff:
    """One copy on its way to another topic; the engine owns it, and changes only ``tries``."""

    entry: Entry
    kind: HandOffKind
    target: str
    marks: Marks  # the copy's; on a dead letter: group, origin, id and first failure only
    failure: Failure | None  # None for parking
    attempts: int  # runs so far
    tries: int = 0  # refusals so far


@dataclass(slots=True, eq=False)
class Publication:
    """What one successful run sends, on its way to its topics."""

    entry: Entry
    outputs: tuple[Output, ...]
    chance: float  # in [0, 1), for the jitter of the delay after a refusal

    @property
    def size(self) -> int:
        """Bytes that the outputs hold."""
        return sum(output.size for output in self.outputs)
