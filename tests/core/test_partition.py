from __future__ import annotations

import gc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import FILTERED, Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.runs import within
from retriable_kafka_client.core.sorting import YEAR_MS
from retriable_kafka_client.events import REASON_NOT_BEFORE
from retriable_kafka_client.wire.headers import Marks
from tests.core.harness import BASE, RETRY, Raw, entry

PLENTY = 4_095


def restored(topic_id: str | None, cluster: str = "cluster") -> p.Restored:
    """What the brokers of a cluster say of the partition; without an id, if they tell none."""
    fallback = f"{cluster}.{BASE.topic}"
    return p.Restored(
        place=BASE,
        position=None,
        metadata="",
        uid=topic_id or fallback,
        topic_id=topic_id,
        fallback_uid=fallback,
        cluster=cluster,
    )


def running(position: int | None = 0, *, budget: int = PLENTY, least: int = 100) -> Assignment:
    assignment = Assignment(BASE, parks=False, map_units=budget, least_units=least)
    assignment.identify(restored("uid"))
    assignment.restore(position, "")
    return assignment


def take_in(assignment: Assignment, *offsets: int, raw: Raw | None = None, wall_ms: int = 0) -> list[Entry]:
    entries = [entry(assignment, offset, raw or Raw()) for offset in offsets]
    assignment.progress.register(list(offsets))
    assignment.sorter.take_in(entries, wall_ms)
    assignment.validate()
    return entries


def taken(assignment: Assignment, room: int = 100, wall_ms: int = 0) -> list[int]:
    """The offsets that are handed out now."""
    entries = assignment.queues.take(room, wall_ms)
    assignment.accounts.start(len(entries))
    assignment.validate()
    return [one.offset for one in entries]


def finish(assignment: Assignment, first: int, stop: int) -> None:
    assignment.accounts.back(stop - first, 0)
    assignment.complete(first, stop, 100 * (stop - first))
    assignment.validate()


def committed(assignment: Assignment) -> p.Progress | None:
    """What is committed now; acknowledged it is not."""
    progress = assignment.next_commit()
    if progress is not None:
        assignment.progress.mark_sent()
    return progress


def test_what_has_ended_is_freed_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        assignment = running()
        entries = take_in(assignment, 0, 1, 2)
        assert taken(assignment) == [0, 1, 2]
        finish(assignment, 0, 3)
        assignment.end()
        del assignment, entries
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_it_begins_where_the_group_stands() -> None:
    assignment = Assignment(BASE, parks=False, map_units=PLENTY)
    assert not assignment.hands_out
    assignment.restore(7, "")
    assert (assignment.hands_out, assignment.begin, assignment.restored) == (True, 7, 0)


def test_without_a_position_the_first_record_says_where_it_begins() -> None:
    assignment = running(None)
    assert assignment.begin is None
    assert committed(assignment) is None
    take_in(assignment, 40, 41)
    progress = committed(assignment)
    assert progress is not None
    assert progress.position == 40


def test_a_log_of_markers_alone_is_committed() -> None:
    assignment = running(None)
    assignment.progress.pass_over(3)
    progress = committed(assignment)
    assert progress is not None
    assert progress.position == 3


def test_a_gap_counts_as_complete_only_when_nothing_is_left() -> None:
    assignment = running()
    take_in(assignment, 0, 1)
    assignment.progress.pass_over(9)
    assert taken(assignment) == [0, 1]
    finish(assignment, 0, 2)
    assert assignment.progress.tracker.position == 2
    assignment.progress.pass_over(9)
    assert assignment.progress.tracker.position == 9


def test_progress_is_said_once() -> None:
    assignment = running()
    take_in(assignment, 0)
    assert committed(assignment) is not None
    assert committed(assignment) is None
    taken(assignment)
    finish(assignment, 0, 1)
    assert committed(assignment) is not None


def test_the_next_owner_knows_what_is_done() -> None:
    first = running()
    take_in(first, *range(6))
    taken(first)
    finish(first, 1, 3)
    finish(first, 5, 6)
    progress = committed(first)
    assert progress is not None
    second = Assignment(BASE, parks=False, map_units=PLENTY)
    second.identify(restored("uid"))
    second.restore(progress.position, progress.metadata)
    assert (second.begin, second.restored) == (0, 3)
    assert second.progress.register(list(range(7))) == [(0, 1), (3, 5), (6, 7)]


def test_the_map_of_another_topic_is_not_believed() -> None:
    first = running()
    take_in(first, 0, 1)
    taken(first)
    finish(first, 1, 2)
    progress = committed(first)
    assert progress is not None
    made_anew = Assignment(BASE, parks=False, map_units=PLENTY)
    made_anew.identify(restored("another"))
    made_anew.restore(progress.position, progress.metadata)
    assert made_anew.restore_problem == "topic"
    assert (made_anew.begin, made_anew.earliest, made_anew.restored) == (None, True, 0)


