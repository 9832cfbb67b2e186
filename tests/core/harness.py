"""An engine on its own, with records that are nothing but marks and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine, EngineConfig, Route
from retriable_kafka_client.core.entry import Entry, Verdict
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.retry import Failure, Policy
from retriable_kafka_client.wire.headers import PLAIN, Marks

__all__ = [
    "BASE",
    "OTHER",
    "RETRY",
    "START",
    "After",
    "Bench",
    "Raw",
    "due_in",
    "entry",
    "failure",
    "only",
    "positions",
    "produced",
    "run",
    "told",
]

BASE, OTHER, RETRY = p.Place("orders", 0), p.Place("orders", 1), p.Place("orders-retry", 0)
START = 1_000.0  # both clocks begin here
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class After:
    """A constant delay."""

    seconds: float

    def delay(self, attempt: int, chance: float) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class Raw:
    """A record."""

    marks: Marks = PLAIN
    verdict: Verdict | None = None
    size: int = 100
    born_ms: int = 0
    key: bytes | None = None


def read(assignment: Assignment, offsets: Sequence[int], raws: Sequence[Raw]) -> list[Entry]:
    return [entry(assignment, offset, raw) for offset, raw in zip(offsets, raws, strict=True)]


def read_columns(
    assignment: Assignment, offsets: Sequence[int], raws: Sequence[Raw]
) -> list[Entry] | PlainBatch:
    """As the shell does: what is plain comes as a batch."""
    if any(raw.marks is not PLAIN or raw.verdict is not None for raw in raws):
        return read(assignment, offsets, raws)
    return PlainBatch(assignment, 0, offsets, [raw.size for raw in raws], raws)


def entry(assignment: Assignment, offset: int, raw: Raw) -> Entry:
    made = Entry.marked(
        assignment, offset, raw.size, raw, raw.marks, 0, verdict=raw.verdict, born_ms=raw.born_ms
    )
    made.key = raw.key
    return made


def failure(retry_in: float | None = 1.0, reason: str = "exhausted") -> Failure:
    return Failure(reason=reason, retry_in=retry_in, error="ValueError")


class Bench:
    """Tells an engine what happened and sorts what it wants."""

    def __init__(
        self,
        *,
        retry_topic: str | None = RETRY.topic,
        in_place: bool = False,
        dead_letter: str | None = "dead",
        max_attempts: int = 3,
        batches: bool = False,
        **settings: Any,
    ) -> None:
        policy = Policy(max_attempts=max_attempts, delay=After(1.0)) if retry_topic or in_place else None
        route = Route(topic=BASE.topic, retry_topic=retry_topic, dead_letter=dead_letter, policy=policy)
        usual = {
            "in_flight": 100,
            "window": 100,
            "buffer_bytes": 1_000_000,
            "commit_interval": 1.0,
            "parking_interval": 60.0,
        }
        config = EngineConfig(group="group", routes=(route,), **{**usual, **settings})
        self.engine = Engine(config, read_columns if batches else read)
        self.mono = self.wall = START

    @property
    def now(self) -> p.Now:
        return p.Now(self.wall, self.mono)

    @property
    def wall_ms(self) -> int:
        return round(self.wall * 1000)

    def wait(self, seconds: float) -> list[p.Command]:
        self.mono += seconds
        self.wall += seconds
        return self.tell(p.Tick())

    def tell(self, event: p.EngineEvent) -> list[p.Command]:
        commands = self.engine.handle(event, self.now)
        self.engine.validate()
        return commands

    def assign(
        self, *places: p.Place, position: int | None = 0, metadata: str = "", uid: str = "uid", **more: Any
    ) -> list[p.Command]:
        commands = self.tell(p.Assigned(places))
        for place in places:
            identity: dict[str, Any] = {"uid": uid, "topic_id": uid, "cluster": "cluster", **more}
            restored = p.Restored(place=place, position=position, metadata=metadata, **identity)
            commands += self.tell(restored)
        return commands

    def arrive(self, place: p.Place, *records: tuple[int, Raw], first_ms: int = 0) -> list[p.Command]:
        offsets, raws = [offset for offset, _ in records], [raw for _, raw in records]
        return self.tell(p.Arrived(place, offsets, raws, first_ms))

    def plain(self, place: p.Place, *offsets: int) -> list[Entry]:
        """Let plain records arrive, and return what is to be run."""
        return run(self.arrive(place, *[(offset, Raw()) for offset in offsets]))

    def commit(self) -> p.Commit | None:
        """What the engine commits once its interval is over."""
        found = only(self.wait(10.0), p.Commit)
        return found[0] if found else None

    def committed(self) -> p.Commit:
        """Let it commit, and acknowledge."""
        commit = self.commit()
        assert commit is not None
        self.tell(p.CommitAnswered(commit, {}))
        return commit

    def assignment(self, place: p.Place) -> Assignment:
        return self.engine.assignments[place]

    def fail(self, failed: Entry, **how: Any) -> p.HandOff:
        """Let it fail, and return the copy that is sent."""
        (sent,) = produced(self.tell(p.Finished(failed=[(failed, failure(**how))])))
        return sent


def only(commands: Sequence[p.Command], kind: type[T]) -> list[T]:
    return [command for command in commands if isinstance(command, kind)]


def run(commands: Sequence[p.Command]) -> list[Entry]:
    """What goes to the workers; batches as the entries that they stand for."""
    found: list[Entry] = []
    for command in commands:
        if isinstance(command, p.Run):
            found += command.entries
        elif isinstance(command, p.RunBatch):
            found += command.batch.entries()
    return found


def produced(commands: Sequence[p.Command]) -> list[p.HandOff]:
    return [command.handoff for command in only(commands, p.Produce)]


def told(commands: Sequence[p.Command], kind: type[T] | None = None) -> list[Any]:
    found: list[events.Event] = [command.event for command in only(commands, p.Notify)]
    return found if kind is None else [event for event in found if isinstance(event, kind)]


def positions(commit: p.Commit | None) -> dict[p.Place, int]:
    return {} if commit is None else {one.place: one.position for one in commit.progress}


def due_in(bench: Bench, seconds: float, **marks: object) -> Raw:
    return Raw(replace(Marks(not_before_ms=bench.wall_ms + round(seconds * 1000)), **marks))  # type: ignore[arg-type]
