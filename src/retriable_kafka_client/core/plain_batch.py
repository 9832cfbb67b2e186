"""Plain records in columns: an Entry for each would cost more than everything else that is done for it.

Plain is what has none of the library's headers, and what no filter and no order concerns. As soon as something happens to
one of them that is not plain (it fails, it is taken back, the offset map has no room), Entries are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.wire.headers import PLAIN

__all__ = ["PlainBatch", "Succeeded"]


@dataclass(slots=True, eq=False)
class PlainBatch:
    """Messages of one assignment and one Topic entry, in log order; at least one."""

    assignment: Owner
    route: int
    offsets: Sequence[int]
    sizes: Sequence[int]  # bytes that holding each one costs
    raws: Sequence[Any]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(self.sizes)

    def part(self, first: int, stop: int) -> PlainBatch:
        """Some of them, by index."""
        return PlainBatch(
            self.assignment,
            self.route,
            self.offsets[first:stop],
            self.sizes[first:stop],
            self.raws[first:stop],
        )

    def entries(self) -> list[Entry]:
        """Each on its own."""
        columns = zip(self.offsets, self.sizes, self.raws, strict=True)
        return [Entry(self.assignment, offset, size, raw, PLAIN, self.route) for offset, size, raw in columns]


@dataclass(frozen=True, slots=True, eq=False)
class Succeeded:
    """Messages of a batch whose runs succeeded; ``offsets`` increase."""

    assignment: Owner
    offsets: Sequence[int]
    size: int  # bytes of all
