from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.entry import FILTERED, FOREIGN, Entry, Verdict
from retriable_kafka_client.core.protocol import HandOffKind
from retriable_kafka_client.wire import Marks, Origin
from tests.core.harness import BASE, OTHER, RETRY, START, Bench, Raw, only, produced, run, told

SECOND_MS = 1_000
DAY = 86_400.0


def positions(commit: p.Commit | None) -> dict[p.Place, int]:
    return {} if commit is None else {one.place: one.position for one in commit.progress}


def due_in(bench: Bench, seconds: float, **marks: object) -> Raw:
    return Raw(replace(Marks(not_before_ms=bench.wall_ms + round(seconds * 1000)), **marks))  # type: ignore[arg-type]


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
    bench = Bench(in_flight=8)
    bench.assign(BASE, RETRY)
    entries = bench.plain(BASE, *range(20))
    assert len(entries) == 7
    due = bench.arrive(RETRY, (0, due_in(bench, 0.0)))
    assert [(one.entries[0].assignment.place, one.urgent) for one in only(due, p.Run)] == [(RETRY, True)]
    bench.arrive(RETRY, (1, due_in(bench, 0.0)))
    freed = bench.tell(p.Finished(done=entries[:1]))
    assert [(one.assignment.place, one.offset) for one in run(freed)] == [(RETRY, 1)]


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
        (2, Raw(verdict=Verdict(retry.REASON_MALFORMED, text="header x: is null"))),
        (3, Raw()),
    )
    assert [one.offset for one in run(commands)] == [3]
    (dead,) = produced(commands)
    assert (dead.kind, dead.target, dead.attempts) == (HandOffKind.DEAD_LETTER, "dead", 0)
    assert dead.failure is not None
    assert (dead.failure.reason, dead.failure.text) == (retry.REASON_MALFORMED, "header x: is null")
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
    assert bench.engine.appetite(500) == 5
    bench.plain(BASE, 0, 1)
    assert bench.engine.appetite(500) == 3
    assert bench.engine.appetite(2) == 2
    bench.plain(BASE, 2, 3, 4)
    assert bench.engine.appetite(500) == 5


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


# Failures ------------------------------------------------------------------------------------------------------------


def test_a_failure_is_retried_and_held_until_the_copy_is_acknowledged() -> None:
    bench = Bench()
    bench.assign(BASE, uid="abc")
    (entry,) = bench.plain(BASE, 7)
    sent = bench.fail(entry, retry_in=2.5)
    assert (sent.kind, sent.target) == (HandOffKind.RETRY, RETRY.topic)
    assert sent.marks == Marks(
        failed=1,
        not_before_ms=bench.wall_ms + 2_500,
        group="group",
        origin=Origin(BASE.topic, 0, 7),
        id="abc-0-7",
        first_failure_ms=bench.wall_ms,
    )
    assert positions(bench.commit()) == {BASE: 7}
    commands = bench.tell(p.HandOffAnswered(sent, None))
    (event,) = told(commands, events.MessageRetried)
    assert (event.attempt, event.error, event.retry_topic) == (1, "ValueError", RETRY.topic)


def test_a_later_failure_keeps_what_the_first_one_wrote() -> None:
    bench = Bench()
    bench.assign(RETRY)
    marks = Marks(
        failed=1,
        not_before_ms=1,
        group="group",
        origin=Origin(BASE.topic, 3, 99),
        origin_timestamp_ms=55,
        id="stable",
        first_failure_ms=44,
        parked_ms=33,
    )
    (entry,) = run(bench.arrive(RETRY, (0, Raw(marks))))
    sent = bench.fail(entry, retry_in=1.0)
    due_ms = bench.wall_ms + SECOND_MS
    assert sent.marks == replace(marks, failed=2, not_before_ms=due_ms, parked_ms=None)


def test_a_delay_is_rounded_up() -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    bench.wall += 0.0004
    assert bench.fail(entry, retry_in=0.0).marks.not_before_ms == START * 1000 + 1


