"""gevent and eventlet may have replaced threads by greenlets; the Kafka client's threads wake none of them."""

from __future__ import annotations

import sys

from retriable_kafka_client.errors import ConfigError

__all__ = ["patched_by_gevent", "refuse_patched"]

_THREADS = ("threading", "_thread")
_WHY = (
    "the Kafka client's own threads never wake what then waits, so nothing would be handled or acknowledged"
)


def refuse_patched() -> None:
    """Raise ConfigError where threads are greenlets by now."""
    if patched_by_gevent(_THREADS):
        raise ConfigError("gevent.monkey.patch_all.thread", True, f"{_WHY}; call patch_all(thread=False)")
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise ConfigError("eventlet.monkey_patch.thread", True, f"{_WHY}; call monkey_patch(thread=False)")


def patched_by_gevent(names: tuple[str, ...]) -> bool:
    """Whether any of these modules is gevent's by now."""
    gevent = sys.modules.get("gevent.monkey")
    return gevent is not None and any(gevent.is_module_patched(name) for name in names)
