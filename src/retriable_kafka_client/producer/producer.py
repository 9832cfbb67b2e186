"""Sending records: one path for ``send`` and ``asend``, and a thread that serves the client."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Client

from retriable_kafka_client.brokers.client import (
    admin_settings,
    largest_record,
    open_client,
    producer_settings,
)
from retriable_kafka_client.brokers.client_callbacks import without_secrets
from retriable_kafka_client.brokers.error_codes import is_fatal, is_too_large
from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.errors import ConfigError, QueueFull, RetriableKafkaError, seconds
from retriable_kafka_client.health import Health
from retriable_kafka_client.message import JSON
from retriable_kafka_client.producer.asyncio_bridge import AsyncioBridge, AsyncioBridges
from retriable_kafka_client.producer.chunk_thread import ChunkThread
from retriable_kafka_client.producer.delivery import Delivery, DeliveryFuture, UnreadFailures
from retriable_kafka_client.runtime.forks import used_before_fork
from retriable_kafka_client.runtime.interpreter_exit import producer_ended, producer_runs
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

log = logging.getLogger("retriable_kafka_client.producer")

_POLL = 0.1  # seconds; how long a failure may stay unlogged, and how long close() may wait for the thread
_ROOM = 0.01  # seconds between two looks for room in the full queue
_PROBE = 1.0  # seconds that health() may ask the brokers
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
        self._client_limit = largest_record(cluster)
        self._chunk_thread: ChunkThread | None = None  # only with split
        self._serializer = serializer
        self._queue_timeout = seconds("Producer.queue_timeout", queue_timeout)
        self._unread = UnreadFailures()
        self._bridges = AsyncioBridges(self._unread)
        self._known_topics: set[str] = set()
        self._lock = threading.Lock()  # guards starting and closing
        self._client: Client | None = None
        self._thread: threading.Thread | None = None
        self._closed = False  # takes nothing more
        self._inherited = False  # this is a child of the process that used it
        self._ended = False  # the thread is gone
        self._serving = False  # some sender is at it; two at once do no harm
        self._stop = threading.Event()
        self._fatal = ""  # the client's last words; it takes nothing any more
        self._trouble = "no broker has answered yet"  # empty once one has, until the next trouble

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
        future.unread = self._unread
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
        bridge = self._bridges.here()
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
        return partial(self._produce, request.topic, body, key_of(request.key), pairs, settle)

    def _pairs(self, request: SendRequest) -> list[Pair] | None:
        """Return the record's headers; checks the topic's name."""
        topic = request.topic
        if topic not in self._known_topics:
            check_topic_name("Producer.send.topic", topic)
            if self._chunk_thread is not None:
                self._chunk_thread.prepare(topic)
            if len(self._known_topics) < _KNOWN_TOPICS:
                self._known_topics.add(topic)
        given = request.headers
        pairs = own_headers_of(given, reserved=self.reserved_headers) if given else None
        if request.not_before is not None or request.delay is not None:
            pairs = [*(pairs or ()), *schedule_headers(request.not_before, request.delay)]
        return pairs

    def _prepare_split(self, request: SendRequest, settle: Settle) -> Give:
        if self._client is None:
            self._start()
        assert self._chunk_thread is not None
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
            self._chunk_thread.limits.limit(request.topic),
            client_limit=self._client_limit,
            large=self._client_limit,
        )
        if batching is Batching.ALONE:
            held = 0 if isinstance(source, FileSource) else parcel.size
            return partial(self._hand_over, parcel, held)
        if source is not None:
            body = body_of(body, self._serializer)
            parcel.source = MemorySource(body or b"")
        settled = partial(self._settled, parcel, self._chunk_thread)
        return partial(self._produce, request.topic, body, parcel.key, pairs, settled)

    def _hand_over(self, parcel: Parcel, held: int) -> bool:
        """Give a parcel to the thread that splits; False while it has too many."""
        assert self._chunk_thread is not None
        if self._closed:
            raise RetriableKafkaError("the producer is closed")
        return self._chunk_thread.offer(parcel, held)

    @staticmethod
    def _settled(parcel: Parcel, chunk_thread: ChunkThread, error: KafkaError | None, report: Any) -> None:
        """Take the report of a record that went whole. One that is too large may be so by its neighbours in the batch, or
        its topic takes less than we know.
        """
        if is_too_large(error):
            chunk_thread.offer(parcel, parcel.size, force=True)
        else:
            parcel.settle(error, report)

    def _produce(
        self,
        topic: str,
        body: bytes | None,
        key: bytes | None,
        headers: list[Pair] | None,
        settle: Settle,
    ) -> bool:
        """Give the client a record; False when its queue is full. A record that it refuses is settled."""
        client = self._client or self._start()
        if self._closed:
            raise RetriableKafkaError("the producer is closed")
        try:
            # By position, which costs 0.3 us less: partition, both names of the callback, timestamp, headers.
            client.produce(topic, body, key, -1, settle, None, 0, headers)
        except BufferError:
            return False
        except KafkaException as error:
            settle(error.args[0], None)
        if not self._serving:
            # Serving reports here keeps them from the thread, which would need the GIL for each: twice the
            # throughput. Not within a report's callback: one that sends would nest without end.
            self._serving = True
            try:
                client.poll(0)
            finally:
                self._serving = False
        if self._ended:
            # Closed by another thread in between: nobody serves the client any more.
            client.purge()
            client.flush(_POLL)
        return True

    def _wait_for_room(self, topic: str, give: Give) -> None:
        deadline = time.monotonic() + self._queue_timeout
        while (left := deadline - time.monotonic()) > 0.0:
            # Serves the client as well, for one who sends from a future's callback keeps the thread from
            # doing it.
            self._started().poll(min(_ROOM, left))
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

    # The client and its thread
    # -----------------------------------------------------------------------------------

    def _start(self) -> Client:
        self._check_fork()
        refuse_patched()
        with self._lock:
            if self._closed:
                raise RetriableKafkaError("the producer is closed")
            if self._client is None:
                settings = producer_settings(self._cluster, Limits(), on_error=self._on_error)
                client = open_client(Client, settings)
                if self._split:
                    self._chunk_thread = ChunkThread(
                        settings,
                        admin_settings(self._cluster),
                        client_limit=self._client_limit,
                        held_bytes=Limits().buffer_bytes,
                    )
                self._thread = threading.Thread(
                    target=self._serve, args=(client,), name="retriable-kafka-producer", daemon=True
                )
                self._thread.start()
                self._client = client
                producer_runs(self)
            return self._client

    def _started(self) -> Client:
        assert self._client is not None
        return self._client

    def _serve(self, client: Client) -> None:
        while not self._stop.is_set():
            try:
                client.poll(_POLL)
            except BaseException as error:  # noqa: BLE001 - a future's callback is the user's, and this thread ours
                # Its text may hold anything.
                log.error("a callback of the producer's client raised %s", type(error).__qualname__)
            self._unread.report()

    # The interpreter's end, and forks: see interpreter_exit.Sending
    # -----------------------------------------------------------------------------------------------

    def _last_call(self) -> None:
        """Internal: see interpreter_exit.Sending."""
        with self._lock:
            self._closed = True
        self._unread.last_call()

    def _send_rest(self, timeout: float) -> bool:
        """Internal: see interpreter_exit.Sending."""
        deadline = time.monotonic() + timeout
        chunk_thread = self._chunk_thread
        if self._started().flush(timeout):
            return False
        # What was too large for its neighbours goes from the one to the other.
        return chunk_thread is None or (
            not chunk_thread.wait(max(0.0, deadline - time.monotonic())) and not self._started().flush(0)
        )

    def _give_up(self) -> Counter[tuple[str, str]]:
        """Internal: see interpreter_exit.Sending."""
        client = self._started()
        if len(client):
            client.purge()
            client.flush(_PROBE)
        if self._chunk_thread is not None:
            self._chunk_thread.close()
        return self._unread.last_words()

    def _forked(self) -> None:
        """Internal: see interpreter_exit.Sending."""
        self._inherited = self._unread.forked = True
        self._client = None  # so that whoever wants it comes by `_start`
        self._bridges = AsyncioBridges(self._unread)

    def _check_fork(self) -> None:
        if self._inherited:
            raise used_before_fork("Producer")

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._fatal = f"{error.name()}: {error.str()}"
        else:
            self._trouble = f"{error.name()}: {error.str()}"

    # Ends and health
    # ---------------------------------------------------------------------------------------------

    def flush(self, timeout: float | timedelta) -> int:
        """Wait until every record is settled, at most ``timeout`` seconds; return how many are not."""
        limit = seconds("Producer.flush.timeout", timeout)
        self._check_fork()
        if self._client is None:
            return 0
        deadline = time.monotonic() + limit
        left = self._client.flush(limit)
        return (
            left
            if self._chunk_thread is None
            else left + self._chunk_thread.wait(max(0.0, deadline - time.monotonic()))
        )

    def close(self, timeout: float | timedelta = 30.0) -> None:
        """Take no more records, wait for those on their way, at most ``timeout`` seconds, and stop.

        The futures of what is not acknowledged by then raise DeliveryError. Calling it again does nothing.
        """
        limit = seconds("Producer.close.timeout", timeout)
        self._check_fork()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        client = self._client
        if client is not None and self._thread is not None:
            deadline = time.monotonic() + limit
            if client.flush(limit):
                client.purge()
                client.flush(_PROBE)
            if self._chunk_thread is not None:
                self._chunk_thread.wait(max(0.0, deadline - time.monotonic()))
                self._chunk_thread.close()
            self._stop.set()
            if threading.current_thread() is not self._thread:  # it is, in a future's callback
                self._thread.join()
            self._ended = True
        producer_ended(self)
        self._unread.close()

    def __enter__(self) -> Self:
        self._check_fork()
        if self._closed:
            raise RetriableKafkaError("the producer is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._inherited:  # a child that leaves the block has nothing to close
            self.close()

    def health(self) -> Health:
        """Say how it is, from any thread.

        Asks the brokers only where none has answered yet or the client has met trouble since, for at most one
        second.
        """
        if self._inherited:
            return Health(alive=False, ready=False, reasons=(str(used_before_fork("Producer")),))
        if self._closed:
            return Health(alive=False, ready=False, reasons=("the producer is closed",))
        if self._fatal:
            return Health(alive=False, ready=False, reasons=(f"the client ended: {self._fatal}",))
        trouble = self._trouble
        if not trouble:
            return Health(alive=True, ready=True)
        try:
            (self._client or self._start()).list_topics(timeout=_PROBE)
        except KafkaException as error:
            said = self._trouble or error.args[0].str()
            return Health(
                alive=True, ready=False, reasons=(without_secrets(said, self._cluster.connection()),)
            )
        except RetriableKafkaError as error:
            return Health(alive=False, ready=False, reasons=(str(error),))
        if self._trouble == trouble:
            self._trouble = ""
        return Health(alive=True, ready=True)

    def __repr__(self) -> str:
        state = (
            "the parent process's"
            if self._inherited
            else "closed"
            if self._closed
            else "not started"
            if self._client is None
            else "running"
        )
        return f"<Producer to {self._cluster.bootstrap_servers} {state}>"
