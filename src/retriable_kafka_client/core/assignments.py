"""All partitions that are ours, and what they hold together."""

from __future__ import annotations

from collections.abc import Iterable

from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.place import Place
from retriable_kafka_client.core.protocol import Progress

__all__ = ["Assignments"]


class Assignments:
    """Each by its place. Most may be idle, and an idle one costs nothing: only the busy ones are looked at.

    Others read ``by_place`` and ``busy``; the verbs here change them.
    """

    def __init__(self) -> None:
        self.by_place: dict[Place, Assignment] = {}
        # Of these, all that hold something, or have something to commit, and perhaps some idle ones, until `settle`.
        self.busy: dict[Assignment, None] = {}
        self._touched: set[Place] = set()  # figures of these may have changed since they were last taken

    def get(self, place: Place) -> Assignment | None:
        """The one of this partition, if it is ours."""
        return self.by_place.get(place)

    def of(self, places: Iterable[Place]) -> list[Assignment]:
        """Those of these partitions that are ours."""
        return [self.by_place[place] for place in places if place in self.by_place]

    # Bytes -------------------------------------------------------------------------------------------------------------

    @property
    def active_bytes(self) -> int:
        """Bytes of messages that are due, with the workers, or being handed off."""
        return sum(one.accounts.active_bytes for one in self.busy)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits for its time, or for an earlier message."""
        return sum(one.queues.waiting_bytes for one in self.busy)

    @property
    def assembling_bytes(self) -> int:
        """Bytes of chunks whose messages are not whole."""
        return sum(one.chunks.bytes for one in self.busy)

    # Changes -----------------------------------------------------------------------------------------------------------

    def put(self, assignment: Assignment) -> None:
        """It is ours now; of another one of the same partition it takes the place."""
        old = self.by_place.get(assignment.place)
        if old is not None:
            self.busy.pop(old, None)
        self.by_place[assignment.place] = assignment
        self._touched.add(assignment.place)

    def remove(self, assignment: Assignment) -> None:
        """It is ours no more."""
        del self.by_place[assignment.place]
        self.busy.pop(assignment, None)
        self._touched.add(assignment.place)

    def touch(self, assignment: Assignment) -> None:
        """It may not be idle any more."""
        self.busy[assignment] = None

    def touch_owners(self, progress: Iterable[Progress]) -> None:
        """A commit with this was answered: whose it is, and still ours, may not be idle any more."""
        for one in progress:
            assignment = self.by_place.get(one.place)
            if assignment is not None and assignment is one.owner:
                self.touch(assignment)

    def touch_all(self) -> None:
        """None may be idle any more."""
        self.busy.update(dict.fromkeys(self.by_place.values()))

    def settle(self) -> None:
        """Leave out of the busy ones what has become idle."""
        self._touched.update(one.place for one in self.busy)
        self.busy = {one: None for one in self.busy if not one.is_idle or one.awaits_commit}

    def take_touched(self) -> set[Place]:
        """Partitions whose figures may have changed since the last call; those that are gone among them."""
        touched, self._touched = self._touched, set()
        touched.update(one.place for one in self.busy)
        return touched

    def validate(self) -> None:
        """Check the invariants."""
        assert all(self.by_place.get(one.place) is one for one in self.busy)
        for place, one in self.by_place.items():
            assert one.place == place and not one.accounts.has_ended
            assert one in self.busy or one.is_idle
            one.validate()
