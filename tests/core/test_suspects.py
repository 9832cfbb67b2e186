"""Partitions that were lost while the loop stood still: what ran then runs alone, counted, until it is known."""

from __future__ import annotations

from typing import Any

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from tests.core.harness import BASE, OTHER, RETRY, Bench, Raw, failure, only, produced, run, told


def bench(**settings: Any) -> Bench:
    made = Bench(**{"solo": True, "solo_patience": 6.0, "batches": True, **settings})
    made.assign(BASE)
    return made


def lose(one: Bench, *running: Entry, place: p.Place = BASE) -> list[p.Command]:
    """The loop comes back, and hears that the partition is lost; the runs come to their ends."""
    suspects = [
        p.Suspect(entry.assignment.place, entry.assignment.uid, entry.offset, entry.attempt, entry.alone)
        for entry in running
    ]
    return one.tell(p.Ended([place], "lost", suspects, 9.0)) + one.tell(p.Finished(done=list(running)))


def again(one: Bench, *offsets: int, place: p.Place = BASE) -> list[Entry]:
    one.assign(place)
    return one.plain(place, *offsets)


def pump(one: Bench, seconds: float) -> list[Entry]:
    """Time passes, and commits are acknowledged: what is to be run then."""
    commands = one.wait(seconds)
    found = run(commands)
    for commit in only(commands, p.Commit):
        found += run(one.tell(p.CommitAnswered(commit, {})))
    return found


def offsets(entries: list[Entry]) -> list[int]:
    return [entry.offset for entry in entries]


def stuck(commands: list[p.Command]) -> list[events.HandlerStuck]:
    return told(commands, events.HandlerStuck)


def test_the_messages_that_ran_are_named() -> None:
    one = bench()
    first, second, _third = one.plain(BASE, 0, 1, 2)
    told_of = stuck(lose(one, first, second))
    assert [(event.offset, event.attempt, event.seconds, event.alone) for event in told_of] == [
        (0, 1, 9.0, False),
        (1, 1, 9.0, False),
    ]


def test_a_suspect_runs_alone_and_counted_after_what_runs_is_committed() -> None:
    one = bench()
    _before, suspect, _after = one.plain(BASE, 0, 1, 2)
    lose(one, suspect)
    one.tell(p.Finished(done=[_before, _after]))
    (neighbour,) = again(one, 0, 1, 2)
    assert (neighbour.offset, neighbour.attempt) == (0, 1)
    one.committed()
    assert run(one.tell(p.Finished(done=[neighbour]))) == []  # not committed
    (alone,) = pump(one, 0.02)  # and that is not put off
    assert (alone.offset, alone.attempt, alone.alone) == (1, 2, True)
    assert one.plain(BASE, 3) == [] and pump(one, 1.0) == []
    rest = run(one.tell(p.Finished(done=[alone])))
    assert offsets(rest) == [2, 3] and not any(entry.alone for entry in rest)


def test_a_suspect_is_known_where_nothing_has_been_committed_yet() -> None:
    one = bench()
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    one.assign(BASE, position=None)
    (alone,) = one.plain(BASE, 0)
    assert alone.alone and alone.attempt == 2


def test_who_completes_alone_is_cleared() -> None:
    one = bench()
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    (alone,) = again(one, 0)
    one.tell(p.Finished(done=[alone]))
    one.tell(p.Ended([BASE], "lost"))  # for another reason, and its completion was not committed
    (plain,) = again(one, 0)
    assert not plain.alone and plain.attempt == 1


def test_who_does_it_again_alone_goes_to_the_retry_topic_and_at_last_is_dead() -> None:
    one = bench(max_attempts=3)
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    (alone,) = again(one, 0)
    (event,) = stuck(lose(one, alone))
    assert event.alone and event.attempt == 2
    one.assign(BASE)
    (copy,) = produced(one.arrive(BASE, (0, Raw())))
    assert copy.kind is p.HandOffKind.RETRY and copy.target == RETRY.topic
    assert copy.marks.failed == 2 and copy.marks.alone
    (retried,) = told(one.tell(p.HandOffAnswered(copy, None)), events.MessageRetried)
    assert (retried.error, retried.reason, retried.attempt) == (None, "worker-stuck", 2)
    one.committed()
    # Any member of the group knows it from its headers.
    other = Bench(solo=True, max_attempts=3)
    other.assign(RETRY, BASE)
    (neighbour,) = other.plain(BASE, 1)
    pump(other, 30.0)
    assert run(other.arrive(RETRY, (0, Raw(copy.marks)))) == []
    other.tell(p.Finished(done=[neighbour]))
    (third,) = pump(other, 1.0)
    assert third.attempt == 3
    lose(other, third, place=RETRY)
    other.assign(RETRY)
    (letter,) = produced(other.arrive(RETRY, (0, Raw(copy.marks))))
    assert letter.kind is p.HandOffKind.DEAD_LETTER and letter.attempts == 3
    assert letter.failure is not None and letter.failure.reason == "worker-stuck"


