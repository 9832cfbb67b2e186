"""More of what somebody hostile may write: keys, chunk headers of single records, and the headers that the library adds."""

from collections.abc import Sequence

from retriable_kafka_client.wire import headers as wire
from tests.shell.hostile import (
    EXHAUSTED,
    HANDLED,
    MALFORMED,
    NO_ORIGIN,
    NOW,
    PASSED,
    UNDECODABLE,
    Hostile,
    chunk,
    marked,
    number,
)
from tests.support.records import Header

__all__ = ["MORE"]

GROUP, OTHER = b"g" * 16, b"h" * 16
SINGLE = chunk(GROUP, number(0), number(1))


def retried(failed: int, at: int) -> Sequence[Header]:
    """What 0.x puts on a retry copy, which it always marks as a chunk."""
    return ((wire.ATTEMPT, number(failed)), (wire.TIMESTAMP, number(at)), *SINGLE)


MORE: Sequence[Hostile] = (
    # Keys.
    Hostile("key not UTF-8, fails", EXHAUSTED, key=b"\xff\x00\xfe", fails=True),
    Hostile("key of NULs, fails", EXHAUSTED, key=b"\x00" * 9, fails=True),
    Hostile("key as long as a group, fails", EXHAUSTED, key=OTHER, fails=True),
    Hostile("key beside a group of its own, fails", EXHAUSTED, SINGLE, key=OTHER, fails=True),
    Hostile("empty key beside a group, fails", EXHAUSTED, SINGLE, key=b"", fails=True),
    Hostile("no key beside a group, fails", EXHAUSTED, SINGLE, fails=True),
    Hostile("key that begins like its group, fails", EXHAUSTED, SINGLE, key=GROUP + b"g", fails=True),
    Hostile("key that is a group of which headers are missing", MALFORMED, SINGLE[:1], key=OTHER),
    # Chunk headers of one record alone.
    Hostile("group of zeroes", HANDLED, chunk(b"\x00" * 16, number(0), number(1)), key=b"\x00" * 16),
    Hostile("group of 17 bytes", MALFORMED, chunk(GROUP + b"g", number(0), number(1))),
    Hostile("group empty in a chunk", MALFORMED, chunk(b"", number(0), number(1))),
    Hostile("group null in a chunk", MALFORMED, ((wire.CHUNK_GROUP, None), *SINGLE[1:])),
    Hostile("chunk number null", MALFORMED, (SINGLE[0], (wire.CHUNK_INDEX, None), SINGLE[2])),
    Hostile("chunk count null", MALFORMED, (*SINGLE[:2], (wire.CHUNK_COUNT, None))),
    Hostile("chunk without count", MALFORMED, chunk(GROUP, number(0), None)),
    Hostile("group alone", MALFORMED, chunk(GROUP, None, None)),
    Hostile("chunk number alone", MALFORMED, chunk(None, number(0), None)),
    Hostile("chunk count alone", MALFORMED, chunk(None, None, number(1))),
    Hostile("group twice", MALFORMED, (SINGLE[0], *SINGLE)),
    Hostile("another group beside it", MALFORMED, ((wire.CHUNK_GROUP, OTHER), *SINGLE)),
    Hostile("chunk number twice", MALFORMED, (*SINGLE, (wire.CHUNK_INDEX, number(0)))),
    Hostile("chunk count twice", MALFORMED, (*SINGLE, (wire.CHUNK_COUNT, number(2)))),
    Hostile("chunk number short", MALFORMED, chunk(GROUP, b"\x00", number(1))),
    Hostile("chunk count of text", MALFORMED, chunk(GROUP, number(0), b"00000001")),
    Hostile("chunk number of all ones", MALFORMED, chunk(GROUP, b"\xff" * 8, b"\xff" * 8)),
    Hostile("chunk count of all ones", MALFORMED, chunk(GROUP, number(0), b"\xff" * 8)),
    Hostile("chunk count of 2**31", MALFORMED, chunk(GROUP, number(0), number(2**31))),
    Hostile("second chunk of one", MALFORMED, chunk(GROUP, number(1), number(1))),
    Hostile("one chunk of one, null", HANDLED, SINGLE, value=None, key=GROUP),
    Hostile("one chunk of one, empty", UNDECODABLE, SINGLE, value=b"", key=GROUP),
    Hostile("one chunk of one, cut off", UNDECODABLE, SINGLE, value=b'{"n": ', key=GROUP),
    Hostile("one chunk of one, malformed attempt", MALFORMED, (*SINGLE, (wire.ATTEMPT, b"1")), key=OTHER),
    # Copies of 0.x, which name neither group nor origin.
    Hostile("retry copy of 0.x", HANDLED, retried(1, NOW - 5), key=GROUP),
    Hostile("retry copy of 0.x, fails", EXHAUSTED, retried(1, NOW - 5), key=GROUP, fails=True),
    Hostile("retry copy of 0.x that has no failure", HANDLED, retried(0, NOW - 5), key=GROUP),
    Hostile("retry copy of 0.x with failures beyond count", MALFORMED, retried(2**32, NOW), key=OTHER),
    # What the library adds.
    marked("origin of length 250", HANDLED, wire.ORIGIN, b"a" * 250 + b"/0/1"),
    marked("origin of a topic named by a dot", HANDLED, wire.ORIGIN, b"./0/1"),
    marked("origin with a sign", HANDLED, wire.ORIGIN, b"a/+1/5"),
    marked("origin with leading zeroes", HANDLED, wire.ORIGIN, b"a/00/5"),
    marked("origin with a line's end", HANDLED, wire.ORIGIN, b"a/0/5\n"),
    marked("origin empty", HANDLED, wire.ORIGIN, b""),
    marked("origin of an expression", HANDLED, wire.ORIGIN, b"^.*/0/5"),
    marked("origin of Kafka's own", HANDLED, wire.ORIGIN, b"__consumer_offsets/0/5", retry_end=NO_ORIGIN),
    Hostile("origin twice", HANDLED, ((wire.ORIGIN, b"a/0/5"), (wire.ORIGIN, b"a/0/5")), retry_end=NO_ORIGIN),
    marked("origin timestamp null", HANDLED, wire.ORIGIN_TIMESTAMP, None),
    marked("origin timestamp alone, fails", EXHAUSTED, wire.ORIGIN_TIMESTAMP, number(0), fails=True),
    Hostile("group twice over", HANDLED, ((wire.GROUP, b"a"), (wire.GROUP, b"b")), retry_end=MALFORMED),
    marked("group null", HANDLED, wire.GROUP, None, retry_end=MALFORMED),
    marked("group too long", HANDLED, wire.GROUP, b"g" * 32_768, retry_end=MALFORMED),
    marked("group as long as may be", HANDLED, wire.GROUP, b"g" * 32_767, retry_end=PASSED),
    marked("id of blanks, fails", EXHAUSTED, wire.ID, b"   ", fails=True),
    marked("id of a NUL", HANDLED, wire.ID, b"\x00"),
    Hostile("id twice", HANDLED, ((wire.ID, b"a"), (wire.ID, b"b"))),
    marked("alone null", MALFORMED, wire.ALONE, None),
    marked("alone that fails", EXHAUSTED, wire.ALONE, b"", fails=True),
    Hostile("alone twice", MALFORMED, ((wire.ALONE, b""), (wire.ALONE, b""))),
    marked("first failure alone, fails", EXHAUSTED, wire.FIRST_FAILURE, number(1), fails=True),
    marked("first failure null", HANDLED, wire.FIRST_FAILURE, None),
    marked("parked at zero, fails", EXHAUSTED, wire.PARKED, number(0), fails=True),
    Hostile("parked twice", HANDLED, ((wire.PARKED, number(1)), (wire.PARKED, number(1)))),
    Hostile(
        "another group's, malformed besides", MALFORMED, ((wire.GROUP, b"another"), (wire.ATTEMPT, b"1"))
    ),
    # Size and checksum of a chunked message.
    marked("total size short", HANDLED, wire.TOTAL_SIZE, b"\x01"),
    marked("total size null", HANDLED, wire.TOTAL_SIZE, None),
    marked("total size of 2**63", HANDLED, wire.TOTAL_SIZE, number(2**63)),
    Hostile("total size twice", HANDLED, ((wire.TOTAL_SIZE, number(1)), (wire.TOTAL_SIZE, number(1)))),
    marked("total size of what is no chunk", HANDLED, wire.TOTAL_SIZE, number(2**63 - 1)),
    marked("checksum short", HANDLED, wire.CHECKSUM, b"c" * 31),
    marked("checksum long", HANDLED, wire.CHECKSUM, b"c" * 33),
    marked("checksum empty", HANDLED, wire.CHECKSUM, b""),
    marked("checksum null", HANDLED, wire.CHECKSUM, None),
    Hostile("checksum twice", HANDLED, ((wire.CHECKSUM, b"c" * 32), (wire.CHECKSUM, b"c" * 32))),
    marked("checksum of what is no chunk", HANDLED, wire.CHECKSUM, b"c" * 32),
    marked("exact not-before twice too long", MALFORMED, wire.NOT_BEFORE, number(0) * 2),
)
