"""BaseProducer: one message to several topics, tried again where that may help."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from retriable_kafka_client import Delivery, Producer
from retriable_kafka_client.compat.config import ProducerConfig
from retriable_kafka_client.compat.connection import check_connection, cluster_of
from retriable_kafka_client.compat.errors import delivery_failed, refused
from retriable_kafka_client.errors import DeliveryError, QueueFull, RetriableKafkaError
from retriable_kafka_client.wire.headers import CHUNK_GROUP

__all__ = ["BaseProducer"]

_Headers = list[tuple[str, str | bytes | None]]


class BaseProducer:
    """Sends each message to every topic of ``config``, and returns once the brokers have it.

    What was not taken is sent again where that may help, ``config.retries`` times. Then the first error is
    raised: SendError, which is a KafkaException too, or BufferError. Thread-safe; connects when it first sends,
    and again when it sends after ``close``.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()  # guards the two below
        self._producer: Producer | None = None
        self._finalizer: weakref.finalize[..., BaseProducer] | None = None

    @property
    def topics(self) -> list[str]:
        """The topics that a message goes to."""
        return self._config.topics

    def send_sync(
        self,
        message: dict[str, Any] | bytes | list[bytes],
        headers: dict[str, str | bytes] | None = None,
    ) -> None:
        """Send ``message``: a body, the pieces of one, or a value for JSON.

        ``headers`` may be the library's own: a program schedules a message (``retriable_kafka_timestamp``,
        ``retriable_kafka_attempt``), or sends chunks that it made. With ``split_messages`` a message that has to be split
        gets chunk headers of its own.

        TypeError for what JSON cannot say, ConfigError (a KafkaException, too) for what the client does not take.
        """
        with refused():
            sending = self._sending(message, headers)
            while True:
                futures: list[tuple[str, Future[Delivery]]] = []
                for topic in sending.start():
                    try:
                        future = sending.producer.send(
                            topic, sending.body, key=sending.key, headers=sending.headers
                        )
                    except QueueFull as error:
                        sending.failed(topic, error)
                    else:
                        futures.append((topic, future))
                for topic, future in futures:
                    problem = future.exception()
                    if problem is not None:
                        sending.failed(topic, problem)
                wait = sending.wait()
                if wait is None:
                    return
                time.sleep(wait)

    async def send(
        self,
        message: dict[str, Any] | bytes | list[bytes],
        headers: dict[str, str | bytes] | None = None,
    ) -> None:
        """As ``send_sync``, without blocking the event loop."""
        with refused():
            sending = self._sending(message, headers)
            while True:
                topics = sending.start()
                give = partial(
                    sending.producer.asend, value=sending.body, key=sending.key, headers=sending.headers
                )
                outcomes = await asyncio.gather(*map(give, topics), return_exceptions=True)
                for topic, outcome in zip(topics, outcomes, strict=True):
                    if isinstance(outcome, BaseException):
                        sending.failed(topic, outcome)
                wait = sending.wait()
                if wait is None:
                    return
                await asyncio.sleep(wait)

    def connection_healthcheck(self) -> bool:
        """Whether the brokers are there and let us in. Asks them; blocks at most 5 seconds."""
        return check_connection(self._config)

    def close(self) -> None:
        """Wait for what is on its way, at most 30 seconds, and let go of the connection."""
        with self._lock:
            producer, self._producer = self._producer, None
            if self._finalizer is not None:
                self._finalizer.detach()
        if producer is not None:
            producer.close()

    def _sending(self, message: object, headers: object) -> _Attempts:
        return _Attempts(
            config=self._config, body=_body(message), headers=_headers(headers), producer=self._connected()
        )

    def _connected(self) -> Producer:
        with self._lock:
            if self._producer is None:
                # Whoever waits for each message would wait for the linger, too.
                cluster = cluster_of(self._config, at_once=True)
                self._producer = Producer(cluster, split=self._config.split_messages)
                self._producer.reserved_headers = True
                # 0.x programs drop producers without closing them, and this one has a thread. Nothing is on its way
                # then but what a cancelled coroutine left.
                self._finalizer = weakref.finalize(self, _let_go, self._producer)
                self._finalizer.atexit = False
            return self._producer


def _let_go(producer: Producer) -> None:
    with suppress(RetriableKafkaError):  # a forked child's, and its parent used it
        producer.close(1.0)


@dataclass(slots=True, kw_only=True)
class _Attempts:
    """One message on its way: to which topics it must still go, and when to try again."""

    config: ProducerConfig
    producer: Producer
    body: bytes
    headers: _Headers
    rounds: int = 0
    failures: dict[str, BaseException] = field(default_factory=dict)  # of this round, by topic
    # The first failure that trying again does not mend. Its topic gets no further try.
    lost: BaseException | None = None

    @property
    def key(self) -> str | bytes | None:
        """A chunk that the program made by itself goes to the partition of the others; for readers it is no key."""
        return next((value for name, value in self.headers if name == CHUNK_GROUP), None)

    def start(self) -> list[str]:
        """Begin a round; returns the topics to send to."""
        topics = list(self.failures) if self.rounds else list(self.config.topics)
        self.failures.clear()
        self.rounds += 1
        return topics

    def failed(self, topic: str, error: BaseException) -> None:
        self.failures[topic] = error

    def wait(self) -> float | None:
        """Return how long to wait for the next round; None: all is sent.

        When nothing is left to try, raises the first failure that could not be mended.
        """
        for topic, error in list(self.failures.items()):
            if self.rounds > self.config.retries or not _passes(error):
                self.lost = self.lost or error
                del self.failures[topic]
        if self.failures:
            return float(self.config.fallback_base * self.config.fallback_factor ** (self.rounds - 1))
        if self.lost is not None:
            raise _as_0x(self.lost)
        return None


def _passes(error: BaseException) -> bool:
    if isinstance(error, DeliveryError):
        return delivery_failed(error).retriable
    return isinstance(error, QueueFull)


def _as_0x(error: BaseException) -> BaseException:
    if isinstance(error, DeliveryError):
        return delivery_failed(error)
    return BufferError(str(error)) if isinstance(error, QueueFull) else error


def _body(message: object) -> bytes:
    if isinstance(message, bytes):
        return message
    if isinstance(message, list):
        for part in message:
            if not isinstance(part, bytes):
                raise TypeError(f"a list must hold the pieces of a body as bytes, not {type(part).__name__}")
        return b"".join(message)
    return json.dumps(message).encode()


def _headers(given: object) -> _Headers:
    pairs: Iterable[Any] = (
        () if given is None else given.items() if isinstance(given, Mapping) else given  # type: ignore[assignment]
    )
    headers: _Headers = []
    for name, value in pairs:
        if not isinstance(name, str) or not (value is None or isinstance(value, (str, bytes))):
            raise TypeError("headers must be texts with a value of text or bytes")
        headers.append((name, value))
    return headers
