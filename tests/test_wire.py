import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import (
    MAX_TIME_MS,
    PLAIN,
    Chunk,
    Headers,
    MalformedHeader,
    Marks,
    Origin,
    dead_headers,
    own_headers,
    read_marks,
    write_marks,
)

READ = [
    *(wire.ATTEMPT, wire.TIMESTAMP, wire.CHUNK_GROUP, wire.CHUNK_INDEX, wire.CHUNK_COUNT, wire.GROUP),
    *(wire.ORIGIN, wire.ORIGIN_TIMESTAMP, wire.NOT_BEFORE, wire.ID, wire.FIRST_FAILURE, wire.ALONE),
    *(wire.PARKED, wire.TOTAL_SIZE, wire.CHECKSUM),
]
DEAD = [
    *(wire.DEAD_REASON, wire.DEAD_ERROR, wire.DEAD_ERROR_TEXT, wire.DEAD_ATTEMPTS, wire.DEAD_TIME),
]

times = st.integers(0, MAX_TIME_MS)
topic_names = st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True).filter(
    lambda name: name not in (".", "..")
)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    count = draw(st.integers(1, 2**31 - 1))
    return Chunk(
        draw(st.binary(min_size=16, max_size=16)),
        draw(st.integers(0, count - 1)),
        count,
        draw(st.none() | st.integers(0, 2**63 - 1)),
        draw(st.none() | st.binary(min_size=32, max_size=32)),
    )


all_marks = st.builds(
    Marks,
    failed=st.integers(0, 2**31 - 1),
    not_before_ms=st.none() | times,
    group=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=300),
    origin=st.none() | st.builds(Origin, topic_names, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)),
    origin_timestamp_ms=st.none() | times,
    id=st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255),
    first_failure_ms=st.none() | times,
    alone=st.booleans(),
    parked_ms=st.none() | times,
    chunk=st.none() | chunks(),
)

hostile_values = (
    st.none()
    | st.binary(max_size=20)
    | st.binary(min_size=8, max_size=8)
    | st.binary(min_size=16, max_size=16)
    | st.binary(min_size=32, max_size=32)
    | st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8))
    | st.builds(
        lambda *parts: b"/".join(parts), st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9)
    )
    | st.sampled_from(
        [b"orders/0/1", b"../0/1", b"orders/01/1", b"orders/0/99999999999999999999", b"o/\xd9\xa1/1"]
    )
)
hostile_names = (
    st.sampled_from([*READ, *DEAD]) | st.text(max_size=5) | st.text(max_size=5).map(lambda s: wire.PREFIX + s)
)


def number(value: int) -> bytes:
    return struct.pack(">Q", value)


@given(all_marks)
def test_what_is_written_reads_back(marks: Marks) -> None:
    headers = write_marks(marks)
    assert read_marks(headers) == marks
    assert all(name.startswith(wire.PREFIX) for name, _ in headers)
    assert own_headers(headers) == ()


@given(st.lists(st.tuples(hostile_names, hostile_values), max_size=15))
def test_reading_is_total(headers: list[tuple[str, bytes | None]]) -> None:
    blamed, marks = READ[0], PLAIN
    try:
        marks = read_marks(headers)
    except MalformedHeader as error:
        blamed = error.header
    assert blamed in READ
    # What reading lets through can be written, and means the same.
    assert read_marks(write_marks(marks)) == marks


@given(times)
def test_the_seconds_header_rounds_up_so_that_0x_is_never_early(not_before_ms: int) -> None:
    headers = dict(write_marks(Marks(not_before_ms=not_before_ms)))
    seconds = int.from_bytes(headers[wire.TIMESTAMP])
    assert not_before_ms <= seconds * 1000 < not_before_ms + 1000


