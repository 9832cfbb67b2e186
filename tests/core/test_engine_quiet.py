"""Partitions that wait for records cost nothing, and the engine knows for how long nothing is to be done."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from tests.core.harness import BASE, OTHER, RETRY, Bench, Raw, due_in, only, run


def steps(act: Callable[[], object]) -> int:
    """How many lines and calls of Python it takes."""
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def tick(bench: Bench) -> list[p.Command]:
    return bench.tell(p.Tick())


def done(bench: Bench, entries: list[Entry]) -> list[p.Command]:
    return bench.tell(p.Finished(done=entries))


def crowd(partitions: int) -> Bench:
    """All have read something, and nothing is left of it."""
    bench = Bench()
    for number in range(partitions):
        place = p.Place(BASE.topic, number)
        bench.assign(place)
        done(bench, bench.plain(place, 0))
    bench.committed()
    tick(bench)
    tick(bench)
    return bench


@pytest.mark.parametrize("what", ["tick", "record", "poll_budget", "figures"])
def test_the_work_does_not_grow_with_partitions_that_are_quiet(what: str) -> None:
    def work(partitions: int) -> int:
        bench = crowd(partitions)
        acts: dict[str, Callable[[], object]] = {
            "tick": lambda: bench.engine.handle(p.Tick(), bench.now),
            "record": lambda: bench.engine.handle(p.Arrived(BASE, [1], [Raw()]), bench.now),
            "poll_budget": lambda: (
                bench.engine.poll_budget(500),
                bench.engine.held_up,
                bench.engine.active_bytes,
            ),
            "figures": bench.engine.take_touched,
        }
        bench.engine.take_touched()
        return steps(acts[what])

    assert work(100) == work(3)


def test_a_partition_that_holds_nothing_pauses_when_the_others_hold_too_much() -> None:
    bench = Bench(buffer_bytes=10_000)
    bench.assign(BASE)
    bench.assign(OTHER)
    bench.wait(1.5)
    tick(bench)
    commands = bench.arrive(BASE, *((i, Raw(size=1000)) for i in range(6)))
    assert {one.place for one in only(commands + tick(bench), p.Pause)} == {BASE, OTHER}
    commands = done(bench, run(commands))
    assert {one.place for one in only(commands + tick(bench), p.Resume)} == {BASE, OTHER}


def test_a_refused_commit_of_a_quiet_partition_is_said_again() -> None:
    bench = Bench()
    bench.assign(BASE)
    done(bench, bench.plain(BASE, 0))
    commit = only(bench.wait(1.5), p.Commit)[0]
    tick(bench)
    bench.tell(p.CommitAnswered(commit, commit.failed("REQUEST_TIMED_OUT")))
    assert [one.position for one in only(bench.wait(1.5), p.Commit)[0].progress] == [1]


def test_it_rests_until_something_is_due() -> None:
    bench = Bench()
    bench.assign(BASE)
    bench.assign(RETRY)
    tick(bench)
    assert bench.engine.rest(bench.now, 0.25) == 0.25
    commands = bench.arrive(RETRY, (0, due_in(bench, 5.0)))
    bench.mono, bench.wall = bench.mono + 1.5, bench.wall + 1.5
    progress = only(tick(bench), p.Commit)[0]
    bench.tell(p.CommitAnswered(progress, {}))
    tick(bench)
    assert run(commands) == []
    assert bench.engine.rest(bench.now, 60.0) == pytest.approx(3.5)
    assert bench.engine.rest(bench.now, 0.25) == 0.25
    running = run(bench.wait(3.6))
    assert bench.engine.rest(bench.now, 0.25) == 0.0  # with the workers
    done(bench, running)
    assert bench.engine.rest(bench.now, 0.25) == 0.0  # to be committed
