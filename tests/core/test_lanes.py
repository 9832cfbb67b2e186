"""Lanes: one head each, in the order of offsets, with reservations for what is not whole yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.lanes import Lanes, Reservation
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.wire.headers import PLAIN

OWNER = Assignment(p.Place("orders", 0), parks=False, map_units=4095)


def message(offset: int, key: bytes | None = b"a", size: int = 10) -> Entry:
    entry = Entry(OWNER, offset, size, None, PLAIN, 0)
    entry.key = key
    return entry


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(by_key=True)


def test_only_the_head_may_go(lanes: Lanes) -> None:
    first, second, third = message(1), message(2), message(3)
    assert [lanes.enter(one) for one in (first, second, third)] == [True, False, False]
    assert (lanes.waiting, lanes.bytes) == (2, 20)
    assert (lanes.is_head(first), lanes.is_head(second)) == (True, False)
    assert lanes.leave(first) is second
    assert lanes.leave(second) is third
    assert (lanes.waiting, lanes.bytes) == (0, 0)
    assert lanes.leave(third) is None
    lanes.validate()
    assert lanes.enter(message(4))


def test_who_is_not_the_head_cannot_leave(lanes: Lanes) -> None:
    first, second = message(1), message(2)
    lanes.enter(first)
    lanes.enter(second)
    assert lanes.leave(second) is None
    assert lanes.leave(message(9, b"b")) is None
    assert lanes.leave(first) is second
    assert lanes.leave(first) is None


def test_keys_do_not_wait_for_each_other(lanes: Lanes) -> None:
    assert lanes.enter(message(1, b"a"))
    assert lanes.enter(message(2, b""))
    assert lanes.enter(message(3, b"b"))
    assert not lanes.enter(message(4, b""))
    lanes.validate()


def test_without_a_key_there_is_no_order(lanes: Lanes) -> None:
    first, second = message(1, None), message(2, None)
    assert lanes.enter(first) and lanes.enter(second)
    assert lanes.is_head(first) and lanes.is_head(second)
    assert lanes.leave(first) is None
    assert lanes.waiting == 0


def test_a_whole_partition_is_one_lane() -> None:
    lanes = Lanes(by_key=False)
    first, second, third = message(1, b"a"), message(2, None), message(3, b"b")
    assert [lanes.enter(one) for one in (first, second, third)] == [True, False, False]
    assert lanes.leave(first) is second
    assert lanes.leave(second) is third


def test_a_seat_keeps_its_place(lanes: Lanes) -> None:
    reservation = lanes.reserve(b"a", 1)
    behind = message(2)
    assert not lanes.enter(behind)
    whole = message(1)
    assert lanes.fill(reservation, whole)
    assert lanes.is_head(whole)
    assert lanes.leave(whole) is behind


def test_what_is_not_whole_is_not_the_head(lanes: Lanes) -> None:
    first, last = message(1), message(3)
    lanes.enter(first)
    reservation = lanes.reserve(b"a", 2)
    lanes.enter(last)
    assert lanes.leave(first) is None  # its successor is not whole
    assert lanes.waiting == 1
    lanes.validate()
    whole = message(2)
    assert lanes.fill(reservation, whole)
    assert lanes.leave(whole) is last


def test_a_seat_may_be_filled_before_its_turn(lanes: Lanes) -> None:
    first = message(1)
    lanes.enter(first)
    reservation = lanes.reserve(b"a", 2)
    whole = message(2, size=70)
    assert not lanes.fill(reservation, whole)
    assert (lanes.waiting, lanes.bytes) == (1, 70)
    lanes.validate()
    assert lanes.leave(first) is whole
    assert (lanes.waiting, lanes.bytes) == (0, 0)


def test_a_dropped_seat_holds_nothing_up(lanes: Lanes) -> None:
    first = message(1)
    lanes.enter(first)
    middle, last = lanes.reserve(b"a", 2), message(3)
    lanes.enter(last)
    assert lanes.drop(middle) is None
    assert lanes.leave(first) is last
    assert lanes.leave(last) is None
    head, after = lanes.reserve(b"a", 4), message(5)
    lanes.enter(after)
    assert lanes.drop(head) is after
    lonely = lanes.reserve(b"b", 6)
    assert lanes.drop(lonely) is None
    assert lanes.enter(message(7, b"b"))
    lanes.validate()


def test_a_seat_without_a_key_is_in_nobodys_way(lanes: Lanes) -> None:
    reservation, other = lanes.reserve(None, 1), lanes.reserve(None, 2)
    assert lanes.fill(reservation, message(1, None))
    assert lanes.drop(other) is None


@given(st.data())
def test_every_message_goes_once_and_in_order(data: st.DataObject) -> None:
    lanes = Lanes(by_key=data.draw(st.booleans()))
    keys = [None, b"", b"a", b"b"]
    going: list[Entry] = []
    went: list[Entry] = []
    reservations: list[Reservation] = []
    dropped: set[int] = set()

    def go(entry: Entry | None) -> None:
        if entry is not None:
            assert lanes.is_head(entry)
            going.append(entry)
            went.append(entry)

    total = data.draw(st.integers(1, 25))
    offset = 0
    while offset < total or going or reservations:
        choices = (
            ["enter", "reserve"] * (offset < total)
            + ["leave"] * bool(going)
            + ["reservation"] * bool(reservations)
        )
        match data.draw(st.sampled_from(choices)):
            case "enter":
                entry = message(offset, data.draw(st.sampled_from(keys)))
                offset += 1
                go(entry if lanes.enter(entry) else None)
            case "reserve":
                reservations.append(lanes.reserve(data.draw(st.sampled_from(keys)), offset))
                offset += 1
            case "leave":
                done = going.pop(data.draw(st.integers(0, len(going) - 1)))
                go(lanes.leave(done))
            case _:
                reservation = reservations.pop(data.draw(st.integers(0, len(reservations) - 1)))
                if data.draw(st.booleans()):
                    entry = message(reservation.offset, reservation.key)
                    go(entry if lanes.fill(reservation, entry) else None)
                else:
                    dropped.add(reservation.offset)
                    go(lanes.drop(reservation))
        lanes.validate()
    assert sorted(entry.offset for entry in went) == [one for one in range(total) if one not in dropped]
    for key in keys[1:]:
        offsets = [entry.offset for entry in went if entry.key == key]
        assert offsets == sorted(offsets)
