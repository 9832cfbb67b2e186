"""How large a message is on the wire, and into which chunks it goes where that is more than a topic takes.

Two rules count, and both are followed to the byte: the client's, which looks at the record before it is compressed, and the
broker's, which looks at the batch. Measured on librdkafka 2.16 and Kafka 4.1.1: one byte more is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retriable_kafka_client.wire.headers import Chunk, Marks, write_marks

__all__ = [
    "FLOOR",
    "UNKNOWN_LIMIT",
    "Plan",
    "batch_bytes",
    "client_bytes",
    "fits",
    "plan",
    "room",
]

UNKNOWN_LIMIT = 1_000_000  # bytes: what a topic is taken to bear where the brokers do not say
FLOOR = 1024  # bytes: a message that is refused in chunks of this size is refused for good

# Headers stand on every chunk, but all chunks of a message together are never more than so many times its size.
_SPREAD = 16

_BATCH = 61  # bytes of a record batch before its records
_CLIENT = 36  # bytes that the client reckons for a record beside its key, value and headers

Pairs = Iterable[tuple[str, str | bytes | None]]


def _varint(number: int) -> int:
    """Bytes of a length as Kafka writes it: zigzag, seven bits to a byte."""
    return max(1, ((2 * number).bit_length() + 6) // 7)


def _field(value: str | bytes | None) -> int:
    if value is None:
        return 1
    size = len(value.encode()) if isinstance(value, str) else len(value)
    return _varint(size) + size


def _headers(headers: Pairs) -> tuple[int, int]:
    """Their bytes and their number."""
    size = count = 0
    for name, value in headers:
        size += _field(name) + _field(value)
        count += 1
    return size, count


def client_bytes(size: int, key: bytes | None, headers: Pairs) -> int:
    """What the client compares with its ``message.max.bytes``, for a body of ``size`` bytes."""
    return _CLIENT + len(key or b"") + size + _headers(headers)[0]


def batch_bytes(size: int, key: bytes | None, headers: Pairs) -> int:
    """What the broker compares with the topic's ``max.message.bytes``: the record alone in a batch, uncompressed."""
    return _batch(size, key, *_headers(headers))


def _batch(size: int, key: bytes | None, headers: int, count: int) -> int:
    # Attributes, timestamp delta and offset delta are a byte each.
    record = 3 + _field(key) + _varint(size) + size + _varint(count) + headers
    return _BATCH + _varint(record) + record


def room(limit: int, client_limit: int, key: bytes | None, headers: Pairs) -> int:
    """The largest body that both rules let through beside this key and these headers; below 0 if there is none."""
    held, count = _headers(headers)
    largest = limit - _batch(0, key, held, count)
    # The lengths themselves grow with the body, by a few bytes.
    while largest > 0 and _batch(largest, key, held, count) > limit:
        largest -= 1
    return min(largest, client_limit - _CLIENT - len(key or b"") - held)


def fits(
    size: int,
    limit: int,
    client_limit: int,
    key: bytes | None,
    headers: Sequence[tuple[str, str | bytes | None]],
) -> bool:
    """Whether a record goes as it is."""
    # Nearly all are far below: 2 us against 16 us for the exact size. No character has more than 4 bytes, no length 5.
    most = 100 + size + (0 if key is None else len(key))
    for name, value in headers:
        most += 10 + 4 * len(name) + (4 * len(value) if value else 0)
    if most <= limit and most <= client_limit:
        return True
    return client_bytes(size, key, headers) <= client_limit and batch_bytes(size, key, headers) <= limit


@dataclass(frozen=True, slots=True)
class Plan:
    """How a message goes: as it is, or in chunks of ``chunk`` bytes, the last one shorter."""

    size: int
    chunk: int
    whole: bool  # as it is, without chunk headers

    @property
    def count(self) -> int:
        """Records."""
        return 1 if self.whole else max(1, -(-self.size // self.chunk))

    def span(self, index: int) -> tuple[int, int]:
        """Where in the message record ``index`` begins and ends."""
        if self.whole:
            return 0, self.size
        start = index * self.chunk
        return start, min(start + self.chunk, self.size)


def plan(
    size: int,
    *,
    limit: int | None,
    client_limit: int,
    key: bytes | None,
    headers: Pairs,
    whole: Pairs = (),
    most: int | None = None,
    refused: int | None = None,
) -> Plan | None:
    """Return how a body of ``size`` bytes goes to a topic that takes ``limit`` (None: not known).

    ``whole``: more headers, of the message that goes as it is. ``most``: no record's body is to be larger. ``refused``:
    bodies of that size were too large. None: the key and the headers, which stand on every chunk, leave too little room
    for a body beside them, or smaller chunks make no sense.
    """
    limit = UNKNOWN_LIMIT if limit is None else limit
    headers = list(headers)
    largest = most if refused is None else min(refused - 1, refused if most is None else most)
    if (largest is None or size <= largest) and fits(size, limit, client_limit, key, [*headers, *whole]):
        return Plan(size, max(1, size), True)
    headers += write_marks(Marks(chunk=Chunk(bytes(16), 0, 1, total=size, checksum=bytes(32))))
    key = bytes(16) if key is None else key
    chunk = room(limit, client_limit, key, headers)
    if refused is not None:
        if min(refused, size) <= FLOOR:
            return None
        chunk = min(chunk, max(FLOOR, refused // 2))
    overhead = _batch(0, key, *_headers(headers))
    if chunk < 1 or chunk * (_SPREAD - 1) < overhead:
        return None
    return Plan(size, chunk if most is None else min(chunk, most), False)
