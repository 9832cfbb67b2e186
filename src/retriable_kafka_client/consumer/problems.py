"""What is wrong at present, told once when it begins and once when it is over."""

from __future__ import annotations

import logging
import math
import time

__all__ = ["Problems"]

log = logging.getLogger("retriable_kafka_client")


class Problems:
    """Keyed by what is in trouble ("brokers", "topic orders"). Only the loop's thread calls it."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._known: dict[str, tuple[str, float]] = {}  # why, and when it was last noted (monotonic)

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._known)

    def note(self, key: str, reason: str) -> None:
        """It is in trouble: one ERROR line when that is news."""
        if key not in self._known:
            log.error("group %s: %s; it keeps trying", self._group, reason)
        self._known[key] = reason, time.monotonic()

    def noted_at(self, key: str) -> float:
        """When it was last noted (monotonic); long ago if it is well."""
        return self._known[key][1] if key in self._known else -math.inf

    def mark(self, key: str, reason: str, *, holds: bool) -> None:
        """It is in trouble, or well. Keys of marks are their own: what one asker clears, another one would note again."""
        if holds:
            self.note(key, reason)
        else:
            self.clear(key)

    def clear(self, *keys: str) -> None:
        """These are well: one line for those that were not."""
        if self._known:
            for key in keys:
                if self._known.pop(key, None) is not None:
                    log.warning("group %s: %s: well again", self._group, key)

    def say(self, what: str) -> None:
        """One line about what was done against it."""
        log.warning("group %s: %s", self._group, what)

    def known(self, *keys: str) -> bool:
        """Whether one of these is in trouble."""
        return any(key in self._known for key in keys)

    def reasons(self) -> tuple[str, ...]:
        return tuple(reason for reason, _ in self._known.values())

    def topics(self) -> tuple[str, ...]:
        """Names of topics in trouble."""
        return tuple(key.removeprefix("topic ") for key in self._known if key.startswith("topic "))
