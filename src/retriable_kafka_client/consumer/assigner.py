"""Which partitions the client consumes, and from where: the calls differ between the rebalance protocols."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaException, TopicPartition

from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Place, Start

__all__ = ["Assigner"]


class Assigner:
    """Gives the client its partitions, each from the position that the engine chose.

    Nothing is fetched until that position is known. A partition is then put on at its offset, rather than moved by
    ``seek``: one seek in 44 on a partition that had not delivered yet was lost, and began at the group's position instead.
    And it is never taken off outside a revoke: the client would take that for the answer to a revoke that waits in its
    queue, and the partition would have a new owner before our drain began. Only the loop's thread calls it.
    """

    def __init__(self, consumer: Any, *, eager: bool, to_end: bool = False) -> None:
        self._consumer = consumer
        self._nowhere = OFFSET_END if to_end else OFFSET_INVALID  # where what has no position begins
        self._eager = eager  # classic range or roundrobin: only whole assignments may be set
        self._started: set[Place] = set()
        self._wanted: list[Start] = []  # to begin with the next ``start``

    def accept(self, places: Sequence[Place]) -> None:
        """Take what a rebalance gives, without fetching yet. In the assign callback."""
        if self._eager:
            partitions = [TopicPartition(*place) for place in places]
            self._consumer.assign(partitions)
            if partitions:
                self._consumer.pause(partitions)
        else:
            self._consumer.incremental_assign([])

    def give_up(self, places: Sequence[Place]) -> None:
        """Let go of these. In the revoke and lost callbacks."""
        if self._eager:
            self._consumer.unassign()
            self._started.clear()
        else:
            started = [place for place in places if place in self._started]
            self._consumer.incremental_unassign([TopicPartition(*place) for place in started])
            self._started.difference_update(started)

    def want(self, start: Start) -> None:
        """The engine has chosen where this partition begins."""
        self._wanted.append(start)

    @property
    def has_wanted(self) -> bool:
        """Whether partitions wait to begin."""
        return bool(self._wanted)

    def take_wanted(self) -> list[Start]:
        """What was wanted since the last call, and is still ours."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def drop(self, places: Collection[Place]) -> None:
        """These are ours no longer."""
        self._wanted = [start for start in self._wanted if start.place not in places]

    def start(self, starts: Sequence[Start], assignments: Mapping[Place, Assignment]) -> None:
        """Consume from the positions in ``starts``. Outside callbacks."""
        chosen = {start.place: self._first(start) for start in starts}
        self._started.update(chosen)
        if self._eager:
            everything = [
                TopicPartition(*place, chosen.get(place, self._next(one)))
                for place, one in assignments.items()
            ]
            self._consumer.assign(everything)
            still = [place for place, one in assignments.items() if place not in chosen and not _flows(one)]
            if still:
                self._consumer.pause([TopicPartition(*place) for place in still])
        else:
            self._consumer.incremental_assign(
                [TopicPartition(*place, offset) for place, offset in chosen.items()]
            )
        # The client keeps the paused state of a partition over all assignments.
        resumed = [TopicPartition(*place) for place in chosen if not assignments[place].paused]
        if resumed:
            self._consumer.resume(resumed)
        paused = [TopicPartition(*place) for place in chosen if assignments[place].paused]
        if paused:
            self._consumer.pause(paused)

    def _first(self, start: Start) -> int:
        if start.earliest:
            return OFFSET_BEGINNING
        return self._nowhere if start.offset is None else start.offset

    def _next(self, assignment: Assignment) -> int:
        following = assignment.progress.next_offset
        if following is not None:
            return following
        return OFFSET_BEGINNING if assignment.earliest else self._nowhere

    def pause(self, place: Place) -> None:
        self._consumer.pause([TopicPartition(*place)])

    def resume(self, place: Place) -> None:
        self._consumer.resume([TopicPartition(*place)])

    def positions(self, places: Iterable[Place]) -> dict[Place, int]:
        """Where the client stands, for those of which it knows."""
        partitions = [TopicPartition(*place) for place in places]
        if not partitions:
            return {}
        found = self._consumer.position(partitions)
        return {
            Place(one.topic, one.partition): one.offset for one in found if one.offset >= 0 and not one.error
        }

    def watermarks(self, place: Place) -> tuple[int, int] | None:
        """Where its log begins and ends, as the brokers said when they were asked for records last; blocks never."""
        with suppress(KafkaException):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            return (low, high) if high >= 0 else None
        return None


def _flows(assignment: Assignment) -> bool:
    return assignment.phase is Phase.RUNNING and not assignment.paused
