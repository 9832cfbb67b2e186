"""Outputs, runs that outlive their time limit, and holds, in the engine."""

from __future__ import annotations

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.wire.outbox import Output, size_of
from tests.core.harness import BASE, OTHER, RETRY, Bench, Raw, due_in, failure, only, positions, produced, run

OUTPUTS = (Output(topic="out", body=b"1234"), Output(topic="out", body=None, key=b"k"))


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.assign(BASE)
    return made


def publish(bench: Bench, count: int = 1) -> list[p.Publication]:
    entries = bench.plain(BASE, *range(count))
    commands = bench.tell(p.Finished(sent=[(one, OUTPUTS) for one in entries], chance=0.25))
    return [command.publication for command in only(commands, p.Publish)]


# Outputs -------------------------------------------------------------------------------------------------------------


def test_a_message_completes_when_its_outputs_are_acknowledged(bench: Bench) -> None:
    first, second = publish(bench, 2)
    assert (first.outputs, first.size, first.chance) == (OUTPUTS, size_of(OUTPUTS), 0.25)
    assert bench.engine.active_bytes == 2 * (100 + size_of(OUTPUTS))
    bench.tell(p.Published(second, None))
    assert positions(bench.commit()) == {BASE: 0}
    assert bench.engine.counters.handled == 1
    bench.tell(p.Published(first, None))
    assert positions(bench.commit()) == {}  # one is in flight still
    assert bench.assignment(BASE).progress.incomplete == 0
    assert (bench.engine.counters.handled, bench.engine.counters.published) == (2, 4)
    assert bench.engine.active_bytes == 0


def test_a_refused_output_is_a_failed_attempt(bench: Bench) -> None:
    (publication,) = publish(bench)
    (sent,) = produced(bench.tell(p.Published(publication, "TOPIC_AUTHORIZATION_FAILED")))
    assert (sent.kind, sent.marks.failed) == (p.HandOffKind.RETRY, 1)
    assert sent.failure is not None
    assert (sent.failure.text, sent.failure.retry_in) == ("TOPIC_AUTHORIZATION_FAILED", 1.0)
    assert (bench.engine.counters.handled, bench.engine.counters.failed) == (0, 1)
    assert bench.engine.active_bytes == 100


def test_the_last_attempts_refused_output_is_a_dead_letter() -> None:
    bench = Bench(max_attempts=1)
    bench.assign(BASE)
    (publication,) = publish(bench)
    (sent,) = produced(bench.tell(p.Published(publication, "MSG_SIZE_TOO_LARGE")))
    assert (sent.kind, sent.attempts) == (p.HandOffKind.DEAD_LETTER, 1)
    assert sent.failure is not None and sent.failure.reason == events.REASON_EXHAUSTED
    assert sent.failure.error == "retriable_kafka_client.errors.DeliveryError"


def test_a_drain_waits_for_outputs(bench: Bench) -> None:
    (publication,) = publish(bench)
    bench.tell(p.Revoking([BASE]))
    assert not bench.engine.drained([BASE])
    bench.tell(p.Published(publication, None))
    assert bench.engine.drained([BASE])
    assert [one.position for one in bench.engine.last_progress([BASE])] == [1]


def test_outputs_that_outlive_their_assignment_change_nothing(bench: Bench) -> None:
    first, second = publish(bench, 2)
    bench.tell(p.Ended([BASE], "lost"))
    assert bench.engine.active_bytes == 2 * (100 + size_of(OUTPUTS))
    assert bench.tell(p.Published(first, None)) == []
    assert bench.tell(p.Published(second, "MSG_SIZE_TOO_LARGE")) == []
    assert bench.engine.active_bytes == bench.engine.counters.handled == bench.engine.counters.failed == 0


def test_results_that_outlive_their_assignment_publish_nothing(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Ended([BASE], "lost"))
    assert bench.tell(p.Finished(sent=[(entry, OUTPUTS)])) == []
    assert (bench.engine.in_flight, bench.engine.active_bytes) == (0, 0)