@pytest.mark.parametrize("retry_in", [None, 400 * DAY])
def test_what_cannot_be_retried_is_dead_lettered(retry_in: float | None) -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    sent = bench.fail(entry, retry_in=retry_in, reason="given-up")
    assert (sent.kind, sent.target, sent.attempts) == (HandOffKind.DEAD_LETTER, "dead", 1)
    assert sent.failure is not None
    assert sent.failure.reason == ("given-up" if retry_in is None else retry.REASON_NOT_BEFORE)
    assert (sent.marks.failed, sent.marks.not_before_ms, sent.marks.alone) == (0, None, False)
    (event,) = told(bench.tell(p.HandOffAnswered(sent, None)), events.MessageDeadLettered)
    assert (event.attempts, event.dead_letter_topic) == (1, "dead")
    assert positions(bench.commit()) == {BASE: 1}


def test_without_a_dead_letter_topic_it_is_dropped_and_counted() -> None:
    bench = Bench(dead_letter=None)
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    commands = bench.tell(p.Finished(failed=[(entry, retry.Failure(reason="rejected", retry_in=None))]))
    assert produced(commands) == []
    (event,) = told(commands, events.MessageDropped)
    assert (event.offset, event.attempts, event.reason) == (0, 1, "rejected")
    assert bench.engine.counters.dropped == 1
    assert positions(bench.commit()) == {BASE: 1}


def test_a_killer_is_isolated_and_its_neighbours_keep_their_attempt() -> None:
    bench = Bench(max_attempts=2)
    bench.assign(BASE, RETRY)
    killer, innocent, failed = bench.plain(BASE, 0, 1, 2)
    commands = bench.tell(
        p.Finished(
            done=[innocent],
            failed=[(failed, retry.Failure(reason="exhausted", retry_in=1.0))],
            died=[killer],
        )
    )
    copies = {one.entry.offset: one.marks for one in produced(commands)}
    assert {offset: (marks.failed, marks.alone) for offset, marks in copies.items()} == {
        0: (1, True),
        2: (1, False),
    }
    assert [(one.offset, one.attempt) for one in told(commands, events.WorkerDied)] == [(0, 1)]
    bench.wait(5.0)
    (again,) = run(bench.arrive(RETRY, (0, Raw(copies[0]))))
    assert (again.alone, again.attempt) == (True, 2)
    (dead,) = produced(bench.tell(p.Finished(died=[again])))
    assert (dead.kind, dead.attempts) == (HandOffKind.DEAD_LETTER, 2)
    assert dead.failure is not None
    assert dead.failure.reason == retry.REASON_WORKER_DIED


def test_a_refused_copy_is_sent_again_for_ever() -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    sent = bench.fail(entry)
    pauses = []
    for _ in range(9):
        commands = bench.tell(p.HandOffAnswered(sent, "MSG_SIZE_TOO_LARGE"))
        (event,) = told(commands, events.HandOffRefused)
        pauses.append(event.again_in)
        assert bench.engine.refusals == {RETRY.topic: "MSG_SIZE_TOO_LARGE"}
        assert produced(bench.wait(event.again_in - 0.01)) == []
        assert produced(bench.wait(0.01)) == [sent]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    bench.tell(p.HandOffAnswered(sent, None))
    assert bench.engine.refusals == {}
    assert bench.assignment(BASE).incomplete == 0


def test_a_drain_sends_refused_copies_again_and_waits_for_them() -> None:
    bench = Bench()
    bench.assign(BASE)
    first, second = bench.plain(BASE, 0, 1)
    refused, in_the_air = bench.fail(first), bench.fail(second)
    for _ in range(5):
        bench.tell(p.HandOffAnswered(refused, "UNKNOWN_TOPIC_OR_PART"))
        assert produced(bench.wait(9.0)) == [refused]
    bench.tell(p.HandOffAnswered(refused, "UNKNOWN_TOPIC_OR_PART"))
    assert produced(bench.tell(p.Tick())) == []
    bench.tell(p.Revoking([BASE]))
    assert produced(bench.tell(p.Tick())) == [refused]
    bench.tell(p.HandOffAnswered(in_the_air, None))
    (event,) = told(bench.tell(p.HandOffAnswered(refused, "UNKNOWN_TOPIC_OR_PART")), events.HandOffRefused)
    assert not bench.engine.drained([BASE])
    assert produced(bench.wait(event.again_in)) == [refused]
    bench.tell(p.HandOffAnswered(refused, None))
    assert bench.engine.drained([BASE])
    assert [one.position for one in bench.engine.last_progress([BASE])] == [2]


