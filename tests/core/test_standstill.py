"""A partition that is read no further, and hardly completes anything: who holds it up is told."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import Any

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.consumer.lag import Lags
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.snapshot import Figures, take_stats, worth_knowing
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.stats import Stats
from tests.core.harness import BASE, OTHER, Bench, Raw, due_in, failure, run, told

WINDOW = 20
STANDS, MOVES = events.PartitionStands, events.PartitionMoves


def bench(ordering: str = "unordered", **settings: Any) -> Bench:
    made = Bench(
        retry_topic=None, in_place=True, ordering=ordering, window=WINDOW, max_attempts=9, **settings
    )
    made.assign(BASE, OTHER)
    return made


def wait(one: Bench, seconds: int) -> list[p.Command]:
    """Second by second, as the loop does."""
    return [command for _ in range(seconds) for command in one.wait(1.0)]


def fill(one: Bench, raw: Raw, count: int = WINDOW) -> list[Entry]:
    return run(one.arrive(BASE, *[(offset, raw) for offset in range(count)]))


def stats_of(one: Bench) -> Stats:
    lags = Lags(lambda _event: None, lambda _places: None)  # type: ignore[arg-type, return-value]
    return take_stats(one.engine, lags, Figures(), lost_events=0, overdue=0, now=one.mono)


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_a_window_full_of_what_waits_for_one_retry_is_told_once(ordering: str) -> None:
    one = bench(ordering)
    (first,) = fill(one, Raw(key=b"secret"))
    one.tell(p.Finished(failed=[(first, failure(retry_in=100.0))]))
    (event,) = told(wait(one, 60), STANDS)
    assert (event.topic, event.partition, event.offset, event.attempt) == ("orders", 0, 0, 2)
    assert event.behind == WINDOW - 1 and event.incomplete == WINDOW
    assert 30 <= event.seconds <= 33 and 67 <= event.due_in <= 70
    digits = hashlib.sha256(b"secret").hexdigest()[:12]
    assert event.key_hash == (digits if ordering == "key" else None)


def test_it_shows_in_stats_and_in_health_and_is_over_when_it_moves() -> None:
    one = bench("key")
    (first,) = fill(one, Raw(key=b"a"))
    one.tell(p.Finished(failed=[(first, failure(retry_in=40.0))]))
    wait(one, 35)
    stats = stats_of(one)
    assert stats.partitions["orders", 0].held_by == 0
    assert 34 <= stats.partitions["orders", 0].held_for <= 36
    assert stats.partitions["orders", 1].held_by is None
    (note,) = worth_knowing(one.engine, one.mono)
    assert "orders/0" in note and "offset 0" in note
    running = run(wait(one, 6))
    while running:  # the retry succeeds, and one after the other follows
        running = run(one.tell(p.Finished(done=running)))
    (over,) = told(wait(one, 2), MOVES)
    assert over.partition == 0
    assert worth_knowing(one.engine, one.mono) == ()
    assert stats_of(one).partitions["orders", 0].held_by is None


def test_scheduled_messages_of_a_base_topic_that_fill_the_window_are_told() -> None:
    one = bench()
    fill(one, due_in(one, 3600.0))
    (event,) = told(wait(one, 40), STANDS)
    assert (event.offset, event.attempt, event.key_hash, event.behind) == (0, 1, None, 0)
    assert 3560 <= event.due_in <= 3570


def test_slow_messages_that_fill_the_window_are_told() -> None:
    one = bench()
    assert len(fill(one, Raw())) == WINDOW
    (event,) = told(wait(one, 40), STANDS)
    assert (event.offset, event.attempt, event.due_in) == (0, None, None)


def test_a_full_offset_map_is_told() -> None:
    one = Bench(retry_topic=None, in_place=True, window=1_000, map_units=22, least_map_units=22)
    one.assign(BASE)
    handed = run(one.arrive(BASE, *[(offset, Raw()) for offset in range(100)]))
    assert 0 < len(handed) < 100  # the map has no room for more
    (event,) = told(wait(one, 40), STANDS)
    assert event.offset == 0


def test_a_backlog_that_is_worked_off_is_no_news() -> None:
    one = bench("partition")
    running = fill(one, Raw())
    following, seen = WINDOW, []
    for _ in range(150):
        commands = one.tell(p.Finished(done=running))
        running = run(commands)
        commands += one.arrive(BASE, (following, Raw()))
        following += 1
        seen += told(commands + one.wait(0.9), STANDS)
    assert one.assignment(BASE).paused and seen == []


@pytest.mark.parametrize("end", [p.Hold(True), p.Revoking([BASE]), p.Ended([BASE], "lost")])
def test_a_consumer_that_pauses_and_a_partition_that_goes_do_not_stand(end: p.EngineEvent) -> None:
    one = bench()
    fill(one, due_in(one, 3600.0))
    wait(one, 35)
    commands = one.tell(end) + wait(one, 60)
    assert told(commands, STANDS) == told(commands, MOVES) == []
    assert worth_knowing(one.engine, one.mono) == ()


def test_the_line_names_the_message_and_never_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    one = bench("key")
    (first,) = fill(one, Raw(key=b"alice"))
    one.tell(p.Finished(failed=[(first, failure(retry_in=100.0))]))
    (event,) = told(wait(one, 40), STANDS)
    notifier = Notifier((), group="billing")
    notifier.publish(event)
    notifier.publish(replace(event, due_in=None, attempt=None, key_hash=None, behind=0))
    notifier.publish(MOVES(topic="orders", partition=0))
    first_line, second_line, third_line = [record.getMessage() for record in caplog.records]
    assert "alice" not in first_line + repr(event)
    assert "orders/0" in first_line and "offset 0" in first_line and "attempt 2" in first_line
    assert hashlib.sha256(b"alice").hexdigest()[:12] in first_line
    assert "has not completed" in second_line and "well again" in third_line
