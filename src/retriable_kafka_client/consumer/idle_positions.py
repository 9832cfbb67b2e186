"""Partitions that bring no records: how far the client has read there, since a commit must reach so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException

from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import Idle, Now, Place

__all__ = ["IdlePositions"]

IDLE_SECONDS = 0.5  # between two looks
AT_ONCE = 500  # partitions


class IdlePositions:
    """Looks every half second. The loop's thread only; nothing blocks.

    ``ask`` asks where logs end, for readers of what is committed, and returns at once.
    """

    def __init__(self, ask: Callable[[Collection[Place]], Mapping[Place, Future[Any]]]) -> None:
        self._ask = ask
        self._asked: dict[Place, tuple[Assignment, Future[Any]]] = {}  # without an answer yet
        self._passed_at = 0.0  # monotonic; when `passed` looks again
        self._ends_at = 0.0  # the same, of `ends`
        self._round: list[Place] = []  # partitions that `passed` has still to look at

    def passed(self, assigner: Assigner, assignments: Mapping[Place, Assignment], now: Now) -> Iterator[Idle]:
        """Nothing came: offsets without records (transaction markers) may have been passed. So many partitions at a time."""
        if now.mono < self._passed_at:
            return
        self._passed_at = now.mono + IDLE_SECONDS
        if not self._round:
            self._round = [*assignments]
        places, self._round = self._round[:AT_ONCE], self._round[AT_ONCE:]
        still: list[Place] = []
        for place in places:
            one = assignments.get(place)
            if one is not None and one.hands_out and not one.paused and one.progress.incomplete == 0:
                still.append(place)
        for place, position in assigner.positions(still).items():
            following = assignments[place].progress.next_offset
            if following is None or position > following:
                yield Idle(place, position)

    def ends(self, assigner: Assigner, busy: Iterable[Assignment], now: Now) -> Iterator[Idle]:
        """Chunks of a message may be overdue. That the log holds no more of them is certain only where it ends."""
        for one, answer in [asked for asked in self._asked.values() if asked[1].done()]:
            del self._asked[one.place]
            with suppress(KafkaException):
                end = int(answer.result().offset)
                position = assigner.positions([one.place]).get(one.place) if one.hands_out else None
                if position is not None and position >= end:
                    yield Idle(one.place, position)
        if now.mono < self._ends_at:
            return
        self._ends_at = now.mono + IDLE_SECONDS
        wall_ms = int(now.wall * 1000)
        due = {
            one.place: one
            for one in busy
            if one.hands_out and not one.paused and one.chunks.is_overdue(wall_ms)
            if one.place not in self._asked
        }
        if due:
            self._asked |= {place: (due[place], answer) for place, answer in self._ask(due).items()}
