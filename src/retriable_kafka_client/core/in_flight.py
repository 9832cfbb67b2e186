"""What all partitions together have with the workers, and what outlives its message or its assignment there."""

from __future__ import annotations

from collections.abc import Collection

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.partition import Assignment, Phase

__all__ = ["Load"]


class Load:
    """Slots and bytes, counted here and in the assignments at once."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.overrun = 0  # of those in flight, the ones whose assignment has ended
        self.left_bytes = 0  # what workers still run, and copies and outputs on their way, of what has ended

    def add(self, assignment: Assignment, count: int) -> None:
        """So many messages go to the workers."""
        assignment.in_flight += count
        self.in_flight += count

    def back(self, entry: Entry) -> bool:
        """An entry came back from the workers; whether its assignment still lives."""
        return self.run_back(entry.assignment, 1, entry.size)

    def run_back(self, assignment: Assignment, count: int, size: int) -> bool:
        """Likewise of several messages of one assignment, with their bytes."""
        self.in_flight -= count
        assignment.in_flight -= count
        if assignment.phase is Phase.ENDED:
            self.overrun -= count
            self.left_bytes -= size
            return False
        return True

    def overdue(self, entry: Entry) -> bool:
        """A run has failed for its time limit, and goes on; whether its assignment still lives."""
        assignment = entry.assignment
        assignment.linger(entry)
        if assignment.phase is Phase.ENDED:
            return False  # its bytes count as left behind already
        self.left_bytes += entry.size  # it holds its record, whatever becomes of the message
        return True

    def released(self, entry: Entry) -> None:
        """An overdue run has come to its end."""
        if self.back(entry):
            self.left_bytes -= entry.size
        entry.assignment.release(entry)

    def ended(self, assignment: Assignment) -> None:
        """The assignment has ended: what it has under way is left behind."""
        self.overrun += assignment.in_flight
        self.left_bytes += assignment.active_bytes

    def validate(self, assignments: Collection[Assignment]) -> None:
        """Check the invariants; ``assignments`` are those that live."""
        assert self.in_flight == sum(a.in_flight for a in assignments) + self.overrun
        assert 0 <= self.overrun <= self.in_flight
        assert self.left_bytes >= 0
