"""The regular commits: one in flight at a time, and what its answer says."""

from __future__ import annotations

from collections.abc import Collection

from retriable_kafka_client import events
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Commit, CommitAnswered, Now, Progress

__all__ = ["Commits"]


class Commits:
    """When to commit, and how large an offset map the broker takes."""

    def __init__(self, interval: float, map_units: int) -> None:
        self.map_units = map_units  # only ever falls
        self._interval = interval
        self._in_flight: Commit | None = None
        self._next_at = 0.0  # monotonic

    def due(self, assignments: Collection[Assignment], now: Now) -> Commit | None:
        """What to commit now; None while one is in flight, before its time, or without progress."""
        if self._in_flight is not None or now.mono < self._next_at:
            return None
        self._next_at = now.mono + self._interval
        progress = [one for assignment in assignments if (one := assignment.next_commit()) is not None]
        for one in progress:
            one.owner.progress.mark_sent()
        if progress:
            self._in_flight = Commit(progress)
        return self._in_flight

    def hurry(self) -> None:
        """What there is to say is not to wait for the interval."""
        self._next_at = 0.0

    def answered(self, event: CommitAnswered, assignments: Collection[Assignment]) -> list[events.Event]:
        """Take note of the answer to a regular or a last commit; what was refused is said again by the next one."""
        if event.commit is self._in_flight:
            self._in_flight = None
        news: list[events.Event] = []
        refused: list[Progress] = []
        for progress in event.commit.progress:
            owner = progress.owner
            if owner.phase is Phase.ENDED:
                continue  # its last commit has said more, or its next owner will
            topic, partition = progress.place
            code = event.codes.get(progress.place)
            if code is None:
                owner.progress.mark_committed()
                units = len(progress.metadata)
                news.append(
                    events.Committed(
                        topic=topic, partition=partition, position=progress.position, map_units=units
                    )
                )
                continue
            owner.progress.demand_commit()
            if code == "OFFSET_METADATA_TOO_LARGE":
                refused.append(progress)
            else:
                news.append(events.CommitFailed(topic=topic, partition=partition, code=code))
        if refused:
            # The client may report this of the commit's other partitions too: the longest is the one.
            news.append(self.shorten(max(refused, key=lambda one: len(one.metadata)), assignments))
        return news

    def shorten(self, progress: Progress, assignments: Collection[Assignment]) -> events.Event:
        """The broker takes less than this: halve the budget, for all partitions."""
        units = len(progress.metadata) // 2
        if units < self.map_units:
            self.map_units = units
            for assignment in assignments:
                assignment.progress.shorten_map(units)
        self._next_at = 0.0
        topic, partition = progress.place
        return events.OffsetMapShortened(topic=topic, partition=partition, budget_units=self.map_units)
