"""Records that somebody hostile, careless or of another version may write, and what becomes of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from retriable_kafka_client.wire import headers as wire
from tests.support.records import Header

__all__ = ["RECORDS", "UNREADABLE", "Hostile"]

HANDLED = "handled"
PASSED = "passed over"
WAITS = "waits"
MALFORMED = "malformed-header"
UNDECODABLE = "undecodable"
TOO_FAR = "not-before-too-far"
ORPHAN = "orphan"
NO_ORIGIN = "unknown-origin"
EXHAUSTED = "exhausted"

YEAR = 365 * 86_400
NOW = int(time.time())


def number(value: int) -> bytes:
    return value.to_bytes(8)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One record; `end` says what becomes of it on the base topic, `retry_end` on the retry topic."""

    name: str
    end: str
    headers: Sequence[Header] = ()
    value: bytes | None = b'{"n": 1}'
    key: bytes | None = None
    fails: bool = False  # the handler raises
    retry_end: str = ""  # as `end` when left out

    def ending(self, *, retry: bool) -> str:
        return self.retry_end or self.end if retry else self.end


def marked(name: str, end: str, header: str, value: bytes | None, **more: object) -> Hostile:
    return Hostile(name, end, ((header, value),), **more)  # type: ignore[arg-type]


def chunk(group: bytes | None, index: bytes | None, count: bytes | None) -> Sequence[Header]:
    pairs = ((wire.CHUNK_GROUP, group), (wire.CHUNK_INDEX, index), (wire.CHUNK_COUNT, count))
    return tuple((name, value) for name, value in pairs if value is not None)


