from __future__ import annotations

import random
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retriable_kafka_client.core.offset_map import Binding, OffsetMap, bits_bound, capacity, decode
from retriable_kafka_client.core.offsets import Tracker

BINDING = Binding(b"topic/0", b"topic-id")
PLENTY = 10**6


def tracker_with(*runs: tuple[int, int], budget_units: int = PLENTY) -> Tracker:
    """Return a tracker that began at the first run's first offset and admits as much as it may."""
    tracker = Tracker(runs[0][0], budget_units=budget_units)
    for first, stop in runs:
        tracker.register(first, stop)
    tracker.admit(tracker.next_offset)
    tracker.validate()
    return tracker


def restarted(tracker: Tracker, budget_units: int = PLENTY) -> Tracker:
    restored = decode(tracker.encode(BINDING), base=tracker.position, binding=BINDING)
    again = Tracker(tracker.position, restored, budget_units=budget_units)
    again.validate()
    return again


def test_the_position_is_the_lowest_incomplete_offset() -> None:
    tracker = Tracker(100, budget_units=PLENTY)
    assert (tracker.position, tracker.next_offset, tracker.incomplete, tracker.span) == (100, 100, 0, 0)
    assert tracker.register(100, 110) == [(100, 110)]
    assert tracker.admit(110) == 110
    tracker.complete(101, 105)
    assert (tracker.position, tracker.next_offset, tracker.incomplete, tracker.span) == (100, 110, 6, 10)
    tracker.complete(100, 101)
    assert tracker.position == 105
    tracker.complete(105, 110)
    assert (tracker.position, tracker.incomplete, tracker.span) == (110, 0, 0)
    tracker.validate()


def test_offsets_that_the_log_skips_are_complete() -> None:
    tracker = tracker_with((0, 2), (10, 12), (10**12, 10**12 + 1))
    tracker.complete(0, 2)
    assert tracker.position == 10
    tracker.complete(10, 12)
    assert tracker.position == 10**12
    assert not tracker.is_incomplete(5)
    assert tracker.is_incomplete(10**12)


def test_the_end_of_a_log_may_be_markers() -> None:
    tracker = tracker_with((0, 2))
    tracker.advance(5)
    assert (tracker.position, tracker.next_offset) == (0, 5)
    tracker.complete(0, 2)
    assert tracker.position == 5
    tracker.advance(9)
    tracker.advance(3)
    tracker.advance(-1001)
    assert (tracker.position, tracker.next_offset, tracker.offset_map()) == (9, 9, OffsetMap(9, (), 9))
    tracker.validate()


def test_what_the_map_restores_is_not_fresh() -> None:
    tracker = tracker_with((0, 100))
    tracker.complete(10, 20)
    tracker.complete(30, 31)
    again = restarted(tracker)
    assert again.position == 0
    assert again.register(0, 15) == [(0, 10)]
    assert again.register(15, 40) == [(20, 30), (31, 40)]
    assert again.incomplete == 29
    again.validate()


def test_a_map_that_ends_within_a_run_joins_what_follows() -> None:
    again = Tracker(0, OffsetMap(0, ((0, 1), (5, 8)), 8), budget_units=PLENTY)
    assert again.register(0, 12) == [(0, 1), (5, 12)]
    again.validate()


def test_a_commit_before_all_is_delivered_again_keeps_the_rest_of_the_map() -> None:
    tracker = tracker_with((0, 10_000))
    tracker.complete(5_000, 9_000)
    again = restarted(tracker)
    again.register(0, 100)
    again.admit(100)
    again.complete(0, 50)
    third = restarted(again)
    assert third.position == 50
    assert third.register(50, 10_000) == [(50, 5_000), (9_000, 10_000)]


def test_restored_offsets_do_not_carry_the_position_past_what_was_delivered() -> None:
    again = Tracker(0, OffsetMap(0, ((0, 1), (500, 501)), 1_000), budget_units=PLENTY)
    again.register(0, 10)
    again.complete(0, 1)
    assert again.position == again.next_offset == 10
    assert again.offset_map() == OffsetMap(10, ((500, 501),), 1_000)
    again.validate()


def test_restored_offsets_that_compaction_took_are_complete() -> None:
    again = Tracker(0, OffsetMap(0, ((0, 1), (500, 1_600), (3_000, 3_001)), 4_000), budget_units=PLENTY)
    assert again.register(1_000, 1_100) == [(1_000, 1_100)]
    assert again.position == 1_000
    again.validate()
    again.advance(3_500)
    assert again.position == 1_000
    again.complete(1_000, 1_100)
    assert (again.position, again.incomplete) == (3_500, 0)
    again.validate()


