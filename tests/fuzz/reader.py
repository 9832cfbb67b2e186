"""Any bytes, taken apart: each choice eats some, so that a fuzzer which changes bytes changes choices."""

from collections.abc import Sequence
from typing import TypeVar

from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import Headers

__all__ = ["READ", "Reader"]

T = TypeVar("T")

READ = (
    *(wire.ATTEMPT, wire.TIMESTAMP, wire.CHUNK_GROUP, wire.CHUNK_INDEX, wire.CHUNK_COUNT, wire.GROUP),
    *(wire.ORIGIN, wire.ORIGIN_TIMESTAMP, wire.NOT_BEFORE, wire.ID, wire.FIRST_FAILURE, wire.ALONE),
    *(wire.PARKED, wire.TOTAL_SIZE, wire.CHECKSUM),
)
_OTHER = (wire.DEAD_REASON, wire.PREFIX, wire.PREFIX + "of_tomorrow", "mine", "", "\U0001f4a9")
_NAMES = (*READ, *_OTHER)


class Reader:
    """Gives out what the bytes say; zeroes when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def number(self) -> int:
        """Mostly a small one, else up to 64 bits."""
        first = self.byte()
        return first if first < 200 else int.from_bytes(self.take(first % 9))

    def among(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def value(self) -> bytes | None:
        """A header's value: a number of its width, null, or any bytes."""
        kind = self.byte()
        if kind < 120:
            return self.number().to_bytes(8)
        return None if kind < 125 else self.take(kind - 125)

    def headers(self) -> Headers:
        """Any headers, the library's mostly."""
        return tuple((self.among(_NAMES), self.value()) for _ in range(self.byte() % 12))

    def chunk(self, groups: int) -> Headers:
        """Headers of a chunk of one of so many groups; each may be wrong in any way."""
        count = self.number()
        claims: list[tuple[str, bytes | None]] = [
            (wire.CHUNK_GROUP, b"%016d" % (self.byte() % groups)),
            (wire.CHUNK_INDEX, self.number().to_bytes(8)),
            (wire.CHUNK_COUNT, count.to_bytes(8)),
        ]
        flaws = self.byte()
        if flaws & 1:
            claims.append((wire.TOTAL_SIZE, self.number().to_bytes(8)))
        if flaws & 2:
            claims.append((wire.CHECKSUM, self.take(32).ljust(32, b"\0")))
        if flaws >= 240:
            claims[self.byte() % len(claims)] = (self.among(_NAMES), self.value())
        return tuple(claims)
