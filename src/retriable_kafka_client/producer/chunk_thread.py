"""The thread that sends a producer's large values: it reads them, splits them and serves a client of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.asking import Asker
from retriable_kafka_client.brokers.client import open_client
from retriable_kafka_client.brokers.derived_settings import single_record_settings
from retriable_kafka_client.brokers.error_codes import purged
from retriable_kafka_client.brokers.topic_limits import TopicLimits
from retriable_kafka_client.sending.chunked_sends import ChunkedSends
from retriable_kafka_client.sending.parcels import Parcel

__all__ = ["ChunkThread"]

log = logging.getLogger("retriable_kafka_client.pump")

_POLL = 0.02  # seconds; how long a parcel, or an answer about a topic, may go unnoticed while others are on their way
_BUDGET = 32 * 1024 * 1024  # bytes in the client
_MOST = 10_000  # parcels


class ChunkThread:
    """Sends parcels until ``close``. Any thread may call it; parcels are settled on its own.

    ``client_limit``: bytes of the largest record that the client takes. ``held_bytes``: of memory, in parcels that wait.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        admin_settings: Mapping[str, Any],
        *,
        client_limit: int,
        held_bytes: int,
    ) -> None:
        self._client = open_client(Producer, single_record_settings(settings))
        self._asker = cache(lambda: Asker(lambda: open_client(AdminClient, admin_settings)))
        self.limits = TopicLimits(lambda: self._asker().client)
        self._chunked = ChunkedSends(
            lambda: self._client, self.limits, client_limit=client_limit, budget=min(_BUDGET, held_bytes)
        )
        self._held_bytes = held_bytes
        self._changed = threading.Condition()  # guards what follows
        self._inbox: deque[Parcel] = deque()
        self._topics: deque[str] = deque()  # to be asked for
        self._bytes = 0  # of memory, in parcels that are not settled
        self._left = 0  # parcels that are not settled
        self._settling = 0  # of them, those whose callbacks are under way; its thread only
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="retriable-kafka-chunks", daemon=True)
        self._thread.start()

    def prepare(self, topic: str) -> None:
        """Ask for the topic's limit in the background."""
        with self._changed:
            self._topics.append(topic)
            self._changed.notify_all()

    def offer(self, parcel: Parcel, held: int = 0, *, force: bool = False) -> bool:
        """Take a parcel; False while too many wait, or too many bytes. ``held``: bytes of memory that it keeps until it is
        settled; ``force``: take it all the same.
        """
        with self._changed:
            full = self._left > 0 and (self._bytes + held > self._held_bytes or self._left >= _MOST)
            ended = self._ended
            if not ended and (force or not full):
                self._take(parcel, held)
                return True
        if ended:
            parcel.settle(_gone(), None)
        elif self._is_here():
            self._turn()
        return ended

    def wait(self, timeout: float) -> int:
        """Wait until every parcel is settled, at most ``timeout`` seconds; return how many are not."""
        deadline = time.monotonic() + timeout
        if self._is_here():
            while self._left > self._settling and time.monotonic() < deadline:
                self._turn()
            return self._left - self._settling
        with self._changed:
            self._changed.wait_for(lambda: not self._left, timeout)
        return self._left

    def close(self) -> None:
        """Settle what is left as purged, and end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._is_here():
            self._abandon()
        else:
            self._thread.join()

    def _is_here(self) -> bool:
        """Whether this is our thread: then we are called by the callback of a future."""
        return threading.current_thread() is self._thread

    def _take(self, parcel: Parcel, held: int) -> None:
        settle = parcel.settle

        def settled(error: KafkaError | None, report: Any) -> None:
            self._settling += 1
            try:
                settle(error, report)
            finally:
                self._settling -= 1
                with self._changed:
                    self._left -= 1
                    self._bytes -= held
                    if not self._left:
                        self._changed.notify_all()

        parcel.settle = settled
        self._left += 1
        self._bytes += held
        self._inbox.append(parcel)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._left or self._topics or self._ended)
                if self._ended:
                    break
            try:
                self._turn()
            except BaseException as error:  # noqa: BLE001 - a future's callback is the user's, and this thread ours
                # Its text may hold anything.
                log.error("a callback of the producer's client raised %s", type(error).__qualname__)
        self._abandon()

    def _turn(self) -> None:
        """Take what came, send what there is room for, and serve the client for a moment."""
        while self._topics:
            self.limits.pending(self._topics.popleft())
        if self.limits.waits_since is not None:
            self._asker().look(time.monotonic(), self.limits.waits_since)
        while self._inbox:
            self._chunked.add(self._inbox.popleft())
        self._chunked.advance()
        self._client.poll(_POLL)

    def _abandon(self) -> None:
        with suppress(KafkaException):  # it met a fatal error
            self._client.purge()
            self._client.flush(1.0)
        while self._inbox:
            self._chunked.add(self._inbox.popleft())
        self._chunked.abandon(_gone())


def _gone() -> KafkaError:
    return purged("the producer was closed before the brokers had it")
