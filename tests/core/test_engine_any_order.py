from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.entry import Entry
from tests.core.harness import (
    BASE,
    RETRY,
    Bench,
    Raw,
    due_in,
    only,
    positions,
    produced,
    run,
)


class AnyOrder(RuleBasedStateMachine):
    """Events in any order that the shell can bring them in; the books are kept beside the engine."""

    @initialize(
        in_flight=st.integers(1, 9), window=st.integers(1, 12), units=st.sampled_from([0, 23, 25, 4_095])
    )
    def begin(self, in_flight: int, window: int, units: int) -> None:
        self.bench = Bench(
            in_flight=in_flight, window=window, buffer_bytes=2_000, map_units=units, least_map_units=23
        )
        self.next = {BASE: 0, RETRY: 0}
        self.position = dict.fromkeys(self.next, 0)
        self.live: set[p.Place] = set()
        self.incomplete: dict[p.Place, set[int]] = {place: set() for place in self.next}
        self.with_workers: list[Entry] = []
        self.sent: list[p.HandOff] = []
        self.commit: p.Commit | None = None

    def perform(self, commands: list[p.Command]) -> None:
        self.with_workers += run(commands)
        self.sent += produced(commands)
        for handoff in produced(commands):
            assert handoff.entry.assignment.place in self.live
        for command in only(commands, p.Commit):
            assert self.commit is None
            self.commit = command
            for place, position in positions(command).items():
                assert (
                    self.position[place] <= position <= min(self.incomplete[place], default=self.next[place])
                )
                self.position[place] = position
        if only(commands, p.Withdraw):
            back = [one for one in self.with_workers if not one.assignment.hands_out][::2]
            self.with_workers = [one for one in self.with_workers if one not in back]
            self.perform(self.bench.tell(p.Withdrawn(back)))

    def completed(self, entry: Entry) -> None:
        place = entry.assignment.place
        if self.bench.engine.assignments.get(place) is entry.assignment:
            self.incomplete[place].discard(entry.offset)

    @rule(place=st.sampled_from([BASE, RETRY]))
    def assign(self, place: p.Place) -> None:
        if place not in self.live:
            self.live.add(place)
            self.next[place] = self.position[place]
            self.incomplete[place].clear()
            self.perform(self.bench.assign(place, position=self.position[place]))

    @rule(place=st.sampled_from([BASE, RETRY]), reason=st.sampled_from(["revoked", "lost"]))
    def end(self, place: p.Place, reason: str) -> None:
        if place in self.live:
            if reason == "revoked":
                self.perform(self.bench.tell(p.Revoking([place])))
            self.perform(self.bench.tell(p.Ended([place], reason)))
            self.live.discard(place)

    @rule(
        place=st.sampled_from([BASE, RETRY]),
        gap=st.sampled_from([0, 0, 0, 3, 30]),
        delays=st.lists(st.none() | st.floats(-1.0, 200.0), min_size=1, max_size=4),
    )
    def arrive(self, place: p.Place, gap: int, delays: list[float | None]) -> None:
        if place not in self.live or self.bench.assignment(place).paused:
            return
        delays = delays[: self.bench.engine.poll_budget(len(delays))]
        first = self.next[place] + gap
        raws = [Raw() if delay is None else due_in(self.bench, delay) for delay in delays]
        records = list(enumerate(raws, first))
        self.incomplete[place].update(offset for offset, _ in records)
        self.next[place] = first + len(records)
        self.perform(self.bench.arrive(place, *records))

    @precondition(lambda self: self.with_workers)
    @rule(how=st.sampled_from(["done", "retry", "dead", "died"]))
    def finish(self, how: str) -> None:
        entry = self.with_workers.pop(len(self.with_workers) // 2)
        if how == "done":
            self.completed(entry)
            event = p.Finished(done=[entry])
        elif how == "died":
            event = p.Finished(died=[entry])
        else:
            event = p.Finished(
                failed=[(entry, retry.Failure(reason="x", retry_in=1.0 if how == "retry" else None))]
            )
        self.perform(self.bench.tell(event))

    @precondition(lambda self: self.sent)
    @rule(code=st.sampled_from([None, None, "MSG_SIZE_TOO_LARGE"]))
    def answer_copy(self, code: str | None) -> None:
        handoff = self.sent.pop(len(self.sent) // 2)
        if code is None:
            self.completed(handoff.entry)
        self.perform(self.bench.tell(p.HandOffAnswered(handoff, code)))

    @precondition(lambda self: self.commit is not None)
    @rule(code=st.sampled_from([None, "_TIMED_OUT", "OFFSET_METADATA_TOO_LARGE"]))
    def answer_commit(self, code: str | None) -> None:
        commit, self.commit = self.commit, None
        assert commit is not None
        codes = {} if code is None else {one.place: code for one in commit.progress}
        self.perform(self.bench.tell(p.CommitAnswered(commit, codes)))

    @rule(seconds=st.sampled_from([0.0, 0.3, 5.0, 70.0]), step=st.sampled_from([0.0, 0.0, -3.0, 3.0]))
    def wait(self, seconds: float, step: float) -> None:
        self.bench.wall += step
        self.perform(self.bench.wait(seconds))

    @invariant()
    def the_workers_have_what_the_engine_says(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.engine.in_flight == len(self.with_workers)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
