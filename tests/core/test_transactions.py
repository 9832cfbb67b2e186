"""Exactly once, in the engine: what goes into a transaction, and what its answer says."""

from __future__ import annotations

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.exactly_once import has_landed
from retriable_kafka_client.core.offset_map import OffsetMap, decode
from retriable_kafka_client.wire.outbox import Output, size_of
from tests.core.harness import BASE, OTHER, RETRY, Bench, due_in, failure, only, produced, run, told

OUTPUTS = (Output(topic="out", body=b"1234"), Output(topic="out", body=None, key=b"k"))


@pytest.fixture
def bench() -> Bench:
    made = Bench(exactly_once=True)
    made.assign(BASE)
    return made


def transact(commands: list[p.Command]) -> p.Transact:
    assert not only(commands, p.Produce) and not only(commands, p.Publish) and not only(commands, p.Commit)
    (made,) = only(commands, p.Transact)
    return made


def done(bench: Bench, *entries: Entry) -> list[p.Command]:
    return bench.tell(p.Finished(done=list(entries)))


def sends(bench: Bench, *entries: Entry) -> list[p.Command]:
    return bench.tell(p.Finished(sent=[(entry, OUTPUTS) for entry in entries], chance=0.25))


def lands(bench: Bench, made: p.Transact) -> list[p.Command]:
    return bench.tell(p.Transacted(transact=made, landed=True))


def aborts(bench: Bench, made: p.Transact, code: str | None = None, **more: object) -> list[p.Command]:
    return bench.tell(p.Transacted(transact=made, landed=False, code=code, **more))  # type: ignore[arg-type]


def says(bench: Bench, progress: p.Progress) -> tuple[int, OffsetMap]:
    """Position and map of a partition's progress."""
    binding = bench.assignment(progress.place).progress.binding
    return progress.position, decode(progress.metadata, base=progress.position, binding=binding)


# In doubt --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "other", "landed"), [(True, False, True), (False, True, False)])
def test_of_what_is_in_doubt_only_partitions_that_are_still_ours_tell(
    bench: Bench, base: bool, other: bool, landed: bool
) -> None:
    """Who has the other one now may have gone beyond, or have come to the same position by itself."""
    bench.assign(OTHER)
    (one,), (two,) = bench.plain(BASE, 0), bench.plain(OTHER, 0)
    done(bench, two)
    made = transact(sends(bench, one))
    assert {part.place for part in made.progress} == {BASE, OTHER}
    bench.tell(p.Ended([OTHER], "lost"))
    assert has_landed(made, {BASE: base, OTHER: other}) is landed
    bench.tell(p.Ended([BASE], "lost"))
    assert has_landed(made, {BASE: True, OTHER: True}) is False


# What goes into one --------------------------------------------------------------------------------------------------


def test_one_transaction_takes_no_more_than_it_may() -> None:
    bench = Bench(exactly_once=True, transaction_bytes=2 * size_of(OUTPUTS) + 2)
    bench.assign(BASE)
    entries = bench.plain(BASE, 0, 1, 2, 3, 4)
    first = transact(sends(bench, entries[0]))
    sends(bench, *entries[1:])
    second = transact(lands(bench, first))
    assert [one.entry for one in second.publications] == entries[1:3]
    assert says(bench, second.progress[0])[0] == 3
    third = transact(lands(bench, second))
    assert [one.entry for one in third.publications] == entries[3:5]
    lands(bench, third)
    assert bench.engine.counters.handled == 5 and bench.engine.active_bytes == 0


def test_outputs_go_at_once_with_their_progress(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1, 2)
    made = transact(sends(bench, entries[1]))
    (publication,) = made.publications
    assert (publication.entry, publication.outputs, list(made.handoffs)) == (entries[1], OUTPUTS, [])
    assert says(bench, made.progress[0]) == (0, OffsetMap(0, ((0, 1),), 2))
    assert bench.assignment(BASE).progress.incomplete == 3
    assert bench.engine.active_bytes == 300 + size_of(OUTPUTS)
    (committed,) = told(lands(bench, made), events.Committed)
    assert (committed.position, committed.map_units) == (0, len(made.progress[0].metadata))
    assert bench.assignment(BASE).progress.incomplete == 2
    assert (bench.engine.counters.handled, bench.engine.counters.published) == (1, 2)
    assert bench.engine.active_bytes == 200


