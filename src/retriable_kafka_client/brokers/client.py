"""The border to confluent-kafka: client settings from a Cluster, guarded callbacks, the client's log, its
errors.

Nothing else in the library writes librdkafka's setting names or judges its error codes for users.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.brokers.client_settings import RESET, is_secret, reset_rule
from retriable_kafka_client.errors import ConfigError, DeliveryError
from retriable_kafka_client.runtime.forks import open_lasting
from retriable_kafka_client.user_functions.interrupts import is_from_signal

if TYPE_CHECKING:
    from retriable_kafka_client.config import Cluster, Limits

__all__ = [
    "ClientLog",
    "admin_settings",
    "close_in_time",
    "consumer_settings",
    "delivery_error",
    "error_name",
    "is_fatal",
    "is_mock",
    "is_retriable",
    "largest_record",
    "offsets_settings",
    "open_client",
    "poll_interval",
    "producer_settings",
    "transaction_settings",
    "without_secrets",
]

Client = TypeVar("Client")
OnError = Callable[[KafkaError], None]

log = logging.getLogger("retriable_kafka_client.client")
_client_log = logging.getLogger("retriable_kafka_client.librdkafka")

_LARGEST_KBYTES = 2_097_151  # what librdkafka takes for its queues
_FETCH_BYTES = 52_428_800  # librdkafka's own default
_RECEIVE_BYTES = 100_000_000  # librdkafka's own default
_LARGEST_RECEIVE = 2_147_483_647
_MESSAGE_BYTES = 1_000_000  # librdkafka's default of message.max.bytes
_LARGEST_RECORD = 1_000_000_000  # the most that librdkafka takes
_SESSION_MS = 45_000  # librdkafka's default
_TRANSACTION_MS = 10_000
_OVERHEAD = 64 * 1024  # a record's key and headers, and a response's framing
_LEAST_WORD = 4  # characters: shorter words of a secret stand in too many texts

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

_FATAL = frozenset((KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError.UNSUPPORTED_VERSION))

_RETRIABLE = frozenset(
    (
        *(KafkaError._ALL_BROKERS_DOWN, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT),
        *(KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT, KafkaError._QUEUE_FULL),
        *(KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._UNKNOWN_TOPIC),
        *(KafkaError._RESOLVE, KafkaError._WAIT_COORD, KafkaError._RETRY, KafkaError._INTR),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.KAFKA_STORAGE_ERROR, KafkaError.LEADER_NOT_AVAILABLE),
        *(
            KafkaError.NETWORK_EXCEPTION,
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.REPLICA_NOT_AVAILABLE,
        ),
        *(KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        *(
            KafkaError.REQUEST_TIMED_OUT,
            KafkaError.THROTTLING_QUOTA_EXCEEDED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        ),
    )
)


def consumer_settings(
    cluster: Cluster, limits: Limits, group_id: str, *, on_error: OnError | None = None
) -> dict[str, Any]:
    """Return a consumer's settings. ``on_error`` is told of the client's errors before the user's own
    callback.
    """
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
    if str(settings["group.protocol"]).lower() == "consumer":
        for name in _CLASSIC_ONLY:
            settings.pop(name, None)
    return settings


def offsets_settings(cluster: Cluster, limits: Limits, group_id: str) -> dict[str, Any]:
    """Return the settings of a client that only asks what the group has committed; its log is DEBUG, as an admin's."""
    settings = consumer_settings(cluster, limits, group_id)
    settings["logger"] = admin_settings(cluster)["logger"]
    settings.pop("group.instance.id", None)
    settings["statistics.interval.ms"] = 0  # nobody takes them
    return settings