@pytest.mark.parametrize(
    ("before", "after", "problem", "begin", "done"),
    [
        pytest.param(("id", "one"), ("id", "one"), None, 0, 1, id="the same topic"),
        pytest.param(("id", "one"), ("id-2", "two"), "cluster", 0, 0, id="a mirror, or a backup"),
        pytest.param((None, "one"), (None, "two"), "cluster", 0, 0, id="a mirror, where ids are not told"),
        pytest.param(("id", "one"), (None, "two"), "cluster", 0, 0, id="a mirror that we may not look into"),
        pytest.param((None, "one"), (None, "one"), None, 0, 1, id="the same, ids are not told"),
        pytest.param((None, "one"), ("id", "one"), None, 0, 1, id="the brokers begin to tell ids"),
        pytest.param(("id", "one"), (None, "one"), "topic", 0, 0, id="the right to look was taken away"),
        pytest.param(("id", "one"), ("id-2", "one"), "topic", None, 0, id="made anew"),
    ],
)
def test_what_a_copied_or_moved_map_says(
    before: tuple[str | None, str],
    after: tuple[str | None, str],
    problem: str | None,
    begin: int | None,
    done: int,
) -> None:
    first = Assignment(BASE, parks=False, map_units=PLENTY)
    first.identify(restored(*before))
    first.restore(0, "")
    take_in(first, 0, 1)
    taken(first)
    finish(first, 1, 2)
    progress = committed(first)
    assert progress is not None
    second = Assignment(BASE, parks=False, map_units=PLENTY)
    second.identify(restored(*after))
    second.restore(progress.position, progress.metadata)
    found = (second.restore_problem, second.begin, second.restored, second.earliest)
    assert found == (problem, begin, done, begin is None)


@pytest.mark.parametrize("metadata", ["", "somebody else's", "rkc1s", "rkc9zzz", "\u4e00" * 50])
def test_foreign_metadata_leaves_the_position_alone(metadata: str) -> None:
    assignment = Assignment(BASE, parks=False, map_units=PLENTY)
    assignment.restore(5, metadata)
    assert (assignment.begin, assignment.restored) == (5, 0)
    assert (assignment.restore_problem is None) == (not metadata)


def test_messages_are_sorted_by_their_time() -> None:
    assignment = running()
    take_in(assignment, 0, raw=Raw(Marks(not_before_ms=1_000)), wall_ms=999)
    take_in(assignment, 1, raw=Raw(Marks(not_before_ms=1_000)), wall_ms=1_000)
    take_in(assignment, 2)
    take_in(assignment, 3, raw=Raw(Marks(not_before_ms=1_000), FILTERED))
    assert ([len(assignment.queues.waiting), len(assignment.queues.due), len(assignment.queues.ready)]) == [
        1,
        1,
        2,
    ]
    assert (assignment.accounts.active_bytes, assignment.queues.waiting.bytes) == (300, 100)
    assignment.queues.wake(1_000)
    assert [one.offset for one in assignment.queues.due] == [1, 0]
    assert (assignment.accounts.active_bytes, assignment.queues.waiting.bytes) == (400, 0)


def test_more_than_a_year_is_a_mistake() -> None:
    assignment = running()
    (far,) = take_in(assignment, 0, raw=Raw(Marks(not_before_ms=YEAR_MS + 1)))
    assert far.verdict is not None
    assert far.verdict.reason == REASON_NOT_BEFORE
    (near,) = take_in(assignment, 1, raw=Raw(Marks(not_before_ms=YEAR_MS)))
    assert near.verdict is None
    assert len(assignment.queues.waiting) == 1


def test_a_clock_that_was_set_back_makes_messages_wait_again() -> None:
    assignment = running()
    take_in(assignment, 0, raw=Raw(Marks(not_before_ms=1_000)), wall_ms=1_500)
    assert assignment.queues.take_due(10, 900) == []
    assert len(assignment.queues.waiting) == 1
    assignment.validate()
    assignment.queues.wake(1_000)
    assert [one.offset for one in assignment.queues.take_due(10, 1_000)] == [0]


def test_room_limits_what_is_taken() -> None:
    assignment = running()
    take_in(assignment, *range(5))
    assert taken(assignment, room=2) == [0, 1]
    assert taken(assignment, room=2) == [2, 3]
    assert taken(assignment, room=2) == [4]


def test_what_the_map_cannot_hold_waits_until_it_can() -> None:
    assignment = running(budget=26, least=26)  # room for 15 bits, one for each incomplete offset
    take_in(assignment, *range(20))
    assert taken(assignment) == list(range(15))
    assert len(assignment.queues.blocked) == 5
    assert taken(assignment) == []
    finish(assignment, 1, 2)
    assert taken(assignment) == []
    finish(assignment, 0, 1)
    assert taken(assignment) == [15, 16]
    progress = committed(assignment)
    assert progress is not None
    assert len(progress.metadata) <= 26


