"""From the thread that serves the client to the event loops whose coroutines wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

from confluent_kafka import KafkaError

from retriable_kafka_client.brokers.error_codes import delivery_error
from retriable_kafka_client.errors import DeliveryError
from retriable_kafka_client.producer.delivery import Delivery, UnreadFailures

__all__ = ["AsyncioBridge", "AsyncioBridges"]


class AsyncioBridge:
    """One event loop's mailbox, and the line of coroutines that wait for room in the client's queue.

    The loop is woken once for a whole batch of reports: a wake-up for each record costs more than sending it.
    """

    __slots__ = ("_due", "_mail", "_unread", "line", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, unread: UnreadFailures) -> None:
        self.loop = loop
        self._unread = unread
        self.line = asyncio.Lock()  # who holds it is first in line
        self.waiting = 0  # how many stand in line; the loop's thread only
        self._mail: deque[tuple[asyncio.Future[Delivery], Delivery | DeliveryError]] = deque()
        # A wake-up is on its way. Set back before the mail is read, so that no mail is left without one.
        self._due = False

    def settle(
        self, future: asyncio.Future[Delivery], topic: str, error: KafkaError | None, message: Any
    ) -> None:
        """Take a delivery report and end ``future`` on its loop; from any thread, without waiting."""
        outcome: Delivery | DeliveryError
        if error is None:
            outcome = Delivery.of(message)
        else:
            outcome = delivery_error(error, topic)
            self._unread.failed(topic, outcome.code, looked=True)
        self._mail.append((future, outcome))
        if not self._due:
            self._due = True
            try:
                self.loop.call_soon_threadsafe(self._empty)
            except RuntimeError:
                self._forget()  # the loop is closed, and nobody waits any more

    def _empty(self) -> None:
        self._due = False
        while self._mail:
            future, outcome = self._mail.popleft()
            if future.done():  # cancelled
                self._note_unread(outcome)
                continue
            if isinstance(outcome, DeliveryError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _forget(self) -> None:
        while self._mail:
            self._note_unread(self._mail.popleft()[1])

    def _note_unread(self, outcome: Delivery | DeliveryError) -> None:
        if isinstance(outcome, DeliveryError):
            self._unread.note(outcome.topic or "", outcome.code)


class AsyncioBridges:
    """The bridges of one producer: one for each event loop that sends with it."""

    __slots__ = ("_bridges", "_lock", "_unread")

    def __init__(self, unread: UnreadFailures) -> None:
        self._unread = unread
        self._bridges: dict[asyncio.AbstractEventLoop, AsyncioBridge] = {}
        self._lock = threading.Lock()

    def here(self) -> AsyncioBridge:
        """Return the running loop's bridge."""
        loop = asyncio.get_running_loop()
        bridge = self._bridges.get(loop)
        if bridge is None:
            bridge = AsyncioBridge(loop, self._unread)
            with self._lock:
                for other in [one for one in self._bridges if one.is_closed()]:
                    del self._bridges[other]
                self._bridges[loop] = bridge
        return bridge