def test_copies_go_at_once_with_their_progress(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    made = transact(bench.tell(p.Finished(failed=[(entry, failure())])))
    (handoff,) = made.handoffs
    assert (handoff.kind, handoff.target, handoff.marks.failed) == (p.HandOffKind.RETRY, RETRY.topic, 1)
    assert [one.position for one in made.progress] == [1]
    assert bench.engine.counters.retried == 0
    assert told(lands(bench, made), events.MessageRetried)
    assert bench.engine.counters.retried == 1


def test_progress_alone_waits_for_its_interval(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1)
    lands(bench, transact(bench.wait(1.0)))
    assert only(done(bench, *entries), p.Transact) == []
    assert only(bench.wait(0.9), p.Transact) == []
    made = transact(bench.wait(0.2))
    assert [(one.place, one.position) for one in made.progress] == [(BASE, 2)]
    assert (list(made.handoffs), list(made.publications)) == ([], [])


def test_idle_costs_nothing(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    assert only(lands(bench, transact(sends(bench, entry))), p.Transact) == []
    for _ in range(5):
        assert only(bench.wait(10.0), p.Transact) == []


def test_a_transaction_takes_what_completed_since_the_last_one(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1, 2, 3)
    first = transact(sends(bench, entries[0]))
    assert only(sends(bench, entries[2]), p.Transact) == []
    assert only(done(bench, entries[3]), p.Transact) == []
    assert only(bench.tell(p.Finished(failed=[(entries[1], failure())])), p.Transact) == []
    second = transact(lands(bench, first))
    assert [one.entry for one in second.publications] == [entries[2]]
    assert [one.entry for one in second.handoffs] == [entries[1]]
    assert says(bench, second.progress[0]) == (4, OffsetMap(4, (), 4))


def test_progress_without_effects_goes_along_once_in_an_interval(bench: Bench) -> None:
    bench.assign(OTHER)
    first, second = bench.plain(BASE, 0, 1)
    (there,) = bench.plain(OTHER, 0)
    lands(bench, transact(bench.wait(1.0)))
    done(bench, there)
    made = transact(sends(bench, first))
    assert {one.place: one.position for one in made.progress} == {BASE: 1}
    sends(bench, second)
    assert only(bench.wait(1.0), p.Transact) == []
    made = transact(lands(bench, made))
    assert {one.place: one.position for one in made.progress} == {BASE: 2, OTHER: 1}


def test_work_goes_on_meanwhile(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    transact(sends(bench, entry))
    assert len(bench.plain(BASE, 1, 2)) == 2


def test_dropped_and_parked_messages() -> None:
    bench = Bench(exactly_once=True, dead_letter=None, max_attempts=1, window=4)
    bench.assign(BASE, RETRY)
    (entry,) = bench.plain(BASE, 0)
    assert only(bench.tell(p.Finished(failed=[(entry, failure(retry_in=None))])), p.Transact) == []
    assert bench.assignment(BASE).progress.incomplete == 0
    far = [(offset, due_in(bench, 10_000.0 + offset)) for offset in range(4)]
    made = transact(bench.arrive(RETRY, *far))
    assert {one.kind for one in made.handoffs} == {p.HandOffKind.PARK}
    assert {one.place for one in made.progress} == {BASE, RETRY}


def test_a_lane_goes_on_once_its_outputs_are_in() -> None:
    bench = Bench(exactly_once=True, ordering="partition", retry_topic=None, in_place=True)
    bench.assign(BASE)
    first, *none = bench.plain(BASE, 0, 1)
    assert none == []
    made = transact(sends(bench, first))
    assert [entry.offset for entry in run(lands(bench, made))] == [1]


# Aborts --------------------------------------------------------------------------------------------------------------


def test_an_abort_runs_nothing_again(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1)
    made = transact(sends(bench, entries[0]))
    bench.tell(p.Finished(failed=[(entries[1], failure())]))
    commands = aborts(bench, made, "NOT_COORDINATOR")
    assert run(commands) == [] and only(commands, p.Transact) == []
    (event,) = told(commands, events.TransactionAborted)
    assert (event.code, event.refused, event.again_in) == ("NOT_COORDINATOR", 0, 0.1)
    again = transact(bench.wait(0.1))
    assert list(again.publications) == list(made.publications)
    assert [one.entry for one in again.handoffs] == [entries[1]]
    lands(bench, again)
    assert (bench.engine.counters.handled, bench.engine.counters.retried) == (1, 1)
    assert bench.engine.active_bytes == 0


def test_the_pause_grows_and_a_success_ends_that(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    made = transact(sends(bench, entry))
    pauses = []
    for _ in range(8):
        (event,) = told(aborts(bench, made, "_TIMED_OUT"), events.TransactionAborted)
        pauses.append(event.again_in)
        made = transact(bench.wait(event.again_in))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    lands(bench, made)
    made = transact(sends(bench, *bench.plain(BASE, 1)))
    (event,) = told(aborts(bench, made, "_TIMED_OUT"), events.TransactionAborted)
    assert event.again_in == 0.1


def test_progress_of_an_aborted_transaction_is_said_again(bench: Bench) -> None:
    done(bench, *bench.plain(BASE, 0))
    made = transact(bench.wait(10.0))
    aborts(bench, made, "_TIMED_OUT")
    assert [one.position for one in transact(bench.wait(1.0)).progress] == [1]


def test_a_refused_output_is_a_failed_attempt_and_stops_nobody(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1)
    made = transact(sends(bench, *entries))
    refused, other = made.publications
    again = transact(aborts(bench, made, refused={refused: "MSG_SIZE_TOO_LARGE"}))
    assert list(again.publications) == [other]
    (copy,) = again.handoffs
    assert (copy.entry, copy.marks.failed) == (refused.entry, 1)
    assert copy.failure is not None and copy.failure.text == "MSG_SIZE_TOO_LARGE"
    assert [one.position for one in again.progress] == [2]
    lands(bench, again)
    counters = bench.engine.counters
    assert (counters.handled, counters.failed, counters.retried, counters.published) == (1, 1, 1, 2)
    assert bench.engine.active_bytes == 0


def test_a_refused_copy_goes_again_later_and_stops_nobody(bench: Bench) -> None:
    entries = bench.plain(BASE, 0, 1)
    made = transact(bench.tell(p.Finished(failed=[(one, failure()) for one in entries])))
    refused, other = made.handoffs
    commands = aborts(bench, made, refused={refused: "UNKNOWN_TOPIC_OR_PART"})
    (event,) = told(commands, events.HandOffRefused)
    again = transact(commands)
    assert list(again.handoffs) == [other]
    assert says(bench, again.progress[0]) == (0, OffsetMap(0, ((0, 1),), 2))
    assert only(lands(bench, again), p.Transact) == []
    third = transact(bench.wait(event.again_in))
    assert (list(third.handoffs), refused.tries) == ([refused], 1)


def test_an_answer_for_another_transaction_changes_nothing(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    made = transact(sends(bench, entry))
    assert lands(bench, p.Transact(made.handoffs, made.publications, made.progress)) == []
    assert bench.assignment(BASE).progress.incomplete == 1
    lands(bench, made)
    assert lands(bench, made) == []


# Maps ----------------------------------------------------------------------------------------------------------------


def fragmented(bench: Bench, count: int) -> list[Entry]:
    """Let messages arrive of which every second one is complete; the others."""
    entries = bench.plain(BASE, *range(count))
    done(bench, *entries[1::2])
    return entries[::2]


def test_a_map_is_carried_however_little_room_there_is() -> None:
    bench = Bench(exactly_once=True, map_units=30, least_map_units=100)
    bench.assign(BASE)
    entries = bench.plain(BASE, *range(100))
    assert len(entries) < 100  # what the map has no room for waits
    made = transact(sends(bench, entries[-1]))
    position, known = says(bench, made.progress[0])
    assert (position, known.end) == (0, entries[-1].offset + 1)


def test_what_a_shortened_map_cannot_tell_waits() -> None:
    bench = Bench(exactly_once=True, map_units=100, in_flight=2_000, window=2_000)
    bench.assign(BASE)
    left = fragmented(bench, 1_000)
    made = transact(sends(bench, left[-1]))
    commands = aborts(bench, made, "OFFSET_METADATA_TOO_LARGE")
    (shortened,) = told(commands, events.OffsetMapShortened)
    assert shortened.budget_units == len(made.progress[0].metadata) // 2
    again = transact(commands)
    assert list(again.publications) == []
    assert len(again.progress[0].metadata) <= shortened.budget_units
    bench.tell(p.Transacted(transact=again, landed=True))
    last = transact(done(bench, *left[:-1]) + bench.wait(10.0))
    assert [one.entry for one in last.publications] == [left[-1]]
    assert last.progress[0].position == 1_000


# Ends ----------------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_the_last_transaction(bench: Bench) -> None:
    sent, plain = bench.plain(BASE, 0, 1)
    first = transact(sends(bench, sent))
    bench.tell(p.Revoking([BASE]))
    done(bench, plain)
    assert not bench.engine.drained([BASE])
    second = transact(lands(bench, first))
    assert [one.position for one in second.progress] == [2]
    assert not bench.engine.drained([BASE])
    lands(bench, second)
    assert bench.engine.drained([BASE])
    assert list(bench.engine.last_progress([BASE])) == []


def test_a_drain_does_not_wait_out_a_pause(bench: Bench) -> None:
    (entry,) = bench.plain(BASE, 0)
    made = transact(sends(bench, entry))
    for _ in range(6):
        aborts(bench, made, "_TIMED_OUT")
        made = transact(bench.wait(10.0))
    aborts(bench, made, "_TIMED_OUT")
    made = transact(bench.tell(p.Stopping()))
    (event,) = told(aborts(bench, made, "_TIMED_OUT"), events.TransactionAborted)
    assert event.again_in == 0.5


def test_what_is_pending_when_the_assignment_ends_is_dropped(bench: Bench) -> None:
    bench.assign(OTHER)
    first, second = bench.plain(BASE, 0, 1)
    (there,) = bench.plain(OTHER, 0)
    made = transact(sends(bench, first))
    sends(bench, second)
    sends(bench, there)
    bench.tell(p.Ended([BASE], "lost"))
    assert bench.engine.active_bytes == 2 * (
        100 + size_of(OUTPUTS)
    )  # one in flight, and the other partition's
    again = transact(aborts(bench, made, "ILLEGAL_GENERATION") + bench.wait(0.1))
    assert [one.entry for one in again.publications] == [there]
    assert [one.place for one in again.progress] == [OTHER]
    lands(bench, again)
    assert bench.engine.active_bytes == 0


@pytest.mark.parametrize("landed", [True, False])
def test_an_answer_after_the_end_changes_nothing(bench: Bench, landed: bool) -> None:
    first, second = bench.plain(BASE, 0, 1)
    made = transact(sends(bench, first) + bench.tell(p.Finished(failed=[(second, failure())])))
    bench.tell(p.Ended([BASE], "lost"))
    bench.tell(p.Transacted(transact=made, landed=landed, code=None if landed else "ILLEGAL_GENERATION"))
    assert bench.engine.active_bytes == bench.engine.counters.handled == bench.engine.counters.retried == 0
    assert only(bench.wait(100.0), p.Transact) == []


@pytest.mark.parametrize("reason", ["revoked", "stopped"])
@pytest.mark.parametrize("sent", [True, False])
def test_what_is_given_away_without_an_answer_is_told_before_its_end(
    bench: Bench, reason: str, sent: bool
) -> None:
    """Whether it is in the transaction without an answer, or was to go with the next one."""
    bench.assign(OTHER)
    first, second = bench.plain(BASE, 0, 1)
    (there,) = bench.plain(OTHER, 0)
    lands(bench, transact(bench.wait(1.0)))
    made = transact(sends(bench, first if sent else there))
    sends(bench, second) if sent else done(bench, second)
    assert {one.place for one in made.progress} == {BASE if sent else OTHER}
    commands = bench.tell(p.Revoking([BASE]))
    assert bench.engine.uncommitted([BASE]) == 1
    commands += bench.tell(p.Ended([BASE], reason))
    failed, over = [
        one for one in told(commands) if isinstance(one, events.CommitFailed | events.AssignmentEnded)
    ]
    assert isinstance(failed, events.CommitFailed) and isinstance(over, events.AssignmentEnded)
    assert (failed.topic, failed.partition, failed.code) == (*BASE, "_TIMED_OUT")
    assert (over.topic, over.partition, over.reason) == (*BASE, reason)


def test_nothing_is_told_of_what_is_committed_or_lost(bench: Bench) -> None:
    bench.assign(OTHER)
    first, second = bench.plain(BASE, 0, 1)
    (there,) = bench.plain(OTHER, 0)
    lands(bench, transact(sends(bench, first)))
    transact(sends(bench, there))
    assert bench.engine.uncommitted([BASE]) == 0
    assert bench.assignment(BASE).accounts.in_flight == 1 and second.offset == 1  # a handler that runs on
    assert not told(bench.tell(p.Ended([BASE], "stopped")), events.CommitFailed)
    assert not told(bench.tell(p.Ended([OTHER], "lost")), events.CommitFailed)


def test_a_transaction_that_never_had_an_answer_is_told_at_the_end(bench: Bench) -> None:
    made = transact(sends(bench, *bench.plain(BASE, 0)))
    bench.tell(p.Stopping())
    bench.tell(p.Ended([BASE], "stopped"))
    commands = aborts(bench, made, "_DESTROY")
    (event,) = told(commands, events.TransactionAborted)
    assert (event.code, event.refused, event.topic, event.partition) == ("_DESTROY", 0, "", -1)
    assert only(commands, p.Transact) == [] and bench.engine.active_bytes == 0


def test_at_least_once_has_no_transactions() -> None:
    bench = Bench()
    bench.assign(BASE)
    (entry,) = bench.plain(BASE, 0)
    commands = bench.tell(p.Finished(failed=[(entry, failure())]))
    assert len(produced(commands)) == 1 and only(commands, p.Transact) == []