def test_a_copy_that_is_refused_to_the_end_is_left_to_the_next_owner() -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    sent = bench.fail(entry)
    bench.tell(p.HandOffAnswered(sent, "UNKNOWN_TOPIC_OR_PART"))
    bench.tell(p.Revoking([BASE]))
    assert [one.position for one in bench.engine.last_progress([BASE])] == [0]
    bench.tell(p.Ended([BASE], "revoked"))
    assert (bench.engine.refusals, bench.engine.active_bytes) == ({}, 0)
    assert produced(bench.wait(60.0)) == []


# Parking -------------------------------------------------------------------------------------------------------------


def test_far_off_messages_make_room() -> None:
    bench = Bench(window=8)
    bench.assign(RETRY)
    marks = {"failed": 2, "id": "job", "alone": True, "first_failure_ms": 5}
    commands = bench.arrive(RETRY, *[(offset, due_in(bench, 100.0 + offset, **marks)) for offset in range(6)])
    sent = produced(commands)
    assert [(one.entry.offset, one.kind, one.target) for one in sent] == [
        (4, HandOffKind.PARK, RETRY.topic),
        (5, HandOffKind.PARK, RETRY.topic),
    ]
    first = sent[0].marks
    assert (first.failed, first.id, first.alone, first.first_failure_ms) == (2, "job", True, 5)
    assert first.not_before_ms == bench.wall_ms + 104_000
    assert first.parked_ms == bench.wall_ms
    assert told(bench.tell(p.HandOffAnswered(sent[0], None))) == [
        events.MessageParked(topic=RETRY.topic, partition=0, offset=4)
    ]
    assert bench.engine.counters.parked == 1


def test_what_keeps_a_partition_paused_is_parked() -> None:
    """Five of eight are less than three quarters, but more than the half at which reading goes on."""
    bench = Bench(window=8)
    bench.assign(RETRY)
    commands = bench.arrive(
        RETRY,
        *[(offset, Raw()) for offset in range(3)],
        *[(offset, due_in(bench, 100.0)) for offset in range(3, 8)],
    )
    assert only(commands, p.Pause)
    (sent,) = produced(bench.tell(p.Tick()))
    bench.tell(p.Finished(done=run(commands)))
    bench.tell(p.HandOffAnswered(sent, None))
    assert only(bench.tell(p.Tick()), p.Resume) == [p.Resume(RETRY)]


def test_partitions_share_the_bytes_that_may_wait() -> None:
    bench = Bench(buffer_bytes=4_000)
    other = p.Place(RETRY.topic, 1)
    bench.assign(RETRY, other)
    far = replace(due_in(bench, 1_000.0), size=400)
    commands = bench.arrive(RETRY, *[(offset, far) for offset in range(3)])
    commands += bench.arrive(other, *[(offset, far) for offset in range(3)])
    for _ in range(3):
        for handoff in produced(commands):
            bench.tell(p.HandOffAnswered(handoff, None))
        commands = bench.wait(5.0)
    assert 0 < bench.engine.waiting_bytes < 1_500
    assert not any(assignment.paused for assignment in bench.engine.assignments.values())


def test_what_the_map_cannot_list_is_parked() -> None:
    bench = Bench(map_units=23, least_map_units=23)
    bench.assign(RETRY)
    commands = bench.arrive(RETRY, *[(offset, due_in(bench, 100.0)) for offset in range(6)], (6, Raw()))
    parked: set[int] = set()
    ran: list[int] = []
    for _ in range(20):
        parked |= {one.entry.offset for one in produced(commands)}
        ran += [one.offset for one in run(commands)]
        commands = [
            command
            for handoff in produced(commands)
            for command in bench.tell(p.HandOffAnswered(handoff, None))
        ]
        commands += bench.wait(1.0)
    assert ran == [6]
    assert parked <= set(range(6))


def test_what_nears_its_retention_is_parked() -> None:
    bench = Bench()
    bench.assign(RETRY, retention_ms=400_000)
    raw = replace(due_in(bench, 100_000.0), born_ms=bench.wall_ms)
    assert produced(bench.arrive(RETRY, (0, raw))) == []
    assert produced(bench.wait(99.0)) == []
    assert [one.entry.offset for one in produced(bench.wait(20.0))] == [0]


def test_base_topics_do_not_park() -> None:
    bench = Bench(window=4)
    bench.assign(BASE)
    commands = bench.arrive(BASE, *[(offset, due_in(bench, 1_000.0)) for offset in range(4)])
    assert only(commands, p.Pause) == [p.Pause(BASE)]
    assert produced(commands + bench.wait(1.0)) == []


