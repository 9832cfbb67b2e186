"""For the tests of programs that use this library: a broker in the process, and messages for handlers.

The broker is librdkafka's mock cluster. It serves producers and consumer groups of any process on this
machine, and has no transactions, no authentication and no administration; it keeps the last 5 MiB or 100,000
batches of a partition and drops what is older without a word.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retriable_kafka_client.brokers.confluent_serde import AnyDeserializer, adapted
from retriable_kafka_client.errors import ConfigError, RetriableKafkaError
from retriable_kafka_client.message import JSON, Message, PlainRecord
from retriable_kafka_client.wire.checks import MAX_INT32, check_topic_name, integer
from retriable_kafka_client.wire.headers import Marks, Origin
from retriable_kafka_client.wire.outbox import Output, identified
from retriable_kafka_client.wire.outgoing import GivenHeaders, body_of, key_of, own_headers_of

__all__ = ["MockKafka", "Output", "make_message", "sent"]

_CREATE_TIME = 1  # confluent_kafka.TIMESTAMP_CREATE_TIME
_PRODUCER = 0  # RD_KAFKA_PRODUCER: the mock cluster lives in a client, of whatever kind
_ERROR_BYTES = 512  # room for the text of librdkafka's errors


class MockKafka:
    """A Kafka cluster inside this process, from ``start()`` (or ``with``) to ``stop()``.

    ``topics`` maps names to numbers of partitions; others are made by ``create_topic``. Thread-safe but for
    start and stop. After a fork the child has no broker.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, brokers: int = 1) -> None:
        self._topics = {} if topics is None else dict(topics)
        for name, partitions in self._topics.items():
            _check_partitions(name, partitions)
        self._brokers = integer("MockKafka.brokers", brokers, 1, 100)
        self._client: int | None = None
        self._cluster: int | None = None
        self._created: dict[str, int] = {}
        self._bootstrap_servers = ""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients of any process on this machine reach it."""
        self._running()
        return self._bootstrap_servers

    def start(self) -> Self:
        """Start it; nothing happens when it runs."""
        if self._cluster is not None:
            return self
        library = _library()
        text = ctypes.create_string_buffer(_ERROR_BYTES)
        conf = library.rd_kafka_conf_new()
        # This client's log would go to stderr, and says only that it has no brokers but the mock ones.
        library.rd_kafka_conf_set(conf, b"log_level", b"0", text, len(text))
        client = library.rd_kafka_new(_PRODUCER, conf, text, len(text))  # takes the configuration over
        if not client:
            raise RetriableKafkaError(f"the mock cluster's client did not start: {text.value.decode()}")
        cluster = library.rd_kafka_mock_cluster_new(client, self._brokers)
        if not cluster:
            library.rd_kafka_destroy(client)
            raise RetriableKafkaError("the mock cluster did not start")
        # Like group.initial.rebalance.delay.ms: 3 s by default, and a shorter session would never be let in.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        self._client, self._cluster = client, cluster
        self._bootstrap_servers = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
        for name, partitions in self._topics.items():
            self._create(name, partitions)
        return self

    def stop(self) -> None:
        """End it and everything that it holds; nothing happens when it does not run."""
        if self._cluster is None:
            return
        library = _library()
        library.rd_kafka_mock_cluster_destroy(self._cluster)
        library.rd_kafka_destroy(self._client)
        self._client = self._cluster = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Add a topic. One that exists is a ConfigError."""
        _check_partitions(name, partitions)
        self._running()
        self._create(name, partitions)

    def down(self) -> None:
        """Take every broker down: connections break and are refused. What topics hold is kept."""
        self._on_brokers(_library().rd_kafka_mock_broker_set_down)

    def up(self) -> None:
        """Bring every broker back."""
        self._on_brokers(_library().rd_kafka_mock_broker_set_up)

    def hide(self, group: str) -> None:
        """Name no broker any more to clients that ask which there are; the brokers go on answering.

        Until there is another one, only ``group`` has a coordinator, and nothing may be fetched: librdkafka's mock
        cluster crashes where it finds no broker for either.
        """
        self._coordinate(group)
        self._on_brokers(_library().rd_kafka_mock_broker_remove_from_metadata)

    def add_broker(self, group: str) -> None:
        """Add a broker, which takes over all partitions, and ``group``."""
        cluster = self._running()
        _library().rd_kafka_mock_broker_add(cluster, self._brokers + 1)
        self._brokers += 1
        for name, partitions in self._created.items():
            for partition in range(partitions):
                _library().rd_kafka_mock_partition_set_leader(
                    cluster, name.encode(), partition, self._brokers
                )
        self._coordinate(group)

    def _coordinate(self, group: str) -> None:
        _library().rd_kafka_mock_coordinator_set(self._running(), b"group", group.encode(), self._brokers)

    def set_round_trip(self, duration: float) -> None:
        """Let every answer take ``duration`` seconds."""
        cluster = self._running()
        for broker in range(1, self._brokers + 1):
            _library().rd_kafka_mock_broker_set_rtt(cluster, broker, round(duration * 1000))

    def set_topic_error(self, name: str, code: int) -> None:
        """Answer every request about this topic with the Kafka error ``code`` (0: no longer)."""
        _library().rd_kafka_mock_topic_set_error(self._running(), name.encode(), code)

    def _running(self) -> int:
        if self._cluster is None:
            raise RetriableKafkaError("the mock cluster does not run: use it in `with`, or call start()")
        return self._cluster

    def _create(self, name: str, partitions: int) -> None:
        code = _library().rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code:
            reason = _library().rd_kafka_err2str(code).decode()
            raise ConfigError("MockKafka.topics", name, f"was refused: {reason}")
        self._created[name] = partitions

    def _on_brokers(self, act: Any) -> None:
        cluster = self._running()
        for broker in range(1, self._brokers + 1):
            act(cluster, broker)

    def __repr__(self) -> str:
        return f"<MockKafka {self._bootstrap_servers if self._cluster is not None else 'stopped'}>"


