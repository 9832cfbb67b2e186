"""Order by key and by partition, and retries in place, in the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import FILTERED, Entry, Verdict
from retriable_kafka_client.wire.headers import Marks
from tests.core.harness import BASE, OTHER, Bench, Raw, due_in, failure, only, positions, produced, run, told


def bench(ordering: str = "key", **settings: Any) -> Bench:
    made = Bench(retry_topic=None, in_place=True, ordering=ordering, **settings)
    made.assign(BASE)
    return made


def keyed(key: bytes | None, **more: Any) -> Raw:
    return Raw(key=key, **more)


def offsets(entries: list[Entry]) -> list[int]:
    return [one.offset for one in entries]


def done(one: Bench, *entries: Entry) -> list[Entry]:
    return run(one.tell(p.Finished(done=list(entries))))


def test_a_key_is_handled_one_after_the_other() -> None:
    one = bench()
    handed = run(one.arrive(BASE, (0, keyed(b"a")), (1, keyed(b"a")), (2, keyed(b"b")), (3, keyed(b"a"))))
    assert offsets(handed) == [0, 2]
    (second,) = done(one, handed[0])
    assert second.offset == 1
    assert done(one, handed[1]) == []
    (third,) = done(one, second)
    assert third.offset == 3
    assert positions(one.commit()) == {BASE: 3}


def test_without_a_key_there_is_no_order_among_them() -> None:
    one = bench()
    assert offsets(run(one.arrive(BASE, *[(i, keyed(None)) for i in range(4)]))) == [0, 1, 2, 3]


def test_a_partition_is_handled_one_after_the_other() -> None:
    one = bench("partition")
    one.assign(OTHER)
    (first,) = run(one.arrive(BASE, (0, keyed(b"a")), (1, keyed(None)), (2, keyed(b"b"))))
    (other,) = run(one.arrive(OTHER, (0, keyed(b"a")), (1, keyed(b"a"))))
    assert (first.offset, other.offset) == (0, 0)
    assert offsets(done(one, first)) == [1]
    assert offsets(done(one, other)) == [1]


def test_a_failure_holds_up_its_key_alone_until_its_time_comes() -> None:
    one = bench()
    first, other = run(
        one.arrive(BASE, (0, keyed(b"a")), (1, keyed(b"b")), (2, keyed(b"a")), (3, keyed(b"b")))
    )
    commands = one.tell(p.Finished(failed=[(first, failure(5.0))]))
    assert run(commands) == [] and produced(commands) == []
    (event,) = told(commands, events.MessageRetried)
    assert (event.attempt, event.delay, event.retry_topic) == (1, 5.0, None)
    assert offsets(done(one, other)) == [3]
    assert run(one.wait(4.9)) == []
    (again,) = run(one.wait(0.1))
    assert (again.offset, again.attempt) == (0, 2)
    assert offsets(done(one, again)) == [2]
    assert one.engine.counters.retried == one.engine.counters.failed == 1


def test_attempts_in_place_are_counted_and_end_in_a_dead_letter() -> None:
    one = bench(max_attempts=3)
    (entry,) = run(one.arrive(BASE, (0, keyed(b"a")), (1, keyed(b"a"))))
    failed_at = one.wall_ms
    for attempt in (1, 2):
        assert entry.attempt == attempt
        one.tell(p.Finished(failed=[(entry, failure(1.0))]))
        (entry,) = run(one.wait(1.0))
    commands = one.tell(p.Finished(failed=[(entry, failure(None))]))
    (sent,) = produced(commands)
    assert (sent.kind, sent.attempts) == (p.HandOffKind.DEAD_LETTER, 3)
    assert sent.marks.first_failure_ms == failed_at
    assert run(commands) == []  # the key waits for the acknowledgement
    refused = one.tell(p.HandOffAnswered(sent, "NOT_ENOUGH_REPLICAS"))
    assert run(refused) == []
    (sent,) = produced(one.wait(0.25))
    assert offsets(run(one.tell(p.HandOffAnswered(sent, None)))) == [1]


def test_what_is_dropped_or_bad_lets_the_next_go() -> None:
    one = bench(dead_letter=None)
    bad = keyed(b"a", verdict=Verdict(events.REASON_MALFORMED))
    handed = run(one.arrive(BASE, (0, keyed(b"a")), (1, bad), (2, keyed(b"a"))))
    assert offsets(handed) == [0]
    assert told(one.wait(0.0), events.MessageDropped) == []
    commands = one.tell(p.Finished(done=handed))
    assert [event.offset for event in told(commands, events.MessageDropped)] == [1]
    assert offsets(run(commands)) == [2]


def test_what_is_filtered_waits_for_nobody() -> None:
    one = bench("partition")
    one.arrive(BASE, (0, keyed(b"a")), (1, keyed(b"a", verdict=FILTERED)), (2, keyed(b"a")))
    assert one.engine.counters.filtered == 1


def test_a_message_that_is_not_due_holds_up_its_key() -> None:
    one = bench()
    later = replace(due_in(one, 3.0), key=b"a")
    handed = run(one.arrive(BASE, (0, later), (1, keyed(b"a")), (2, keyed(b"b"))))
    assert offsets(handed) == [2]
    (due,) = run(one.wait(3.0))
    assert due.offset == 0
    assert offsets(done(one, due)) == [1]


def test_a_message_behind_another_waits_for_its_own_time_too() -> None:
    one = bench()
    later = replace(due_in(one, 3.0), key=b"a")
    (first,) = run(one.arrive(BASE, (0, keyed(b"a")), (1, later), (2, keyed(b"a"))))
    assert done(one, first) == []
    assert offsets(run(one.wait(3.0))) == [1]


def test_a_year_is_too_far_in_place_too() -> None:
    one = bench()
    (entry,) = run(one.arrive(BASE, (0, keyed(b"a"))))
    sent = one.fail(entry, retry_in=400 * 24 * 3600.0)
    assert (sent.kind, sent.failure and sent.failure.reason) == (
        p.HandOffKind.DEAD_LETTER,
        events.REASON_NOT_BEFORE,
    )


def test_delays_of_any_length_mix() -> None:
    one = bench("unordered")
    a, b, c = run(one.arrive(BASE, *[(i, keyed(None)) for i in range(3)]))
    one.tell(p.Finished(failed=[(a, failure(3.0)), (b, failure(1.0)), (c, failure(2.0))]))
    assert one.engine.assignments[BASE].drained
    assert [offsets(run(one.wait(1.0))) for _ in range(3)] == [[1], [2], [0]]


def test_what_waits_behind_a_key_pauses_its_partition_at_the_window_and_goes_on() -> None:
    one = bench(window=4)
    one.assign(OTHER)
    commands = one.arrive(BASE, *[(i, keyed(b"a")) for i in range(4)])
    assert [command.place for command in only(commands, p.Pause)] == [BASE]
    (other,) = run(one.arrive(OTHER, (0, keyed(b"a"))))
    assert other.offset == 0
    entries = run(commands)
    for offset in range(4):
        assert offsets(entries) == [offset]
        entries = done(one, *entries)
    assert [command.place for command in only(one.wait(0.0), p.Resume)] == [BASE]


def test_bytes_behind_a_key_stop_only_partitions_that_have_such() -> None:
    one = bench(buffer_bytes=1_000, window=50)
    one.assign(OTHER)
    commands = one.arrive(BASE, *[(i, keyed(b"a")) for i in range(7)])
    assert [command.place for command in only(commands, p.Pause)] == [BASE]
    assert only(one.arrive(OTHER, (0, keyed(b"x")), (1, keyed(b"y"))), p.Pause) == []
    assert only(one.arrive(OTHER, (2, keyed(b"x"))), p.Pause)


def test_admission_never_stops_the_lowest() -> None:
    """With room for no map at all, one message goes at a time, however the keys lie."""
    one = bench(map_units=22, least_map_units=22, in_flight=50)
    keys = [b"a", b"a", b"b", b"a", b"b", b"c"]
    handed = run(one.arrive(BASE, *[(i, keyed(key)) for i, key in enumerate(keys)]))
    seen: list[int] = []
    while handed:
        seen += offsets(handed)
        handed = done(one, *handed)
    assert sorted(seen) == list(range(6))
    assert one.assignment(BASE).progress.incomplete == 0


def test_a_drain_forgets_what_waits_in_place_and_in_lanes() -> None:
    one = bench()
    first, second = run(
        one.arrive(BASE, *[(i, keyed(key)) for i, key in enumerate([b"a", b"b", b"a", b"b"])])
    )
    one.tell(p.Finished(failed=[(first, failure(9.0))]))
    commands = one.tell(p.Revoking([BASE]))
    assert only(commands, p.Withdraw)
    assert not one.engine.drained([BASE])
    commands = one.tell(p.Finished(failed=[(second, failure(9.0))]))
    assert produced(commands) == [] and run(commands) == []
    assert one.engine.drained([BASE])
    assert (one.engine.active_bytes, one.engine.waiting_bytes) == (0, 0)
    one.tell(p.Ended([BASE], "revoked"))


@pytest.mark.parametrize("alone", [False, True])
def test_a_death_in_place_keeps_its_mark(alone: bool) -> None:
    one = bench("unordered", max_attempts=2)
    raw = Raw(Marks(failed=0, alone=alone))
    (entry,) = run(one.arrive(BASE, (0, raw)))
    one.tell(p.Finished(died=[entry]))
    (again,) = run(one.wait(1.0))
    assert again.alone and again.attempt == 2
    (sent,) = produced(one.tell(p.Finished(died=[again])))
    assert sent.failure and sent.failure.reason == events.REASON_WORKER_DIED


def test_a_clock_set_back_holds_a_retry_in_place() -> None:
    one = bench()
    (entry,) = run(one.arrive(BASE, (0, keyed(b"a"))))
    one.tell(p.Finished(failed=[(entry, failure(2.0))]))
    one.wall -= 100.0
    assert run(one.wait(2.0)) == []
    assert offsets(run(one.wait(100.0))) == [0]
