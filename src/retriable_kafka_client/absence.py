"""Notices a client that does not find its way back into its group.

After a broker's pause librdkafka 2.16 was seen to stay without a connection to the group's coordinator for as long as one
looked, in three processes at once, while its other connections and every new client worked. A new client is the remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Absence"]

PATIENCE_SECONDS = 60.0  # from the loss: longer than a rebalance with a whole drain mostly takes


class Absence:
    """How long we have been out of the group. Only the loop's thread calls it; nothing blocks.

    ``ask`` asks the brokers anything: while they do not answer, a new client would be no better.
    """

    def __init__(self, ask: Callable[[], Future[Any]]) -> None:
        self._ask = ask
        self._since: float | None = None  # monotonic; None: we are in the group, or were not yet
        self._question: Future[Any] | None = None

    def begin(self, now: float) -> None:
        """Our partitions were lost."""
        if self._since is None:
            self._since = now

    def end(self) -> None:
        """The group has given us an assignment, if only an empty one."""
        self._since = self._question = None

    def is_vain(self, now: float) -> bool:
        """Whether the client should be replaced; once for each time that it was given to find back."""
        if self._since is None or now < self._since + PATIENCE_SECONDS:
            return False
        if self._question is None:
            self._question = self._ask()
        if not self._question.done():
            return False
        question, self._question = self._question, None
        if question.exception() is not None:
            return False
        self._since = now
        return True
