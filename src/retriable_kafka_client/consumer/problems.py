"""What is wrong at present: one log line when it begins, and one when it is over."""

from __future__ import annotations

import logging
import math
import time

__all__ = ["Problems"]

log = logging.getLogger("retriable_kafka_client")


class Problems:
    """The present problems, each under the name of what has it: "brokers", "topic orders". The loop's thread only."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._known: dict[str, tuple[str, float]] = {}  # why, and when it was last noted (monotonic)

    def __bool__(self) -> bool:
        """Whether there is any problem."""
        return bool(self._known)

    def note(self, key: str, reason: str) -> None:
        """``key`` has a problem: one ERROR line, if it had none."""
        if key not in self._known:
            log.error("group %s: %s; it keeps trying", self._group, reason)
        self._known[key] = reason, time.monotonic()

    def noted_at(self, key: str) -> float:
        """When a problem of ``key`` was noted last (``time.monotonic()``); minus infinity if it has none."""
        return self._known[key][1] if key in self._known else -math.inf

    def mark(self, key: str, reason: str, *, holds: bool) -> None:
        """``key`` has a problem if ``holds``, else it has none.

        For what is looked at in each round. Such a key must not be cleared elsewhere: it would be noted again, with a new
        ERROR line, in the next round.
        """
        if holds:
            self.note(key, reason)
        else:
            self.clear(key)

    def clear(self, *keys: str) -> None:
        """These have no problem: one WARNING line for each that had one."""
        if self._known:
            for key in keys:
                if self._known.pop(key, None) is not None:
                    log.warning("group %s: %s: well again", self._group, key)

    def say(self, what: str) -> None:
        """Log what is done against a problem, as a WARNING."""
        log.warning("group %s: %s", self._group, what)

    def known(self, *keys: str) -> bool:
        """Whether one of these has a problem."""
        return any(key in self._known for key in keys)

    def reasons(self) -> tuple[str, ...]:
        """What is wrong, one text for each problem."""
        return tuple(reason for reason, _ in self._known.values())

    def topics(self) -> tuple[str, ...]:
        """Names of topics that have a problem."""
        return tuple(key.removeprefix("topic ") for key in self._known if key.startswith("topic "))
