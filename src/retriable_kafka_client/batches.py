"""What one poll brings, sorted by partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Message as RawMessage

from retriable_kafka_client.core.protocol import Place

__all__ = ["by_place"]

_TOPIC: Callable[[Any], Any] = RawMessage.topic
_PARTITION: Callable[[Any], Any] = RawMessage.partition
_OFFSET: Callable[[Any], Any] = RawMessage.offset


def by_place(batch: Sequence[Any]) -> dict[Place, tuple[list[int], list[Any]]]:
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