def test_a_stuck_head_far_behind_costs_little() -> None:
    tracker = tracker_with((0, 1), (1, 1_000), budget_units=4_095)
    tracker.complete(1, 1_000)
    for first in range(1_000, 1_000_000, 1_000):
        tracker.register(first, first + 1_000)
        assert tracker.admit(first + 1_000) == first + 1_000
        tracker.complete(first, first + 1_000)
    tracker.register(1_000_000, 1_050_000)
    assert tracker.code_share < 0.01
    assert tracker.admit(1_050_000) == 1_050_000
    for offset in range(1_000_000, 1_050_000, 10):
        tracker.complete(offset, offset + 1)
    again = restarted(tracker)
    assert sum(stop - first for first, stop in again.register(0, 1_050_000)) == 45_001
    assert again.incomplete == tracker.incomplete


def test_admission_stops_at_the_budget_and_goes_on_when_there_is_room() -> None:
    tracker = Tracker(0, budget_units=100)
    tracker.register(0, 100_000)
    room = capacity(100)
    frontier = tracker.admit(100_000)
    assert 0.9 * room <= frontier <= room
    assert tracker.code_share <= 1.0
    assert tracker.admit(100_000) == frontier
    tracker.complete(0, 100)
    assert tracker.admit(100_000) == frontier + 100
    assert tracker.admit(10) == frontier + 100
    tracker.validate()


def test_admission_counts_the_pages_of_what_it_admits() -> None:
    tracker = Tracker(0, budget_units=60)
    offsets: list[int] = []
    for cluster in range(200):
        first = cluster * 10**6
        tracker.register(first, first + 4)
        offsets += range(first, first + 4)

    def bound(count: int) -> int:
        pages = {offset >> 10 for offset in offsets[:count]}
        return bits_bound(count, len(pages), 0, offsets[count - 1] + 1)

    fitting = max(count for count in range(1, len(offsets)) if bound(count) <= capacity(60))
    assert 8 < fitting < len(offsets)
    assert tracker.admit(tracker.next_offset) == offsets[fitting - 1] + 1


def test_many_waiting_offsets_are_admitted_bit_by_bit() -> None:
    tracker = Tracker(0, budget_units=60)
    offsets = list(range(0, 50_000, 50))
    for offset in offsets:
        tracker.register(offset, offset + 1)
    for number, offset in enumerate(offsets):
        frontier = tracker.admit(tracker.next_offset)
        assert offset < frontier
        assert frontier == tracker.next_offset or frontier - 1 in offsets[number : number + 80]
        tracker.complete(offset, offset + 1)
        tracker.validate()
    assert tracker.position == tracker.next_offset


def test_the_map_ends_behind_the_last_complete_offset() -> None:
    tracker = tracker_with((0, 100))
    assert tracker.offset_map() == OffsetMap(0, (), 0)
    assert decode(tracker.encode(BINDING), base=0, binding=BINDING) == OffsetMap(0, (), 0)
    tracker.complete(10, 20)
    assert tracker.offset_map() == OffsetMap(0, ((0, 10),), 20)


@pytest.mark.parametrize("budget_units", [0, 5, 22, 23])
def test_without_room_for_a_map_offsets_go_one_by_one(budget_units: int) -> None:
    tracker = Tracker(0, budget_units=budget_units)
    tracker.register(0, 3)
    tracker.register(10, 12)
    order = []
    while tracker.incomplete:
        head = tracker.position
        frontier = tracker.admit(tracker.next_offset)
        assert frontier > head
        order.append(head)
        tracker.complete(head, head + 1)
        tracker.validate()
    assert order == [0, 1, 2, 10, 11]
    assert decode(tracker.encode(BINDING), base=12, binding=BINDING).completed == 0


def test_a_smaller_budget_cuts_the_map_and_keeps_what_was_admitted() -> None:
    tracker = tracker_with((0, 2_000), budget_units=4_095)
    for offset in range(1, 2_000, 2):
        tracker.complete(offset, offset + 1)
    whole = tracker.offset_map()
    tracker.set_budget(60)
    assert tracker.code_share > 1
    text = tracker.encode(BINDING)
    assert len(text) <= 60
    cut = decode(text, base=0, binding=BINDING)
    assert cut.incomplete == whole.incomplete[: len(cut.incomplete)]
    assert cut.completed > 100
    tracker.complete(1_000, 1_001)
    tracker.register(2_000, 2_010)
    assert tracker.admit(2_010) == 2_000
    for offset in range(0, 2_000, 2):
        if offset != 1_000:
            tracker.complete(offset, offset + 1)
    assert tracker.admit(2_010) == 2_010
    tracker.set_budget(0)
    tracker.complete(2_005, 2_006)
    assert (tracker.encode(BINDING), tracker.code_share) == ("", 1.0)
    tracker.validate()


