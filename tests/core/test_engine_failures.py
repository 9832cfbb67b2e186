from __future__ import annotations

from dataclasses import replace

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.protocol import HandOffKind
from retriable_kafka_client.wire.headers import Marks, Origin
from tests.core.harness import (
    BASE,
    RETRY,
    START,
    Bench,
    Raw,
    due_in,
    only,
    positions,
    produced,
    run,
    told,
)

SECOND_MS = 1_000
DAY = 86_400.0


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
    assert sent.failure.reason == ("given-up" if retry_in is None else events.REASON_NOT_BEFORE)
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
    assert dead.failure.reason == events.REASON_WORKER_DIED


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
    assert bench.assignment(BASE).progress.incomplete == 0


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
