"""Whether brokers answer, and whether a group has no coordinator, judged from what a client hears: pure."""

from __future__ import annotations

__all__ = ["Hearing", "Silence"]

# Asking who it is: the brokers that answer name none. What comes later has a name, and its broker may be on its way back.
_ASKING = frozenset(("query-coord", "wait-coord"))


class Hearing:
    """Times are monotonic. Only brokers that answer can say that there is none."""

    def __init__(self) -> None:
        self.state = ""  # as the client names it; empty: it has not said anything yet
        self._none_since: float | None = None

    def note(self, state: str, *, answering: bool, now: float) -> None:
        """The client is in this state; ``answering``: it is connected to a broker."""
        self.state = state
        if state not in _ASKING or not answering:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = now

    def is_none(self, now: float, seconds: float) -> bool:
        """Whether brokers have named none for so long."""
        return self._none_since is not None and now >= self._none_since + seconds


class Silence:
    """How long no broker could be used. Times are monotonic."""

    def __init__(self, now: float) -> None:
        self._heard_at = now  # before anything was heard, when we began

    def heard(self, at: float) -> None:
        """A broker could be used then."""
        self._heard_at = max(self._heard_at, at)

    def lasts(self, now: float, seconds: float) -> bool:
        """Whether it has lasted for longer than so."""
        return now - self._heard_at > seconds
