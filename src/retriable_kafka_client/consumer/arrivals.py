"""What one poll brings, sorted by partition."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from confluent_kafka import Message as RawMessage

from retriable_kafka_client.core.protocol import Arrived, Place

__all__ = ["arrivals"]

_TOPIC: Callable[[Any], Any] = RawMessage.topic
_PARTITION: Callable[[Any], Any] = RawMessage.partition
_OFFSET: Callable[[Any], Any] = RawMessage.offset


def arrivals(batch: Sequence[Any]) -> Iterator[Arrived]:
    """The records of each partition, in pieces in which offsets increase: one, unless the client goes back meanwhile."""
    for place, (offsets, raws) in _by_place(batch).items():
        if all(map(operator.lt, offsets, islice(offsets, 1, None))):
            yield _arrived(place, offsets, raws)
            continue
        first = 0
        for stop in range(1, len(offsets) + 1):
            if stop == len(offsets) or offsets[stop] <= offsets[stop - 1]:
                yield _arrived(place, offsets[first:stop], raws[first:stop])
                first = stop


def _arrived(place: Place, offsets: Sequence[int], raws: Sequence[Any]) -> Arrived:
    return Arrived(place, offsets, raws, first_ms=raws[0].timestamp()[1], stamp_ms=raws[-1].timestamp()[1])


def _by_place(batch: Sequence[Any]) -> dict[Place, tuple[list[int], list[Any]]]:
    """The records of each partition, with their offsets.

    A batch is mostly of one partition, and `map` calls the client's accessors without the interpreter: half the cost.
    """
    topics: list[str] = list(map(_TOPIC, batch))
    partitions: list[int] = list(map(_PARTITION, batch))
    offsets: list[int] = list(map(_OFFSET, batch))
    if batch and topics.count(topics[0]) == len(batch) == partitions.count(partitions[0]):
        return {Place(topics[0], partitions[0]): (offsets, list(batch))}
    groups: dict[Place, tuple[list[int], list[Any]]] = {}
    for topic, partition, offset, raw in zip(topics, partitions, offsets, batch, strict=True):
        group = groups.setdefault(Place(topic, partition), ([], []))
        group[0].append(offset)
        group[1].append(raw)
    return groups
