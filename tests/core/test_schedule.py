from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.schedule import DueQueue, Keep, ParkingRule
from retriable_kafka_client.wire.headers import Marks
from tests.core.harness import RETRY, Raw, entry

RULE = ParkingRule(interval_ms=60_000)
ANYWHERE = 10**9
SIZE = 100


def waiting(
    offset: int, due_ms: int, parked_ms: int | None = None, born_ms: int = 0, size: int = SIZE
) -> Entry:
    assignment = Assignment(RETRY, parks=True, map_units=1_000)
    marks = Marks(not_before_ms=due_ms, parked_ms=parked_ms)
    return entry(assignment, offset, Raw(marks, size=size, born_ms=born_ms))


def queue_of(entries: Iterable[Entry]) -> DueQueue:
    queue = DueQueue()
    for one in entries:
        queue.push(one)
        queue.validate()
    return queue


def offsets(entries: Iterable[Entry]) -> list[int]:
    return [one.offset for one in entries]


def keep(messages: int, size: int = ANYWHERE, early: int = ANYWHERE) -> Keep:
    return Keep(messages=messages, bytes=size, early=early)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 50))
def test_what_is_due_comes_out_nearest_first(due: list[int], wall_ms: int) -> None:
    queue = queue_of(waiting(offset, due_ms) for offset, due_ms in enumerate(due))
    out = queue.pop_due(wall_ms)
    queue.validate()
    assert [(one.not_before_ms, one.offset) for one in out] == sorted(
        (due_ms, offset) for offset, due_ms in enumerate(due) if due_ms <= wall_ms
    )
    assert len(queue) == len(due) - len(out)
    assert queue.bytes == SIZE * len(queue)
    assert queue.next_due_ms == min((due_ms for due_ms in due if due_ms > wall_ms), default=None)


def test_a_message_is_due_at_its_millisecond() -> None:
    queue = queue_of([waiting(0, 500)])
    assert queue.pop_due(499) == []
    assert offsets(queue.pop_due(500)) == [0]


def test_the_furthest_are_parked() -> None:
    queue = queue_of(waiting(offset, 100_000 + offset) for offset in range(10))
    assert offsets(queue.take_furthest(keep(4), ANYWHERE, 0, RULE)) == [4, 5, 6, 7, 8, 9]
    queue.validate()
    assert offsets(queue.pop_due(ANYWHERE)) == [0, 1, 2, 3]


def test_bytes_count_too() -> None:
    queue = queue_of(waiting(offset, 100_000 + offset, size=300) for offset in range(4))
    assert offsets(queue.take_furthest(keep(100, size=700), ANYWHERE, 0, RULE)) == [2, 3]
    assert queue.bytes == 600


def test_what_is_due_within_the_interval_stays() -> None:
    queue = queue_of([waiting(0, 60_000), waiting(1, 60_001)])
    assert offsets(queue.take_furthest(keep(0), ANYWHERE, 0, RULE)) == [1]


def test_a_message_is_parked_once_per_interval() -> None:
    assert not RULE.allows(waiting(0, 10**9, parked_ms=100_000), 159_999)
    assert RULE.allows(waiting(0, 10**9, parked_ms=100_000), 160_000)


def test_a_clock_that_was_set_back_does_not_hold_parking_up_for_ever() -> None:
    assert RULE.allows(waiting(0, 10**9, parked_ms=500_000), 100_000)
    assert not RULE.allows(waiting(0, 10**9, parked_ms=101_000), 100_000)


def test_what_may_not_be_completed_is_not_parked() -> None:
    queue = queue_of(waiting(offset, 100_000 + offset) for offset in range(6))
    assert queue.count_below(3) == 3
    assert offsets(queue.take_furthest(keep(0), 3, 0, RULE)) == [0, 1, 2]
    assert offsets(queue.take_older(1, 6, 0, RULE)) == []
    assert len(queue) == 3


def test_what_the_map_lists_can_be_relieved_alone() -> None:
    queue = queue_of(waiting(offset, 100_000 + offset) for offset in range(6))
    assert offsets(queue.take_furthest(keep(100, early=1), 4, 0, RULE)) == [1, 2, 3]


def test_what_retention_nears_is_parked() -> None:
    queue = queue_of(
        [
            waiting(0, 10**9, born_ms=10),
            waiting(1, 10**9, born_ms=20),
            waiting(2, 10**9),  # its age is not known
            waiting(3, 50_000, born_ms=10),  # due soon
            waiting(9, 10**9, born_ms=10),
        ]
    )
    assert offsets(queue.take_older(20, 9, 0, RULE)) == [0]
    queue.validate()
    assert len(queue) == 4


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.none() | st.integers(0, 100_000)), max_size=25),
    st.integers(0, 25),
    st.integers(0, 2_500),
    st.integers(0, 25),
    st.integers(0, 25),
)
def test_parking_keeps_every_message_once(
    made: list[tuple[int, int | None]], most: int, size: int, early: int, below: int
) -> None:
    queue = queue_of(waiting(offset, due, parked) for offset, (due, parked) in enumerate(made))
    taken = queue.take_furthest(Keep(messages=most, bytes=size, early=early), below, 50_000, RULE)
    queue.validate()
    assert all(RULE.allows(one, 50_000) and one.offset < below for one in taken)
    left = queue.clear()
    assert sorted(offsets(taken) + offsets(left)) == list(range(len(made)))
    assert (len(queue), queue.bytes) == (0, 0)
