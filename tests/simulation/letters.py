"""Messages that are sent in chunks, and what the simulation itself knows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from retriable_kafka_client.core.chunks import Part
from retriable_kafka_client.core.entry import Entry, Owner, Verdict
from retriable_kafka_client.wire.headers import Chunk, Headers, Marks, own_headers, write_marks
from tests.simulation.broker import Broker
from tests.simulation.records import Facts, Kind, PartRecord, Whole

if TYPE_CHECKING:
    from tests.simulation.watch import Watch

__all__ = ["Letter", "Sending", "WatchedJoiner", "cut_up"]


@dataclass(slots=True, eq=False)
class Letter:
    """One message in chunks."""

    facts: Facts
    bodies: list[bytes]
    marks: Marks
    own: Headers
    key: bytes | None
    group: bytes
    corrupt: bool = False  # what its headers say of the whole is not true
    resolved: bool = False
    copies: dict[int, list[PartRecord]] = field(default_factory=dict)  # what stands in logs, by index
    begun: list[Any] = field(default_factory=list)  # as a record's

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    def record(self, index: int, *, total: bool) -> PartRecord:
        """A new record of this chunk."""
        last, body = index == len(self.bodies) - 1, self.body
        chunk = Chunk(
            self.group,
            index,
            len(self.bodies),
            len(body) + self.corrupt * 7 if total else None,
            hashlib.sha256(body).digest() if total and last else None,
        )
        kind = Kind.PART if self.facts.kind is not Kind.FILTERED else Kind.FILTERED
        made = PartRecord(
            self.bodies[index],
            [*self.own, *write_marks(replace(self.marks, chunk=chunk))],
            replace(self.facts, kind=kind),
            self.key or self.group,
            letter=self,
            index=index,
        )
        self.copies.setdefault(index, []).append(made)
        return made

    def parts(self) -> Iterator[PartRecord]:
        for copies in self.copies.values():
            yield from copies

    def resolve(self, broker: Broker) -> None:
        """The message needs no more work."""
        self.resolved = True
        for part in self.parts():
            broker.resolve_one(part)

    def resolve_index(self, broker: Broker, index: int) -> None:
        """This chunk stands elsewhere."""
        for part in self.copies[index]:
            broker.resolve_one(part)


def cut_up(random: Random, body: bytes, count: int) -> list[bytes]:
    """Cut a body at random places."""
    places = sorted(random.randrange(len(body) + 1) for _ in range(count - 1))
    return [body[low:high] for low, high in zip([0, *places], [*places, len(body)], strict=True)]


@dataclass(slots=True)
class Sending:
    """A letter on its way: which chunks are still to be appended, in this order."""

    letter: Letter
    topic: str
    partition: int
    order: list[int]
    total: bool
    next_at: float = 0.0


class WatchedJoiner:
    """The real one, whose work is checked; behind it a message is one of the simulation's records."""

    def __init__(self, real: Any, watch: Watch) -> None:
        self._real = real
        self._watch = watch

    def seal(self, seal: Any, part: Part) -> Any:
        return self._real.seal(seal, part)

    def join(self, assignment: Owner, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
        records: list[PartRecord] = [part.raw for part in parts]
        made: Entry | Verdict = self._real.join(assignment, parts, seal)
        self._watch.joined(records, made)
        if isinstance(made, Entry):
            letter, first = records[0].letter, records[0]
            made.raw = self._watch.wholes[assignment, made.offset] = Whole(
                letter.body,
                list(own_headers(first.headers())),
                letter.facts,
                letter.key,
                place=first.place,
                offset_=made.offset,
                stamp_ms=first.stamp_ms,
                begun=letter.begun,
                letter=letter,
                records=records,
            )
        return made
