"""How many messages and bytes are where: of one assignment, and of all together.

Nothing else changes these figures than the verbs here. They take counts and sizes (in bytes), and know no messages.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Accounts", "Load"]


class Load:
    """What all assignments together have with the workers, those that have ended included. Changed by their accounts."""

    __slots__ = ("in_flight", "left_bytes", "overrun")

    def __init__(self) -> None:
        self.in_flight = 0  # messages with the workers
        self.overrun = 0  # of those in flight, the ones whose assignment has ended
        self.left_bytes = (
            0  # with workers or on their way, of assignments that have ended; and records of overdue runs
        )

    def validate(self, live: Iterable[Accounts]) -> None:
        """Check the invariants; ``live`` are the accounts of all assignments that have not ended."""
        assert self.in_flight == sum(one.in_flight for one in live) + self.overrun
        assert 0 <= self.overrun <= self.in_flight
        assert self.left_bytes >= 0


class Accounts:
    """The figures of one assignment. Its share of the load is counted there at the same time."""

    __slots__ = (
        "_load",
        "active_bytes",
        "beside",
        "has_ended",
        "in_flight",
        "overdue",
        "refused",
        "sending",
        "withheld",
    )

    def __init__(self, load: Load) -> None:
        self._load = load
        self.has_ended = False  # late answers concern the load alone
        self.active_bytes = (
            0  # of incomplete messages that wait neither for their time nor for an earlier one
        )
        self.in_flight = 0  # messages with the workers
        self.overdue = 0  # of these, failed for their time limit, and running still
        self.sending = 0  # copies, and runs' outputs, produced and not answered
        self.withheld = 0  # exactly once: of `sending`, what the offset map could not list as complete yet
        self.refused = 0  # copies that were refused, and wait to be sent again
        self.beside = 0  # offsets of whole messages besides their lowest ones

    @property
    def on_the_way(self) -> int:
        """Copies and outputs on their way, but for those that wait for room in the offset map."""
        return self.sending - self.withheld

    # Bytes -------------------------------------------------------------------------------------------------------------

    def hold(self, size: int) -> None:
        """Messages of so many bytes are active now."""
        self.active_bytes += size

    def drop(self, size: int) -> None:
        """Messages of so many bytes are active no more: they are complete, or forgotten, or wait."""
        self.active_bytes -= size

    def join(self, others: int) -> None:
        """A message is whole that has so many offsets besides its lowest one."""
        self.beside += others

    def part(self, others: int) -> None:
        """Such a message is complete."""
        self.beside -= others

    # Runs --------------------------------------------------------------------------------------------------------------

    def start(self, count: int) -> None:
        """So many messages go to the workers."""
        self.in_flight += count
        self._load.in_flight += count

    def back(self, count: int, size: int) -> bool:
        """So many came back from the workers, with their bytes; whether their assignment still lives."""
        load = self._load
        self.in_flight -= count
        load.in_flight -= count
        if self.has_ended:
            load.overrun -= count
            load.left_bytes -= size
            return False
        return True

    def begin_overdue(self, size: int) -> bool:
        """A run has failed for its time limit, and goes on; whether its assignment still lives."""
        self.overdue += 1
        if self.has_ended:
            return False  # its bytes count as left behind already
        self._load.left_bytes += size  # it holds its record, whatever becomes of the message
        return True

    def end_overdue(self, size: int) -> None:
        """An overdue run has come to its end."""
        if self.back(1, size):
            self._load.left_bytes -= size
        self.overdue -= 1

    # Copies and outputs ------------------------------------------------------------------------------------------------

    def send(self, size: int = 0) -> None:
        """A copy goes out; or a run's outputs, which hold so many bytes besides their message."""
        self.sending += 1
        self.active_bytes += size

    def answer(self, size: int, outputs: int = 0) -> bool:
        """It is certain what became of that, for a message of ``size`` bytes; whether the assignment still lives."""
        self.sending -= 1
        if self.has_ended:
            self._load.left_bytes -= size + outputs
            return False
        self.active_bytes -= outputs
        return True

    def withhold(self, count: int) -> None:
        """So many of what is being sent wait for room in the offset map."""
        self.withheld = count

    def refuse(self) -> None:
        """A copy was refused, and waits to be sent again."""
        self.refused += 1

    def leave_refused(self) -> None:
        """Such a copy waits no longer: it is about to be sent again."""
        self.refused -= 1

    # The end -----------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The assignment has ended: what it has under way is left behind."""
        self.has_ended = True
        self._load.overrun += self.in_flight
        self._load.left_bytes += self.active_bytes

    def forget(self, refused_bytes: int, unsent: int, unsent_bytes: int) -> None:
        """Before the end: copies that were refused, and what is in no transaction yet, are not sent any more."""
        self.active_bytes -= refused_bytes + unsent_bytes
        self.refused = self.withheld = 0
        self.sending -= unsent

    def validate(self) -> None:
        """Check the invariants."""
        assert self.active_bytes >= 0 and self.in_flight >= 0 and self.beside >= 0 and self.refused >= 0
        assert 0 <= self.withheld <= self.sending
        assert 0 <= self.overdue <= self.in_flight