@pytest.mark.parametrize("ordering", ["unordered", "key", "partition"])
def test_in_place_it_runs_alone_until_it_is_dead(ordering: str) -> None:
    one = bench(retry_topic=None, in_place=True, max_attempts=3, ordering=ordering, batches=False)
    (running,) = run(one.arrive(BASE, (0, Raw(key=b"a"))))
    for attempt in (2, 3):
        lose(one, running)
        one.assign(BASE)
        behind = [(1, Raw(key=b"a"))] if ordering != "unordered" else []
        (running,) = run(one.arrive(BASE, (0, Raw(key=b"a")), *behind)) + pump(one, 2.0)
        assert (running.offset, running.attempt, running.alone) == (0, attempt, True)
    lose(one, running)
    one.assign(BASE)
    (letter,) = produced(one.arrive(BASE, (0, Raw(key=b"a"))))
    assert letter.failure is not None and letter.failure.reason == "worker-stuck" and letter.attempts == 3


def test_without_a_policy_it_is_dead_after_it_has_run_alone_once() -> None:
    one = bench(retry_topic=None)
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    (alone,) = again(one, 0)
    assert alone.attempt == 2
    lose(one, alone)
    one.assign(BASE)
    (letter,) = produced(one.arrive(BASE, (0, Raw())))
    assert letter.failure is not None and letter.failure.reason == "worker-stuck"


def test_a_partition_that_is_lost_for_another_reason_makes_nobody_suspect() -> None:
    one = bench()
    running = one.plain(BASE, 0, 1)
    assert stuck(one.tell(p.Ended([BASE], "lost"))) == []
    one.tell(p.Finished(done=list(running)))
    assert [(entry.alone, entry.attempt) for entry in again(one, 0, 1)] == [(False, 1)] * 2


@pytest.mark.parametrize("changed", [{"position": 1}, {"uid": "another"}])
def test_what_is_complete_and_what_was_of_another_log_is_forgotten(changed: dict[str, Any]) -> None:
    one = bench()
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    one.assign(BASE, **changed)
    one.tell(p.Ended([BASE], "revoked"))
    (plain,) = again(one, 0)
    assert not plain.alone


def test_a_slow_suspect_does_not_hold_the_others_up_for_long() -> None:
    one = bench()
    one.assign(OTHER)
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    (alone,) = again(one, 0)
    assert alone.alone and one.plain(OTHER, 0) == []
    found = [entry for _ in range(8) for entry in run(one.wait(1.0))]  # and the loop goes round
    assert [(entry.assignment.place, entry.offset) for entry in found] == [(OTHER, 0)]


def test_a_handler_that_never_returns_does_not_keep_a_suspect_from_its_run() -> None:
    one = bench()
    one.assign(OTHER)
    one.plain(OTHER, 0)
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    assert again(one, 0) == []
    found = [entry for _ in range(8) for entry in run(one.wait(1.0))]
    assert [(entry.assignment.place, entry.offset) for entry in found] == [(BASE, 0)]


def test_in_processes_nothing_has_the_consumer_to_itself() -> None:
    one = Bench(max_attempts=3)
    one.assign(BASE)
    (killer,) = one.plain(BASE, 0)
    one.tell(p.Finished(died=[killer]))
    assert len(one.plain(BASE, 1, 2)) == 2


def test_the_loss_of_a_run_that_failed_and_waits_is_no_suspicion_of_the_next() -> None:
    one = bench(retry_topic=None, in_place=True)
    (suspect,) = one.plain(BASE, 0)
    lose(one, suspect)
    (alone,) = again(one, 0)
    one.tell(p.Finished(failed=[(alone, failure())]))
    one.tell(p.Ended([BASE], "lost"))
    (plain,) = again(one, 0)
    assert not plain.alone
