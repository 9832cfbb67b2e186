from __future__ import annotations

from dataclasses import replace

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.entry import FILTERED, FOREIGN, Verdict
from retriable_kafka_client.core.protocol import HandOffKind
from tests.core.harness import (
    BASE,
    OTHER,
    RETRY,
    Bench,
    Raw,
    due_in,
    only,
    positions,
    produced,
    run,
    told,
)

# Beginning -----------------------------------------------------------------------------------------------------------


def test_an_assignment_begins_once_its_position_is_known() -> None:
    bench = Bench()
    assert bench.tell(p.Assigned([BASE])) == [p.FetchCommitted([BASE])]
    assert bench.arrive(BASE, (0, Raw())) == []
    commands = bench.tell(p.Restored(place=BASE, position=5, metadata="", uid="uid"))
    assert only(commands, p.Start) == [p.Start(BASE, 5)]
    assert told(commands) == [
        events.AssignmentStarted(topic=BASE.topic, partition=BASE.partition, position=5, restored=0)
    ]


def test_a_second_answer_changes_nothing() -> None:
    bench = Bench()
    bench.assign(BASE)
    assert bench.tell(p.Restored(place=BASE, position=9, metadata="", uid="uid")) == []
    assert bench.tell(p.Restored(place=OTHER, position=9, metadata="", uid="uid")) == []


@pytest.mark.parametrize(
    ("position", "earliest", "start"),
    [
        (None, False, p.Start(BASE, None)),
        (None, True, p.Start(BASE, None, earliest=True)),
        (3, True, p.Start(BASE, 3)),
    ],
)
def test_where_consuming_begins(position: int | None, earliest: bool, start: p.Start) -> None:
    assert only(Bench().assign(BASE, position=position, earliest=earliest), p.Start) == [start]


def test_metadata_of_others_is_ignored_with_one_event() -> None:
    commands = Bench().assign(BASE, position=4, metadata="owner=somebody")
    assert [event.reason for event in told(commands, events.OffsetMapIgnored)] == ["not-ours"]
    assert only(commands, p.Start) == [p.Start(BASE, 4)]


def test_what_was_done_does_not_run_again() -> None:
    first = Bench()
    first.assign(BASE)
    entries = first.plain(BASE, *range(5))
    first.tell(p.Finished(done=entries[1:4]))
    (progress,) = first.committed().progress
    second = Bench()
    second.assign(BASE, position=progress.position, metadata=progress.metadata)
    assert [one.offset for one in second.plain(BASE, *range(6))] == [0, 4, 5]
    assert second.engine.counters.restored == 3


# Handing out ---------------------------------------------------------------------------------------------------------


def test_the_workers_get_no_more_than_they_may_have() -> None:
    bench = Bench(in_flight=3)
    bench.assign(BASE)
    entries = bench.plain(BASE, *range(8))
    assert [one.offset for one in entries] == [0, 1, 2]
    assert [one.offset for one in run(bench.tell(p.Finished(done=entries[:2])))] == [3, 4]
    assert bench.engine.in_flight == 3


def test_partitions_take_turns() -> None:
    bench = Bench(in_flight=7, window=10_000, buffer_bytes=10**9)
    bench.assign(BASE, OTHER)
    entries = bench.plain(BASE, *range(3_000)) + bench.plain(OTHER, *range(3_000))
    began = {BASE: 0, OTHER: 0}
    while entries:
        for one in entries:
            began[one.assignment.place] += 1
        entries = run(bench.tell(p.Finished(done=entries)))
        if began[BASE] >= 3_000:
            break
    assert began[OTHER] > 1_000


def test_what_is_due_goes_first_and_has_slots_of_its_own() -> None:
    bench = Bench(in_flight=64)
    bench.assign(BASE, RETRY)
    entries = bench.plain(BASE, *range(100))
    assert len(entries) == 56
    due = bench.arrive(RETRY, *((offset, due_in(bench, 0.0)) for offset in range(8)))
    assert [(one.entries[0].assignment.place, one.urgent) for one in only(due, p.Run)] == [(RETRY, True)]
    bench.arrive(RETRY, (8, due_in(bench, 0.0)))
    freed = bench.tell(p.Finished(done=entries[:1]))
    assert [(one.assignment.place, one.offset) for one in run(freed)] == [(RETRY, 8)]


def test_few_slots_are_for_everything() -> None:
    bench = Bench(in_flight=16)
    bench.assign(BASE, RETRY)
    entries = bench.plain(BASE, *range(20))
    assert len(entries) == 16
    bench.arrive(RETRY, (0, due_in(bench, 0.0)))
    assert bench.engine.held_up
    freed = bench.tell(p.Finished(done=entries[:1]))
    assert [(one.assignment.place, one.offset) for one in run(freed)] == [(RETRY, 0)]


def test_it_says_whether_messages_wait_for_room_with_the_workers() -> None:
    bench = Bench(in_flight=2)
    bench.assign(BASE)
    entries = bench.plain(BASE, 0, 1)
    said = [bench.engine.held_up]
    bench.plain(BASE, 2)
    said.append(bench.engine.held_up)
    bench.tell(p.Finished(done=entries))
    assert [*said, bench.engine.held_up] == [False, True, False]


