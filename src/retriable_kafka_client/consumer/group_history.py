"""What the group had read before this process joined it: a partition without a position in such a topic was added since."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from retriable_kafka_client.brokers.group_offsets import GroupOffsets, Question
from retriable_kafka_client.core.protocol import Place

__all__ = ["GroupHistory"]

WAIT_SECONDS = 3.0  # for the answers, before joining; what comes later counts from when it comes
STEP_SECONDS = 0.01


class GroupHistory:
    """Asked once. The loop's thread only."""

    def __init__(self) -> None:
        self._asked: list[Question] = []

    def ask(self, offsets: GroupOffsets, partitions: Mapping[str, int], stopped: Callable[[], bool]) -> None:
        """Ask about topics with so many partitions, and wait a while."""
        self._asked = offsets.ask(
            Place(name, partition) for name, count in partitions.items() for partition in range(count)
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not stopped():
            if all(one.answer is not None or one.code is not None for one in self._asked):
                return
            time.sleep(STEP_SECONDS)

    def had_read(self, topic: str) -> bool:
        """Whether the group had a position in it, as far as the answers are in."""
        return any(
            one.place.topic == topic and one.answer is not None and one.answer[0] >= 0 for one in self._asked
        )
