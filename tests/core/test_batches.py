"""Plain records that go through the engine in columns."""

from typing import Any

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import FILTERED
from retriable_kafka_client.core.plain_batch import PlainBatch, Succeeded
from retriable_kafka_client.wire.headers import PLAIN
from tests.core.harness import BASE, OTHER, Bench, Raw, only, positions, run


def bench(**settings: Any) -> Bench:
    made = Bench(batches=True, **settings)
    made.assign(BASE, OTHER)
    return made


def arrive(bench: Bench, *offsets: int, size: int = 100, place: p.Place = BASE) -> list[p.Command]:
    return bench.arrive(place, *[(offset, Raw(size=size)) for offset in offsets])


def batches(commands: list[p.Command]) -> list[list[int]]:
    return [list(command.batch.offsets) for command in only(commands, p.RunBatch)]


def succeeded(bench: Bench, *offsets: int, size: int = 100, place: p.Place = BASE) -> list[p.Command]:
    done = Succeeded(bench.assignment(place), offsets, size * len(offsets))
    return bench.tell(p.Finished(succeeded=[done]))


def test_what_is_plain_goes_out_as_it_came_and_is_committed() -> None:
    one = bench()
    commands = arrive(one, 0, 1, 2)
    assert batches(commands) == [[0, 1, 2]] and not only(commands, p.Run)
    assert one.engine.in_flight == 3 and one.engine.active_bytes == 300
    succeeded(one, 0, 1, 2)
    assert one.engine.in_flight == 0 and one.engine.active_bytes == 0
    assert one.engine.counters.handled == 3
    commit = one.commit()
    assert commit is not None and positions(commit) == {BASE: 3}


def test_offsets_between_them_are_complete_and_those_that_run_are_not() -> None:
    one = bench()
    assert batches(arrive(one, 0, 3, 4, 9)) == [[0, 3, 4, 9]]
    succeeded(one, 0, 4, 9)
    commit = one.commit()
    assert commit is not None and positions(commit) == {BASE: 3}
    succeeded(one, 3)
    commit = one.commit()
    assert commit is None  # the first one is not answered
    assert one.assignment(BASE).progress.incomplete == 0


def test_a_batch_is_cut_to_the_room_there_is() -> None:
    one = bench(in_flight=5)
    assert batches(arrive(one, *range(8))) == [[0, 1, 2, 3, 4]]
    assert batches(succeeded(one, 0, 1)) == [[5, 6]]
    assert batches(succeeded(one, 2, 3, 4, 5, 6)) == [[7]]
    succeeded(one, 7)
    assert one.engine.counters.handled == 8 and one.engine.active_bytes == 0


def test_partitions_take_turns() -> None:
    one = bench(in_flight=2)
    arrive(one, 0, 1)
    arrive(one, 2, 3)
    arrive(one, 0, 1, place=OTHER)
    first = only(succeeded(one, 0, 1), p.RunBatch)
    second = only(succeeded(one, *first[0].batch.offsets, place=first[0].batch.assignment.place), p.RunBatch)
    assert {first[0].batch.assignment.place, second[0].batch.assignment.place} == {BASE, OTHER}


def test_something_else_beside_it_keeps_its_place() -> None:
    one = bench(in_flight=1)
    arrive(one, 0)
    arrive(one, 1, 2)
    one.arrive(BASE, (3, Raw(verdict=FILTERED)), (4, Raw()))
    seen = []
    for offset in range(4):
        commands = succeeded(one, offset) if offset != 3 else []
        seen += [entry.offset for entry in run(commands)]
    assert seen == [1, 2, 4]
    assert one.engine.counters.filtered == 1


def test_what_comes_after_something_else_waits_its_turn() -> None:
    one = bench(in_flight=1)
    arrive(one, 0)
    one.arrive(BASE, (1, Raw(verdict=FILTERED)), (2, Raw()))
    arrive(one, 3)
    assert [entry.offset for entry in run(succeeded(one, 0))] == [2]
    assert [entry.offset for entry in run(succeeded(one, 2))] == [3]
    assert one.engine.counters.filtered == 1


def test_what_the_offset_map_has_no_room_for_waits() -> None:
    one = Bench(batches=True, window=100_000, in_flight=100_000, map_units=120, buffer_bytes=10**9)
    one.assign(BASE)
    out = run(arrive(one, *range(0, 6_000, 2)))
    assert 0 < len(out) < 3_000
    seen = []
    while out:
        seen += [entry.offset for entry in out]
        head, *rest = out
        more = run(one.tell(p.Finished(done=rest)))
        out = more + run(one.tell(p.Finished(done=[head])))
    assert seen == list(range(0, 6_000, 2))
    assert one.engine.active_bytes == 0 and one.engine.counters.handled == 3_000


def test_a_drain_forgets_what_is_not_handed_out() -> None:
    one = bench(in_flight=2)
    arrive(one, 0, 1)
    arrive(one, 2, 3)
    commands = one.tell(p.Revoking((BASE,)))
    assert only(commands, p.Withdraw) and not run(commands)
    assert one.engine.active_bytes == 200
    succeeded(one, 0, 1)
    assert one.engine.drained((BASE,))
    (progress,) = one.engine.last_progress((BASE,))
    assert progress.position == 2
    one.tell(p.Ended((BASE,), "revoked"))
    assert one.engine.active_bytes == 0


def test_results_after_the_end_change_nothing() -> None:
    one = bench()
    arrive(one, 0, 1)
    old = one.assignment(BASE)
    one.tell(p.Ended((BASE,), "lost"))
    assert one.engine.overrun == 2 and one.engine.active_bytes == 200
    one.tell(p.Finished(succeeded=[Succeeded(old, (0, 1), 200)]))
    assert one.engine.overrun == 0 and one.engine.active_bytes == 0
    assert one.engine.counters.handled == 0


def test_one_that_comes_back_goes_out_again_before_the_others() -> None:
    one = bench(in_flight=3)
    (command,) = only(arrive(one, 0, 1, 2), p.RunBatch)
    arrive(one, 3, 4)
    one.tell(p.Hold(True))
    one.tell(p.Withdrawn(command.batch.entries()[1:]))
    assert one.engine.in_flight == 1
    assert [entry.offset for entry in run(one.tell(p.Hold(False)))] == [1, 2]


def test_a_failed_one_is_sent_on() -> None:
    one = bench()
    (command,) = only(arrive(one, 0, 1), p.RunBatch)
    entries = command.batch.entries()
    handoff = one.fail(entries[0])
    succeeded(one, 1)
    one.tell(p.HandOffAnswered(handoff, None))
    commit = one.commit()
    assert commit is not None and positions(commit) == {BASE: 2}
    assert one.engine.active_bytes == 0


def test_parts_are_what_the_whole_is() -> None:
    one = bench()
    whole = PlainBatch(one.assignment(BASE), 0, [3, 5, 6], [10, 20, 30], ["a", "b", "c"])
    assert len(whole) == 3 and whole.size == 60
    part = whole.part(1, 3)
    assert (list(part.offsets), part.size, list(part.raws)) == ([5, 6], 50, ["b", "c"])
    (entry,) = whole.part(0, 1).entries()
    assert (entry.offset, entry.size, entry.raw, entry.marks, entry.route) == (3, 10, "a", PLAIN, 0)
