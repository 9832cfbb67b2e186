"""How a client leaves its group, so that the others have its partitions at once and not after its session.

`close()` of librdkafka (2.16) sends no LeaveGroup for a cooperative member that has no partitions, nor for one that is amid
a rebalance: the broker then keeps it until its session is over, and the group waits for it. To unsubscribe, and to poll
until the client has done so, sends it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from retriable_kafka_client.brokers.client import close_in_time
from retriable_kafka_client.brokers.setting_values import is_classic, static_member

__all__ = ["Belonging", "belonging", "close_member"]

UNSUBSCRIBE_SHARE = 0.4  # of the time, at most, until the client has left its group
POLL_SECONDS = 0.02
_FORMAT = b"CGMDv2:"  # of the client's group metadata: the generation in four bytes, the group's name, the member's id


@dataclass(frozen=True, slots=True)
class Belonging:
    """What a client knows of its place in the group, without a question to the brokers."""

    generation: int  # above 0: the group has it, or had it
    member: bool  # it has an id there; with KIP-848 always


def belonging(client: Any) -> Belonging:
    """Return it; of a client that says nothing, that it is in no group."""
    said = client.consumer_group_metadata()
    if not isinstance(said, bytes) or not said.startswith(_FORMAT):
        return Belonging(-1, member=False)
    start = len(_FORMAT) + 4
    generation = int.from_bytes(said[len(_FORMAT) : start], "little", signed=True)
    _group, _, rest = said[start:].partition(b"\0")
    return Belonging(generation, member=not rest.startswith(b"\0") and bool(rest))


def close_member(client: Any, settings: Mapping[str, Any], timeout: float) -> bool:
    """Leave the group and close; whether that took at most ``timeout`` seconds. Rebalance callbacks may still come.

    A static member (``group.instance.id``) stays in the group, as it should: its next client takes its place. While others
    drain for an eager rebalance, the broker does not read what comes after our request to join: the client is then left to
    itself, and leaves when the others have joined, if the process still runs.
    """
    deadline = time.monotonic() + timeout
    if not static_member(settings):
        # After a fatal error the client does nothing any more but close.
        with suppress(KafkaException, RuntimeError):
            _unsubscribe(client, timeout * UNSUBSCRIBE_SHARE, classic=is_classic(settings))
    return close_in_time(client, max(0.0, deadline - time.monotonic()))


def _unsubscribe(client: Any, timeout: float, *, classic: bool) -> None:
    client.unsubscribe()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        client.poll(POLL_SECONDS)  # nothing of it is wanted any more
        now = belonging(client)
        if not now.member or (now.generation <= 0 and not classic):
            return