def test_nothing_runs_before_its_time() -> None:
    bench = Bench()
    bench.assign(RETRY)
    assert run(bench.arrive(RETRY, (0, due_in(bench, 1.5)), (1, due_in(bench, 0.5)))) == []
    assert run(bench.wait(0.499)) == []
    assert [one.offset for one in run(bench.wait(0.001))] == [1]
    assert [one.offset for one in run(bench.wait(1.0))] == [0]


def test_a_clock_step_moves_what_is_due() -> None:
    bench = Bench(in_flight=1)
    bench.assign(RETRY)
    (busy,) = bench.plain(RETRY, 0)
    bench.arrive(RETRY, (1, due_in(bench, 0.0)))
    bench.wall -= 100.0
    assert run(bench.tell(p.Finished(done=[busy]))) == []
    bench.wall += 100.0
    assert [one.offset for one in run(bench.tell(p.Tick()))] == [1]


def test_verdicts_are_not_run() -> None:
    bench = Bench()
    bench.assign(BASE)
    commands = bench.arrive(
        BASE,
        (0, Raw(verdict=FILTERED)),
        (1, Raw(verdict=FOREIGN)),
        (2, Raw(verdict=Verdict(events.REASON_MALFORMED, text="header x: is null"))),
        (3, Raw()),
    )
    assert [one.offset for one in run(commands)] == [3]
    (dead,) = produced(commands)
    assert (dead.kind, dead.target, dead.attempts) == (HandOffKind.DEAD_LETTER, "dead", 0)
    assert dead.failure is not None
    assert (dead.failure.reason, dead.failure.text) == (events.REASON_MALFORMED, "header x: is null")
    assert (bench.engine.counters.filtered, bench.engine.counters.foreign) == (1, 1)
    assert positions(bench.commit()) == {BASE: 2}


# Flow ----------------------------------------------------------------------------------------------------------------


def test_a_full_window_pauses_and_half_of_it_resumes() -> None:
    bench = Bench(window=4)
    bench.assign(BASE)
    commands = bench.arrive(BASE, *[(offset, Raw()) for offset in range(4)])
    assert only(commands, p.Pause) == [p.Pause(BASE)]
    entries = run(commands)
    bench.tell(p.Finished(done=entries[:1]))
    assert only(bench.tell(p.Tick()), p.Resume) == []
    bench.tell(p.Finished(done=entries[1:2]))
    assert only(bench.tell(p.Tick()), p.Resume) == [p.Resume(BASE)]


def test_the_appetite_is_what_the_fullest_window_has_room_for() -> None:
    bench = Bench(window=5)
    bench.assign(BASE, OTHER)
    assert bench.engine.poll_budget(500) == 5
    bench.plain(BASE, 0, 1)
    assert bench.engine.poll_budget(500) == 3
    assert bench.engine.poll_budget(2) == 2
    bench.plain(BASE, 2, 3, 4)
    assert bench.engine.poll_budget(500) == 5


def test_bytes_at_hand_pause_every_partition() -> None:
    bench = Bench(buffer_bytes=1_000)
    bench.assign(BASE, OTHER)
    commands = bench.arrive(BASE, (0, Raw(size=500)))
    assert only(commands, p.Pause) == [p.Pause(BASE)]
    assert only(bench.tell(p.Tick()), p.Pause) == [p.Pause(OTHER)]
    bench.tell(p.Finished(done=run(commands)))
    assert set(only(bench.tell(p.Tick()), p.Resume)) == {p.Resume(BASE), p.Resume(OTHER)}


def test_bytes_that_wait_leave_base_partitions_alone() -> None:
    bench = Bench(buffer_bytes=1_000)
    bench.assign(BASE, RETRY)
    commands = bench.arrive(RETRY, (0, replace(due_in(bench, 30.0), size=600)))
    assert only(commands + bench.tell(p.Tick()), p.Pause) == [p.Pause(RETRY)]
    assert (bench.engine.waiting_bytes, bench.engine.active_bytes) == (600, 0)


def test_handlers_that_outlive_a_drain_keep_slots_and_bytes() -> None:
    bench = Bench(in_flight=2)
    bench.assign(BASE)
    entries = bench.plain(BASE, 0, 1)
    bench.tell(p.Revoking([BASE]))
    commands = bench.tell(p.Ended([BASE], "revoked"))
    assert [event.running for event in told(commands, events.DrainOverrun)] == [2]
    assert (bench.engine.in_flight, bench.engine.overrun, bench.engine.active_bytes) == (2, 2, 200)
    bench.assign(OTHER)
    assert bench.plain(OTHER, 0) == []
    assert [one.assignment.place for one in run(bench.tell(p.Finished(done=entries[:1])))] == [OTHER]
    bench.tell(p.Finished(failed=[(entries[1], retry.Failure(reason="exhausted", retry_in=1.0))]))
    assert (bench.engine.overrun, bench.engine.active_bytes) == (0, 100)
    assert bench.engine.counters.handled == bench.engine.counters.failed == 0