def test_without_room_for_a_map_positions_are_committed_bare() -> None:
    assignment = running(budget=99)
    take_in(assignment, *range(50))
    assert taken(assignment) == list(range(50))
    finish(assignment, 1, 50)
    progress = committed(assignment)
    assert progress is not None
    assert (progress.position, progress.metadata) == (0, "")


def test_a_drain_forgets_what_was_not_handed_out() -> None:
    assignment = running()
    take_in(assignment, 0, 1, 2)
    take_in(assignment, 3, raw=Raw(Marks(not_before_ms=1_000)))
    assert taken(assignment, room=1) == [0]
    assignment.drain()
    assert (assignment.hands_out, assignment.drained) == (False, False)
    assert (assignment.accounts.active_bytes, assignment.queues.waiting.bytes) == (100, 0)
    finish(assignment, 0, 1)
    assert assignment.drained
    progress = committed(assignment)
    assert progress is not None
    assert progress.position == 1


def test_after_the_end_there_is_no_progress() -> None:
    assignment = running()
    take_in(assignment, 0)
    assignment.end()
    assert assignment.phase is Phase.ENDED
    assert committed(assignment) is None
    assignment.drain()
    assert assignment.phase is Phase.ENDED


def test_memory_is_shared_by_what_waits_and_what_is_at_hand() -> None:
    base, retries = running(), Assignment(RETRY, parks=True, map_units=PLENTY)
    assert not base.holds_too_much(10, 1_000, active=999, waiting=5_000)
    assert base.holds_too_much(10, 1_000, active=1_000, waiting=0)
    assert retries.holds_too_much(10, 1_000, active=0, waiting=1_000)
    take_in(base, *range(10))
    assert base.holds_too_much(10, 10**9, active=0, waiting=0)
    delayed = running()
    take_in(delayed, 0, raw=Raw(Marks(not_before_ms=1_000)))
    assert delayed.holds_too_much(10, 1_000, active=0, waiting=1_000)


@given(
    st.sets(st.integers(0, 60), min_size=1),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=6),
)
def test_within_finds_what_lies_in_the_runs(chosen: set[int], made: list[tuple[int, int]]) -> None:
    runs: list[tuple[int, int]] = []
    for first, length in sorted(made):
        if not runs or first >= runs[-1][1]:
            runs.append((first, first + length))
    offsets = sorted(chosen)
    kept = [offsets[index] for index in within(offsets, runs)]
    assert kept == [offset for offset in offsets if any(first <= offset < stop for first, stop in runs)]


@given(st.lists(st.sampled_from(["arrive", "gap", "take", "finish", "wake", "back"]), max_size=60), st.data())
def test_nothing_is_lost_whatever_happens(steps: list[str], data: st.DataObject) -> None:
    assignment = running(budget=data.draw(st.sampled_from([23, 25, PLENTY])), least=23)
    wall_ms, offset, out, done = 1_000, 0, deque[Entry](), set[int]()
    arrived: list[int] = []

    def hand_out(room: int) -> None:
        entries = assignment.queues.take_due(room, wall_ms) + assignment.queues.take(room, wall_ms)
        assignment.accounts.start(len(entries))
        assert all(one.not_before_ms is None or one.not_before_ms <= wall_ms for one in entries)
        out.extend(entries)

    for step in steps:
        if step == "arrive":
            due_ms = data.draw(st.none() | st.integers(500, 3_000))
            take_in(assignment, offset, raw=Raw(Marks(not_before_ms=due_ms)), wall_ms=wall_ms)
            arrived.append(offset)
            offset += 1
        elif step == "gap":
            offset += data.draw(st.integers(1, 40))
        elif step == "take":
            hand_out(data.draw(st.integers(1, 4)))
        elif step == "finish" and out:
            out.rotate(data.draw(st.integers(0, 5)))
            one = out.popleft()
            finish(assignment, one.offset, one.offset + 1)
            done.add(one.offset)
        elif step == "wake":
            wall_ms += 400
            assignment.queues.wake(wall_ms)
        elif step == "back":
            wall_ms -= 300
        assignment.validate()
        held = [*assignment.queues.ready, *assignment.queues.due, *assignment.queues.blocked, *out]
        assert len(held) + len(assignment.queues.waiting) + len(done) == len(arrived)
        assert assignment.accounts.active_bytes == 100 * len(held)
        if assignment.progress.has_begun:
            assert assignment.progress.tracker.position <= min(set(arrived) - done, default=offset)
    wall_ms = 4_000
    assignment.queues.wake(wall_ms)
    while len(done) < len(arrived):
        hand_out(100)
        assert out, "what is left is never handed out"
        while out:
            one = out.popleft()
            finish(assignment, one.offset, one.offset + 1)
            done.add(one.offset)
    assert done == set(arrived)
