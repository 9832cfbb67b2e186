"""How long a slice may be, and how many may run at once: from what the last ones cost."""

from __future__ import annotations

__all__ = ["Pace"]

_SLICE_SECONDS = 0.005  # aimed at; a slice may turn out twice as long before its rest is taken back
_WORTHWHILE_SECONDS = 0.001
_LONGEST = 500  # messages; beyond this a slice's own cost no longer shows
_CHEAP_SECONDS = 0.0002  # a message; only below this does a thread's switching cost weigh anything
_WINDOW_SECONDS = 0.02  # the time over which the interpreter's load is measured


class Pace:
    """The measured cost of a message, and the width: how many slices may run side by side.

    Threads of one interpreter take turns, so cheap messages gain nothing from a second thread while the first
    keeps the interpreter busy, and lose to the switching. The width halves while the slices' CPU time fills
    more than half of the wall time, and doubles while it does not. ``shares_interpreter`` False (processes,
    free-threaded builds): always all slots. Not thread-safe: its runner's lock covers it.
    """

    __slots__ = ("_cpu", "_messages", "_opened", "_seconds", "_shares", "_slots", "cost", "width")

    def __init__(self, slots: int, *, shares_interpreter: bool) -> None:
        self._slots = slots
        self._shares = shares_interpreter
        # Seconds a message: pessimistic at first, and capped, so that one peak is soon forgotten.
        self.cost = _SLICE_SECONDS
        self._seconds = self._messages = 0.0  # of the last slices, older ones fading
        self.width = slots  # 1 <= width <= slots
        self._opened = 0.0  # when the window of _cpu began
        self._cpu = 0.0  # CPU seconds of the slices that ended in it

    def length(self, queued: int) -> int:
        """How many of ``queued`` ready messages the next slice takes; at least 1."""
        # A slice costs some 30 us of its own: what is done within a millisecond is not worth being shared out.
        fair = max(-(-queued // self.width), int(_WORTHWHILE_SECONDS / self.cost))
        return max(1, min(queued, fair, int(_SLICE_SECONDS / self.cost), _LONGEST))

    def note(self, count: int, seconds: float) -> None:
        """``count`` messages of a slice took ``seconds`` so far.

        Elsewhere peaks count at once and fade by a tenth a slice, because a pool of processes gives nothing back. In this
        interpreter a short slice's time may be all waiting for its turn, so there it is the mean of the last messages.
        """
        if count <= 0:
            return
        seconds = min(seconds, count * _SLICE_SECONDS)
        if self._shares:
            self._seconds = self._seconds * 0.9 + seconds
            self._messages = self._messages * 0.9 + count
            self.cost = max(1e-7, self._seconds / self._messages)
        else:
            self.cost = max(1e-7, self.cost * 0.9, seconds / count)

    def note_cpu(self, cpu: float, now: float) -> None:
        """A slice ended at ``now`` (monotonic) and had ``cpu`` seconds of CPU time."""
        if not self._shares:
            return
        if self.cost > _CHEAP_SECONDS:
            self.width = self._slots
            self._opened, self._cpu = now, 0.0
            return
        self._cpu += cpu
        elapsed = now - self._opened
        if elapsed < _WINDOW_SECONDS:
            return
        if self._cpu > elapsed / 2:
            self.width = max(1, self.width // 2)
        else:
            self.width = min(self._slots, self.width * 2)
        self._opened, self._cpu = now, 0.0
