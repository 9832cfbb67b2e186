"""Which waiting messages are re-published to their retry topic's end, so that what stands behind them is read in time."""

from __future__ import annotations

import math
from collections.abc import Collection

from retriable_kafka_client.core.engine_config import EngineConfig
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import Now
from retriable_kafka_client.core.schedule import Keep, ParkingRule

__all__ = ["Parking"]

LONGEST_SCAN_PAUSE = 60.0  # seconds between two searches for what retention nears


class Parking:
    """Takes messages out of the due queues of retry partitions; the caller sends them."""

    def __init__(self, config: EngineConfig) -> None:
        self._window = config.window
        self._share = config.buffer_bytes // 2
        self._interval = config.parking_interval
        self._rule = ParkingRule(interval_ms=int(config.parking_interval * 1000))

    def take_crowding(
        self, assignment: Assignment, others: Collection[Assignment], waiting_bytes: int, now: Now
    ) -> list[Entry]:
        """Remove and return the furthest-due when three quarters of the window, or of another bound, wait.

        Where that keeps a partition paused, a half is too much: it is read again only below that. ``waiting_bytes`` is the
        sum of all partitions, which are ``others`` (this one is among them).
        """
        queues, waiting = assignment.queues, assignment.queues.waiting
        if not waiting or now.mono < queues.park_again_at:
            return []
        tracker = assignment.progress.tracker
        full = len(waiting) * 4 >= self._window * 3 or waiting_bytes * 4 >= self._share * 3
        if assignment.paused and not full:
            full = len(waiting) > self._window // 2
        if waiting_bytes > self._share // 2 and not full:
            full = any(other.paused and other.parks for other in others)
        map_full = bool(queues.blocked) or tracker.code_share >= 0.75
        if not full and not map_full:
            return []
        below = tracker.admit(tracker.next_offset)  # no other offset may be completed
        map_full = map_full or below < tracker.next_offset
        early = waiting.count_below(below)
        holders = max(1, sum(1 for other in others if other.queues.waiting))
        keep = Keep(
            messages=self._window // 2,
            bytes=self._share // 2 // holders,  # together they come down to half of their share
            early=early // 2 if map_full else early,  # those are what the map has to list
        )
        again_at = now.mono + min(1.0, self._interval / 8)
        return queues.take_furthest(keep, below, math.floor(now.wall * 1000), self._rule, again_at)

    def take_ageing(self, assignment: Assignment, now: Now) -> list[Entry]:
        """Remove and return what has used up a quarter of its topic's retention while it waits."""
        retention_ms, queues = assignment.retention_ms, assignment.queues
        if retention_ms is None or not queues.waiting or now.mono < queues.scan_again_at:
            return []
        tracker = assignment.progress.tracker
        age_ms = retention_ms // 4
        again_at = now.mono + min(LONGEST_SCAN_PAUSE, age_ms / 10_000)
        wall_ms = math.floor(now.wall * 1000)
        below = tracker.admit(tracker.next_offset)
        return queues.take_older(wall_ms - age_ms, below, wall_ms, self._rule, again_at)