# Overdue -------------------------------------------------------------------------------------------------------------


def test_an_overdue_run_keeps_its_slot_and_its_bytes() -> None:
    bench = Bench(in_flight=1)
    bench.assign(BASE)
    (entry,) = run(bench.arrive(BASE, (0, Raw()), (1, Raw())))
    commands = bench.tell(p.Finished(overdue=[(entry, failure(1.0))]))
    (sent,) = produced(commands)
    assert sent.kind is p.HandOffKind.RETRY and run(commands) == []
    commands = bench.tell(p.HandOffAnswered(sent, None))
    assert run(commands) == [] and bench.engine.in_flight == 1
    assert bench.engine.active_bytes == 200
    (second,) = run(bench.tell(p.Finished(released=[entry])))
    assert second.offset == 1
    assert (bench.engine.in_flight, bench.engine.active_bytes) == (1, 100)


def test_a_drain_does_not_wait_for_what_is_overdue(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    (sent,) = produced(bench.tell(p.Finished(overdue=[(entry, failure(1.0))])))
    bench.tell(p.Revoking([BASE]))
    assert not bench.engine.drained([BASE])
    bench.tell(p.HandOffAnswered(sent, None))
    assert bench.engine.drained([BASE])
    bench.tell(p.Ended([BASE], "revoked"))
    assert (bench.engine.overrun, bench.engine.active_bytes) == (1, 100)
    bench.tell(p.Finished(released=[entry]))
    assert (bench.engine.overrun, bench.engine.in_flight, bench.engine.active_bytes) == (0, 0, 0)


def test_what_is_overdue_after_its_assignment_only_holds_its_slot(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Ended([BASE], "lost"))
    assert produced(bench.tell(p.Finished(overdue=[(entry, failure(1.0))]))) == []
    assert bench.engine.overrun == 1
    bench.tell(p.Finished(released=[entry]))
    assert (bench.engine.overrun, bench.engine.in_flight, bench.engine.active_bytes) == (0, 0, 0)


def test_overdue_and_released_may_come_together(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Finished(overdue=[(entry, failure(1.0))], released=[entry]))
    assert bench.engine.in_flight == 0


def test_in_place_another_attempt_may_run_beside_an_overdue_one() -> None:
    bench = Bench(retry_topic=None, in_place=True)
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Finished(overdue=[(entry, failure(1.0))]))
    (again,) = run(bench.wait(1.0))
    assert again is not entry and (again.offset, again.attempt, entry.attempt) == (0, 2, 1)
    assert bench.engine.in_flight == 2
    bench.tell(p.Finished(done=[again]))
    bench.tell(p.Finished(released=[entry]))
    assert (bench.engine.in_flight, bench.assignment(BASE).progress.incomplete) == (0, 0)


def test_in_order_the_next_attempt_waits_for_the_overdue_one() -> None:
    bench = Bench(retry_topic=None, in_place=True, ordering="partition")
    bench.assign(BASE)
    (entry,) = run(bench.arrive(BASE, (0, Raw()), (1, Raw())))
    bench.tell(p.Finished(overdue=[(entry, failure(1.0))]))
    assert run(bench.wait(5.0)) == []
    bench.tell(p.Finished(released=[entry]))
    (again,) = run(bench.wait(0.0))
    assert (again.offset, again.attempt) == (0, 2)


def test_in_order_the_next_message_waits_for_the_overdue_run_though_it_is_dead_lettered() -> None:
    bench = Bench(retry_topic=None, in_place=True, ordering="partition")
    bench.assign(BASE)
    (entry,) = run(bench.arrive(BASE, (0, Raw()), (1, Raw())))
    (sent,) = produced(bench.tell(p.Finished(overdue=[(entry, failure(None))])))
    assert run(bench.tell(p.HandOffAnswered(sent, None))) == []
    bench.tell(p.Revoking([OTHER]))  # of no concern
    (second,) = run(bench.tell(p.Finished(released=[entry])))
    assert second.offset == 1