# Commits -------------------------------------------------------------------------------------------------------------


def test_one_commit_is_in_flight_at_a_time() -> None:
    bench = Bench(commit_interval=1.0)
    bench.assign(BASE)
    entries = bench.plain(BASE, 0, 1)
    first = bench.commit()
    assert first is not None
    bench.tell(p.Finished(done=entries))
    assert bench.commit() is None
    bench.tell(p.CommitAnswered(first, {}))
    assert positions(bench.commit()) == {BASE: 2}


def test_commits_keep_their_interval() -> None:
    bench = Bench(commit_interval=5.0)
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    bench.committed()
    bench.tell(p.Finished(done=[entry]))
    assert only(bench.wait(0.0), p.Commit) == []
    assert only(bench.wait(4.9), p.Commit) == []
    assert len(only(bench.wait(0.2), p.Commit)) == 1


def test_without_progress_nothing_is_committed() -> None:
    bench = Bench()
    bench.assign(BASE)
    assert bench.commit() is None
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Finished(done=[entry]))
    bench.committed()
    assert bench.commit() is None


def test_what_was_refused_is_committed_again() -> None:
    bench = Bench()
    bench.assign(BASE, OTHER)
    bench.tell(p.Finished(done=bench.plain(BASE, 0) + bench.plain(OTHER, 0)))
    commit = bench.commit()
    assert commit is not None
    commands = bench.tell(p.CommitAnswered(commit, {OTHER: "REBALANCE_IN_PROGRESS"}))
    assert [(type(event), event.partition) for event in told(commands)] == [
        (events.Committed, BASE.partition),
        (events.CommitFailed, OTHER.partition),
    ]
    assert positions(bench.commit()) == {OTHER: 1}


def test_a_broker_that_takes_less_metadata_halves_the_budget_for_all() -> None:
    bench = Bench(window=1_000, in_flight=1_000, map_units=4_095, least_map_units=23)
    bench.assign(BASE)
    bench.tell(p.Finished(done=bench.plain(BASE, *range(300))[1::2]))
    commit = bench.commit()
    assert commit is not None
    (progress,) = commit.progress
    commands = bench.tell(p.CommitAnswered(commit, {BASE: "OFFSET_METADATA_TOO_LARGE"}))
    (event,) = told(commands, events.OffsetMapShortened)
    assert event.budget_units == len(progress.metadata) // 2
    (again,) = only(bench.tell(p.Tick()), p.Commit)
    assert again.progress[0].position == progress.position
    assert len(again.progress[0].metadata) <= event.budget_units
    bench.assign(OTHER)
    assert bench.assignment(OTHER).budget_units == event.budget_units


def test_the_last_commit_does_not_rely_on_one_in_flight() -> None:
    bench = Bench()
    bench.assign(BASE, OTHER)
    bench.tell(p.Finished(done=bench.plain(BASE, 0)))
    assert bench.commit() is not None
    bench.tell(p.Revoking([BASE]))
    assert [one.position for one in bench.engine.last_progress([BASE])] == [1]
    assert bench.engine.last_progress([p.Place("nowhere", 0)]) == []


def test_markers_at_the_end_are_committed() -> None:
    bench = Bench()
    bench.assign(BASE)
    bench.tell(p.Finished(done=bench.plain(BASE, 0)))
    assert positions(bench.committed()) == {BASE: 1}
    bench.tell(p.Idle(BASE, 3))
    assert positions(bench.committed()) == {BASE: 3}
    bench.tell(p.Idle(BASE, 3))
    bench.tell(p.Idle(OTHER, 3))
    assert bench.commit() is None


# Ends ----------------------------------------------------------------------------------------------------------------


def test_a_revoke_withdraws_drains_and_commits() -> None:
    bench = Bench()
    bench.assign(BASE)
    entries = bench.plain(BASE, 0, 1, 2)
    bench.arrive(BASE, (3, due_in(bench, 5.0)))
    assert only(bench.tell(p.Revoking([BASE])), p.Withdraw) == [p.Withdraw()]
    assert not entries[0].assignment.hands_out
    assert bench.plain(BASE, 4) == []
    assert not bench.engine.drained([BASE])
    bench.tell(p.Withdrawn(entries[1:]))
    assert not bench.engine.drained([BASE])
    bench.tell(p.Finished(done=entries[:1]))
    assert bench.engine.drained([BASE])
    assert [one.position for one in bench.engine.last_progress([BASE])] == [1]
    (ended,) = told(bench.tell(p.Ended([BASE], "revoked")))
    assert (ended.reason, ended.unfinished) == ("revoked", 3)
    assert (bench.engine.in_flight, bench.engine.active_bytes, bench.engine.waiting_bytes) == (0, 0, 0)
    assert bench.commit() is None


