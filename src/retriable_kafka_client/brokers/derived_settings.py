"""Settings of clients that stand beside another one: each function takes that one's settings and returns a copy, changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retriable_kafka_client.brokers.client_settings import LARGEST_KBYTES, RESET, number
from retriable_kafka_client.brokers.statistics import reporting

__all__ = [
    "committing_settings",
    "coordinator_settings",
    "copies_settings",
    "rereader_settings",
    "single_record_settings",
    "whole_queue_settings",
]

_REREAD_KBYTES = 8 * 1024  # what a rereader fetches ahead, beside the consumer's own queue
_FIND_TOPIC_MS = 3_000  # until a topic that the brokers do not know counts as missing
_ON_COMMIT = "on_commit"


def committing_settings(settings: Mapping[str, Any], answered: Callable[..., object]) -> dict[str, Any]:
    """A consumer whose commits are answered to ``answered(error, partitions)``, inside its poll. It must not raise."""
    return {**settings, _ON_COMMIT: answered}


def rereader_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer that reads parts of logs again: it joins no group, fetches little ahead, and says where a log ends."""
    return {
        **settings,
        "group.protocol": "classic",
        "queued.max.messages.kbytes": min(
            number(settings, "queued.max.messages.kbytes", _REREAD_KBYTES), _REREAD_KBYTES
        ),
        RESET: "earliest",  # what is gone is passed over
        "enable.partition.eof": True,
    }


def coordinator_settings(
    settings: Mapping[str, Any], take: Callable[[str], object], every: float
) -> dict[str, Any]:
    """A consumer that only reports, every so many seconds, whether its group has a coordinator (``statistics``).

    Its errors are dropped: the consumer beside it has them, too.
    """
    quiet = {name: value for name, value in settings.items() if name != _ON_COMMIT}
    return {**reporting(quiet, take, every), "error_cb": _ignore}


def copies_settings(settings: Mapping[str, Any], largest: int) -> dict[str, Any]:
    """A producer of copies of records, of up to ``largest`` bytes each."""
    return {
        **settings,
        "topic.metadata.propagation.max.ms": _FIND_TOPIC_MS,
        # A copy is a little larger than its record, which may have been as large as its sender's client let it be:
        # what is too large is for the broker to say.
        "message.max.bytes": largest,
    }


def single_record_settings(
    settings: Mapping[str, Any], transactional_id: str | None = None
) -> dict[str, Any]:
    """A producer that sends each record at once, in a request of its own; with a transactional id, that one."""
    single = {**settings, "batch.num.messages": 1, "linger.ms": 0}
    return single if transactional_id is None else {**single, "transactional.id": transactional_id}


def whole_queue_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A producer whose queue is as large as the client allows: what it holds is counted by whoever sends."""
    return {**settings, "queue.buffering.max.kbytes": LARGEST_KBYTES}


def _ignore(_error: object) -> None: ...
