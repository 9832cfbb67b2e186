"""Runs that have the consumer to themselves: before one, all that runs ends and is committed; nothing starts beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Finished, Now, Withdrawn
from retriable_kafka_client.core.suspects import Suspects

__all__ = ["Solo"]

STEP = 1.0  # seconds that one look may count for: a loop that stood still has waited for nothing


class Solo:
    """At most one such run at a time. ``patience``: seconds for which the others wait, and for which it waits for them."""

    def __init__(self, load: Load, suspects: Suspects, patience: float) -> None:
        self._load = load
        self._suspects = suspects
        self._patience = patience
        self._running: Entry | None = None
        self._waited = 0.0
        self._looked_at = 0.0  # monotonic
        self.wants_commit = False  # it waits for one, which may be made at once
        self.holds = False  # nothing else may be started

    def hold(self, running: Sequence[Assignment], now: Now) -> Entry | bool:
        """An entry to start now, alone; else whether nothing may be started."""
        held = self._look(running, now)
        self.holds = bool(held)
        return held

    def _look(self, running: Sequence[Assignment], now: Now) -> Entry | bool:
        self._waited += min(STEP, max(0.0, now.mono - self._looked_at))
        self._looked_at = now.mono
        self.wants_commit = False
        if self._running is not None:
            if self._running.assignment.phase is not Phase.ENDED and self._waited < self._patience:
                return True
            self._end()  # it is slow, and the loop goes round: it holds nobody up
        wall_ms = math.floor(now.wall * 1000)
        waiting = next((a for a in running if a.queues.wake_solo(wall_ms)), None)
        if waiting is None:
            self._waited = 0.0
            return False
        if self._waited < self._patience:
            if self._load.in_flight or any(a.accounts.on_the_way for a in running):
                return True
            if any(a.progress.committed < a.progress.completed for a in running):
                self.wants_commit = True
                return True
        self._running, self._waited = waiting.queues.take_solo(), 0.0
        return self._running

    def note(self, event: Finished | Withdrawn) -> None:
        """Whether its run is over."""
        one = self._running
        if one is None:
            return
        if isinstance(event, Withdrawn):
            if one in event.entries:
                self._end()
            return
        ended = [*event.done, *event.died, *event.released]
        ended += [entry for entry, _ in event.failed]  # one that is overdue runs on, until it is released
        ended += [entry for entry, _ in event.sent]
        if one in ended:
            self._suspects.clear(one)
            self._end()

    def _end(self) -> None:
        self._running, self._waited = None, 0.0
