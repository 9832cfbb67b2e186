"""What a user configures: frozen values that check themselves.

Each is built without I/O, compares and hashes by content, pickles, and shows no secret. A wrong value raises
ConfigError with the field, the value and what is allowed. Durations may be given as seconds or as a timedelta
and are kept as seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from retriable_kafka_client.brokers.client_settings import Settings
from retriable_kafka_client.core.routing import EntryNames, Routing, is_pattern
from retriable_kafka_client.errors import ConfigError, seconds
from retriable_kafka_client.health import Health
from retriable_kafka_client.wire.checks import (
    MAX_INT32,
    check_topic,
    check_topic_name,
    instance,
    integer,
    number,
    sealed,
    set_fields,
    text,
)

__all__ = [
    "DISCARD",
    "Cluster",
    "Discard",
    "Exponential",
    "Limits",
    "Retry",
    "Steps",
    "Topic",
    "names_of",
]

Duration = float | timedelta

_SERVER = re.compile(r"[^\s,@]+")
_MIB = 1024 * 1024
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


class Discard(Enum):
    """The type of DISCARD."""

    DISCARD = "DISCARD"

    def __repr__(self) -> str:
        return self.value


DISCARD: Final = Discard.DISCARD
"""In place of a dead-letter topic: what cannot be handled is dropped and counted, and ``on_event`` is called."""


@sealed
@dataclass(frozen=True, slots=True, init=False)
class Cluster:
    """Where the brokers are, and how to be let in.

    ``bootstrap_servers`` is kept as one text, separated by commas. ``settings`` are librdkafka's own names
    and win over the library's defaults; those that the library must own are refused.
    """

    bootstrap_servers: str
    _: KW_ONLY
    username: str | None
    password: str | None = field(repr=False)
    security_protocol: str
    sasl_mechanism: str
    settings: Settings

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        security_protocol: str | None = None,
        sasl_mechanism: str = "SCRAM-SHA-512",
        settings: Mapping[str, Any] = Settings(),
    ) -> None:
        checked = Settings(settings)
        _check_credentials(username, password, checked)
        named_user = username is not None or "sasl.username" in checked
        protocol = _protocol(security_protocol, checked, named_user)
        text("Cluster.sasl_mechanism", sasl_mechanism)
        set_fields(
            self,
            bootstrap_servers=_servers(bootstrap_servers),
            username=username,
            password=password,
            security_protocol=protocol,
            sasl_mechanism=str(checked.get("sasl.mechanisms", checked.get("sasl.mechanism", sasl_mechanism))),
            settings=checked,
        )

    def connection(self) -> dict[str, Any]:
        """Return the librdkafka settings that every client of this cluster has, the secrets among them."""
        settings: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL_"):
            settings["sasl.mechanisms"] = self.sasl_mechanism
        if self.username is not None:
            settings["sasl.username"] = self.username
            settings["sasl.password"] = self.password
        own = dict(self.settings)
        own.pop("sasl.mechanism", None)  # an alias: of two names for one property the order would decide
        return settings | own

    def check(self, timeout: Duration = 5.0) -> Health:
        """Ask the brokers, with a short-lived client of its own. Blocks at most ``timeout``.

        ``alive``: a broker answered, if only to refuse. ``ready``: it let us in. ``reasons`` names what was
        refused or could not be reached. Raises only ConfigError, for settings that the client refuses.
        """
        # Imported here: values must be usable without a Kafka client.
        from retriable_kafka_client.brokers.probe import check_cluster

        return check_cluster(self, seconds("Cluster.check.timeout", timeout, positive=True))


@sealed
@dataclass(frozen=True, slots=True, init=False)
class Exponential:
    """Delays that grow: ``first``, then ``factor`` times the one before, up to ``maximum``.

    Each is spread evenly over ±``jitter`` of itself, and never above ``maximum``, so that what failed
    together does not come back together.
    """

    first: float
    _: KW_ONLY
    factor: float
    maximum: float
    jitter: float

    def __init__(
        self, first: Duration, *, factor: float = 2.0, maximum: Duration = 3600.0, jitter: float = 0.1
    ) -> None:
        low = seconds("Exponential.first", first, positive=True)
        high = seconds("Exponential.maximum", maximum, positive=True)
        if high < low:
            raise ConfigError(
                "Exponential.maximum", maximum, f"must be at least `first`, which is {low:g} seconds"
            )
        set_fields(
            self,
            first=low,
            factor=number("Exponential.factor", factor, 1.0, 1e6),
            maximum=high,
            jitter=number("Exponential.jitter", jitter, 0.0, 1.0),
        )

    def delay(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after run number ``attempt`` (1, 2, …); ``chance`` in [0, 1) places the
        jitter.
        """
        try:
            middle = min(self.first * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            middle = self.maximum
        low = middle * (1.0 - self.jitter)
        high = min(middle * (1.0 + self.jitter), self.maximum)
        return low + (high - low) * chance


@sealed
@dataclass(frozen=True, slots=True)
class Steps:
    """Fixed delays, the last repeated; what ``Retry.delay`` becomes where durations were given."""

    seconds: tuple[float, ...]

    def delay(self, attempt: int, chance: float) -> float:  # noqa: ARG002 - as Exponential has it; nothing to spread
        """Return the seconds to wait after run number ``attempt`` (1, 2, …)."""
        return self.seconds[min(attempt, len(self.seconds)) - 1]


@sealed
@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """What follows a failed run: a copy in ``topic``, run again after ``delay``, up to ``max_attempts`` runs
    in all.

    Without ``topic`` the message waits in memory and holds its offset; a restart or a rebalance forgets its attempts.
    Exceptions of the types in ``give_up_on`` are not retried.
    """

    topic: str | None
    _: KW_ONLY
    max_attempts: int
    delay: Exponential | Steps
    give_up_on: tuple[type[Exception], ...]

    def __init__(
        self,
        topic: str | None = None,
        *,
        max_attempts: int = 6,
        delay: Duration | Sequence[Duration] | Exponential | Steps = Exponential(15.0),
        give_up_on: tuple[type[Exception], ...] = (),
    ) -> None:
        set_fields(
            self,
            topic=None if topic is None else check_topic("Retry.topic", topic),
            max_attempts=integer("Retry.max_attempts", max_attempts, 1, MAX_INT32),
            delay=_delay(delay),
            give_up_on=_exceptions("Retry.give_up_on", give_up_on),
        )


@sealed
@dataclass(frozen=True, slots=True, init=False)
class Topic:
    """A topic to handle, what follows failures, and where what cannot be handled goes.

    A name that begins with "^" is a regular expression: all topics in whose names it is found, those among them that
    appear later. ``formerly``: other names under which copies in the retry topic may name where their message stood
    first, because the topic was mirrored or renamed.
    """

    name: str
    _: KW_ONLY
    retry: Retry | None
    dead_letter: str | Discard
    formerly: tuple[str, ...]

    def __init__(
        self,
        name: str,
        *,
        retry: Retry | None = None,
        dead_letter: str | Discard,
        formerly: Sequence[str] = (),
    ) -> None:
        check_topic("Topic.name", name)
        instance("Topic.retry", retry, Retry, "must be a Retry, or None for a single attempt", optional=True)
        if dead_letter is not DISCARD:
            _check_dead_letter(name, retry, dead_letter)
        if retry is not None and retry.topic == name:
            raise ConfigError(
                "Retry.topic", name, "must be another topic than the one whose failures it takes"
            )
        set_fields(
            self,
            name=name,
            retry=retry,
            dead_letter=dead_letter,
            formerly=_former_names(name, retry, formerly),
        )
        conflict = Routing([names_of(self)]).first_conflict()
        if conflict is not None:
            raise ConfigError(conflict.field, conflict.value, conflict.remedy)


def names_of(topic: Topic) -> EntryNames:
    """The names that stand in it, as the routing takes them."""
    retry, dead_letter = topic.retry, topic.dead_letter
    return EntryNames(
        topic.name,
        None if retry is None else retry.topic,
        dead_letter if isinstance(dead_letter, str) else None,
        topic.formerly,
    )


def _former_names(name: str, retry: Retry | None, given: object) -> tuple[str, ...]:
    field = "Topic.formerly"
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ConfigError(field, given, "must be a list of topic names; a single one goes into a list, too")
    for one in given:
        check_topic(field, one)
        if is_pattern(one):
            raise ConfigError(field, one, "must be a name: no pattern is needed for what is over")
        if one == name:
            raise ConfigError(field, one, "is the topic's name itself; leave it out")
    if given and (retry is None or retry.topic is None):
        raise ConfigError(
            field, list(given), "is for copies in a retry topic; give retry=Retry('a-topic') too"
        )
    return tuple(dict.fromkeys(given))


@sealed
@dataclass(frozen=True, slots=True, init=False, kw_only=True)
class Limits:
    """What bounds a consumer: messages, bytes and times. Memory follows from these and never from the
    backlog.
    """

    in_flight: int  # messages with the executor at once
    window: int  # incomplete messages of one partition
    buffer_bytes: int  # what is in flight, waits or assembles; librdkafka's queues are sized by it too
    message_bytes: int | None  # the largest message; None: buffer_bytes
    drain_timeout: float
    chunk_wait: float
    parking_interval: float

    def __init__(
        self,
        *,
        in_flight: int = 10_000,
        window: int = 10_000,
        buffer_bytes: int = 64 * _MIB,
        message_bytes: int | None = None,
        drain_timeout: Duration = 30.0,
        chunk_wait: Duration = 900.0,
        parking_interval: Duration = 60.0,
    ) -> None:
        size = integer("Limits.buffer_bytes", buffer_bytes, 1024, 2**63 - 1)
        if message_bytes is not None:
            integer("Limits.message_bytes", message_bytes, 1, size, "buffer_bytes")
        set_fields(
            self,
            in_flight=integer("Limits.in_flight", in_flight, 1, MAX_INT32),
            window=integer("Limits.window", window, 1, MAX_INT32),
            buffer_bytes=size,
            message_bytes=message_bytes,
            drain_timeout=seconds("Limits.drain_timeout", drain_timeout),
            chunk_wait=seconds("Limits.chunk_wait", chunk_wait, positive=True),
            parking_interval=seconds("Limits.parking_interval", parking_interval, positive=True),
        )

    @property
    def largest_message(self) -> int:
        """The bytes of the largest message that is handled."""
        return self.buffer_bytes if self.message_bytes is None else self.message_bytes


def _servers(given: object) -> str:
    name = "Cluster.bootstrap_servers"
    remedy = 'must name at least one broker: "host:port", several separated by commas or in a sequence'
    if isinstance(given, str):
        entries: list[object] = list(given.split(","))
    elif isinstance(given, Sequence) and not isinstance(given, (bytes, bytearray, memoryview)):
        entries = list(given)
    else:
        raise ConfigError(name, given, remedy)
    servers: list[str] = []
    for entry in entries:
        server = entry.strip() if isinstance(entry, str) else entry
        if not isinstance(server, str) or _SERVER.fullmatch(server) is None:
            # "user:password@host" is somebody's mistake, and must not show.
            raise ConfigError(name, given, remedy, secret="@" in str(given))
        _, colon, port = server.rpartition(":")
        if (
            colon
            and not server.endswith("]")
            and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
        ):
            raise ConfigError(name, given, f"{remedy}; a port is a number from 1 to 65535")
        servers.append(server)
    if not servers:
        raise ConfigError(name, given, remedy)
    return ",".join(servers)


def _check_credentials(username: object, password: object, settings: Settings) -> None:
    for argument, value, setting in (
        ("username", username, "sasl.username"),
        ("password", password, "sasl.password"),
    ):
        if value is None:
            continue
        text(f"Cluster.{argument}", value, secret=argument == "password")
        if setting in settings:
            remedy = f"is given twice: leave out either `{argument}` or {setting!r} in `settings`"
            raise ConfigError(f"Cluster.{argument}", value, remedy, secret=True)
    if username is not None and password is None and "sasl.password" not in settings:
        raise ConfigError("Cluster.password", None, "must be given with a username")
    if password is not None and username is None and "sasl.username" not in settings:
        raise ConfigError("Cluster.username", None, "must be given with a password")


def _protocol(given: object, settings: Settings, named_user: bool) -> str:
    name = "Cluster.security_protocol"
    if "security.protocol" in settings:
        if given is not None and given != str(settings["security.protocol"]).upper():
            remedy = "is given twice: leave out either `security_protocol` or the one in `settings`"
            raise ConfigError(name, given, remedy)
        given = settings["security.protocol"]
    if given is None:
        return "SASL_SSL" if named_user else "PLAINTEXT"
    protocol = given.upper() if isinstance(given, str) else given
    if not isinstance(protocol, str) or protocol not in _PROTOCOLS:
        raise ConfigError(name, given, f"must be one of {', '.join(_PROTOCOLS)}")
    if named_user and not protocol.startswith("SASL_"):
        raise ConfigError(
            name, given, "must be SASL_SSL or SASL_PLAINTEXT with a username: others do not log in"
        )
    return protocol


def _delay(given: object) -> Exponential | Steps:
    if isinstance(given, (Exponential, Steps)):
        return given
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes, bytearray, memoryview)):
        if not given:
            raise ConfigError("Retry.delay", given, "must hold at least one duration")
        return Steps(tuple(seconds(f"Retry.delay[{index}]", one) for index, one in enumerate(given)))
    if isinstance(given, (int, float, timedelta)):
        return Steps((seconds("Retry.delay", given),))
    remedy = "must be a duration (seconds or timedelta), a sequence of them, or an Exponential"
    raise ConfigError("Retry.delay", given, remedy)


def _exceptions(field_name: str, given: object) -> tuple[type[Exception], ...]:
    remedy = "must be a tuple of exception classes, as in (ValueError, KeyError)"
    if not isinstance(given, tuple):
        raise ConfigError(field_name, given, remedy)
    for one in given:
        if not isinstance(one, type) or not issubclass(one, Exception):
            raise ConfigError(field_name, given, remedy)
    return given


def _check_dead_letter(name: str, retry: Retry | None, dead_letter: object) -> None:
    if not isinstance(dead_letter, str):
        remedy = "name a topic, or say DISCARD to drop what cannot be handled"
        raise ConfigError("Topic.dead_letter", dead_letter, remedy)
    check_topic_name("Topic.dead_letter", dead_letter)
    if dead_letter == name or (retry is not None and dead_letter == retry.topic):
        remedy = "must be another topic than the one that is read and its retry topic"
        raise ConfigError("Topic.dead_letter", dead_letter, remedy)
