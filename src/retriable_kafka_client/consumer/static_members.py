"""Static members of this process: each ``group.instance.id`` is one consumer's."""

from __future__ import annotations

import os
import threading

from retriable_kafka_client.errors import ConfigError

__all__ = ["Claim", "claim", "release"]

Claim = tuple[int, str, str, str]  # process, brokers, group, instance

_lock = threading.Lock()
_claims: set[Claim] = set()


def claim(servers: str, group: str, instance: object) -> Claim | None:
    """Note that a consumer is about to run as this static member (None: it is none). ConfigError: another one runs as it."""
    if not instance:
        return None
    ours = (os.getpid(), ",".join(sorted(servers.split(","))), group, str(instance))
    with _lock:
        if ours in _claims:
            raise ConfigError(
                "Cluster.settings['group.instance.id']",
                instance,
                f"another consumer of group {group} in this process has it: give each its own",
            )
        _claims.add(ours)
    return ours


def release(ours: Claim | None) -> None:
    """It runs no longer."""
    if ours is not None:
        with _lock:
            _claims.discard(ours)