RECORDS: Sequence[Hostile] = (
    Hostile("plain", HANDLED),
    Hostile("plain that fails", EXHAUSTED, fails=True),
    # Attempt.
    marked("attempt empty", MALFORMED, wire.ATTEMPT, b""),
    marked("attempt short", MALFORMED, wire.ATTEMPT, b"\x01"),
    marked("attempt long", MALFORMED, wire.ATTEMPT, b"\x00" * 8 + b"\x01"),
    marked("attempt null", MALFORMED, wire.ATTEMPT, None),
    marked("attempt text", MALFORMED, wire.ATTEMPT, b"00000001"),
    marked("attempt huge", MALFORMED, wire.ATTEMPT, b"\xff" * 8),
    marked("attempt above 32 bits", MALFORMED, wire.ATTEMPT, number(2**31)),
    marked("attempt the largest", HANDLED, wire.ATTEMPT, number(2**31 - 1)),
    marked("attempt the largest, fails", EXHAUSTED, wire.ATTEMPT, number(2**31 - 1), fails=True),
    marked("attempt one below the largest, fails", EXHAUSTED, wire.ATTEMPT, number(2**31 - 2), fails=True),
    marked("attempt zero", HANDLED, wire.ATTEMPT, number(0)),
    Hostile("attempt twice", MALFORMED, ((wire.ATTEMPT, number(1)), (wire.ATTEMPT, number(2)))),
    # Not before.
    marked("timestamp short", MALFORMED, wire.TIMESTAMP, b"\x01"),
    marked("timestamp long", MALFORMED, wire.TIMESTAMP, b"\x00" * 9),
    marked("timestamp null", MALFORMED, wire.TIMESTAMP, None),
    marked("timestamp text", MALFORMED, wire.TIMESTAMP, b"17000000"),
    marked("timestamp huge", MALFORMED, wire.TIMESTAMP, b"\xff" * 8),
    marked("timestamp in the year 9999", TOO_FAR, wire.TIMESTAMP, number(253_402_300_799)),
    marked("timestamp in the year 10000", MALFORMED, wire.TIMESTAMP, number(253_402_300_800)),
    marked("timestamp in two years", TOO_FAR, wire.TIMESTAMP, number(NOW + 2 * YEAR)),
    marked("timestamp in a month", WAITS, wire.TIMESTAMP, number(NOW + YEAR // 12)),
    marked("timestamp in the past", HANDLED, wire.TIMESTAMP, number(NOW - YEAR)),
    marked("timestamp zero", HANDLED, wire.TIMESTAMP, number(0)),
    Hostile("timestamp twice", MALFORMED, ((wire.TIMESTAMP, number(0)), (wire.TIMESTAMP, number(0)))),
    marked("exact not-before alone", HANDLED, wire.NOT_BEFORE, number((NOW + YEAR) * 1000)),
    marked("exact not-before short", MALFORMED, wire.NOT_BEFORE, b"123"),
    Hostile(
        "exact not-before that contradicts",
        HANDLED,
        ((wire.TIMESTAMP, number(NOW - 60)), (wire.NOT_BEFORE, number((NOW + YEAR) * 1000))),
    ),
    # Payloads.
    Hostile("100,000 brackets", UNDECODABLE, value=b"[" * 100_000),
    Hostile("bad UTF-8", UNDECODABLE, value=b'"\xff\xfe"'),
    Hostile("empty", UNDECODABLE, value=b""),
    Hostile("null", HANDLED, value=None),
    Hostile("null that fails", EXHAUSTED, value=None, fails=True),
    Hostile("empty object", HANDLED, value=b"{}"),
    Hostile("5000 digits", UNDECODABLE, value=b"1" * 5000),
    Hostile("NaN", UNDECODABLE, value=b"NaN"),
    Hostile("lone surrogate", UNDECODABLE, value=b'"\\ud800"'),
    Hostile("cut off", UNDECODABLE, value=b'{"n": '),
    Hostile("UTF-16", UNDECODABLE, value='{"n": 1}'.encode("utf-16")),
    Hostile("a NUL", UNDECODABLE, value=b"\x00"),
    Hostile("the same key twice", HANDLED, value=b'{"n": 1, "n": 2}'),
    Hostile(
        "nearly as large as a client sends, fails", EXHAUSTED, value=b'"' + b"x" * 999_800 + b'"', fails=True
    ),
    # Keys and headers of the sender's own.
    Hostile("empty key", HANDLED, key=b""),
    Hostile("empty key that fails", EXHAUSTED, key=b"", fails=True),
    Hostile("key of 500 kB", HANDLED, key=b"k" * 500_000),
    Hostile("key of 500 kB that fails", EXHAUSTED, key=b"k" * 500_000, fails=True),
    Hostile("2000 headers", HANDLED, tuple((f"h{i}", b"v") for i in range(2000))),
    Hostile("2000 headers that fail", EXHAUSTED, tuple((f"h{i}", b"v") for i in range(2000)), fails=True),
    Hostile("header of 500 kB", HANDLED, (("big", b"v" * 500_000),)),
    Hostile("header name of 30 kB", HANDLED, (("n" * 30_000, b"v"),)),
    Hostile("header without a name", EXHAUSTED, (("", b"v"), ("", None)), fails=True),
    Hostile("header name of four-byte letters", EXHAUSTED, (("\U0001f4a9" * 9, b"\xf0\x9f"),), fails=True),
    # Library headers of another release, or of nobody.
    marked("unknown library header", HANDLED, wire.PREFIX + "of_tomorrow", b"\xff"),
    Hostile("unknown twice and null", HANDLED, ((wire.PREFIX + "x", None), (wire.PREFIX + "x", b""))),
    marked("prefix alone", HANDLED, wire.PREFIX, b"x"),
    marked("dead-letter headers", HANDLED, wire.DEAD_REASON, b"exhausted"),
    marked("dead-letter headers, nonsense", EXHAUSTED, wire.DEAD_ATTEMPTS, b"x" * 3000, fails=True),
    # Chunks.
    Hostile("a late chunk", ORPHAN, chunk(b"o" * 16, number(2**31 - 2), number(2**31 - 1))),
    Hostile("one chunk of one", HANDLED, chunk(b"g" * 16, number(0), number(1)), key=b"g" * 16),
    Hostile(
        "one chunk of one, fails",
        EXHAUSTED,
        chunk(b"g" * 16, number(0), number(1)),
        key=b"g" * 16,
        fails=True,
    ),
    Hostile("chunk beyond the last", MALFORMED, chunk(b"g" * 16, number(3), number(3))),
    Hostile("chunk of none", MALFORMED, chunk(b"g" * 16, number(0), number(0))),
    Hostile("chunk of 2**63", MALFORMED, chunk(b"g" * 16, number(0), number(2**63))),
    Hostile("chunk with a short group", MALFORMED, chunk(b"g", number(0), number(2))),
    Hostile("chunk without group", MALFORMED, chunk(None, number(0), number(2))),
    Hostile("chunk without number", MALFORMED, chunk(b"g" * 16, None, number(2))),
    # Origin, group, identity.
    marked("origin malformed", HANDLED, wire.ORIGIN, b"no slashes"),
    marked("origin with too many parts", HANDLED, wire.ORIGIN, b"a/b/1/2"),
    marked("origin not a topic's name", HANDLED, wire.ORIGIN, "ö/1/2".encode()),
    marked("origin beyond 64 bits", HANDLED, wire.ORIGIN, b"a/0/9223372036854775808"),
    marked("origin negative", HANDLED, wire.ORIGIN, b"a/-1/5"),
    marked("origin of another topic", HANDLED, wire.ORIGIN, b"elsewhere/1/2", retry_end=NO_ORIGIN),
    marked("origin timestamp huge", HANDLED, wire.ORIGIN_TIMESTAMP, b"\xff" * 8),
    marked("group of another", HANDLED, wire.GROUP, b"another", retry_end=PASSED),
    marked("group not UTF-8", HANDLED, wire.GROUP, b"\xff", retry_end=MALFORMED),
    marked("group empty", HANDLED, wire.GROUP, b"", retry_end=MALFORMED),
    marked("id too long", HANDLED, wire.ID, b"i" * 256),
    marked("id as long as may be, fails", EXHAUSTED, wire.ID, b"i" * 255, fails=True),
    marked("id not ASCII", HANDLED, wire.ID, "ï".encode()),
    marked("id of two lines", HANDLED, wire.ID, b"a\nb"),
    marked("id empty", HANDLED, wire.ID, b""),
    marked("alone", HANDLED, wire.ALONE, b""),
    marked("alone with a value", MALFORMED, wire.ALONE, b"1"),
    marked("first failure huge", HANDLED, wire.FIRST_FAILURE, number(2**63)),
    marked("parked in the future", HANDLED, wire.PARKED, number((NOW + YEAR) * 1000)),
    marked("parked malformed", HANDLED, wire.PARKED, b"never"),
)

UNREADABLE: Sequence[tuple[str, Sequence[tuple[bytes, bytes | None]]]] = (
    ("name of no UTF-8", ((b"\xff\xfe", b"v"),)),
    ("library prefix and no UTF-8", ((b"retriable_kafka_\xff", b"v"),)),
    ("name of no UTF-8 behind a good one", ((b"good", b"v"), (b"\x80", None))),
    (
        "names of no UTF-8 among good ones",
        ((b"\x80", b"1"), (b"good", b"v"), (b"\xff", b""), (b"good", None)),
    ),
)
"""Header names that confluent-kafka cannot decode: the record is a malformed one; what can be read goes along."""
