"""Chunk groups in the engine: whole, cut, recalled, given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.chunks import Part
from retriable_kafka_client.core.engine import Counters, Engine, EngineConfig, Route
from retriable_kafka_client.core.entry import PART, Entry, Owner, Verdict
from retriable_kafka_client.core.offset_set import OffsetSet
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.wire.headers import PLAIN, Chunk, Marks
from tests.core.harness import BASE, OTHER, START, Bench, only, positions, produced, run, told

GROUP = b"0123456789abcdef"
WAIT = 900.0


@dataclass(frozen=True, slots=True)
class Raw:
    """A record of one chunk, or (``count`` 1) a plain one."""

    index: int = 0
    count: int = 1
    group: bytes = GROUP
    size: int = 100
    stamp: float = START  # seconds
    key: bytes | None = None


class Joiner:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.sealed: list[int] = []
        self.verdict: Verdict | None = None

    def seal(self, seal: Any, part: Part) -> Any:
        self.sealed.append(part.raw.index)
        return (seal or 0) + 1

    def join(self, assignment: Owner, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
        assert [part.raw.index for part in parts] == list(range(len(parts)))
        assert seal == len(parts)
        if self.verdict is not None:
            return self.verdict
        offset = min(part.offset for part in parts)
        return Entry(assignment, offset, sum(part.size for part in parts), parts, PLAIN, 0)


def read(assignment: Assignment, offsets: Sequence[int], raws: Sequence[Raw]) -> list[Entry]:
    return [_entry(assignment, offset, raw) for offset, raw in zip(offsets, raws, strict=True)]


def _entry(assignment: Assignment, offset: int, raw: Raw) -> Entry:
    if raw.count == 1:
        plain = Entry(assignment, offset, raw.size, raw, PLAIN, 0)
        plain.key = raw.key
        return plain
    marks = Marks(chunk=Chunk(raw.group, raw.index, raw.count))
    part = Part(assignment, offset, raw.size, raw, marks, 0)
    part.key = raw.key
    part.verdict, part.born_ms = PART, round(raw.stamp * 1000)
    part.body_bytes, part.recalled = raw.size, False
    return part


class ChunkBench(Bench):
    """An engine that is given chunks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        usual = {
            "in_flight": 100,
            "window": 100,
            "buffer_bytes": 100_000,
            "commit_interval": 1.0,
            "parking_interval": 60.0,
            "message_bytes": 100_000,
            "chunk_wait": WAIT,
        }
        route = Route(topic=BASE.topic, retry_topic=None, dead_letter="dead", policy=None)
        config = EngineConfig(group="group", routes=(route,), **{**usual, **settings})
        self.joiner = Joiner()
        self.engine = Engine(config, read, self.joiner)

    def chunks(self, place: p.Place, *records: tuple[int, Raw]) -> list[p.Command]:
        offsets, raws = [offset for offset, _ in records], [raw for _, raw in records]
        first, last = round(raws[0].stamp * 1000), round(raws[-1].stamp * 1000)
        return self.tell(p.Arrived(place, offsets, raws, first, last))

    @property
    def position(self) -> int:
        tracker = self.engine.assignments[BASE].progress.tracker
        assert tracker is not None
        return tracker.position

    def dead(self, commands: Sequence[p.Command]) -> list[tuple[int, str]]:
        """Acknowledge the dead letters; what and why."""
        found = produced(commands)
        for handoff in found:
            self.tell(p.HandOffAnswered(handoff, None))
        return [(one.entry.offset, one.failure.reason if one.failure else "") for one in found]


def bench(**settings: Any) -> ChunkBench:
    made = ChunkBench(**settings)
    made.assign(BASE, OTHER)
    return made


def recalls(commands: Sequence[p.Command]) -> list[p.Recall]:
    return only(commands, p.Recall)