def producer_settings(
    cluster: Cluster, limits: Limits, *, hand_off: bool = False, on_error: OnError | None = None
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


def _in_flight(cluster: Cluster) -> dict[str, Any]:
    """One request at a time to each broker, unless the cluster's settings say otherwise.

    A broker takes a client's first request for a partition whatever its sequence number. With several under way while
    leaders move, the second can be let in before the first, whose retry then counts as a duplicate: it is reported as
    delivered, without an offset, and stands nowhere.
    """
    return {} if _IN_FLIGHT & cluster.settings.keys() else {"max.in.flight": 1}


def transaction_settings(
    cluster: Cluster, transactional_id: str, *, seconds: float = 0.0, on_error: OnError | None = None
) -> dict[str, Any]:
    """Return a transactional producer's settings. What it leaves open when it dies ends before its membership does.

    Transactions that need ``seconds`` get that time, if the membership lasts so long.
    """
    session_ms = _number(cluster.settings, "session.timeout.ms", _SESSION_MS)
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
        "queue.buffering.max.kbytes": _LARGEST_KBYTES,  # what goes into one transaction is bounded elsewhere
    }
    # The client refuses a longer one.
    longest = transaction_ms - 100
    settings["socket.timeout.ms"] = min(_number(settings, "socket.timeout.ms", longest), longest)
    return settings


def admin_settings(cluster: Cluster, *, on_error: OnError | None = None) -> dict[str, Any]:
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
        told = error.args[0]
        text = told.str() if isinstance(told, KafkaError) else str(told)
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


def delivery_error(error: KafkaError, topic: str) -> DeliveryError:
    """Return our error for a record that was not acknowledged."""
    return DeliveryError(error.name(), is_retriable(error), error.str(), topic=topic)


def error_name(error: KafkaException) -> str:
    """Return the client's name for it."""
    reason = error.args[0]
    return str(reason.name()) if isinstance(reason, KafkaError) else type(error).__name__


def is_fatal(error: KafkaError) -> bool:
    """Whether the client is of no use any more.

    A consumer's poll reports its fatal errors as ``_FATAL``, with ``fatal()`` False and the true one in the text.
    """
    return error.fatal() or error.code() in _FATAL


def is_mock(cluster_id: str) -> bool:
    """Whether it is one of librdkafka's mock clusters, which know neither topic ids nor settings."""
    return cluster_id.startswith("mockCluster")


def is_retriable(error: KafkaError) -> bool:
    """Whether the same request may succeed later without anybody's doing."""
    return not is_fatal(error) and (error.retriable() or error.code() in _RETRIABLE)


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """Return ``text`` with the values of secret settings taken out, and the words in them: the client may show a part."""
    for name, value in settings.items():
        if is_secret(name) and isinstance(value, str) and value:
            words = [word.rpartition("=")[2] for word in value.split()]
            for part in (value, *(word for word in words if len(word) >= _LEAST_WORD)):
                text = text.replace(part, "(not shown)")
    return text


