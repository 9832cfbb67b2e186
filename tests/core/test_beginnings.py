"""Where an assignment begins that has no committed position, and that it commits one before anything comes."""

from __future__ import annotations

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from tests.core.harness import BASE, RETRY, Bench, Raw, only, positions, told


@pytest.mark.parametrize("reset", ["earliest", "latest", "error"])
def test_a_retry_topic_begins_at_its_beginning(reset: str) -> None:
    commands = Bench(reset=reset).assign(RETRY, position=None)
    assert only(commands, p.Start) == [p.Start(RETRY, None, earliest=True)]
    assert [(one.place, one.end) for one in only(commands, p.Locate)] == [(RETRY, False)]


def test_latest_begins_where_the_log_ends_once_that_is_known_and_says_so_at_once() -> None:
    bench = Bench(reset="latest", commit_interval=60.0)
    bench.tell(p.Tick())
    commands = bench.assign(BASE, position=None)
    (locate,) = only(commands, p.Locate)
    assert locate.end and not only(commands, p.Start) and not told(commands)
    commands = bench.tell(p.Located(locate, 70))
    assert only(commands, p.Start) == [p.Start(BASE, 70)]
    assert told(commands, events.AssignmentStarted)[0].position == 70
    (commit,) = only(bench.wait(0.01), p.Commit)
    assert positions(commit) == {BASE: 70}
    assert bench.tell(p.Located(locate, 90)) == []


@pytest.mark.parametrize("earliest", [False, True])
def test_what_begins_at_its_beginning_says_so_before_anything_comes(earliest: bool) -> None:
    bench = Bench(commit_interval=60.0)
    bench.tell(p.Tick())
    (locate,) = only(bench.assign(BASE, position=None, earliest=earliest), p.Locate)
    assert not locate.end
    bench.tell(p.Located(locate, 3))
    (commit,) = only(bench.wait(0.01), p.Commit)
    assert positions(commit) == {BASE: 3}
    bench.plain(BASE, 3, 4)


def test_exactly_once_the_first_position_is_committed_in_a_transaction() -> None:
    bench = Bench(reset="latest", exactly_once=True, commit_interval=60.0)
    bench.tell(p.Tick())
    (locate,) = only(bench.assign(BASE, position=None), p.Locate)
    commands = bench.tell(p.Located(locate, 70)) + bench.wait(0.01)
    (transact,) = only(commands, p.Transact)
    assert [(one.place, one.position) for one in transact.progress] == [(BASE, 70)]


def test_records_that_come_first_are_what_counts() -> None:
    bench = Bench()
    (locate,) = only(bench.assign(BASE, position=None), p.Locate)
    bench.plain(BASE, 5)
    assert bench.tell(p.Located(locate, 9)) == []
    assert positions(bench.commit()) == {BASE: 5}


def test_an_answer_for_an_earlier_assignment_counts_for_nothing() -> None:
    bench = Bench(reset="latest")
    (locate,) = only(bench.assign(BASE, position=None), p.Locate)
    bench.tell(p.Ended([BASE], "revoked"))
    (other,) = only(bench.assign(BASE, position=None), p.Locate)
    assert bench.tell(p.Located(locate, 7)) == []
    assert only(bench.tell(p.Located(other, 9)), p.Start) == [p.Start(BASE, 9)]


def test_where_the_brokers_do_not_tell_the_client_decides() -> None:
    (locate,) = only((bench := Bench(reset="latest")).assign(BASE, position=None), p.Locate)
    commands = bench.tell(p.Located(locate, None))
    assert only(commands, p.Start) == [p.Start(BASE, None)] and not only(commands, p.Locate)
    assert bench.commit() is None


def test_with_error_a_base_topic_without_a_position_is_the_clients_to_complain_of() -> None:
    commands = Bench(reset="error").assign(BASE, position=None)
    assert only(commands, p.Start) == [p.Start(BASE, None)] and not only(commands, p.Locate)


def test_a_topic_made_anew_while_its_end_is_asked_for_is_read_from_its_beginning() -> None:
    bench = Bench(reset="latest")
    (locate,) = only(bench.assign(BASE, position=None), p.Locate)
    commands = bench.tell(p.TopicChanged(place=BASE, uid="new"))
    assert only(commands, p.Start) == [p.Start(BASE, None, earliest=True)]
    assert bench.tell(p.Located(locate, 70)) == []
    bench.arrive(BASE, (0, Raw()))
    assert positions(bench.commit()) == {BASE: 0}