def test_a_message_runs_when_it_is_whole_and_completes_all_its_offsets() -> None:
    made = bench()
    (plain,) = run(made.chunks(BASE, (0, Raw(0, 3)), (1, Raw()), (2, Raw(2, 3))))
    assert plain.offset == 1
    (whole,) = run(made.chunks(BASE, (5, Raw(1, 3))))
    assert (whole.offset, list(whole.others), whole.last) == (0, [2, 5], 5)
    assert made.joiner.sealed == [0, 1, 2]
    assert made.position == 0
    made.tell(p.Finished(done=[whole]))
    assert made.position == 1
    assert made.engine.counters.assembled == 1


def test_chunks_do_not_count_against_the_window() -> None:
    made = bench(window=2)
    commands = made.chunks(BASE, *[(index, Raw(index, 9)) for index in range(8)])
    assert only(commands, p.Pause) == []
    assert made.engine.poll_budget(500) == 2


def test_a_duplicate_and_what_comes_late_of_a_whole_message_complete_at_once() -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 2)), (1, Raw(0, 2)))
    (whole,) = run(made.chunks(BASE, (2, Raw(1, 2))))
    made.tell(p.Finished(done=[whole]))
    assert run(made.chunks(BASE, (3, Raw(0, 2)), (4, Raw(1, 2)))) == []
    assert positions(made.commit()) == {BASE: 5}
    assert made.engine.counters.duplicates == 3


def test_totals_that_contradict_each_other_are_two_messages() -> None:
    made = bench()
    commands = made.chunks(BASE, (0, Raw(0, 2)), (1, Raw(0, 3)), (2, Raw(1, 3)), (3, Raw(2, 3)))
    assert [entry.offset for entry in run(commands)] == [1]


def test_what_lost_its_beginning_ends_at_once() -> None:
    made = bench()
    commands = made.chunks(BASE, (7, Raw(1, 3)), (8, Raw(2, 3)))
    assert made.dead(commands) == [(7, "orphan"), (8, "orphan")]
    (event,) = told(commands, events.ChunksGivenUp)
    assert (event.offset, event.reason, event.chunks, event.expected) == (7, "orphan", 1, 3)
    assert positions(made.commit()) == {BASE: 9}


def test_a_later_chunk_may_come_first_where_there_is_room_for_the_others() -> None:
    made = bench()
    assert produced(made.chunks(BASE, (7, Raw()), (8, Raw(1, 2)))) == []
    (whole,) = run(made.chunks(BASE, (9, Raw(0, 2))))
    assert whole.offset == 8


@pytest.mark.parametrize(("later", "expected"), [(WAIT - 1, False), (WAIT, True)])
def test_it_is_given_up_when_the_log_has_gone_on(later: float, expected: bool) -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 3)), (1, Raw(1, 3)))
    made.wall += 10 * WAIT  # the log is read long after it was written
    made.wait(30.0)
    commands = made.chunks(BASE, (2, Raw(stamp=START + later)))
    assert told(commands, events.ChunksGivenUp) == []
    commands = made.wait(30.0)
    assert made.dead(commands) == ([(0, "incomplete"), (1, "incomplete")] if expected else [])


def test_it_is_not_given_up_within_a_minute_of_its_last_chunk() -> None:
    made = bench()
    made.wall += 10 * WAIT
    made.chunks(BASE, (0, Raw(0, 3)), (1, Raw(stamp=START + 2 * WAIT)))
    made.wait(40.0)
    made.chunks(BASE, (2, Raw(1, 3)), (3, Raw(stamp=START + 2 * WAIT)))
    assert produced(made.wait(59.0)) == []
    assert len(made.dead(made.wait(1.0))) == 2


def test_at_the_end_of_the_log_the_clock_counts() -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 3)))
    made.wait(WAIT - 1)
    made.tell(p.Idle(BASE, 1))
    assert produced(made.wait(0.5)) == []
    made.wait(1.0)
    made.tell(p.Idle(BASE, 1))
    assert made.dead(made.wait(0.1)) == [(0, "incomplete")]


def test_a_timestamp_of_the_future_is_taken_for_now() -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 3, stamp=START + 100 * WAIT)))
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 1))
    assert made.dead(made.wait(0.1)) == [(0, "incomplete")]


