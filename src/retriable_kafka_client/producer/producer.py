"""Sending records: one path for ``send`` and ``asend``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError

from retriable_kafka_client.brokers.error_codes import is_too_large
from retriable_kafka_client.config import Cluster
from retriable_kafka_client.errors import ConfigError, QueueFull, RetriableKafkaError, seconds
from retriable_kafka_client.health import Health
from retriable_kafka_client.message import JSON
from retriable_kafka_client.producer.asyncio_bridge import AsyncioBridge
from retriable_kafka_client.producer.chunk_thread import ChunkThread
from retriable_kafka_client.producer.delivery import Delivery, DeliveryFuture
from retriable_kafka_client.producer.producer_client import ProducerClient
from retriable_kafka_client.runtime.monkey_patching import refuse_patched
from retriable_kafka_client.sending.batching import Batching, batching_of
from retriable_kafka_client.sending.parcels import Pair, Parcel, Settle
from retriable_kafka_client.sending.sources import FileSource, MemorySource, Source, view_of
from retriable_kafka_client.wire.checks import MAX_INT32, check_topic_name, instance, integer
from retriable_kafka_client.wire.outgoing import (
    BYTES_LIKE,
    GivenHeaders,
    SendRequest,
    Serializer,
    body_of,
    check_file,
    is_file,
    key_of,
    own_headers_of,
    schedule_headers,
)

__all__ = ["Producer"]

_ROOM = 0.01  # seconds between two looks for room in the full queue
_KNOWN_TOPICS = 10_000

Give = Callable[[], bool]  # whether what is to be sent was taken; False: no room


class Producer:
    """Sends records and says what became of each.

    Idempotent, acknowledged by all in-sync replicas. The constructor does no I/O; the client and the thread
    that serves it start with the first call that needs them, so one that was only made before a fork works in
    the child; one that was used before it raises RetriableKafkaError there. Thread-safe. Close it, or use it in
    ``with``. When the interpreter ends first, what is on its way has 5 s, for all producers together; an ERROR
    line counts what was not delivered then. Nothing is sent any more once a signal has ended the process.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        split: bool = False,
        chunk_bytes: int | None = None,
        serializer: Serializer = JSON,
        queue_timeout: float | timedelta = 10.0,
    ) -> None:
        refuse_patched()
        instance("Producer.cluster", cluster, Cluster, "must be a Cluster")
        instance("Producer.split", split, bool, "must be True or False")
        if chunk_bytes is not None:
            integer("Producer.chunk_bytes", chunk_bytes, 1, MAX_INT32)
            if not split:
                raise ConfigError("Producer.chunk_bytes", chunk_bytes, "give it together with split=True")
        if not callable(serializer):
            raise ConfigError("Producer.serializer", serializer, "must be callable")
        # For `compat`, which sets it: whoever sends may give the library's own headers.
        self.reserved_headers = False
        self._cluster = cluster
        self._split = split
        self._chunk_bytes = chunk_bytes
        self._serializer = serializer
        self._queue_timeout = seconds("Producer.queue_timeout", queue_timeout)
        self._known_topics: set[str] = set()
        self._client = ProducerClient(cluster, split=split)

    # Sending
    # -----------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: GivenHeaders = (),
        not_before: datetime | None = None,
        delay: float | timedelta | None = None,
    ) -> Future[Delivery]:
        """Send a record; the future gives its Delivery once the brokers have it, or raises DeliveryError.

        Waits only while the local queue is full, at most ``queue_timeout`` seconds, and then raises
        QueueFull. A file is read from where it stands to its end. ``not_before`` and ``delay`` are kept by
        the library's consumers.

        With ``split`` a value that is too large for its topic goes in chunks, and the future gives the first one's
        Delivery once the brokers have all of them. It is read by the producer's thread, a file piece by piece: leave
        the file, bytearray or memoryview as it is until the future is done.
        """
        future = DeliveryFuture()
        future.topic = topic
        future.unread = self._client.unread
        request = SendRequest(topic, value, key, headers, not_before, delay)
        give = self._prepare(request, future.settle)
        if not give():
            self._wait_for_room(topic, give)
        return future

    async def asend(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: GivenHeaders = (),
        not_before: datetime | None = None,
        delay: float | timedelta | None = None,
    ) -> Delivery:
        """Send a record and return when the brokers have it; raises as ``send`` and its future do.

        Never blocks the event loop, also while the queue is full: those who wait for room get it in their
        order. Cancelling does not call a record back.
        """
        bridge = self._client.bridges.here()
        future: asyncio.Future[Delivery] = bridge.loop.create_future()
        settle = partial(bridge.settle, future, topic)
        request = SendRequest(topic, value, key, headers, not_before, delay)
        if is_file(value):
            give = await asyncio.to_thread(self._prepare, request, settle)
        else:
            give = self._prepare(request, settle)
        if bridge.waiting or not give():
            await self._stand_in_line(bridge, topic, give)
        return await future

    def _prepare(self, request: SendRequest, settle: Settle) -> Give:
        """Check and serialize a record; return what gives it to the client, or to the thread that splits."""
        if self._split:
            return self._prepare_split(request, settle)
        pairs = self._pairs(request)
        body = body_of(request.value, self._serializer)
        return partial(self._client.produce, request.topic, body, key_of(request.key), pairs, settle)

    def _pairs(self, request: SendRequest) -> list[Pair] | None:
        """Return the record's headers; checks the topic's name."""
        topic = request.topic
        if topic not in self._known_topics:
            check_topic_name("Producer.send.topic", topic)
            if self._client.chunk_thread is not None:
                self._client.chunk_thread.prepare(topic)
            if len(self._known_topics) < _KNOWN_TOPICS:
                self._known_topics.add(topic)
        given = request.headers
        pairs = own_headers_of(given, reserved=self.reserved_headers) if given else None
        if request.not_before is not None or request.delay is not None:
            pairs = [*(pairs or ()), *schedule_headers(request.not_before, request.delay)]
        return pairs

    def _prepare_split(self, request: SendRequest, settle: Settle) -> Give:
        chunk_thread = self._client.started_chunk_thread()
        pairs = self._pairs(request)
        value = body = request.value
        source: Source | None = None
        if isinstance(value, BYTES_LIKE):
            source = MemorySource(view_of(memoryview(value)))
        elif is_file(value):
            check_file(value)
            source = FileSource(value)
        else:
            body = body_of(value, self._serializer)
            if body is not None:
                source = MemorySource(body)
        parcel = Parcel(
            topic=request.topic,
            source=source,
            key=key_of(request.key),
            headers=pairs or (),
            settle=settle,
            most=self._chunk_bytes,
        )
        batching = batching_of(
            parcel,
            chunk_thread.limits.limit(request.topic),
            client_limit=self._client.client_limit,
            large=self._client.client_limit,
        )
        if batching is Batching.ALONE:
            held = 0 if isinstance(source, FileSource) else parcel.size
            return partial(self._hand_over, parcel, held)
        if source is not None:
            body = body_of(body, self._serializer)
            parcel.source = MemorySource(body or b"")
        settled = partial(self._settled, parcel, chunk_thread)
        return partial(self._client.produce, request.topic, body, parcel.key, pairs, settled)

    def _hand_over(self, parcel: Parcel, held: int) -> bool:
        """Give a parcel to the thread that splits; False while it has too many."""
        assert self._client.chunk_thread is not None
        if self._client.closed:
            raise RetriableKafkaError("the producer is closed")
        return self._client.chunk_thread.offer(parcel, held)

    @staticmethod
    def _settled(parcel: Parcel, chunk_thread: ChunkThread, error: KafkaError | None, report: Any) -> None:
        """Take the report of a record that went whole. One that is too large may be so by its neighbours in the batch, or
        its topic takes less than we know.
        """
        if is_too_large(error):
            chunk_thread.offer(parcel, parcel.size, force=True)
        else:
            parcel.settle(error, report)

    def _wait_for_room(self, topic: str, give: Give) -> None:
        deadline = time.monotonic() + self._queue_timeout
        while (left := deadline - time.monotonic()) > 0.0:
            self._client.poll(min(_ROOM, left))
            if give():
                return
        raise QueueFull(topic, self._queue_timeout)

    async def _stand_in_line(self, bridge: AsyncioBridge, topic: str, give: Give) -> None:
        bridge.waiting += 1
        try:
            async with asyncio.timeout(self._queue_timeout), bridge.line:
                while not give():  # noqa: ASYNC110 - no event tells of room in the client's queue
                    await asyncio.sleep(_ROOM)
        except TimeoutError:
            raise QueueFull(topic, self._queue_timeout) from None
        finally:
            bridge.waiting -= 1

    # Ends and health
    # ---------------------------------------------------------------------------------------------

    def flush(self, timeout: float | timedelta) -> int:
        """Wait until every record is settled, at most ``timeout`` seconds; return how many are not."""
        return self._client.flush(seconds("Producer.flush.timeout", timeout))

    def close(self, timeout: float | timedelta = 30.0) -> None:
        """Take no more records, wait for those on their way, at most ``timeout`` seconds, and stop.

        The futures of what is not acknowledged by then raise DeliveryError. Calling it again does nothing.
        """
        self._client.close(seconds("Producer.close.timeout", timeout))

    def __enter__(self) -> Self:
        self._client.check_fork()
        if self._client.closed:
            raise RetriableKafkaError("the producer is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._client.inherited:  # a child that leaves the block has nothing to close
            self.close()

    def health(self) -> Health:
        """Say how it is, from any thread.

        Asks the brokers only where none has answered yet or the client has met a problem since, for at most one
        second.
        """
        return self._client.health()

    def __repr__(self) -> str:
        return f"<Producer to {self._cluster.bootstrap_servers} {self._client.state}>"
