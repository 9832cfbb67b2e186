"""Clients of confluent-kafka: the settings that each kind of client is given, and how one is opened and closed."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.brokers.client_callbacks import (
    ClientLog,
    OnError,
    guard,
    guard_oauth,
    redacting,
    without_secrets,
)
from retriable_kafka_client.brokers.client_settings import (
    LARGEST_KBYTES,
    RESET,
    is_secret,
    number,
    reset_rule,
)
from retriable_kafka_client.brokers.setting_values import is_classic, session_seconds
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.runtime.forks import open_lasting

__all__ = [
    "Bounds",
    "Connection",
    "admin_settings",
    "close_in_time",
    "consumer_settings",
    "is_mock",
    "largest_record",
    "offsets_settings",
    "open_client",
    "poll_interval",
    "producer_settings",
    "transaction_settings",
]

Client = TypeVar("Client")

_client_log = logging.getLogger("retriable_kafka_client.librdkafka")

_FETCH_BYTES = 52_428_800  # librdkafka's own default
_RECEIVE_BYTES = 100_000_000  # librdkafka's own default
_LARGEST_RECEIVE = 2_147_483_647
_MESSAGE_BYTES = 1_000_000  # librdkafka's default of message.max.bytes
_LARGEST_RECORD = 1_000_000_000  # the most that librdkafka takes
_TRANSACTION_MS = 10_000
_OVERHEAD = 64 * 1024  # a record's key and headers, and a response's framing

# The consumer protocol of KIP-848 keeps these on the broker, and librdkafka refuses them there.
_CLASSIC_ONLY = (
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "group.protocol.type",
)

_IN_FLIGHT = frozenset(("max.in.flight", "max.in.flight.requests.per.connection"))

# By which name the client speaks of a setting -> by which everybody else knows it.
_OTHER_NAMES = {
    "compression.codec": "compression.type",
    "max.in.flight.requests.per.connection": "max.in.flight",
    "queue.buffering.max.ms": "linger.ms",
}


class Connection(Protocol):
    """What is needed of a ``Cluster``, which imports this package itself, for its check."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the user gave, without what the library sets."""

    def connection(self) -> dict[str, Any]:
        """The settings that connect a client, in a dictionary of the caller's own."""


class Bounds(Protocol):
    """What is needed of ``Limits``; both in bytes."""

    @property
    def buffer_bytes(self) -> int:
        """What may be fetched ahead, or wait to be sent."""

    @property
    def largest_message(self) -> int:
        """The largest message that is taken in."""


def consumer_settings(
    cluster: Connection, limits: Bounds, group_id: str, *, on_error: OnError | None = None
) -> dict[str, Any]:
    """Return a consumer's settings. ``on_error`` is given the client's errors, before the user's own callback."""
    settings = {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "earliest",
        # A partition that is resumed waits for its broker's answer about the idle ones beside it.
        "fetch.wait.max.ms": 100,
        "topic.metadata.refresh.interval.ms": 10_000,  # how long a deleted topic may go unnoticed
        "fetch.queue.backoff.ms": 10,  # librdkafka's 1000 holds a stream down to a tenth
        **_guarded(cluster, on_error),
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "isolation.level": "read_committed",
        **_fetch_bounds(cluster, limits),
    }
    if reset_rule(settings) == "latest":
        # Where partitions without a position begin is decided by the engine. A position whose records were deleted goes on
        # with what is left, rather than pass it over.
        settings[RESET] = "earliest"
    if not is_classic(settings):
        for name in _CLASSIC_ONLY:
            settings.pop(name, None)
    return settings


def offsets_settings(cluster: Connection, limits: Bounds, group_id: str) -> dict[str, Any]:
    """Return the settings of a client that only asks what the group has committed; its log is DEBUG, as an admin's."""
    settings = consumer_settings(cluster, limits, group_id)
    settings["logger"] = admin_settings(cluster)["logger"]
    settings.pop("group.instance.id", None)
    settings["statistics.interval.ms"] = 0  # nobody takes them
    return settings


def producer_settings(
    cluster: Connection, limits: Bounds, *, hand_off: bool = False, on_error: OnError | None = None
) -> dict[str, Any]:
    """Return a producer's settings: idempotent, one request at a time to each broker unless the cluster's settings say
    otherwise, its queue bounded by ``limits.buffer_bytes``.

    With ``hand_off`` a record never times out, because a time-out may mean "written".
    """
    settings = {
        **_in_flight(cluster),
        **_guarded(cluster, on_error),
        "enable.idempotence": True,  # brings acks=all and unlimited retries
        "queue.buffering.max.kbytes": _kbytes(max(limits.buffer_bytes, largest_record(cluster))),
    }
    if hand_off:
        settings["message.timeout.ms"] = 0
    return settings


def _in_flight(cluster: Connection) -> dict[str, Any]:
    """One request at a time to each broker, unless the cluster's settings say otherwise.

    A broker takes a client's first request for a partition whatever its sequence number. With several under way while
    leaders move, the second can be let in before the first, whose retry then counts as a duplicate: it is reported as
    delivered, without an offset, and stands nowhere.
    """
    return {} if _IN_FLIGHT & cluster.settings.keys() else {"max.in.flight": 1}