def test_in_order_a_drain_waits_for_the_overdue_run() -> None:
    bench = Bench(retry_topic=None, in_place=True, ordering="partition")
    bench.assign(BASE)
    (entry,) = run(bench.arrive(BASE, (0, Raw()), (1, Raw())))
    bench.tell(p.Finished(overdue=[(entry, failure(1.0))]))
    bench.tell(p.Revoking([BASE]))
    assert not bench.engine.drained([BASE])
    bench.tell(p.Finished(released=[entry]))
    assert bench.engine.drained([BASE]) and bench.engine.active_bytes == 0


# Hold ----------------------------------------------------------------------------------------------------------------


def test_a_hold_takes_back_what_has_not_begun_and_reads_nothing(bench: Bench) -> None:
    running, queued, other = bench.plain(BASE, 0, 1, 2)
    commands = bench.tell(p.Hold(True))
    assert [command.place for command in only(commands, p.Pause)] == [BASE] and only(commands, p.Withdraw)
    assert not queued.assignment.hands_out
    assert run(bench.tell(p.Withdrawn([queued, other]))) == []
    assert run(bench.arrive(BASE, (3, Raw()))) == []  # it was on its way
    assert bench.tell(p.Hold(True)) == []
    bench.tell(p.Finished(done=[running]))
    assert bench.engine.drained([BASE])
    assert only(bench.wait(1.0), p.Resume) == []
    commands = bench.tell(p.Hold(False))
    assert [command.place for command in only(commands, p.Resume)] == [BASE]
    assert [one.offset for one in run(commands)] == [1, 2, 3]


def test_failures_and_commits_go_on_while_on_hold(bench: Bench) -> None:
    done, failed = bench.plain(BASE, 0, 1)
    bench.tell(p.Hold(True))
    (sent,) = produced(bench.tell(p.Finished(done=[done], failed=[(failed, failure(1.0))])))
    bench.tell(p.HandOffAnswered(sent, None))
    assert positions(bench.commit()) == {BASE: 2}


def test_a_partition_that_comes_while_on_hold_begins_paused(bench: Bench) -> None:
    bench.tell(p.Hold(True))
    commands = bench.assign(OTHER)
    kinds = [type(command) for command in commands if isinstance(command, p.Start | p.Pause)]
    assert kinds == [p.Start, p.Pause]
    assert {one.place for one in only(bench.tell(p.Hold(False)), p.Resume)} == {BASE, OTHER}


def test_a_hold_ends_where_the_window_says(bench: Bench) -> None:
    small = Bench(window=2)
    small.assign(BASE)
    small.plain(BASE, 0, 1)
    small.tell(p.Hold(True))
    assert only(small.tell(p.Hold(False)), p.Resume) == []


def test_what_comes_due_while_on_hold_goes_first_afterwards(bench: Bench) -> None:
    bench.assign(RETRY)
    bench.arrive(RETRY, (0, due_in(bench, 1.0)))
    bench.tell(p.Hold(True))
    assert run(bench.wait(2.0)) == []
    (command,) = only(bench.tell(p.Hold(False)), p.Run)
    assert command.urgent and [one.offset for one in command.entries] == [0]


def test_a_withdrawn_message_that_was_due_comes_back_as_such(bench: Bench) -> None:
    bench.assign(RETRY)
    (due,) = run(bench.arrive(RETRY, (0, due_in(bench, -1.0))))
    bench.tell(p.Hold(True))
    bench.tell(p.Withdrawn([due]))
    (command,) = only(bench.tell(p.Hold(False)), p.Run)
    assert command.urgent and list(command.entries) == [due]


def test_a_drain_ends_while_on_hold(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    bench.tell(p.Hold(True))
    bench.tell(p.Stopping())
    bench.tell(p.Withdrawn([entry]))
    assert bench.engine.drained([BASE]) and bench.engine.active_bytes == 0
