"""The client of one Producer: its beginning, the thread that serves it, its health and its end."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Client

from retriable_kafka_client.brokers.client import (
    admin_settings,
    largest_record,
    open_client,
    producer_settings,
)
from retriable_kafka_client.brokers.client_callbacks import without_secrets
from retriable_kafka_client.brokers.error_codes import is_fatal
from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.errors import RetriableKafkaError
from retriable_kafka_client.health import Health
from retriable_kafka_client.producer.asyncio_bridge import AsyncioBridges
from retriable_kafka_client.producer.chunk_thread import ChunkThread
from retriable_kafka_client.producer.delivery import UnreadFailures
from retriable_kafka_client.runtime.forks import used_before_fork
from retriable_kafka_client.runtime.interpreter_exit import producer_ended, producer_runs
from retriable_kafka_client.runtime.monkey_patching import refuse_patched
from retriable_kafka_client.sending.parcels import Pair, Settle

__all__ = ["ProducerClient"]

log = logging.getLogger("retriable_kafka_client.producer")

_POLL = 0.1  # seconds; how long a failure may stay unlogged, and how long close() may wait for the thread
_PROBE = 1.0  # seconds that health() may ask the brokers


class ProducerClient:
    """Starts with the first call that needs it, and ends once. Thread-safe.

    One that was used before a fork raises RetriableKafkaError in the child.
    """

    def __init__(self, cluster: Cluster, *, split: bool) -> None:
        """``split``: with a second client, on a thread of its own, for values that go in chunks."""
        self.client_limit = largest_record(cluster)
        self.chunk_thread: ChunkThread | None = None  # only with split, once it has started
        self.unread = UnreadFailures()
        self.bridges = AsyncioBridges(self.unread)
        self.closed = False  # takes nothing more
        self.inherited = False  # this is a child of the process that used it
        self._cluster = cluster
        self._split = split
        self._lock = threading.Lock()  # guards starting and closing
        self._client: Client | None = None
        self._thread: threading.Thread | None = None
        self._ended = False  # the thread is gone
        self._serving = False  # some sender is at it; two at once do no harm
        self._stop = threading.Event()
        self._fatal = ""  # the client's last words; it takes nothing any more
        self._problem = "no broker has answered yet"  # empty once one has, until the next problem

    @property
    def state(self) -> str:
        """One word or two, for ``repr``."""
        if self.inherited:
            return "the parent process's"
        if self.closed:
            return "closed"
        return "not started" if self._client is None else "running"

    # Sending -----------------------------------------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        body: bytes | None,
        key: bytes | None,
        headers: list[Pair] | None,
        settle: Settle,
    ) -> bool:
        """Give the client a record; False when its queue is full. A record that it refuses is settled."""
        client = self._client or self.start()
        if self.closed:
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

    def poll(self, timeout: float) -> None:
        """Serve the started client for at most ``timeout`` seconds: one who sends from a future's callback keeps the thread
        from doing it.
        """
        self._started().poll(timeout)

    # The client and its thread ----------------------------------------------------------------------------------------

    def start(self) -> Client:
        """The client; made by the first call. RetriableKafkaError: closed, or used before a fork. Any thread."""
        self.check_fork()
        refuse_patched()
        with self._lock:
            if self.closed:
                raise RetriableKafkaError("the producer is closed")
            if self._client is None:
                settings = producer_settings(self._cluster, Limits(), on_error=self._on_error)
                client = open_client(Client, settings)
                if self._split:
                    self.chunk_thread = ChunkThread(
                        settings,
                        admin_settings(self._cluster),
                        client_limit=self.client_limit,
                        held_bytes=Limits().buffer_bytes,
                    )
                self._thread = threading.Thread(
                    target=self._serve, args=(client,), name="retriable-kafka-producer", daemon=True
                )
                self._thread.start()
                self._client = client
                producer_runs(self)
            return self._client

    def started_chunk_thread(self) -> ChunkThread:
        """The thread that sends large values; only with ``split``. Raises as ``start``."""
        if self._client is None:
            self.start()
        assert self.chunk_thread is not None
        return self.chunk_thread

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
            self.unread.report()

    # The interpreter's end, and forks: see interpreter_exit.Sending ---------------------------------------------------

    def _last_call(self) -> None:
        """Take nothing more."""
        with self._lock:
            self.closed = True
        self.unread.last_call()

    def _send_rest(self, timeout: float) -> bool:
        """Send for ``timeout`` seconds; whether all is settled."""
        deadline = time.monotonic() + timeout
        chunk_thread = self.chunk_thread
        if self._started().flush(timeout):
            return False
        # What was too large for its neighbours goes from the one to the other.
        return chunk_thread is None or (
            not chunk_thread.wait(max(0.0, deadline - time.monotonic())) and not self._started().flush(0)
        )

    def _give_up(self) -> Counter[tuple[str, str]]:
        """Drop the rest; how many records of each topic were not delivered, by error code."""
        client = self._started()
        if len(client):
            client.purge()
            client.flush(_PROBE)
        if self.chunk_thread is not None:
            self.chunk_thread.close()
        return self.unread.last_words()

    def _forked(self) -> None:
        """This is a forked child now."""
        self.inherited = self.unread.forked = True
        self._client = None  # so that whoever wants it comes by `start`
        self.bridges = AsyncioBridges(self.unread)

    def check_fork(self) -> None:
        """RetriableKafkaError in a child of the process that used it."""
        if self.inherited:
            raise used_before_fork("Producer")

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._fatal = f"{error.name()}: {error.str()}"
        else:
            self._problem = f"{error.name()}: {error.str()}"

    # Ends and health ---------------------------------------------------------------------------------------------------

    def flush(self, limit: float) -> int:
        """See Producer. ``limit``: seconds."""
        self.check_fork()
        if self._client is None:
            return 0
        deadline = time.monotonic() + limit
        left = self._client.flush(limit)
        if self.chunk_thread is not None:
            left += self.chunk_thread.wait(max(0.0, deadline - time.monotonic()))
        return left

    def close(self, limit: float) -> None:
        """See Producer. ``limit``: seconds."""
        self.check_fork()
        with self._lock:
            if self.closed:
                return
            self.closed = True
        client = self._client
        if client is not None and self._thread is not None:
            deadline = time.monotonic() + limit
            if client.flush(limit):
                client.purge()
                client.flush(_PROBE)
            if self.chunk_thread is not None:
                self.chunk_thread.wait(max(0.0, deadline - time.monotonic()))
                self.chunk_thread.close()
            self._stop.set()
            if threading.current_thread() is not self._thread:  # it is, in a future's callback
                self._thread.join()
            self._ended = True
        producer_ended(self)
        self.unread.close()

    def health(self) -> Health:
        """See Producer."""
        if self.inherited:
            return Health(alive=False, ready=False, reasons=(str(used_before_fork("Producer")),))
        if self.closed:
            return Health(alive=False, ready=False, reasons=("the producer is closed",))
        if self._fatal:
            return Health(alive=False, ready=False, reasons=(f"the client ended: {self._fatal}",))
        problem = self._problem
        if not problem:
            return Health(alive=True, ready=True)
        try:
            (self._client or self.start()).list_topics(timeout=_PROBE)
        except KafkaException as error:
            said = self._problem or error.args[0].str()
            return Health(
                alive=True, ready=False, reasons=(without_secrets(said, self._cluster.connection()),)
            )
        except RetriableKafkaError as error:
            return Health(alive=False, ready=False, reasons=(str(error),))
        if self._problem == problem:
            self._problem = ""
        return Health(alive=True, ready=True)
