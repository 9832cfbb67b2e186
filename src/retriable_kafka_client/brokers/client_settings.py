"""librdkafka settings as a user gives them: which the library must own, and which are secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from retriable_kafka_client.errors import ConfigError, OwnedSetting

__all__ = [
    "CALLBACKS",
    "LARGEST_KBYTES",
    "RESET",
    "Settings",
    "is_secret",
    "number",
    "reset_rule",
]

CALLBACKS = frozenset({"error_cb", "logger", "oauth_cb", "stats_cb", "throttle_cb"})
"""The callables that may stand among the settings."""

RESET = "auto.offset.reset"
LARGEST_KBYTES = 2_097_151  # what librdkafka takes for its queues

_RESETS: Mapping[str, Literal["earliest", "latest", "error"]] = {
    **dict.fromkeys(("earliest", "smallest", "beginning"), "earliest"),
    **dict.fromkeys(("latest", "largest", "end"), "latest"),
    "error": "error",
}

_COMMITS = "leave it out: the library commits what was handled, every Consumer.commit_interval"
_OFFSETS = "leave it out: the library keeps the offsets, and librdkafka must not store any"
_ACKS = "leave it out: a record counts as sent only when all in-sync replicas have it (acks=all)"
_IDEMPOTENCE = "leave it out: the library's producers are always idempotent"
_RETRIES = "leave it out: sending again is bounded by time and not by a count"
_TIME = "leave it out: a retry copy must never time out by itself, because that may mean 'written'"
_REPORTS = "leave it out: the library needs every delivery report; use Producer.send's Future"
_TRANSACTIONS = "leave it out: the library decides on transactions; ask for them with Consumer.guarantee"
_ON_COMMIT = "leave it out: the library's own commits answer to it; Consumer.on_event tells of them"
_REBALANCE = "leave it out: the library follows rebalances itself; Consumer.on_event tells of them"
_QUEUES = "leave it out: the client's queues are sized by Limits.buffer_bytes"

_OWNED: Mapping[str, str] = {
    "bootstrap.servers": "give it as Cluster's first argument",
    "metadata.broker.list": "give it as Cluster's first argument",
    "group.id": "give it as Consumer's group_id",
    "enable.auto.commit": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "enable.auto.offset.store": _OFFSETS,
    "offset.store.method": _OFFSETS,
    "offset.store.path": _OFFSETS,
    "offset.store.sync.interval.ms": _OFFSETS,
    "isolation.level": "leave it out: it is always read_committed, so that no aborted record is handled",
    "transactional.id": _TRANSACTIONS,
    "transaction.timeout.ms": _TRANSACTIONS,
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "enable.idempotence": _IDEMPOTENCE,
    "enable.gapless.guarantee": "leave it out: one record that fails must not end the producer",
    "retries": _RETRIES,
    "message.send.max.retries": _RETRIES,
    "message.timeout.ms": _TIME,
    "delivery.timeout.ms": _TIME,
    "delivery.report.only.error": _REPORTS,
    "dr_cb": _REPORTS,
    "dr_msg_cb": _REPORTS,
    "on_delivery": _REPORTS,
    "on_commit": _ON_COMMIT,
    "offset_commit_cb": _ON_COMMIT,
    "rebalance_cb": _REBALANCE,
    "on_assign": _REBALANCE,
    "on_revoke": _REBALANCE,
    "on_lost": _REBALANCE,
    "consume_cb": "leave it out: records go to Consumer.handler",
    "enable.partition.eof": "leave it out: the library notices the end of a partition by itself",
    "queued.min.messages": _QUEUES,
    "queued.max.messages.kbytes": _QUEUES,
    "fetch.max.bytes": _QUEUES,
    "fetch.message.max.bytes": _QUEUES,
    "max.partition.fetch.bytes": _QUEUES,
    "receive.message.max.bytes": _QUEUES,
    "queue.buffering.max.messages": _QUEUES,
    "queue.buffering.max.kbytes": _QUEUES,
    "default.topic.config": "give the settings in it directly",
    "log.queue": "leave it out: the library serves the client's log itself",
    "log_cb": "give a `logger` instead",
}

# "ssl.key." takes in the key itself, its file and its password; "sasl.jaas.config" is Java's way to give a
# password.
_SECRET_PARTS = (
    "password",
    "secret",
    "token",
    "credential",
    "assertion",
    "jaas",
    "oauth",
    "key.pem",
    "ssl.key",
    "ssl_key",
    "keystore",
)


class Settings(Mapping[str, Any]):
    """Read-only settings, checked by name. Equal and hashable by content; ``repr`` shows no secret."""

    __slots__ = ("_items",)

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        """Copy ``given``. Raises ConfigError for what the library must own, with what to do instead."""
        items: dict[str, Any] = {}
        for name, value in _entries(given):
            if not isinstance(name, str) or not name:
                raise ConfigError(
                    "Cluster.settings", name, "a setting's name must be a text that is not empty"
                )
            field = f"Cluster.settings[{name!r}]"
            if name in _OWNED:
                raise OwnedSetting(name, value, _OWNED[name], secret=is_secret(name))
            _check_value(field, name, value)
            items[name] = value
        self._items = items

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))  # by name: a value may not be hashable

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings, (self._items,)

    def __repr__(self) -> str:
        shown = (
            f"{name!r}: {'(not shown)' if is_secret(name) else repr(value)}"
            for name, value in self._items.items()
        )
        return "{" + ", ".join(shown) + "}"


def reset_rule(settings: Mapping[str, Any]) -> Literal["earliest", "latest", "error"]:
    """Where base topics begin without a position, whichever of librdkafka's words says so."""
    return _RESETS[str(settings.get(RESET, "earliest")).lower()]


def number(settings: Mapping[str, Any], name: str, default: int) -> int:
    """Return the number that ``settings`` give for ``name``, or ``default`` where they give none.

    For what is no number, too: the client refuses it when it is opened, and says why.
    """
    try:
        return int(settings.get(name, default))
    except ValueError:
        return default


def is_secret(name: str) -> bool:
    """Whether the value of the setting ``name`` must never be shown."""
    lower = name.lower()
    return any(part in lower for part in _SECRET_PARTS)


def _entries(given: object) -> Iterator[tuple[object, object]]:
    if given is None:
        return iter(())
    if not isinstance(given, Mapping):
        # Not shown: a list of pairs may hold a password.
        raise ConfigError("Cluster.settings", given, "must be a mapping of names to values", secret=True)
    return iter(given.items())


def _check_value(field: str, name: str, value: object) -> None:
    if name == "logger":
        if not callable(getattr(value, "log", None)):
            raise ConfigError(field, value, "must be a logging.Logger")
    elif name in CALLBACKS:
        if not callable(value):
            raise ConfigError(field, value, "must be callable", secret=is_secret(name))
    elif name == RESET:
        if not isinstance(value, str) or value.lower() not in _RESETS:
            raise ConfigError(
                field, value, "must be 'earliest', 'latest' or 'error' (which other clients call 'none')"
            )
    elif not isinstance(value, (str, int, float, bool)):
        raise ConfigError(field, value, "must be a text, a number or a bool", secret=is_secret(name))
