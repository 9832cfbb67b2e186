"""What the group had read before this process joined it: a partition without a position in such a topic was added since."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from retriable_kafka_client.brokers.group_offsets import GroupOffsets, Question
from retriable_kafka_client.core.protocol import Place

__all__ = ["GroupHistory"]

WAIT_SECONDS = 3.0  # for the answers, before joining; what comes later counts from when it comes
STEP_SECONDS = 0.01


class GroupHistory:
    """Knows what was added to what the group reads. The loop's thread only."""

    def __init__(self, partitions: Mapping[str, int], topics: Collection[str]) -> None:
        """``partitions``: how many each topic had when this process listed them; ``topics``: the names that it was given."""
        self._partitions = partitions
        self._topics = topics
        self._asked: list[Question] = []

    def ask(self, offsets: GroupOffsets, names: Collection[str], stopped: Callable[[], bool]) -> None:
        """Ask once for the positions in these topics. Blocks for at most ``WAIT_SECONDS``, or until ``stopped``."""
        self._asked = offsets.ask(
            Place(name, partition) for name in names for partition in range(self._partitions.get(name, 0))
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not stopped():
            if all(one.answer is not None or one.code is not None for one in self._asked):
                return
            time.sleep(STEP_SECONDS)

    def is_new(self, place: Place) -> bool:
        """Whether it was added to what the group reads, as far as the answers are in: all that it holds was sent since."""
        if any(
            one.place.topic == place.topic and one.answer is not None and one.answer[0] >= 0
            for one in self._asked
        ):
            return True
        count = self._partitions.get(place.topic)
        return place.partition >= count if count is not None else place.topic not in self._topics
