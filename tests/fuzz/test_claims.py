"""What a sender claims costs nothing; what he sends costs at most that, and never more than the budget."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Literal

import pytest

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.message import PlainRecord
from retriable_kafka_client.wire.headers import Chunk, Headers, Marks, write_marks
from tests.fuzz.member import BASE, Member

BUFFER = 4 << 20
SHARE = BUFFER // 2
STAMP = 1_800_000_000_000  # when all of it was sent: the time at which a Member begins
MANY = 6_000  # groups: several times what the budget holds

Log = Callable[[p.Place, int], PlainRecord | None]


def chunk(
    offset: int, group: int, index: int, count: int, *, total: int | None = None, **more: bytes
) -> PlainRecord:
    headers = write_marks(Marks(chunk=Chunk(b"%016d" % group, index, count, total)))
    return _record(offset, headers, **more)


def _record(offset: int, headers: object, body: bytes = b"x", key: bytes | None = None) -> PlainRecord:
    own: Headers = tuple(headers)  # type: ignore[arg-type]
    # As from the client: every name and value is an object of its own.
    fresh = [
        (name.encode().decode(), None if value is None else bytes(bytearray(value))) for name, value in own
    ]
    return PlainRecord(bytes(bytearray(body)), key, fresh, "orders", 0, offset, (1, STAMP))


def unfinished(_place: p.Place, offset: int) -> PlainRecord:
    """Each the first of two, of a group of its own."""
    return chunk(offset, offset, 0, 2)


def huge(_place: p.Place, offset: int) -> PlainRecord:
    return chunk(offset, offset, 0, 2**31 - 1, total=2**63 - 1)


def with_headers(_place: p.Place, offset: int) -> PlainRecord:
    """Hundreds of the smallest headers, due in a while: they are held."""
    marks = write_marks(Marks(not_before_ms=STAMP + 600_000))
    return _record(offset, [*((f"h{index}", b"v") for index in range(300)), *marks])


@pytest.mark.parametrize("log", [unfinished, huge, with_headers])
def test_what_is_held_takes_no_more_memory_than_the_budget_says(log: Log) -> None:
    member = Member(log, buffer_bytes=BUFFER, window=10**6, validates=False)
    member.poll(BASE, 10)
    gc.collect()
    tracemalloc.start()
    try:
        read = 0
        while read < MANY and member.poll(BASE, 250):
            read += 250
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert SHARE // 2 < member.engine.assembling_bytes + member.engine.waiting_bytes < BUFFER
    assert held < SHARE * 1.25, f"{held:,}"


@pytest.mark.parametrize("ordering", ["unordered", "key", "partition"])
def test_what_does_not_fit_is_cut_and_read_again_and_only_what_expires_is_dead_lettered(
    ordering: Literal["unordered", "key", "partition"],
) -> None:
    """Thousands of messages whose second chunks come after all first ones, a hundred of them with each key."""
    count = 1_500  # in order, no more than 2,000 unfinished ones keep a place

    def log(_place: p.Place, offset: int) -> PlainRecord | None:
        index, number = divmod(offset, count)
        if index > 1:
            return None
        parts = 3 if number % 100 == 50 else 2  # its third one never comes
        return chunk(offset, number, index, parts, key=b"key-%d" % (number // 100))

    member = Member(log, ordering=ordering, buffer_bytes=400_000, window=10_000, validates=False)
    for _ in range(20_000):
        came = member.poll(BASE, 100)
        member.reread()
        member.wait(0.02 if came or member.rereads else 10.0)
        if not came:
            member.idle(BASE)
        if member.committed.get(BASE) == 2 * count:
            break
    lost = {number for number in range(count) if number % 100 == 50}
    assert member.committed[BASE] == 2 * count
    assert sorted(member.handled) == [number for number in range(count) if number not in lost]
    assert {offset % count for offset, _ in member.dead} == lost
    assert {reason for _, reason in member.dead} == {"incomplete"}
    assert member.most_assembling <= 300_000
    assert member.engine.counters.recalled > 0


def test_tens_of_thousands_of_unfinished_groups_are_not_looked_at_in_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted by how many lines of the library a round runs: no clock."""
    few, many = (_lines_of_rounds(groups) for groups in (100, 10_000))
    assert many < 3 * few + 15_000, (few, many)


def _lines_of_rounds(groups: int) -> int:
    import sys

    member = Member(unfinished, buffer_bytes=64 << 20, window=10**6, validates=False)
    while member.engine.assignments[BASE].chunks.count < groups:
        member.poll(BASE, 100)
    lines = 0

    def trace(_frame: object, event: str, _argument: object) -> object:
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        for _ in range(100):
            member.wait(0.001)
    finally:
        sys.settrace(None)
    return lines
