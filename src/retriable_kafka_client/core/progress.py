"""What of one assignment is complete, and what of that the brokers have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from retriable_kafka_client.core.offset_map import Binding, OffsetMap, decode
from retriable_kafka_client.core.offsets import Tracker
from retriable_kafka_client.core.runs import runs_of

__all__ = ["LEAST_MAP_UNITS", "Checkpoint", "PartitionProgress"]

LEAST_MAP_UNITS = 100  # with less room than this for its map, a partition goes without
NO_MAP = 2**31  # a budget that holds nothing up


class Checkpoint(NamedTuple):
    """How far an assignment had come at some moment."""

    completed: int
    dirty: bool


class PartitionProgress:
    """The offset tracker, and what commits said of it.

    It *begins* when the first offset is known: with a committed position, or with the first record. Nothing is read, run or
    committed before; whoever has a message of the assignment may ask for the ``tracker``.
    """

    __slots__ = (
        "_least_units",
        "_sent",
        "_tracker",
        "binding",
        "committed",
        "completed",
        "dirty",
        "last_committed",
        "map_units",
    )

    def __init__(self, map_units: int, least_units: int) -> None:
        self._tracker: Tracker | None = None  # None until it begins; nobody else sees that
        self.binding = Binding(b"", b"")  # what an offset map of this partition is bound to
        self.map_units = map_units  # UTF-16 units of commit metadata that the broker takes
        self._least_units = least_units  # with a smaller budget there is no map
        self.dirty = False  # there is progress that no acknowledged commit holds
        self.completed = 0  # offsets, since the assignment began
        self._sent = 0  # of these, what the last commit says
        self.committed = 0  # and what an acknowledged one does
        self.last_committed: tuple[int, str] = (-1, "")  # exactly once: position and map that the broker took

    # Questions ---------------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether the first offset is known."""
        return self._tracker is not None

    @property
    def tracker(self) -> Tracker:
        """The offsets. Only where it has begun."""
        tracker = self._tracker
        assert tracker is not None, "there is no offset yet"
        return tracker

    @property
    def position(self) -> int | None:
        """The lowest offset that is not complete; None before it has begun."""
        return self._tracker.position if self._tracker is not None else None

    @property
    def next_offset(self) -> int | None:
        """One past the highest offset that came or was passed over; None before it has begun."""
        return self._tracker.next_offset if self._tracker is not None else None

    @property
    def incomplete(self) -> int:
        """Offsets that came and are not complete."""
        return self._tracker.incomplete if self._tracker is not None else 0

    @property
    def has_uncommitted(self) -> bool:
        """Whether there is something to commit."""
        return self.dirty and self._tracker is not None

    @property
    def awaits_answer(self) -> bool:
        """Whether a commit says more than is acknowledged."""
        return self.committed < self._sent

    @property
    def has_map(self) -> bool:
        """Whether its commits carry an offset map."""
        return self.map_units >= self._least_units

    @property
    def _map_room(self) -> int:
        """What admission reckons with. Where no map fits, positions are committed bare rather than work held up."""
        return self.map_units if self.has_map else NO_MAP

    def encode(self, besides: Collection[int] = ()) -> tuple[int, str]:
        """The position and the map to commit now. ``besides``: these incomplete offsets are complete with the commit."""
        tracker = self.tracker
        metadata = ""
        if self.has_map:
            metadata = tracker.encode(self.binding, besides, units=len(self.last_committed[1]))
        return tracker.position_with(besides), metadata

    def encoded_end(self, besides: Collection[int]) -> int:
        """Where the map ends that a commit with these can carry: of what lies from there on it says nothing."""
        tracker = self.tracker
        text = tracker.encode(self.binding, besides, units=len(self.last_committed[1]))
        return decode(text, base=tracker.position_with(besides), binding=self.binding).end

    def decode(self, position: int, metadata: str) -> OffsetMap:
        """The map that was committed beside ``position``. Raises OffsetMapError: it is not to be believed."""
        return decode(metadata, base=position, binding=self.binding)

    # What comes --------------------------------------------------------------------------------------------------------

    def begin(self, position: int, restored: OffsetMap | None = None) -> None:
        """The first offset is known."""
        self._tracker = Tracker(position, restored, budget_units=self._map_room)

    def register(self, offsets: Sequence[int]) -> list[tuple[int, int]]:
        """Take note of delivered offsets (increasing) and return the runs of them that are not complete already."""
        if self._tracker is None:
            self.begin(offsets[0])
        self.dirty = True
        tracker = self.tracker
        fresh: list[tuple[int, int]] = []
        for first, stop in runs_of(offsets):
            fresh += tracker.register(first, stop)
        return fresh

    def pass_over(self, position: int) -> None:
        """Nothing came up to ``position``: markers and compaction leave offsets without records, which commits include.

        A log that holds nothing else begins there.
        """
        if self._tracker is None:
            self.begin(position)
            self.dirty = True
        elif self._tracker.incomplete == 0 and position > self._tracker.next_offset:
            self._tracker.advance(position)
            self.dirty = True

    def complete(self, first: int, stop: int) -> None:
        """These offsets need no more work."""
        assert self._tracker is not None
        self._tracker.complete(first, stop)
        self.completed += stop - first
        self.dirty = True

    # Commits -----------------------------------------------------------------------------------------------------------

    def demand_commit(self) -> None:
        """Let the next commit say where it stands, whatever came before."""
        self.dirty = True

    def mark_sent(self) -> None:
        """All that is complete now is on its way to the broker."""
        self.dirty = False
        self._sent = self.completed

    def mark_committed(self) -> None:
        """What was sent last is acknowledged, or is no news."""
        self.committed = self._sent

    def keep_committed(self, position: int, metadata: str) -> None:
        """Exactly once: the broker took this last."""
        self.last_committed = position, metadata

    def checkpoint(self) -> Checkpoint:
        """How far it has come."""
        return Checkpoint(self.completed, self.dirty)

    def count_included(self, since: Checkpoint) -> None:
        """What was completed since then was in the commit that has just been acknowledged."""
        self.dirty = self.dirty and since.dirty
        self.committed = self._sent + self.completed - since.completed

    def shorten_map(self, map_units: int) -> None:
        """The broker takes no more than this for an offset map."""
        self.map_units = map_units
        if self._tracker is not None:
            self._tracker.set_budget(self._map_room)
        self.dirty = True

    def validate(self) -> None:
        """Check the invariants."""
        if self._tracker is not None:
            self._tracker.validate()
