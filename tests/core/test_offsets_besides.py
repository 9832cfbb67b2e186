"""What the map will say once some offsets are complete, asked before they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.core.offset_map import Binding, OffsetMap
from retriable_kafka_client.core.offsets import Tracker

BINDING = Binding(b"topic/0", b"topic-id")


def tracker(runs: list[tuple[int, int]], done: list[int], restored: OffsetMap | None) -> Tracker:
    made = Tracker(runs[0][0] if restored is None else restored.base, restored, budget_units=4_095)
    for first, stop in runs:
        made.register(first, stop)
    made.admit(made.next_offset)
    for offset in done:
        made.complete(offset, offset + 1)
    return made


@given(st.data())
def test_it_is_what_it_says_afterwards(data: st.DataObject) -> None:
    runs = [(0, 40)]
    for _ in range(data.draw(st.integers(0, 3))):
        first = runs[-1][1] + data.draw(st.sampled_from([0, 1, 7, 1_000, 5_000]))
        runs.append((first, first + data.draw(st.integers(1, 40))))
    restored = None
    if data.draw(st.booleans()):  # what it expects above the last run is not delivered yet
        end = runs[-1][1] + 50
        restored = OffsetMap(0, ((0, runs[-1][1]), (runs[-1][1] + 9, end - 5)), end)
    offsets = [offset for first, stop in runs for offset in range(first, stop)]
    if restored is not None:
        runs = [(0, runs[-1][1])]
    done = data.draw(st.lists(st.sampled_from(offsets), unique=True))
    left = [offset for offset in offsets if offset not in done]
    besides = data.draw(st.lists(st.sampled_from(left), unique=True)) if left else []
    asked = tracker(runs, done, restored)
    before = asked.offset_map()
    position, known = asked.position_with(besides), asked.offset_map(besides)
    text = asked.encode(BINDING, besides)
    assert asked.offset_map() == before
    asked.validate()
    for offset in besides:
        asked.complete(offset, offset + 1)
    assert (position, known) == (asked.position, asked.offset_map())
    assert text == asked.encode(BINDING)


def test_more_units_than_the_budget() -> None:
    made = tracker([(0, 200)], list(range(1, 200, 2)), None)
    fitting = made.encode(BINDING)
    made.set_budget(len(fitting) // 3)
    assert len(made.encode(BINDING)) <= len(fitting) // 3
    assert made.encode(BINDING, units=len(fitting)) == fitting


def test_it_is_overfull_when_the_budget_was_cut() -> None:
    made = tracker([(0, 200)], list(range(1, 200, 2)), None)
    found = [made.overfull]
    made.set_budget(25)
    found.append(made.overfull)
    made.complete(0, 1)
    for offset in range(2, 200, 2):
        made.complete(offset, offset + 1)
    assert [*found, made.overfull] == [False, True, False]
