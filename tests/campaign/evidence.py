"""What a campaign's processes wrote, in the terms that the judge thinks in."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

__all__ = ["End", "Follower", "Run", "Spot", "ends_of", "runs_of"]


class Spot(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the handler. Times are wall clock, s."""

    id: int
    attempt: int
    spot: Spot
    pid: int
    began: float
    ended: float | None = None  # None: its process was killed, or it still runs
    failed: bool = False
    due: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an assignment, as its process told it."""

    pid: int
    topic: str
    partition: int
    reason: str
    at: float


class Follower:
    """Reads a file of evidence while processes write it. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        """All events so far, in the order in which they were written."""
        self.counts: Counter[str] = Counter()
        """How many of each kind."""
        self._at = 0

    def follow(self) -> list[dict[str, Any]]:
        """Read what is new, add it to `events`, and return it."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        fresh = [msgspec.json.decode(line) for line in whole.splitlines()]
        self.events += fresh
        self.counts.update(event["event"] for event in fresh)
        return fresh

    def count(self, kind: str) -> int:
        """How many events of that kind there are now."""
        self.follow()
        return self.counts[kind]

    def of(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """All events of that kind with these fields."""
        self.follow()
        return [
            event
            for event in self.events
            if event["event"] == kind and all(event.get(name) == value for name, value in fields.items())
        ]


def runs_of(events: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The runs, in the order in which they began. ValueError for the end of a run that never began."""
    begun: dict[tuple[int, int], Mapping[str, Any]] = {}
    over: dict[tuple[int, int], Mapping[str, Any]] = {}
    for event in events:
        kind = event["event"]
        if kind == "start":
            begun[event["pid"], event["n"]] = event
        elif kind in ("done", "failed"):
            over[event["pid"], event["n"]] = event
    if over.keys() - begun.keys():
        raise ValueError(f"runs that ended and never began: {sorted(over.keys() - begun.keys())[:5]}")
    runs = [_run(event, over.get(key)) for key, event in begun.items()]
    return sorted(runs, key=lambda run: run.began)


def _run(start: Mapping[str, Any], end: Mapping[str, Any] | None) -> Run:
    return Run(
        id=start["i"],
        attempt=start["a"],
        spot=Spot(start["t"], start["p"], start["o"]),
        pid=start["pid"],
        began=start["time"],
        ended=None if end is None else end["time"],
        failed=end is not None and end["event"] == "failed",
        due=start["due"],
    )


def ends_of(events: Iterable[Mapping[str, Any]]) -> list[End]:
    """The ends of assignments."""
    return [
        End(
            pid=event["pid"],
            topic=event["topic"],
            partition=event["partition"],
            reason=event["reason"],
            at=event["time"],
        )
        for event in events
        if event["event"] == "AssignmentEnded"
    ]