def test_mistakes_are_refused_and_change_nothing() -> None:
    with pytest.raises(ValueError, match="start"):
        Tracker(-1, budget_units=PLENTY)
    with pytest.raises(ValueError, match="start"):
        Tracker(3, OffsetMap(2, (), 9), budget_units=PLENTY)

    tracker = tracker_with((0, 3_000), (4_000, 4_010))
    tracker.register(4_010, 4_020)
    tracker.complete(2_000, 2_001)
    before = (tracker.offset_map(), tracker.position, tracker.incomplete, tracker.next_offset)
    for first, stop in ((4_019, 4_025), (5_000, 5_000), (4_030, 4_025)):
        with pytest.raises(ValueError, match="register"):
            tracker.register(first, stop)
    with pytest.raises(ValueError, match="admit"):
        tracker.admit(4_021)
    wrong = [
        (0, 0),  # nothing
        (5, 4),
        (-1, 1),
        (1_000, 2_500),  # one of them is complete
        (2_000, 2_001),
        (2_999, 3_001),  # the log has no 3,000
        (3_500, 3_501),
        (4_010, 4_011),  # not admitted
        (0, 2**62),
    ]
    for first, stop in wrong:
        with pytest.raises(ValueError, match="complete"):
            tracker.complete(first, stop)
        tracker.validate()
    assert before == (tracker.offset_map(), tracker.position, tracker.incomplete, tracker.next_offset)


def test_what_a_map_expects_cannot_complete_before_it_is_delivered() -> None:
    again = Tracker(0, OffsetMap(0, ((0, 1), (5, 8)), 10), budget_units=PLENTY)
    again.register(0, 3)
    assert not again.is_incomplete(6)
    with pytest.raises(ValueError, match="complete"):
        again.complete(5, 8)
    again.validate()


@given(st.integers(0, 2**32), st.sampled_from([1, 7, 1_000, 10**9]))
@settings(max_examples=20)
def test_sparse_logs_and_random_order(seed: int, stride: int) -> None:
    """Many runs come and go; what is kept for those that are gone is given up on the way."""
    chance = random.Random(seed)
    tracker = Tracker(0, budget_units=300)
    offset = 0
    live: list[int] = []
    for _ in range(600):
        offset += chance.randint(1, stride)
        tracker.register(offset, offset + 1)
        live.append(offset)
        frontier = tracker.admit(tracker.next_offset)
        while len(live) > 50 or (live and live[-1] >= frontier):
            admitted = bisect_left(live, frontier)
            gone = live.pop(chance.randrange(admitted))
            tracker.complete(gone, gone + 1)
            frontier = tracker.admit(tracker.next_offset)
            assert tracker.position == (live[0] if live else tracker.next_offset)
        tracker.validate()


