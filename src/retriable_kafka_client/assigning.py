"""Which partitions the client consumes, and from where: the calls differ between the rebalance protocols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, TopicPartition

from retriable_kafka_client.core.partition import Assignment, Phase
from retriable_kafka_client.core.protocol import Place, Start

__all__ = ["Assigner", "is_eager"]


def is_eager(settings: Mapping[str, Any]) -> bool:
    """Whether a consumer with these settings gives all partitions away in each rebalance."""
    strategy = str(settings.get("partition.assignment.strategy", "cooperative-sticky"))
    return (
        str(settings.get("group.protocol", "classic")).lower() == "classic" and "cooperative" not in strategy
    )


class Assigner:
    """Gives the client its partitions: paused at first, then each from the position that the engine chose.

    A partition is taken off and put on again at its offset, rather than moved by ``seek``: one seek in 44 on a partition
    that had not delivered yet was lost, and began at the group's position instead. Only the loop's thread calls it.
    """

    def __init__(self, consumer: Any, *, eager: bool) -> None:
        self._consumer = consumer
        self._eager = eager  # classic range or roundrobin: only whole assignments may be set

    def accept(self, places: Sequence[Place]) -> None:
        """Take what a rebalance gives, paused. In the assign callback."""
        partitions = [TopicPartition(*place) for place in places]
        if self._eager:
            self._consumer.assign(partitions)
        else:
            self._consumer.incremental_assign(partitions)
        if partitions:
            self._consumer.pause(partitions)

    def start(self, starts: Sequence[Start], assignments: Mapping[Place, Assignment]) -> None:
        """Consume from the positions in ``starts``. Outside callbacks."""
        chosen = {
            start.place: OFFSET_BEGINNING if start.earliest else _given(start.offset) for start in starts
        }
        if self._eager:
            self._assign_all(assignments, chosen)
        else:
            self._move(chosen)
        self._consumer.resume([TopicPartition(*place) for place in chosen])

    def restart(self, assignments: Mapping[Place, Assignment]) -> None:
        """Read every partition again from its next offset: a batch was lost on its way to us. Outside callbacks."""
        if self._eager:
            self._assign_all(assignments, {})
        else:
            self._move(
                {place: _next(one) for place, one in assignments.items() if one.phase is Phase.RUNNING}
            )

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

    def _move(self, chosen: Mapping[Place, int]) -> None:
        self._consumer.incremental_unassign([TopicPartition(*place) for place in chosen])
        self._consumer.incremental_assign(
            [TopicPartition(*place, offset) for place, offset in chosen.items()]
        )

    def _assign_all(self, assignments: Mapping[Place, Assignment], chosen: Mapping[Place, int]) -> None:
        everything = [
            TopicPartition(*place, chosen.get(place, _next(one))) for place, one in assignments.items()
        ]
        self._consumer.assign(everything)


def _given(offset: int | None) -> int:
    return OFFSET_INVALID if offset is None else offset


def _next(assignment: Assignment) -> int:
    if assignment.tracker is not None:
        return assignment.tracker.next_offset
    return OFFSET_BEGINNING if assignment.earliest else OFFSET_INVALID