def test_other_partitions_go_on_meanwhile() -> None:
    bench = Bench()
    bench.assign(BASE, OTHER)
    bench.tell(p.Revoking([BASE]))
    assert len(bench.plain(OTHER, 0)) == 1


def test_a_lost_partition_is_dropped_at_once() -> None:
    bench = Bench()
    bench.assign(BASE)
    waiting, failed = bench.plain(BASE, 0, 1)
    sent = bench.fail(failed)
    commands = bench.tell(p.Ended([BASE], "lost"))
    assert only(commands, p.Withdraw) == [p.Withdraw()]
    assert told(commands, events.DrainOverrun) == []
    bench.tell(p.Withdrawn([waiting]))
    assert bench.tell(p.HandOffAnswered(sent, None)) == []
    assert (bench.engine.in_flight, bench.engine.active_bytes) == (0, 0)
    assert bench.commit() is None


def test_late_results_do_nothing_to_the_next_assignment() -> None:
    bench = Bench()
    bench.assign(BASE)
    done, failed = bench.plain(BASE, 0, 1)
    bench.tell(p.Ended([BASE], "lost"))
    bench.assign(BASE)
    again = bench.plain(BASE, 0, 1)
    assert produced(bench.tell(p.Finished(done=[done], died=[failed]))) == []
    assert positions(bench.commit()) == {BASE: 0}
    assert bench.engine.in_flight == len(again)


def test_after_stopping_nothing_begins() -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    assert only(bench.tell(p.Stopping()), p.Withdraw) == [p.Withdraw()]
    assert bench.engine.stopping
    bench.assign(OTHER)
    assert bench.plain(OTHER, 0) == []
    bench.tell(p.Finished(done=[entry]))
    assert bench.engine.drained(bench.engine.assignments)


def test_a_log_that_was_cut_back_is_read_anew() -> None:
    bench = Bench()
    bench.assign(BASE)
    old = bench.plain(BASE, 0, 1, 2)
    commands = bench.arrive(BASE, (1, Raw()), (2, Raw()))
    assert told(commands, events.TopicReset) == [events.TopicReset(topic=BASE.topic, partition=0, position=1)]
    assert [one.offset for one in run(commands)] == [1, 2]
    bench.tell(p.Finished(done=old))
    assert positions(bench.commit()) == {BASE: 1}


def test_a_log_that_was_cut_back_within_one_poll() -> None:
    bench = Bench()
    bench.assign(BASE)
    assert [one.offset for one in bench.plain(BASE, 5, 6, 0, 1)] == [0, 1]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    bench = Bench()
    bench.assign(BASE, position=40)
    bench.plain(BASE, 40)
    assert bench.tell(p.TopicChanged(place=BASE, uid="uid")) == []
    commands = bench.tell(p.TopicChanged(place=BASE, uid="new"))
    assert only(commands, p.Start) == [p.Start(BASE, None, earliest=True)]
    (entry,) = bench.plain(BASE, 0)
    assert bench.fail(entry).marks.id == "new-0-0"
    assert positions(bench.commit()) == {BASE: 0}


