"""When the loop could not go round for so long that the group may have given its partitions away, and what ran meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.protocol import Finished, Place, Suspect
from retriable_kafka_client.workers.runner import Runner

__all__ = ["Stalls"]

SHARE = 0.5  # of max.poll.interval.ms: a shorter stall is none
HEARD_SECONDS = 10.0  # after a stall, in which the client reports the loss
MOST = 1_000  # suspects of one stall; those first that ran when it ended, then as they ended


class Stalls:
    """Knows what ran while the loop stood still. The loop's thread only."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._least = float("inf")  # seconds
        self._turned_at = 0.0  # monotonic
        self._ended_at = float("-inf")  # of the last stall
        self._seconds = 0.0
        self._suspects: dict[tuple[Place, int], Suspect] = {}

    def begin(self, interval: float, now: float) -> None:
        """A client begins, which must be polled every ``interval`` seconds."""
        self._least, self._turned_at = interval * SHARE, now

    def waited(self, now: float) -> None:
        """The loop has waited for the brokers until now, and everything else could run: that is no stall."""
        self._turned_at = now

    def turn(self, now: float) -> bool:
        """The loop comes round (``now``: monotonic). True: it stood still until now; give ``took`` what ended meanwhile."""
        before, self._turned_at = self._turned_at, now
        if now - before < self._least:
            return False
        self._ended_at, self._seconds = now, now - before
        self._suspects.clear()
        self._note(self._runner.running().busy)
        return True

    def took(self, finished: Finished) -> None:
        """This ended while the loop stood still, or a moment before or after."""
        for failed in (finished.failed, finished.overdue):
            self._note(entry for entry, _ in failed)
        self._note(entry for entry, _ in finished.sent)
        self._note(finished.done)
        for one in finished.succeeded:
            for offset in one.offsets:
                self._add(Suspect(one.assignment.place, one.assignment.uid, offset, 1))

    def suspects(self, places: Collection[Place], now: float) -> tuple[Sequence[Suspect], float]:
        """These were lost: what may be to blame for that, and how long the loop had stood still."""
        if now > self._ended_at + HEARD_SECONDS:
            return (), 0.0
        return [one for one in self._suspects.values() if one.place in places], self._seconds

    def _note(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            assignment = entry.assignment
            self._add(Suspect(assignment.place, assignment.uid, entry.offset, entry.attempt, entry.alone))

    def _add(self, one: Suspect) -> None:
        if len(self._suspects) < MOST:
            self._suspects.setdefault((one.place, one.offset), one)
