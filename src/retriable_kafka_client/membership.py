"""Whether the group has us, where no assignment says so: read from the client's statistics while we wait to be assigned.

With ``group.protocol=consumer`` a member for which no partition is left is told nothing at all; and in no protocol does the
client say that the group has no coordinator. Asking the brokers for the group's members is no way: librdkafka (2.16) ends
the process when such a question has timed out and the coordinator comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from retriable_kafka_client.errors import NotReachable

__all__ = ["Membership"]

STATISTICS_MS = 1_000
SURE_SECONDS = 10.0  # with a coordinator: longer than it takes to give a member what there is for it
GIVE_UP_SECONDS = 25.0  # without one


class Membership:
    """One thread calls it, and serves the client; nothing blocks.

    ``silent``: the protocol does not tell of an empty assignment.
    """

    def __init__(self, group: str, *, silent: bool) -> None:
        self._group = group
        self._silent = silent
        self._waits_since: float | None = None  # monotonic, as all times here; None: we wait for nothing
        self._up_since: float | None = None  # None: the client has no coordinator
        self._state = ""  # what it does for one; empty: it has not said anything yet

    def watch(self, settings: dict[str, Any]) -> None:
        """Have the client tell its statistics, besides what the user wants of them."""
        users: Callable[[str], object] | None = settings.get("stats_cb")
        if users is None:
            settings["statistics.interval.ms"] = STATISTICS_MS

        def told(text: str) -> None:
            if self._waits_since is not None:
                with suppress(ValueError):  # a callback that raises costs the records of its poll
                    self._take(msgspec.json.decode(text).get("cgrp") or {})
            if users is not None:
                users(text)

        settings["stats_cb"] = told

    def _take(self, group: dict[str, Any]) -> None:
        self._state = str(group.get("state", ""))
        if self._state != "up":
            self._up_since = None
        elif self._up_since is None:
            self._up_since = time.monotonic()

    def begin(self, now: float) -> None:
        """We wait for an assignment."""
        self._waits_since, self._up_since, self._state = now, None, ""

    def end(self) -> None:
        """There is one, or nobody waits for it any more."""
        self._waits_since = None

    def is_known(self, now: float) -> bool:
        """Whether the group must have us by now. NotReachable: for long it has had no coordinator."""
        if self._waits_since is None:
            return False
        if self._up_since is not None:
            return self._silent and now >= self._up_since + SURE_SECONDS
        if self._state and now >= self._waits_since + GIVE_UP_SECONDS:
            raise NotReachable(
                f"group {self._group} has no coordinator (the client's state: {self._state}); look whether the brokers"
                " could make the topic __consumer_offsets: offsets.topic.replication.factor is at most their number"
            )
        return False