def test_nothing_is_given_up_while_it_is_not_read() -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 3)))
    made.tell(p.Hold(True))
    made.wait(10 * WAIT)
    assert produced(made.tell(p.Idle(BASE, 1))) == []
    made.tell(p.Hold(False))
    made.tell(p.Idle(BASE, 1))
    assert made.dead(made.wait(0.1)) == [(0, "incomplete")]


def test_what_comes_of_it_later_has_the_same_reason() -> None:
    made = bench()
    made.chunks(BASE, (0, Raw(0, 3)))
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 1))
    made.dead(made.wait(0.1))
    commands = made.chunks(BASE, (1, Raw(1, 3)))
    assert made.dead(commands) == [(1, "incomplete")]
    assert told(commands, events.ChunksGivenUp) == []


def test_what_cannot_be_joined_is_dead_lettered_chunk_by_chunk() -> None:
    made = bench()
    made.joiner.verdict = Verdict("corrupt")
    assert made.dead(made.chunks(BASE, (0, Raw(0, 2)), (1, Raw(1, 2)))) == [(0, "corrupt"), (1, "corrupt")]


def test_the_real_size_decides() -> None:
    made = bench(message_bytes=250)
    assert len(run(made.chunks(BASE, (0, Raw(0, 2)), (1, Raw(1, 2, size=150))))) == 1
    large = replace(Raw(0, 2), group=b"f" * 16)
    commands = made.chunks(BASE, (2, large), (3, replace(large, index=1, size=151)))
    assert made.dead(commands) == [(2, "too-large"), (3, "too-large")]


def group(number: int) -> bytes:
    return b"%016d" % number


def test_over_the_share_the_youngest_are_cut_and_read_again() -> None:
    made = bench(buffer_bytes=1_000)
    records = [(index, Raw(0, 2, group(index), 200)) for index in range(4)]
    made.chunks(BASE, *records)
    assert made.engine.assembling_bytes == 400
    assert recalls(made.wait(1.0)) == []  # no room yet
    for index in (0, 1):
        (whole,) = run(made.chunks(BASE, (4 + index, Raw(1, 2, group(index), 50))))
        made.tell(p.Finished(done=[whole]))
    (recall,) = recalls(made.wait(1.0))
    assert (recall.place, recall.first, recall.stop) == (BASE, 2, 4)
    # Of what is read again, only what nobody holds is taken.
    made.tell(p.Recalled(recall, [2, 3], [raw for _, raw in records[2:]]))
    made.tell(p.RecallEnded(recall))
    assert made.engine.assembling_bytes == 400
    assert made.engine.counters.recalled == 2
    done = run(made.chunks(BASE, (6, Raw(1, 2, group(2), 50)), (7, Raw(1, 2, group(3), 50))))
    made.tell(p.Finished(done=done))
    assert made.position == 8


def test_the_oldest_may_grow_beyond_the_share() -> None:
    made = bench(buffer_bytes=1_000)
    made.chunks(BASE, *[(index, Raw(index, 5, size=180)) for index in range(4)])
    made.chunks(OTHER, (0, Raw(0, 2, group(1), 100)))
    assert made.engine.assembling_bytes == 720
    assert len(made.engine.assignments[OTHER].chunks.cut) == 1
    assert len(run(made.chunks(BASE, (4, Raw(4, 5, size=180))))) == 1


def test_what_is_cut_is_not_given_up_before_it_was_read_again() -> None:
    made = bench(buffer_bytes=1_000)
    made.chunks(BASE, (0, Raw(0, 3, group(0), 400)), (1, Raw(0, 3, group(1), 400)))
    assert made.engine.assembling_bytes == 400
    made.chunks(BASE, (2, Raw(1, 3, group(1), 50)))
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 3))
    commands = made.wait(0.1)
    assert made.dead(commands) == [(0, "incomplete")]  # what of it stands in the way of the other one
    (recall,) = recalls([*commands, *made.wait(1.0)])
    made.tell(p.Idle(BASE, 3))
    assert produced(made.wait(1.0)) == []
    made.tell(p.Recalled(recall, [1], [Raw(0, 3, group(1), 400)]))
    made.tell(p.RecallEnded(recall))
    assert made.dead(made.wait(1.0)) == [(1, "incomplete"), (2, "incomplete")]