# All together --------------------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Events in any order that the shell can bring them in; the books are kept beside the engine."""

    @initialize(
        in_flight=st.integers(1, 9), window=st.integers(1, 12), units=st.sampled_from([0, 23, 25, 4_095])
    )
    def begin(self, in_flight: int, window: int, units: int) -> None:
        self.bench = Bench(
            in_flight=in_flight, window=window, buffer_bytes=2_000, map_units=units, least_map_units=23
        )
        self.next = {BASE: 0, RETRY: 0}
        self.position = dict.fromkeys(self.next, 0)
        self.live: set[p.Place] = set()
        self.incomplete: dict[p.Place, set[int]] = {place: set() for place in self.next}
        self.with_workers: list[Entry] = []
        self.sent: list[p.HandOff] = []
        self.commit: p.Commit | None = None

    def perform(self, commands: list[p.Command]) -> None:
        self.with_workers += run(commands)
        self.sent += produced(commands)
        for handoff in produced(commands):
            assert handoff.entry.assignment.place in self.live
        for command in only(commands, p.Commit):
            assert self.commit is None
            self.commit = command
            for place, position in positions(command).items():
                assert (
                    self.position[place] <= position <= min(self.incomplete[place], default=self.next[place])
                )
                self.position[place] = position
        if only(commands, p.Withdraw):
            back = [one for one in self.with_workers if not one.assignment.hands_out][::2]
            self.with_workers = [one for one in self.with_workers if one not in back]
            self.perform(self.bench.tell(p.Withdrawn(back)))

    def completed(self, entry: Entry) -> None:
        place = entry.assignment.place
        if self.bench.engine.assignments.get(place) is entry.assignment:
            self.incomplete[place].discard(entry.offset)

    @rule(place=st.sampled_from([BASE, RETRY]))
    def assign(self, place: p.Place) -> None:
        if place not in self.live:
            self.live.add(place)
            self.next[place] = self.position[place]
            self.incomplete[place].clear()
            self.perform(self.bench.assign(place, position=self.position[place]))

    @rule(place=st.sampled_from([BASE, RETRY]), reason=st.sampled_from(["revoked", "lost"]))
    def end(self, place: p.Place, reason: str) -> None:
        if place in self.live:
            if reason == "revoked":
                self.perform(self.bench.tell(p.Revoking([place])))
            self.perform(self.bench.tell(p.Ended([place], reason)))
            self.live.discard(place)

    @rule(
        place=st.sampled_from([BASE, RETRY]),
        gap=st.sampled_from([0, 0, 0, 3, 30]),
        delays=st.lists(st.none() | st.floats(-1.0, 200.0), min_size=1, max_size=4),
    )
    def arrive(self, place: p.Place, gap: int, delays: list[float | None]) -> None:
        if place not in self.live or self.bench.assignment(place).paused:
            return
        delays = delays[: self.bench.engine.appetite(len(delays))]
        first = self.next[place] + gap
        raws = [Raw() if delay is None else due_in(self.bench, delay) for delay in delays]
        records = list(enumerate(raws, first))
        self.incomplete[place].update(offset for offset, _ in records)
        self.next[place] = first + len(records)
        self.perform(self.bench.arrive(place, *records))

    @precondition(lambda self: self.with_workers)
    @rule(pick=st.randoms(use_true_random=False), how=st.sampled_from(["done", "retry", "dead", "died"]))
    def finish(self, pick: object, how: str) -> None:
        entry = self.with_workers.pop(len(self.with_workers) // 2)
        if how == "done":
            self.completed(entry)
            event = p.Finished(done=[entry])
        elif how == "died":
            event = p.Finished(died=[entry])
        else:
            event = p.Finished(
                failed=[(entry, retry.Failure(reason="x", retry_in=1.0 if how == "retry" else None))]
            )
        self.perform(self.bench.tell(event))

    @precondition(lambda self: self.sent)
    @rule(code=st.sampled_from([None, None, "MSG_SIZE_TOO_LARGE"]))
    def answer_copy(self, code: str | None) -> None:
        handoff = self.sent.pop(len(self.sent) // 2)
        if code is None:
            self.completed(handoff.entry)
        self.perform(self.bench.tell(p.HandOffAnswered(handoff, code)))

    @precondition(lambda self: self.commit is not None)
    @rule(code=st.sampled_from([None, "_TIMED_OUT", "OFFSET_METADATA_TOO_LARGE"]))
    def answer_commit(self, code: str | None) -> None:
        commit, self.commit = self.commit, None
        assert commit is not None
        codes = {} if code is None else {one.place: code for one in commit.progress}
        self.perform(self.bench.tell(p.CommitAnswered(commit, codes)))

    @rule(seconds=st.sampled_from([0.0, 0.3, 5.0, 70.0]), step=st.sampled_from([0.0, 0.0, -3.0, 3.0]))
    def wait(self, seconds: float, step: float) -> None:
        self.bench.wall += step
        self.perform(self.bench.wait(seconds))

    @invariant()
    def the_workers_have_what_the_engine_says(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.engine.in_flight == len(self.with_workers)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
