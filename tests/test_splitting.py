import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.sending.sources import (
    FileSource,
    MemorySource,
    PiecesSource,
    Source,
    Unreadable,
    view_of,
)
from retriable_kafka_client.sending.splitting import FLOOR, Plan, batch_bytes, client_bytes, fits, plan, room
from retriable_kafka_client.wire.headers import Chunk, Marks, write_marks

NOTHING = 10**9  # a limit that is none

keys = st.none() | st.binary(max_size=300)
headers = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=130), st.none() | st.binary(max_size=300)),
    max_size=5,
)
limits = st.integers(200, 100_000)
sizes = st.integers(0, 300_000)
Pairs = list[tuple[str, str | bytes | None]]


def chunk_headers(planned: Plan, index: int) -> Pairs:
    checksum = bytes(32) if index == planned.count - 1 else None
    return [*write_marks(Marks(chunk=Chunk(bytes(16), index, planned.count, planned.size, checksum)))]


@pytest.mark.parametrize(
    ("key", "own", "overhead"),
    [
        (None, [], 36),
        (b"", [], 36),
        (b"k" * 10, [], 46),
        (None, [("a", b"")], 39),
        (None, [("a", None)], 39),
        (None, [("a", b"v" * 200)], 240),
        (None, [("n" * 100, b"v" * 20_000)], 20_141),
        (b"k", [("a", b"b" * 62), ("c", b"b" * 63), ("d", b"b" * 64)], 236),
        (None, [("a", b"x")] * 70, 316),
    ],
    ids=str,
)
def test_the_clients_rule_as_it_was_measured(key: bytes | None, own: Pairs, overhead: int) -> None:
    assert client_bytes(5000, key, own) == 5000 + overhead


@pytest.mark.parametrize(
    ("key", "own", "largest"),
    [
        (None, [], 19_928),
        (b"k" * 10, [], 19_918),
        (None, [("a", None)], 19_925),
        (b"k" * 64, [("a", b"v" * 200), ("n" * 100, b"v" * 9000)], 10_554),
        (None, [("a", b"x")] * 70, 19_647),
    ],
    ids=str,
)
def test_the_brokers_rule_as_it_was_measured(key: bytes | None, own: Pairs, largest: int) -> None:
    assert room(20_000, NOTHING, key, own) == largest
    assert batch_bytes(largest, key, own) == 20_000


@given(limits, limits, keys, headers)
def test_the_room_is_the_most_that_both_rules_let_through(
    limit: int, client_limit: int, key: bytes | None, own: Pairs
) -> None:
    largest = room(limit, client_limit, key, own)
    if largest >= 0:
        assert fits(largest, limit, client_limit, key, own)
    if largest >= -1:
        # One byte more changes a length by more than one byte at times: then there is no body of just the limit.
        assert not fits(largest + 1, limit, client_limit, key, own)


@given(sizes, limits | st.none(), limits, keys, headers, st.none() | st.integers(1, 5000))
def test_no_record_is_above_a_limit_and_together_they_are_the_message(
    size: int, limit: int | None, client_limit: int, key: bytes | None, own: Pairs, most: int | None
) -> None:
    planned = plan(size, limit=limit, client_limit=client_limit, key=key, headers=own, most=most)
    bound = 1_000_000 if limit is None else limit
    if planned is None:
        assert not fits(size, bound, client_limit, key, own) or (most is not None and size > most)
        return
    if planned.whole:
        assert fits(size, bound, client_limit, key, own)
        assert planned.span(0) == (0, size)
        return
    place = 0
    # The first, the last and one between: thousands take too long to look at.
    for index in sorted({0, planned.count // 2, planned.count - 1}):
        start, stop = planned.span(index)
        record = [*own, *chunk_headers(planned, index)]
        assert fits(stop - start, bound, client_limit, bytes(16) if key is None else key, record)
        assert start == index * planned.chunk and 0 < stop - start <= planned.chunk
        assert most is None or stop - start <= most
        place = stop
    assert place == size


@given(st.binary(max_size=2000), st.integers(1, 700))
def test_the_chunks_of_every_kind_of_source_are_the_message(body: bytes, most: int) -> None:
    planned = Plan(len(body), most, False)
    sources: list[Source] = [
        MemorySource(view_of(memoryview(body))),
        MemorySource(view_of(memoryview(bytearray(body)))),
        MemorySource(view_of(memoryview(body * 2)[::2])) if len(set(body)) < 2 else MemorySource(body),
        PiecesSource([body[:7], b"", body[7:100], body[100:]]),
        FileSource(io.BytesIO(body)),
    ]
    for source in sources:
        assert source.size == len(body)
        parts = [source.read(*planned.span(index)) for index in range(planned.count)]
        assert b"".join(parts) == body
        assert all(type(part) is bytes for part in parts)


@given(st.integers(1, 5_000_000), st.integers(2000, 100_000) | st.none())
def test_halving_comes_to_an_end(size: int, limit: int | None) -> None:
    refused: int | None = None
    for _ in range(30):
        planned = plan(size, limit=limit, client_limit=NOTHING, key=None, headers=[], refused=refused)
        if planned is None:
            assert refused is not None
            assert min(refused, size) <= FLOOR
            return
        if refused is not None:
            assert planned.chunk < refused
        refused = planned.chunk
    raise AssertionError("it never gave up")


def test_headers_that_leave_next_to_nothing_are_refused() -> None:
    large: Pairs = [("large", b"h" * 99_000)]
    assert plan(200_000, limit=100_000, client_limit=NOTHING, key=None, headers=large) is None
    assert plan(200_000, limit=99_000, client_limit=NOTHING, key=None, headers=large) is None
    assert plan(200_000, limit=110_000, client_limit=NOTHING, key=None, headers=large) is not None


def test_many_small_chunks_are_made_for_who_asks_for_them() -> None:
    planned = plan(100, limit=None, client_limit=NOTHING, key=None, headers=[], most=1)
    assert planned is not None
    assert planned.count == 100


class Stubborn(io.BytesIO):
    """Gives three bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3 if size is None or size < 0 else min(size, 3))


def test_a_file_is_read_from_where_it_stands_and_stays_so() -> None:
    file = Stubborn(b"headbody and more")
    file.seek(4)
    source = FileSource(file)
    assert (source.size, file.tell()) == (13, 4)
    assert source.read(5, 13) == b"and more"
    assert source.read(0, 4) == b"body"


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the payload")


@pytest.mark.parametrize("case", ["shrunk", "broken", "closed"])
def test_a_file_that_cannot_be_read_says_so_without_its_content(case: str) -> None:
    file = Broken(b"body" * 9) if case == "broken" else io.BytesIO(b"body" * 9)
    source = FileSource(file)
    if case == "shrunk":
        file.truncate(20)
    if case == "closed":
        file.close()
    with pytest.raises(Unreadable) as caught:
        source.read(16, 36)
    assert "the payload" not in str(caught.value)
    assert ("ended before its 36 bytes" in str(caught.value)) == (case == "shrunk")