def test_one_pass_says_of_the_first_message_that_it_begins_that_nothing_more_is_there() -> None:
    """Though others are cut while it goes on. A second pass for each message that lacks a chunk holds all others up."""
    made = bench(buffer_bytes=1_000)
    records = [(index, Raw(0, 3, group(index), 400)) for index in range(4)]
    made.chunks(BASE, *records)
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 4))
    commands = made.wait(0.1)
    assert made.dead(commands) == [(0, "incomplete")]
    given_up = []
    while found := recalls([*commands, *made.wait(1.0)]):
        (recall,) = found
        for offset, raw in records[recall.first :]:
            made.tell(p.Recalled(recall, [offset], [raw]))
        made.tell(p.RecallEnded(recall))
        commands = made.wait(0.1)
        given_up += [(recall.first, made.dead(commands))]
    assert given_up == [(index, [(index, "incomplete")]) for index in (1, 2, 3)]


def test_what_is_begun_after_a_cut_in_a_pass_may_lack_what_was_cut() -> None:
    made = bench(buffer_bytes=1_000)
    records = [
        (0, Raw(0, 2, group(0), 400)),
        (1, Raw(0, 3, group(1), 200)),
        (2, Raw(0, 3, group(2), 400)),
        (3, Raw(1, 3, group(2), 50)),
    ]
    made.chunks(BASE, *records)
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 4))
    commands = made.wait(0.1)
    assert made.dead(commands) == [(0, "incomplete")]
    (recall,) = recalls([*commands, *made.wait(1.0)])
    made.tell(p.Recalled(recall, [1, 2], [raw for _, raw in records[1:3]]))  # 2 is cut: it is the youngest
    made.chunks(BASE, (4, Raw(2, 3, group(2), 50)))  # it is begun anew
    made.tell(p.Recalled(recall, [3], [records[3][1]]))
    made.tell(p.RecallEnded(recall))
    made.wait(WAIT)
    made.tell(p.Idle(BASE, 5))
    commands = made.wait(0.1)
    assert made.dead(commands) == [(1, "incomplete")]
    (recall,) = recalls([*commands, *made.wait(1.0)])
    (whole,) = run(made.tell(p.Recalled(recall, [2], [records[2][1]])))
    assert (whole.offset, whole.others) == (2, (3, 4))


def test_what_is_gone_when_it_is_to_be_read_again_is_complete() -> None:
    made = bench(buffer_bytes=1_000)
    made.chunks(BASE, *[(index, Raw(0, 2, group(index), 200)) for index in range(4)])
    for index in (0, 1):
        (whole,) = run(made.chunks(BASE, (4 + index, Raw(1, 2, group(index), 50))))
        made.tell(p.Finished(done=[whole]))
    (recall,) = recalls(made.wait(1.0))
    made.tell(p.RecallEnded(recall))
    assert made.position == 6


def test_a_recall_ends_with_its_assignment() -> None:
    made = bench(buffer_bytes=1_000)
    made.chunks(BASE, *[(index, Raw(0, 2, group(index), 200)) for index in range(4)])
    for index in (0, 1):
        (whole,) = run(made.chunks(BASE, (4 + index, Raw(1, 2, group(index), 50))))
        made.tell(p.Finished(done=[whole]))
    (recall,) = recalls(made.wait(1.0))
    assert only(made.tell(p.Revoking([BASE])), p.CancelRecall) == [p.CancelRecall(recall)]
    assert made.tell(p.Recalled(recall, [2], [Raw(0, 2, group(2), 200)])) == []
    assert made.tell(p.RecallEnded(recall)) == []


