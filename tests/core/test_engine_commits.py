from __future__ import annotations

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from tests.core.harness import (
    BASE,
    OTHER,
    Bench,
    Raw,
    due_in,
    only,
    positions,
    produced,
    run,
    told,
)

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
    assert bench.assignment(OTHER).progress.map_units == event.budget_units


def test_the_last_commit_does_not_rely_on_one_in_flight() -> None:
    bench = Bench()
    bench.assign(BASE, OTHER)
    bench.tell(p.Finished(done=bench.plain(BASE, 0)))
    assert bench.commit() is not None
    bench.tell(p.Revoking([BASE]))
    assert [one.position for one in bench.engine.last_progress([BASE])] == [1]
    assert bench.engine.last_progress([p.Place("nowhere", 0)]) == []


def test_an_answer_after_the_end_tells_nothing_of_it() -> None:
    bench = Bench()
    bench.assign(BASE, OTHER)
    entries = bench.plain(BASE, 0) + bench.plain(OTHER, 0)
    bench.tell(p.Finished(done=entries))
    commit = bench.commit()
    assert commit is not None
    bench.tell(p.Ended((BASE,), "revoked"))
    late = bench.tell(p.CommitAnswered(commit, {}))
    assert [one.partition for one in told(late, events.Committed)] == [OTHER.partition]


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
    old = bench.plain(BASE, 3, 4, 5)
    commands = bench.arrive(BASE, (1, Raw()), (2, Raw()))
    assert told(commands, events.TopicReset) == [events.TopicReset(topic=BASE.topic, partition=0, position=1)]
    assert [one.offset for one in run(commands)] == [1, 2]
    bench.tell(p.Finished(done=old))
    assert positions(bench.commit()) == {BASE: 1}


def test_a_log_made_anew_begins_with_another_record() -> None:
    bench = Bench()
    bench.assign(BASE)
    bench.arrive(BASE, (0, Raw()), (1, Raw()), first_ms=70)
    commands = bench.arrive(BASE, (0, Raw()), first_ms=71)
    assert told(commands, events.TopicReset) == [events.TopicReset(topic=BASE.topic, partition=0, position=0)]
    assert [one.offset for one in run(commands)] == [0]


def test_what_the_client_reads_again_is_passed_over() -> None:
    bench = Bench()
    bench.assign(BASE)
    first = run(bench.arrive(BASE, (0, Raw()), (1, Raw()), first_ms=70))
    second = run(bench.arrive(BASE, (2, Raw()), (3, Raw()), first_ms=80))
    bench.tell(p.Finished(done=[first[0], *second]))
    again = bench.arrive(BASE, (2, Raw()), (3, Raw()), (4, Raw()), first_ms=80)
    assert told(again, events.TopicReset) == []
    assert [one.offset for one in run(again)] == [4]
    assert positions(bench.commit()) == {BASE: 1}
    assert bench.engine.counters.duplicates == 2


def test_what_the_client_reads_again_may_be_complete() -> None:
    bench = Bench()
    bench.assign(BASE)
    bench.tell(p.Finished(done=run(bench.arrive(BASE, (0, Raw()), (1, Raw()), first_ms=70))))
    assert bench.arrive(BASE, (0, Raw()), (1, Raw()), first_ms=70) == []
    assert positions(bench.commit()) == {BASE: 2}


def test_nothing_incomplete_is_passed_over_wherever_the_client_goes_back_to() -> None:
    bench = Bench()
    bench.assign(BASE)
    bench.plain(BASE, 0, 1, 2, 3)
    assert bench.arrive(BASE, (2, Raw()), (3, Raw()), first_ms=90) == []
    assert positions(bench.commit()) == {BASE: 0}


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
