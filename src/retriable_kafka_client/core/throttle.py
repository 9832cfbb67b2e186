"""Which partitions are read no further for a while: by messages, by bytes, and while the whole consumer pauses."""

from __future__ import annotations

from collections.abc import Sequence

from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.assignments import Assignments
from retriable_kafka_client.core.engine_config import EngineConfig
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Command, Pause, Resume, Withdraw

__all__ = ["Throttle"]

LEAST_POLL = 4  # records, however large


class Throttle:
    """Keeps each partition within its window, and all together within the bytes of the buffer.

    What is at hand and what waits have half of the bytes each; see ``Assignment.holds_too_much``.
    """

    def __init__(
        self, config: EngineConfig, load: Load, assignments: Assignments, assembly: Assembly
    ) -> None:
        self.on_hold = False
        self._window = config.window
        self._buffer_bytes = config.buffer_bytes
        self._share = config.buffer_bytes // 2
        self._load = load
        self._assignments = assignments
        self._assembly = assembly
        self._typical = 1  # bytes of a record that was polled of late

    @property
    def active_bytes(self) -> int:
        """Bytes of messages that are due, with the workers, or being handed off; of ended assignments too."""
        return self._assignments.active_bytes + self._load.left_bytes

    # How much to poll --------------------------------------------------------------------------------------------------

    @property
    def _records_by_bytes(self) -> int:
        """Large records are taken a few at a time: what a poll brings cannot be given back."""
        return max(LEAST_POLL, self._buffer_bytes // 8 // self._typical)

    def poll_budget(self, most: int) -> int:
        """How many records to poll at once so that no window is overrun, at most ``most`` and at least 1."""
        room = min(most, self._records_by_bytes, self._window)
        for assignment in self._assignments.busy:
            if assignment.phase is Phase.RUNNING and not assignment.paused:
                room = min(room, self._window - assignment.held)
        return max(1, room)

    def reread_budget(self, most: int) -> int:
        """How many records a Recall may take now, at most ``most``; 0: it has to wait."""
        if self.on_hold or self.active_bytes >= self._share:
            return 0
        return min(most, self._records_by_bytes)

    def note_poll(self, records: int, size: int) -> None:
        """A poll brought so many records (at least one) of ``size`` bytes."""
        self._typical = max(1, size // records)

    # Pausing and resuming ----------------------------------------------------------------------------------------------

    def hold(self, on: bool) -> Sequence[Command]:
        """The whole consumer pauses, or goes on."""
        if on == self.on_hold:
            return ()
        self.on_hold = on
        out: list[Command] = []
        for assignment in self._assignments.by_place.values():
            assignment.hold(on)
            self._assignments.touch(assignment)
            if on and assignment.phase is Phase.RUNNING and not assignment.paused:
                assignment.pause()
                out.append(Pause(assignment.place))
        if on:
            return [*out, Withdraw()]
        return self.apply_all()

    def apply(self, assignment: Assignment) -> Sequence[Command]:
        """See whether it is to be read on."""
        waiting = self._assignments.waiting_bytes
        return self._apply(assignment, self.active_bytes, waiting, self._squeezed(waiting))

    def apply_all(self) -> list[Command]:
        """See which partitions are to be read on."""
        active, waiting = self.active_bytes, self._assignments.waiting_bytes
        squeezed = self._squeezed(waiting)
        # Those that hold nothing pause only for what the others hold.
        tight = active >= self._share - squeezed or waiting >= self._share
        looked_at = self._assignments.by_place.values() if tight else self._assignments.busy
        out: list[Command] = []
        for assignment in tuple(looked_at):
            out += self._apply(assignment, active, waiting, squeezed)
        return out

    def _squeezed(self, waiting: int) -> int:
        return self._assembly.squeezed(waiting, self._assignments.assembling_bytes)

    def _apply(self, assignment: Assignment, active: int, waiting: int, squeezed: int) -> Sequence[Command]:
        """Pause a partition that holds too much, resume one that has come down to half.

        ``active`` and ``waiting`` are the bytes of all partitions; ``squeezed``: see ``holds_too_much``.
        """
        if not assignment.hands_out:
            return ()
        window, share = self._window, self._share
        if not assignment.paused:
            if assignment.holds_too_much(window, share, active, waiting, squeezed):
                assignment.pause()
                self._assignments.touch(assignment)
                return (Pause(assignment.place),)
        # One less than "too much" at the half of everything.
        elif not assignment.holds_too_much(window // 2 + 1, share // 2 + 1, active, waiting, squeezed // 2):
            assignment.resume()
            return (Resume(assignment.place),)
        return ()
