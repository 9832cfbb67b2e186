"""The client that asks the brokers; another one takes its place where a question stays unanswered for long.

A question of an admin client goes to one broker: what it takes for the controller, or a partition's leader. If that one
hangs, there is no answer until the request times out, after a minute, and the next question may go there again. A new
client reaches only brokers that answer, and knows what they say now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka.admin import AdminClient

__all__ = ["Asker", "Listed"]

PATIENCE_SECONDS = 3.0  # with one question; doubled each time that another client was in vain, up to
MOST_SECONDS = 10.0
SLOW = 3  # or so many times as long as brokers take to answer a new client
ASK_SECONDS = 60.0  # for a new client's first answer, as long as requests take


@dataclass(frozen=True, slots=True)
class Listed:
    """A client that was answered: what the cluster listed."""

    client: AdminClient
    metadata: Any
    took: float  # seconds


class Asker:
    """Whoever asks takes ``client`` for each question. The loop's thread only, but for ``client``; nothing blocks.

    Clients are made by ``make``, which may block: on other threads, but for the first one and the one of ``replace``. These
    two raise what ``make`` raises. What was asked of a client stays under way as long as its asker keeps the client.
    """

    def __init__(self, make: Callable[[], AdminClient]) -> None:
        self.client = make()
        self.heard_at: float | None = None  # when a broker answered last; monotonic, as all times here
        self.took = 0.0  # seconds, until a new client had its answer
        self.failure: BaseException | None = None  # of the list that failed last, if no answer came after it
        self._make = make
        self._until = 0.0  # before that, no list is waited for longer
        self._lists: list[Future[Listed]] = []
        self._asked_at = 0.0
        self._in_vain = 0  # clients since something was answered

    def list_topics(self, now: float, timeout: float) -> None:
        """Ask what topics there are; whoever is asked may take so many seconds from now."""
        client = self.client
        self._until = now + timeout
        self._ask(lambda: client, now)

    def look(self, now: float, since: float | None) -> Listed | None:
        """``since``: from when on the oldest question waits; None: none does.

        Returns what another client, or ``list_topics``, was answered: what waits is now to be asked of ``client`` again.
        """
        found = self._take(now)
        if found is not None:
            self.client = found.client
            return found
        if since is None:
            self._in_vain = 0
        elif now >= max(since, self._asked_at) + self._patience:
            self._in_vain += 1
            self._ask(self._make, now)
        return None

    def replace(self) -> None:
        """The client is of no use any more."""
        self.client = self._make()

    @property
    def _patience(self) -> float:
        return max(min(PATIENCE_SECONDS * 2.0**self._in_vain, MOST_SECONDS), SLOW * self.took)

    def _take(self, now: float) -> Listed | None:
        for future in [future for future in self._lists if future.done()]:
            self._lists.remove(future)
            self.failure = future.exception()
            if self.failure is None:
                listed = future.result()
                self._lists.clear()
                self.heard_at, self.took, self._until = now, listed.took, 0.0
                return listed
        return None

    def _ask(self, make: Callable[[], AdminClient], now: float) -> None:
        self._asked_at = now
        answer: Future[Listed] = Future()
        timeout = max(1.0, self._until - now) if self._until else ASK_SECONDS

        def ask() -> None:
            began = time.monotonic()
            try:
                client = make()
                metadata = client.list_topics(timeout=timeout)
                answer.set_result(Listed(client, metadata, time.monotonic() - began))
            except Exception as error:  # noqa: BLE001 - whoever waits for it judges it
                answer.set_exception(error)

        with suppress(RuntimeError):  # Python 3.12 starts none any more once the main thread has returned
            threading.Thread(target=ask, name="rkc-list", daemon=True).start()
            self._lists.append(answer)