class ClientLog:
    """Takes librdkafka's log lines into the logging module; never raises.

    A broker outage repeats the same few lines up to twenty times a second: of each kind one line in
    ``interval`` seconds keeps its level, the others go to DEBUG. Any of the client's threads may call.
    """

    def __init__(
        self,
        target: logging.Logger,
        *,
        interval: float = 60.0,
        highest: int = logging.CRITICAL,
        clock: Callable[[], float] = time.monotonic,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings or {}  # what is secret in them is shown at no level
        self._target = target
        self._highest = highest
        self._interval = interval
        self._clock = clock
        self._next: dict[object, float] = {}  # kind of line -> when it may stand out again; a few dozen kinds

    def log(self, level: int, message: str, *args: object) -> None:
        """Log one line; the client gives its kind ("FAIL"), the client's name and the text as ``args``."""
        try:
            told = (without_secrets(arg, self._settings) if isinstance(arg, str) else arg for arg in args)
            self._target.log(self._level(level, args), message, *told)
        except BaseException as error:
            if is_from_signal(error):
                raise
            log.error("the logger of the Kafka client raised %s", _where(error))

    def _level(self, level: int, args: tuple[object, ...]) -> int:
        kind = args[0] if args else ""
        text = str(args[-1]) if args else ""
        # Every client is given the cluster's settings, and says of each that is for another kind of client.
        if kind == "CONFWARN" and "will be ignored by this" in text:
            return logging.DEBUG
        level = min(level, self._highest)
        now = self._clock()
        if now < self._next.get(kind, now):
            return min(level, logging.DEBUG)
        self._next[kind] = now + self._interval
        return level


def _guarded(
    cluster: Cluster, on_error: OnError | None, *, highest: int = logging.CRITICAL
) -> dict[str, Any]:
    """Return the connection's settings with callbacks that cannot raise and a log that goes to logging."""
    settings = cluster.connection()
    settings.setdefault("client.id", "retriable-kafka-client")
    for name in ("stats_cb", "throttle_cb"):
        if name in settings:
            settings[name] = _guard(name, settings[name])
    if "oauth_cb" in settings:
        settings["oauth_cb"] = _guard_oauth(settings["oauth_cb"])
    users = settings.get("error_cb")
    told = [one for one in (_redacting(on_error, settings), users) if one is not None]
    # Without a callback librdkafka logs each error at once; the log has them already.
    settings["error_cb"] = _guard("error_cb", lambda error: [one(error) for one in told])
    target = settings.get("logger", _client_log)
    settings["logger"] = ClientLog(target, highest=highest, settings=dict(settings))
    return settings


def _redacting(on_error: OnError | None, settings: Mapping[str, Any]) -> OnError | None:
    """What the client says is shown to users, and may hold a part of a setting that it does not understand."""
    if on_error is None:
        return None

    def told(error: KafkaError) -> None:
        text = without_secrets(error.str(), settings)
        on_error(KafkaError(error.code(), text, fatal=error.fatal(), retriable=error.retriable()))

    return told


def _where(error: BaseException) -> str:
    """An exception's type and where it was raised: its text may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__qualname__}{place}"


def _guard(name: str, callback: Callable[[Any], object]) -> Callable[[Any], None]:
    """Wrap a callback: an exception out of one, within consume(), would throw that call's messages away."""

    def guarded(told: Any) -> None:
        try:
            callback(told)
        except BaseException as error:
            if is_from_signal(error):
                raise
            log.error("the callback %s in Cluster.settings raised %s", name, _where(error))

    return guarded


def _guard_oauth(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap a token callback. Here an exception is the way to say no: the client notes the failure and asks
    again.

    What it must not be given is anything but the tuple that it expects.
    """

    def guarded(config: Any) -> Any:
        try:
            answer = callback(config)
            if (
                not isinstance(answer, tuple)
                or len(answer) not in (2, 3, 4)
                or not isinstance(answer[0], str)
            ):
                raise TypeError(
                    "oauth_cb must return a tuple: token, expiry, and optionally principal, extensions"
                )
            return answer[0], float(answer[1]), *answer[2:]
        except BaseException as error:
            # The exception's text may hold the token.
            log.error("the callback oauth_cb in Cluster.settings failed: %s", type(error).__name__)
            if isinstance(error, Exception) or is_from_signal(error):
                raise
            raise RuntimeError(f"oauth_cb raised {type(error).__name__}") from None

    return guarded


def _fetch_bounds(cluster: Cluster, limits: Limits) -> dict[str, Any]:
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


def poll_interval(cluster: Cluster) -> float:
    """In seconds: a consumer that has not polled for as long loses its partitions."""
    return _number(cluster.settings, "max.poll.interval.ms", 300_000) / 1000


def largest_record(cluster: Cluster) -> int:
    """Return what the client's ``message.max.bytes`` is."""
    return _number(cluster.settings, "message.max.bytes", _MESSAGE_BYTES)


def _number(settings: Mapping[str, Any], name: str, default: int) -> int:
    try:
        return int(settings.get(name, default))
    except ValueError:
        return default  # the client will say what is wrong with it


def _kbytes(size: int) -> int:
    return max(1, min(size // 1024, _LARGEST_KBYTES))
