"""Log lines about runs that fail: a few that count, never one for each message."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from retriable_kafka_client import events
from retriable_kafka_client.events import REASON_CORRUPT, REASON_INCOMPLETE, REASON_ORPHAN

__all__ = ["FailureLines"]

log = logging.getLogger("retriable_kafka_client")

# From the first failure of a kind to its line, so that what failed together is counted together.
FIRST_SECONDS = 1.0
AGAIN_SECONDS = 10.0  # between two lines about a kind
MOST_KINDS = 1_000  # beyond it, new kinds are counted as one
_RETRY_AFTER = "retriable_kafka_client.errors.RetryAfter"
_LOGGED_ELSEWHERE = frozenset((REASON_CORRUPT, REASON_INCOMPLETE, REASON_ORPHAN))  # chunks: see ChunksGivenUp

Ended = events.MessageRetried | events.MessageDeadLettered | events.MessageDropped


@dataclass(slots=True)
class _FailureKind:
    """What failed in one way at one place."""

    due: float  # monotonic: when its next line is
    last: Ended | None = None  # the latest that stands in no line yet
    retried: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    drops_logged: bool = False


class FailureLines:
    """For each kind of failure (the exception's type, and the place in the user's code) at most one WARNING in 10 s, which
    says how many there were and what became of them. The loop's thread alone.
    """

    def __init__(self, group: str, *, error_text: bool) -> None:
        self._group = group
        self._error_text = error_text
        self._kinds: dict[tuple[str, str | None], _FailureKind] = {}

    def note(self, event: Ended, now: float) -> None:
        """Count it."""
        if event.reason in _LOGGED_ELSEWHERE:
            return
        key = (event.error or str(event.reason), event.place)
        if key not in self._kinds and len(self._kinds) >= MOST_KINDS:
            key = ("failures of other kinds", None)
        kind = self._kinds.setdefault(key, _FailureKind(now + FIRST_SECONDS))
        kind.last = event
        if isinstance(event, events.MessageRetried):
            kind.retried += 1
        elif isinstance(event, events.MessageDeadLettered):
            kind.dead_lettered += 1
        else:
            kind.dropped += 1

    def look(self, now: float) -> None:
        """Write the lines that are due."""
        for key, kind in list(self._kinds.items()):
            if now < kind.due:
                continue
            if kind.last is None:
                del self._kinds[key]
                continue
            self._write(key, kind, kind.last, logging.WARNING)
            self._kinds[key] = _FailureKind(
                now + AGAIN_SECONDS, drops_logged=kind.drops_logged or kind.dropped > 0
            )

    def close(self, now: float) -> None:
        """Write the rest. As INFO where a line was written a moment ago, unless that one mentioned no dropped message."""
        for key, kind in self._kinds.items():
            if kind.last is not None:
                first = kind.due - now <= FIRST_SECONDS or (kind.dropped and not kind.drops_logged)
                self._write(key, kind, kind.last, logging.WARNING if first else logging.INFO)
        self._kinds.clear()

    def _write(self, key: tuple[str, str | None], kind: _FailureKind, last: Ended, level: int) -> None:
        error, place = key
        if error == _RETRY_AFTER and not kind.dead_lettered and not kind.dropped:
            level = logging.INFO  # the handler's wish, and no fault
        attempts = last.attempt if isinstance(last, events.MessageRetried) else last.attempts
        log.log(
            level,
            "group %s: %s%s, %d times: retried %d, dead-lettered %d, dropped %d; the last one is %s/%d/%d, attempt %d%s",
            self._group,
            error,
            "" if place is None else f" at {place}",
            kind.retried + kind.dead_lettered + kind.dropped,
            kind.retried,
            kind.dead_lettered,
            kind.dropped,
            last.topic,
            last.partition,
            last.offset,
            attempts,
            f"\n{last.traceback}" if self._error_text and last.traceback else "",
        )