def test_a_million_claims_cost_a_bit_each() -> None:
    made = bench(buffer_bytes=10_000)
    for first in range(0, 20_000, 500):
        records = [(i, Raw(0, 2**31 - 1, group(i), 400)) for i in range(first, first + 500)]
        made.chunks(BASE, *records)
        assert made.engine.assembling_bytes <= 5_000
    assert len(made.engine.assignments[BASE].chunks.groups) <= 12
    assert made.engine.assignments[BASE].messages == 0


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_a_million_claims_in_order_are_held_up(ordering: str) -> None:
    """Each keeps a place in its lane, cut or not: these are bounded too, and nothing waits for them for ever."""
    made = bench(ordering=ordering, buffer_bytes=10_000)
    assignment = made.engine.assignments[BASE]
    first, paused = 0, False
    while not paused and first < 20_000:
        records = [(offset, Raw(0, 2, group(offset))) for offset in range(first, first + 500)]
        commands = made.chunks(BASE, *records)
        paused = bool(only(commands, p.Pause))
        first += 500
    assert paused
    assert len(assignment.chunks.reservations) < 3_000
    commands = made.wait(WAIT + 60.0)
    dead = made.dead(commands)
    for _ in range(1_000):
        if only(commands, p.Resume):
            break
        commands = made.wait(1.0)
        dead += made.dead(commands)
        for recall in recalls(commands):
            offsets = range(recall.first, recall.stop)
            made.tell(p.Recalled(recall, offsets, [Raw(0, 2, group(offset)) for offset in offsets]))
            made.tell(p.RecallEnded(recall))
    assert not assignment.paused
    assert {reason for _, reason in dead} == {"incomplete"}


def test_in_order_only_what_stands_in_the_way_is_given_up() -> None:
    """The others' chunks may follow where nothing was read."""
    made = bench(ordering="key", buffer_bytes=10_000_000)
    firsts = [(n, Raw(0, 2, group(n), key=b"%d" % n)) for n in range(2_000)]
    assert only(made.chunks(BASE, *firsts), p.Pause)
    assert made.dead(made.wait(WAIT + 60.0)) == [(0, "incomplete")]
    assert not made.engine.assignments[BASE].paused
    seconds = [(2_000 + n, Raw(1, 2, group(n), key=b"%d" % n)) for n in range(1, 2_000)]
    assert run(made.chunks(BASE, *seconds))
    assert made.engine.counters.assembled == 1_999


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_a_window_full_of_what_stands_behind_it_does_not_end_a_message(ordering: str) -> None:
    made = bench(ordering=ordering, window=10)
    commands = made.chunks(BASE, (0, Raw(0, 2, key=b"k")), *[(n, Raw(key=b"k")) for n in range(1, 31)])
    commands += made.wait(1.0)
    assert [type(one) for one in commands if isinstance(one, (p.Pause, p.Resume))][-1:] != [p.Pause]
    assert not made.engine.assignments[BASE].paused
    (whole,) = run(made.chunks(BASE, (31, Raw(1, 2, key=b"k"))))
    assert (whole.offset, list(whole.others)) == (0, [31])
    made.wait(1.0)
    assert made.engine.assignments[BASE].paused  # now they wait for a worker


def test_a_large_group_leaves_the_others_a_reserve() -> None:
    assembly = Assembly(
        EngineConfig(
            group="group",
            routes=(),
            in_flight=1,
            window=1,
            buffer_bytes=1_000,
            commit_interval=1.0,
            parking_interval=1.0,
        ),
        None,
        Counters(),
    )
    assert [assembly.squeezed(0, held) for held in (0, 500, 600, 875, 2_000)] == [0, 0, 100, 375, 375]


def test_a_set_of_offsets() -> None:
    offsets = OffsetSet()
    for offset in (5, 1023, 1024, 5000):
        offsets.add(offset)
    offsets.validate()
    assert (len(offsets), offsets.lowest, offsets.highest) == (4, 5, 5000)
    assert list(offsets.within(6, 5000)) == [1023, 1024]
    offsets.remove(5)
    offsets.remove(5000)
    assert 5 not in offsets
    assert (offsets.lowest, offsets.highest) == (1023, 1024)
    offsets.validate()