class TrackerMachine(RuleBasedStateMachine):
    """A tracker beside plain sets, over a log that outlives it: each restart begins from the last commit."""

    @initialize(
        start=st.sampled_from([0, 1_000, 2**40]),
        budget=st.sampled_from([0, 23, 24, 30, 45, 100, 4_095]),
    )
    def begin(self, start: int, budget: int) -> None:
        self.budget = budget
        self.cut = False  # the budget has been smaller than what was admitted
        self.log: list[int] = []  # the offsets that exist, in order
        self.tracker = Tracker(start, budget_units=budget)
        self.end = start  # of the log; Kafka gives an offset once
        self.next = start
        self.position = start
        self.open: set[int] = set()  # delivered and not complete
        self.expected: set[int] = set()  # not yet delivered again, and incomplete by the map
        self.known = start  # where the map ends
        self.done: set[int] = set()  # completed since the start, or complete by the map
        self.committed = (start, "", set[int]())

    def follow(self) -> None:
        self.position = min(self.open, default=self.next)

    @rule(gap=st.integers(0, 3) | st.sampled_from([0, 0, 0, 1_500, 10**6]), size=st.integers(1, 40))
    def deliver(self, gap: int, size: int) -> None:
        at = bisect_left(self.log, self.next)
        if at == len(self.log):
            start = max(self.next, self.end) + gap
            self.log += range(start, start + size)
            self.end = start + size
        first = self.log[at]
        stop = first
        while stop < first + size and at < len(self.log) and self.log[at] == stop:
            stop += 1
            at += 1
        runs = self.tracker.register(first, stop)
        fresh = [offset for low, high in runs for offset in range(low, high)]
        assert all(low < high for low, high in runs)
        assert fresh == [o for o in range(first, stop) if o >= self.known or o in self.expected]
        assert not self.done.intersection(fresh)
        self.open.update(fresh)
        self.next = stop
        self.expected = {o for o in self.expected if o >= stop}
        self.follow()

    @rule(by=st.integers(-5, 3_000))
    def reach_the_end(self, by: int) -> None:
        if bisect_left(self.log, self.next) == len(self.log):
            self.tracker.advance(self.next + by)
            self.next = max(self.next, self.next + by)
            self.end = max(self.end, self.next)
            self.expected = {o for o in self.expected if o >= self.next}
            self.follow()

    def bound(self, stop: int) -> int:
        bits = self.open | self.expected
        pages = {o >> 10 for o in bits if o >> 10 << 10 < stop}
        return bits_bound(sum(o < stop for o in bits), len(pages), self.position, stop)

    @rule(part=st.floats(0, 1))
    def admit(self, part: float) -> None:
        before = self.tracker.frontier
        stop = self.position + round((self.next - self.position) * part)
        frontier = self.tracker.admit(stop)
        assert frontier == self.tracker.frontier >= before
        if frontier > max(before, self.position + 1):
            assert self.bound(frontier) <= capacity(self.budget)
        if frontier < stop:
            refused = min((o for o in self.open if o >= frontier), default=stop - 1)
            assert refused > self.position
            assert self.bound(refused + 1) > capacity(self.budget)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=st.integers(1, 2_000) | st.integers(1, 3))
    def complete(self, data: st.DataObject, size: int) -> None:
        admitted = sorted(o for o in self.open if o < self.tracker.frontier)
        if not admitted:
            return
        first = stop = data.draw(st.sampled_from(admitted))
        frontier = self.tracker.frontier
        while stop < min(first + size, frontier) and stop in self.open:
            stop += 1
        share = self.tracker.code_share
        self.tracker.complete(first, stop)
        assert self.tracker.code_share <= share
        self.open.difference_update(range(first, stop))
        self.done.update(range(first, stop))
        self.follow()

    @rule(data=st.data())
    def complete_what_is_not_open(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(self.position - 3, self.next + 3))
        stop = first + data.draw(st.integers(-1, 5))
        frontier = self.tracker.frontier
        if first >= stop or any(o not in self.open or o >= frontier for o in range(first, stop)):
            with pytest.raises(ValueError, match="complete"):
                self.tracker.complete(first, stop)

    @rule()
    def commit(self) -> None:
        text = self.tracker.encode(BINDING)
        assert len(text) <= self.budget
        position = self.tracker.position
        held = decode(text, base=position, binding=BINDING)
        incomplete = {o for first, stop in held.incomplete for o in range(first, stop)}
        exists = self.log[bisect_left(self.log, position) :]
        claimed = {o for o in exists if o < held.end and o not in incomplete}
        assert claimed <= self.done
        if not self.cut:
            assert claimed == {o for o in exists if o in self.done}
        self.committed = (position, text, claimed)

    @rule(data=st.data(), vanish=st.booleans())
    def restart(self, data: st.DataObject, vanish: bool) -> None:
        position, text, claimed = self.committed
        if vanish and self.log:  # the log is compacted meanwhile
            low = data.draw(st.sampled_from(self.log))
            high = low + data.draw(st.integers(1, 50) | st.integers(1, 5_000))
            self.log = [o for o in self.log if not low <= o < high]
        restored = decode(text, base=position, binding=BINDING)
        self.tracker = Tracker(position, restored, budget_units=self.budget)
        self.next = self.position = position
        self.known = restored.end
        self.expected = {o for first, stop in restored.incomplete for o in range(first, stop)}
        self.open = set()
        self.done = set(claimed)

    @rule()
    def halve_the_budget(self) -> None:
        self.budget //= 2
        self.cut = True
        self.tracker.set_budget(self.budget)

    @invariant()
    def agree(self) -> None:
        tracker = self.tracker
        tracker.validate()
        assert tracker.position == self.position
        assert tracker.next_offset == self.next
        assert tracker.incomplete == len(self.open)
        assert tracker.span == self.next - self.position
        for offset in (self.position, self.next, self.next - 1, self.position + 7, *sorted(self.open)[:3]):
            assert tracker.is_incomplete(offset) == (offset in self.open)
        # Whatever is not complete yet, the map does not claim.
        held = tracker.offset_map()
        claims = {o for o in self.open if held.base <= o < held.end}
        assert claims == {o for o in self.open if any(a <= o < b for a, b in held.incomplete)}


TestTracker = TrackerMachine.TestCase
TestTracker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
