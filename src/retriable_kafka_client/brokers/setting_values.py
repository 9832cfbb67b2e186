"""What a client's settings say, asked by what is meant: nobody outside this wing reads or writes librdkafka's names.

Durations are in seconds, sizes in bytes. Pure functions, for any thread. None of them raises for a value that librdkafka
does not take: the client refuses it when it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retriable_kafka_client.brokers.client_settings import LARGEST_KBYTES, number

__all__ = [
    "is_classic",
    "is_eager",
    "queue_bytes",
    "rebalance_protocol",
    "request_seconds",
    "resend_pause",
    "session_seconds",
    "static_member",
    "transaction_seconds",
]

_SESSION_MS = 45_000  # librdkafka's default, as the others here
_REQUEST_MS = 60_000
_RESEND_MS = 100
_TRANSACTION_MS = 60_000


def rebalance_protocol(settings: Mapping[str, Any]) -> str:
    """Return ``classic``, or ``consumer`` (KIP-848), as it is written in the settings."""
    return str(settings.get("group.protocol", "classic"))


def is_classic(settings: Mapping[str, Any]) -> bool:
    """Whether a consumer with these settings follows the classic rebalance protocol."""
    return rebalance_protocol(settings).lower() == "classic"


def is_eager(settings: Mapping[str, Any]) -> bool:
    """Whether a consumer with these settings gives all partitions away in each rebalance."""
    strategy = str(settings.get("partition.assignment.strategy", "cooperative-sticky"))
    return is_classic(settings) and "cooperative" not in strategy


def static_member(settings: Mapping[str, Any]) -> object:
    """Return the name under which a consumer is a static member of its group; None: it is none."""
    return settings.get("group.instance.id")


def session_seconds(settings: Mapping[str, Any]) -> float:
    """How long a member may be silent before the coordinator puts it out of the group."""
    return number(settings, "session.timeout.ms", _SESSION_MS) / 1000


def request_seconds(settings: Mapping[str, Any]) -> float:
    """How long the client waits for the answer to one request."""
    return number(settings, "socket.timeout.ms", _REQUEST_MS) / 1000


def resend_pause(settings: Mapping[str, Any]) -> float:
    """The shortest pause before the client sends a request again."""
    return number(settings, "retry.backoff.ms", _RESEND_MS) / 1000


def transaction_seconds(settings: Mapping[str, Any]) -> float:
    """How long a transaction may stay open before the brokers abort it."""
    return number(settings, "transaction.timeout.ms", _TRANSACTION_MS) / 1000


def queue_bytes(settings: Mapping[str, Any]) -> int:
    """How much a producer may hold that is not sent yet."""
    return number(settings, "queue.buffering.max.kbytes", LARGEST_KBYTES) * 1024