@given(st.integers(0, MAX_TIME_MS // 1000), times)
def test_the_exact_time_counts_only_if_it_rounds_up_to_the_seconds_header(seconds: int, exact: int) -> None:
    marks = read_marks([(wire.TIMESTAMP, number(seconds)), (wire.NOT_BEFORE, number(exact))])
    assert marks.not_before_ms == (exact if -(-exact // 1000) == seconds else seconds * 1000)


def test_the_exact_time_counts_near_the_second() -> None:
    for exact, read in ((4001, 4001), (5000, 5000), (4000, 5000), (5001, 5000)):
        marks = read_marks([(wire.TIMESTAMP, number(5)), (wire.NOT_BEFORE, number(exact))])
        assert marks.not_before_ms == read


def test_the_exact_time_alone_does_not_count() -> None:
    assert read_marks([(wire.NOT_BEFORE, number(5000))]).not_before_ms is None


@pytest.mark.parametrize("headers", [None, [], [("own", b"1")], [("own", None), ("retriable", b"x")]])
def test_a_plain_record_is_plain_itself(headers: list[tuple[str, bytes | None]] | None) -> None:
    assert read_marks(headers) is PLAIN


def test_headers_of_later_releases_and_of_dead_letters_are_ignored() -> None:
    later: Headers = ((wire.PREFIX + "later", b"??"), (wire.PREFIX + "later", None))
    dead: Headers = tuple((name, None) for name in DEAD)
    assert read_marks([*later, *dead]) is PLAIN


def test_the_bytes_that_0x_writes() -> None:
    group = bytes(range(16))
    headers = [
        ("retriable_kafka_attempt", b"\0\0\0\0\0\0\0\x02"),
        ("retriable_kafka_timestamp", b"\0\0\0\0\x65\x53\xf1\x00"),
        ("retriable_kafka_chunk_group", group),
        ("retriable_kafka_chunk_id", b"\0\0\0\0\0\0\0\0"),
        ("retriable_kafka_number_of_chunks", b"\0\0\0\0\0\0\0\x01"),
    ]
    marks = Marks(failed=2, not_before_ms=1_700_000_000_000, chunk=Chunk(group, 0, 1))
    assert read_marks(headers) == marks
    assert write_marks(marks) == headers


GOOD = {
    **dict.fromkeys(READ, number(1)),
    wire.CHUNK_GROUP: b"g" * 16,
    wire.GROUP: b"billing",
    wire.ORIGIN: b"orders/0/1",
    wire.ID: b"id",
    wire.ALONE: b"",
    wire.CHECKSUM: b"c" * 32,
}
INFORMING = [wire.ORIGIN_TIMESTAMP, wire.ID, wire.FIRST_FAILURE, wire.PARKED, wire.TOTAL_SIZE, wire.CHECKSUM]
STRICT = [name for name in READ if name not in INFORMING]


@pytest.mark.parametrize("header", STRICT)
def test_a_header_that_decides_stands_once_and_is_not_null(header: str) -> None:
    good = GOOD[header]
    with pytest.raises(MalformedHeader, match="more than once") as twice:
        read_marks([(header, good), (header, good)])
    with pytest.raises(MalformedHeader, match="null") as null:
        read_marks([(header, None)])
    assert twice.value.header == null.value.header == header


PART = [(wire.CHUNK_GROUP, b"g" * 16), (wire.CHUNK_INDEX, number(0)), (wire.CHUNK_COUNT, number(2))]


@pytest.mark.parametrize(
    ("headers", "blamed"),
    [
        ([*PART, (wire.TOTAL_SIZE, None)], wire.TOTAL_SIZE),
        ([*PART, (wire.CHECKSUM, GOOD[wire.CHECKSUM]), (wire.CHECKSUM, GOOD[wire.CHECKSUM])], wire.CHECKSUM),
        ([(wire.ATTEMPT, b"")], wire.ATTEMPT),
        ([(wire.ATTEMPT, b"\0" * 7)], wire.ATTEMPT),
        ([(wire.ATTEMPT, b"\0" * 9)], wire.ATTEMPT),
        ([(wire.ATTEMPT, number(2**31))], wire.ATTEMPT),
        ([(wire.ATTEMPT, number(2**64 - 1))], wire.ATTEMPT),
        ([(wire.TIMESTAMP, number(253_402_300_800))], wire.TIMESTAMP),
        ([(wire.TIMESTAMP, b"1700000000")], wire.TIMESTAMP),
        ([(wire.TIMESTAMP, number(5)), (wire.NOT_BEFORE, number(2**63))], wire.NOT_BEFORE),
        ([(wire.CHUNK_GROUP, b"g" * 16)], wire.CHUNK_INDEX),
        ([(wire.CHUNK_INDEX, number(0)), (wire.CHUNK_COUNT, number(1))], wire.CHUNK_GROUP),
        ([(wire.CHUNK_GROUP, b"g" * 16), (wire.CHUNK_INDEX, number(0))], wire.CHUNK_COUNT),
        (
            [(wire.CHUNK_GROUP, b"g" * 15), (wire.CHUNK_INDEX, number(0)), (wire.CHUNK_COUNT, number(1))],
            wire.CHUNK_GROUP,
        ),
        (
            [(wire.CHUNK_GROUP, b"g" * 16), (wire.CHUNK_INDEX, number(3)), (wire.CHUNK_COUNT, number(3))],
            wire.CHUNK_INDEX,
        ),
        (
            [(wire.CHUNK_GROUP, b"g" * 16), (wire.CHUNK_INDEX, number(0)), (wire.CHUNK_COUNT, number(0))],
            wire.CHUNK_INDEX,
        ),
        ([(wire.GROUP, b"")], wire.GROUP),
        ([(wire.GROUP, b"\xff")], wire.GROUP),
        ([(wire.GROUP, b"g" * 32_768)], wire.GROUP),
        ([(wire.ORIGIN, b"orders")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/0/1/2")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/-1/2")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/00/2")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/0/1\n")], wire.ORIGIN),
        ([(wire.ORIGIN, b"../0/1")], wire.ORIGIN),
        ([(wire.ORIGIN, b"o" * 250 + b"/0/1")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/2147483648/1")], wire.ORIGIN),
        ([(wire.ORIGIN, b"orders/0/9223372036854775808")], wire.ORIGIN),
        ([(wire.ALONE, b"1")], wire.ALONE),
        ([*PART, (wire.TOTAL_SIZE, number(2**63))], wire.TOTAL_SIZE),
        ([*PART, (wire.TOTAL_SIZE, b"5242880")], wire.TOTAL_SIZE),
        ([*PART, (wire.CHECKSUM, b"c" * 31)], wire.CHECKSUM),
        ([*PART, (wire.CHECKSUM, b"")], wire.CHECKSUM),
    ],
)
def test_what_cannot_be_is_malformed_and_not_shown(
    headers: list[tuple[str, bytes | None]], blamed: str
) -> None:
    with pytest.raises(MalformedHeader) as caught:
        read_marks(headers)
    assert caught.value.header == blamed
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.header, copy.problem) == (caught.value.header, caught.value.problem)
    for _, value in headers:
        if value:
            assert repr(value)[2:-1] not in str(caught.value)


@pytest.mark.parametrize("header", INFORMING)
def test_a_header_that_informs_never_makes_a_message_malformed(header: str) -> None:
    for value in (None, b"", b"\xef\xbf\xbd" * 90, number(2**64 - 1), b"b'x'\n", b"\xff"):
        assert read_marks([(header, value)]) == PLAIN
        marks = Marks(failed=2, chunk=Chunk(b"g" * 16, 0, 1))
        assert read_marks([*write_marks(marks), (header, value)]) == marks
    once = read_marks([(header, GOOD[header])])
    assert read_marks([(header, GOOD[header]), (header, b"?" * 300)]) == once


def test_group_and_origin_are_strict_only_where_they_decide() -> None:
    bad: Headers = ((wire.GROUP, b"\xff"), (wire.ORIGIN, None), (wire.ORIGIN, b"orders/0/1"))
    assert read_marks(bad, ()) == PLAIN
    with pytest.raises(MalformedHeader, match=wire.GROUP):
        read_marks(bad, {wire.GROUP})
    with pytest.raises(MalformedHeader, match=wire.ORIGIN):
        read_marks(bad[1:], {wire.ORIGIN})


@pytest.mark.parametrize(
    "text",
    [
        b"b'orders/0/1'",
        b'b"orders/0/1"',
        b'"orders/0/1"',
        b"b3JkZXJzLzAvMQ==",
        b"orders\\/0\\/1",
        b'"orders\\/0\\/1"',
    ],
)
def test_an_origin_is_known_again_however_a_tool_wrote_it(text: bytes) -> None:
    assert read_marks([(wire.ORIGIN, text)]).origin == Origin("orders", 0, 1)


@pytest.mark.parametrize(
    "marks",
    [
        Marks(failed=2**31),
        Marks(failed=-1),
        Marks(not_before_ms=MAX_TIME_MS + 1),
        Marks(not_before_ms=-1000),
        Marks(group=""),
        Marks(group="\ud800"),
        Marks(origin=Origin("a/b", 0, 1)),
        Marks(origin=Origin("a", -1, 1)),
        Marks(id="é"),
        Marks(id="\ud800"),
        Marks(chunk=Chunk(b"short", 0, 1)),
        Marks(chunk=Chunk(b"g" * 16, 1, 1)),
        Marks(chunk=Chunk(b"g" * 16, 0, 1, total=-1)),
        Marks(chunk=Chunk(b"g" * 16, 0, 1, checksum=b"short")),
    ],
)
def test_nothing_is_written_that_would_not_be_read(marks: Marks) -> None:
    with pytest.raises(MalformedHeader):
        write_marks(marks)


def test_size_and_checksum_mean_nothing_without_the_chunk_headers() -> None:
    assert read_marks([(wire.TOTAL_SIZE, number(5)), (wire.CHECKSUM, b"c" * 32)]) == PLAIN


@pytest.mark.parametrize("stamp", [-1, MAX_TIME_MS + 1, 2**63 - 1])
def test_an_original_timestamp_that_is_no_date_is_left_out(stamp: int) -> None:
    assert write_marks(Marks(failed=1, origin_timestamp_ms=stamp)) == write_marks(Marks(failed=1))


def test_own_headers_keep_order_repeats_and_nulls() -> None:
    own: Headers = (("b", b"1"), ("a", None), ("b", b"2"), ("", b""), ("Retriable_kafka_x", b"3"))
    mixed = [own[0], (wire.ATTEMPT, b"junk"), *own[1:], (wire.PREFIX, None)]
    assert own_headers(mixed) == own
    assert own_headers(None) == own_headers([]) == ()


def test_a_dead_letter_says_why_and_starts_afresh_when_it_is_read() -> None:
    marks = Marks(
        failed=5,
        not_before_ms=1234,
        group="billing",
        origin=Origin("orders", 1, 2),
        origin_timestamp_ms=77,
        id="id-1",
        first_failure_ms=88,
        alone=True,
        parked_ms=99,
    )
    headers = dead_headers(
        marks, reason="exhausted", attempts=6, time_ms=1000, error="ValueError", error_text="bad amount"
    )
    named: dict[str, Any] = dict(headers)
    assert named[wire.DEAD_REASON] == b"exhausted"
    assert named[wire.DEAD_ERROR] == b"ValueError"
    assert named[wire.DEAD_ERROR_TEXT] == b"bad amount"
    assert named[wire.DEAD_ATTEMPTS] == number(6)
    assert named[wire.DEAD_TIME] == number(1000)
    assert read_marks(headers) == Marks(
        group="billing", origin=Origin("orders", 1, 2), origin_timestamp_ms=77, id="id-1", first_failure_ms=88
    )


def test_a_dead_letters_text_is_bounded_and_always_utf8() -> None:
    text = "\ud800" + "é" * 10_000
    named = dict(dead_headers(PLAIN, reason="exhausted", attempts=1, time_ms=0, error_text=text))
    assert len(named[wire.DEAD_ERROR_TEXT]) <= 4096
    assert named[wire.DEAD_ERROR_TEXT].decode() == "?" + "é" * 2047
    assert wire.DEAD_ERROR not in named
