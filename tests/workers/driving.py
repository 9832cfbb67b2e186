"""Entries to push, and a stand-in for the consumer's loop."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.retry import Failure, Policy
from retriable_kafka_client.message import JSON, PlainRecord
from retriable_kafka_client.wire.headers import PLAIN, Marks
from retriable_kafka_client.wire.outbox import Output
from retriable_kafka_client.workers.executor import Runner, make_runner
from retriable_kafka_client.workers.job import HandlerSpec
from tests.support.waiting import WAIT

__all__ = ["Driven", "InBatches", "Seconds", "entries", "entry", "orders", "spec"]

ROUND = 0.015


class Seconds:
    """A delay that is always the same."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def delay(self, attempt: int, chance: float) -> float:
        """See core.retry.Delay."""
        assert 0.0 <= chance < 1.0
        return self.seconds * attempt


def spec(handler: Callable[..., object], **changes: Any) -> HandlerSpec:
    """The handler with three attempts, five seconds times the attempt apart."""
    policies = (Policy(max_attempts=3, delay=Seconds(5.0)), None)
    return HandlerSpec(**{"handler": handler, "deserializer": JSON, "policies": policies, **changes})


def entry(offset: int, body: bytes | None = b"{}", *, marks: Marks = PLAIN, route: int = 0) -> Entry:
    """One entry of the topic "orders"."""
    assignment: Any = SimpleNamespace(uid="uid", topic="orders", partition=0)
    raw = PlainRecord(body, None, None, "orders", 0, offset)
    return Entry.marked(assignment, offset, len(body or b""), raw, marks, route)


def entries(count: int, first: int = 0) -> list[Entry]:
    """So many entries with growing offsets."""
    return [entry(first + offset) for offset in range(count)]


def orders(*told: str, first: int = 0) -> list[Entry]:
    """Entries for handlers.do_as_told."""
    return [entry(first + index, json.dumps({"do": order}).encode()) for index, order in enumerate(told)]


class InBatches(int):
    """So many threads, to which plain messages are pushed in batches."""


class Driven:
    """A runner driven as the consumer's loop does it, by the test's own thread."""

    def __init__(self, executor: int | Executor, handled: HandlerSpec, *, slots: int | None = None) -> None:
        self.runner: Runner = make_runner(executor, handled, slots=slots)
        self._batches = isinstance(executor, InBatches)
        self._batched: dict[int, Entry] = {}
        self.done: list[Entry] = []
        self.failed: list[tuple[Entry, Failure]] = []
        self.died: list[Entry] = []
        self.sent: list[tuple[Entry, tuple[Output, ...]]] = []
        self.overdue: list[tuple[Entry, Failure]] = []
        self.released: list[Entry] = []
        self.runner.start()

    def push(self, pushed: Sequence[Entry]) -> None:
        """Push all."""
        plain = self._batches and all(one.marks == PLAIN and one.route == 0 for one in pushed)
        if not plain or not pushed:
            self.runner.push(pushed)
            return
        columns = zip(*[(one.offset, one.size, one.raw) for one in pushed], strict=True)
        offsets, sizes, raws = map(list, columns)
        self._batched |= {one.offset: one for one in pushed}
        self.runner.push_batch(PlainBatch(pushed[0].assignment, 0, offsets, sizes, raws))

    def turn(self) -> None:
        """One round of the loop."""
        self.runner.wait(ROUND)
        self.runner.sweep(time.monotonic())
        finished = self.runner.take()
        self.done += finished.done
        for succeeded in finished.succeeded:
            ended = [self._batched[offset] for offset in succeeded.offsets]
            assert succeeded.size == sum(one.size for one in ended)
            self.done += ended
        self.failed += finished.failed
        self.died += finished.died
        self.sent += finished.sent
        self.overdue += finished.overdue
        self.released += finished.released
        late = {one.offset for one, _ in self.overdue}
        assert late.issuperset(one.offset for one in self.released)

    def until(self, predicate: Callable[[], object], timeout: float = WAIT) -> None:
        """Turn until ``predicate`` is true."""
        deadline = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < deadline, f"not in time; {self}"
            self.turn()

    def until_ended(self, count: int, timeout: float = WAIT) -> None:
        """Turn until so many entries came back, none of them twice, and not more."""
        self.until(lambda: self.ended >= count or self.runner.failure is not None, timeout)
        assert self.runner.failure is None, self.runner.failure
        assert self.ended == count
        assert len(self.offsets()) == count

    def warm_up(self, count: int = 2000) -> None:
        """Teach the runner that messages are cheap, so that its slices are long."""
        before = self.ended
        self.push(orders(*["ok"] * count, first=1_000_000 + before))
        self.until(lambda: self.ended == before + count)
        self.done.clear()

    @property
    def ended(self) -> int:
        """How many came back."""
        return len(self.done) + len(self.failed) + len(self.died) + len(self.sent) + len(self.overdue)

    def offsets(self) -> set[int]:
        """Of all that came back."""
        pairs = [*self.failed, *self.sent, *self.overdue]
        return {one.offset for one in [*self.done, *self.died, *(one for one, _ in pairs)]}

    def failure_of(self, offset: int) -> Failure:
        """How one failed."""
        (failure,) = [failure for one, failure in [*self.failed, *self.overdue] if one.offset == offset]
        return failure

    def outputs_of(self, offset: int) -> tuple[Output, ...]:
        """What one sent."""
        (outputs,) = [outputs for one, outputs in self.sent if one.offset == offset]
        return outputs

    def close(self, timeout: float = 5.0) -> None:
        """Close the runner."""
        self.runner.close(timeout)

    def __str__(self) -> str:
        running = self.runner.running()
        lists = {
            "failed": [one for one, _ in self.failed],
            "died": self.died,
            "sent": [one for one, _ in self.sent],
            "overdue": [one for one, _ in self.overdue],
            "released": self.released,
            "busy": running.busy,
        }
        shown = ", ".join(f"{name} {_shown(some)}" for name, some in lists.items())
        return f"{len(self.done)} done, {shown}, {running.queued} queued, failure {self.runner.failure!r}"


def _shown(some: Iterable[Entry]) -> list[int]:
    return [one.offset for one in some][:20]