def transaction_settings(
    cluster: Connection, transactional_id: str, *, seconds: float = 0.0, on_error: OnError | None = None
) -> dict[str, Any]:
    """Return a transactional producer's settings. What it leaves open when it dies ends before its membership does.

    Transactions that need ``seconds`` get that time, if the membership lasts so long.
    """
    session_ms = round(session_seconds(cluster.settings) * 1000)
    transaction_ms = max(2_000, min(max(_TRANSACTION_MS, int(seconds * 1000)), session_ms - 1_000))
    settings = {
        # The brokers say "not yet" while they write the last transaction's markers: with the client's own 100 ms that
        # is what each transaction takes.
        "retry.backoff.ms": 10,
        "linger.ms": 0,
        "topic.metadata.propagation.max.ms": 1000,  # topics are asked for beforehand
        **_in_flight(cluster),
        **_guarded(cluster, on_error),
        "enable.idempotence": True,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": transaction_ms,
        "message.max.bytes": _LARGEST_RECORD,
        "queue.buffering.max.kbytes": LARGEST_KBYTES,  # what goes into one transaction is bounded elsewhere
    }
    # The client refuses a longer one.
    longest = transaction_ms - 100
    settings["socket.timeout.ms"] = min(number(settings, "socket.timeout.ms", longest), longest)
    return settings


def admin_settings(cluster: Connection, *, on_error: OnError | None = None) -> dict[str, Any]:
    """Return the settings of a client that only asks: whoever asks gets the answer, and the log only at
    DEBUG.
    """
    # To ask for a topic by name must not bring back one that was deleted, where the brokers make topics by themselves.
    return {**_guarded(cluster, on_error, highest=logging.DEBUG), "allow.auto.create.topics": False}


def open_client(kind: Callable[[dict[str, Any]], Client], settings: Mapping[str, Any]) -> Client:
    """Make a confluent-kafka client; what it refuses of ``settings`` is a ConfigError that names it.

    It connects in the background. Blocks up to 10 s for the first token where there is an ``oauth_cb``.
    """
    try:
        return open_lasting(kind, dict(settings))
    except KafkaException as error:
        reason = error.args[0]
        text = reason.str() if isinstance(reason, KafkaError) else str(reason)
        problem = without_secrets(text, settings)
    except (TypeError, ValueError) as error:
        problem = without_secrets(str(error), settings)
    named = re.search(r'property[: ]+"([^"]+)"', problem)
    name = "" if named is None else named[1]
    if name not in settings:
        name = _OTHER_NAMES.get(name, "")
    if name not in settings:
        raise ConfigError("Cluster.settings", None, f"the client refused them: {problem}", secret=True)
    remedy = f"the client refused it: {problem}"
    raise ConfigError(f"Cluster.settings[{name!r}]", settings[name], remedy, secret=is_secret(name))


def close_in_time(client: Any, timeout: float) -> bool:
    """Close a consumer client, and return whether that took at most ``timeout`` seconds.

    With an unanswered request it may take a minute: it is then left to itself, on a daemon thread.
    """
    closing = threading.Thread(target=client.close, name="rkc-close", daemon=True)
    try:
        closing.start()
    except RuntimeError:  # Python 3.12 starts none any more once the main thread has returned
        client.close()
        return True
    closing.join(timeout)
    return not closing.is_alive()


def is_mock(cluster_id: str) -> bool:
    """Whether it is one of librdkafka's mock clusters, which know neither topic ids nor settings."""
    return cluster_id.startswith("mockCluster")


def _guarded(
    cluster: Connection, on_error: OnError | None, *, highest: int = logging.CRITICAL
) -> dict[str, Any]:
    """Return the connection's settings with callbacks that cannot raise and a log that goes to logging."""
    settings = cluster.connection()
    settings.setdefault("client.id", "retriable-kafka-client")
    for name in ("stats_cb", "throttle_cb"):
        if name in settings:
            settings[name] = guard(name, settings[name])
    if "oauth_cb" in settings:
        settings["oauth_cb"] = guard_oauth(settings["oauth_cb"])
    users = settings.get("error_cb")
    takers = [one for one in (redacting(on_error, settings), users) if one is not None]
    # Without a callback librdkafka logs each error at once; the log has them already.
    settings["error_cb"] = guard("error_cb", lambda error: [one(error) for one in takers])
    target = settings.get("logger", _client_log)
    settings["logger"] = ClientLog(target, highest=highest, settings=dict(settings))
    return settings


def _fetch_bounds(cluster: Connection, limits: Bounds) -> dict[str, Any]:
    """Bound what the client fetches ahead. One batch larger than all of this is fetched nevertheless."""
    record = largest_record(cluster)
    fetch = max(min(limits.buffer_bytes, _FETCH_BYTES), record)
    return {
        "queued.max.messages.kbytes": _kbytes(limits.buffer_bytes),
        "fetch.max.bytes": fetch,
        "fetch.message.max.bytes": min(limits.buffer_bytes, 1024 * 1024),
        # Not for memory: an answer above it ends the connection, and its batch would never be read.
        "receive.message.max.bytes": min(
            max(_RECEIVE_BYTES, fetch + _OVERHEAD, limits.largest_message + _OVERHEAD), _LARGEST_RECEIVE
        ),
    }


def poll_interval(cluster: Connection) -> float:
    """Return the seconds after which a consumer that has not polled loses its partitions."""
    return number(cluster.settings, "max.poll.interval.ms", 300_000) / 1000


def largest_record(cluster: Connection) -> int:
    """Return the bytes of the largest record that the client sends (``message.max.bytes``)."""
    return number(cluster.settings, "message.max.bytes", _MESSAGE_BYTES)


def _kbytes(size: int) -> int:
    return max(1, min(size // 1024, LARGEST_KBYTES))