_offsets = itertools.count()


def make_message(
    value: Any,
    *,
    key: str | bytes | None = None,
    headers: GivenHeaders = (),
    topic: str = "test",
    partition: int = 0,
    offset: int | None = None,
    timestamp: datetime | None = None,
    attempt: int = 1,
    id: str | None = None,
    deserializer: AnyDeserializer = JSON,
) -> Message[Any]:
    """Return a message as a handler would get it; no broker is needed.

    Bytes-likes are the body as they are and None is a null body; anything else is encoded as JSON. ``offset``
    counts up when it is left out, ``timestamp`` is now. From ``attempt`` 2 on the message is a retry copy. What a
    handler sends is kept on the message: see ``sent``.
    """
    check_topic_name("make_message.topic", topic)
    integer("make_message.attempt", attempt, 1, MAX_INT32)
    place = next(_offsets) if offset is None else offset
    marks = Marks(failed=attempt - 1, id=id)
    created = datetime.now(UTC) if timestamp is None else timestamp
    if created.tzinfo is None:
        raise ConfigError("make_message.timestamp", created, "must be an aware datetime")
    stamp = (_CREATE_TIME, (created - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    if attempt > 1:
        origin = Origin(topic, partition, place)
        marks = Marks(
            failed=attempt - 1,
            origin=origin,
            origin_timestamp_ms=stamp[1],
            id=id or f"{topic}-{partition}-{place}",
        )
    raw = PlainRecord(
        body_of(value, JSON, where="make_message"),
        key_of(key, where="make_message"),
        [
            (name, text.encode() if isinstance(text, str) else text)
            for name, text in own_headers_of(headers, where="make_message")
        ],
        topic,
        partition,
        place,
        stamp,
    )
    return Message(raw, marks, topic, adapted(deserializer))


def sent(message: Message[Any]) -> tuple[Output, ...]:
    """Return what a handler has sent from a message of ``make_message``, in order.

    A consumer publishes it only if the handler succeeds. Its ids are those of a consumer group without a name.
    """
    return identified(message.outbox, message.id, "")


def _check_partitions(name: object, partitions: object) -> None:
    check_topic_name("MockKafka.topics", name)
    integer(f"MockKafka.topics[{name!r}]", partitions, 1, 10_000)


@cache
def _library() -> ctypes.CDLL:
    """Return the librdkafka that confluent_kafka itself uses, so that one copy of it runs in the process."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            # Found as well through a library that only links to librdkafka.
            declared = {name: getattr(library, name) for name in _SIGNATURES}
        except (OSError, AttributeError):
            continue
        for name, (result, arguments) in _SIGNATURES.items():
            declared[name].restype = result
            declared[name].argtypes = arguments
        return library
    raise RetriableKafkaError(
        "librdkafka's mock cluster was not found in this installation of confluent-kafka: "
        "install its wheel from the package index, or run a real broker"
    )


def _candidates() -> Iterator[str]:
    from confluent_kafka import cimpl

    extension = Path(str(cimpl.__file__))
    yield str(extension)
    package = extension.parent
    pattern = {"win32": "*rdkafka*.dll"}.get(sys.platform, "*rdkafka*")
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs"):
        yield from map(str, sorted(folder.glob(pattern)))


_SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (
        ctypes.c_void_p,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_err2str": (ctypes.c_char_p, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_coordinator_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32],
    ),
    "rd_kafka_mock_broker_add": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_remove_from_metadata": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_partition_set_leader": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32],
    ),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    ),
    "rd_kafka_mock_topic_set_error": (None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]),
}
