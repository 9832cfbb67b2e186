"""The end of the interpreter, for producers that nobody closed and consumers that nobody stopped.

Two moments, in this order. When the main thread has returned, and before the standard library's pools close, consumers
are stopped. At the very end, when all threads but daemons are gone, producers send what they still hold: nobody sends
any more, and the daemon threads that serve their clients still run.
"""

from __future__ import annotations

import atexit
import concurrent.futures.process
import concurrent.futures.thread  # noqa: F401 - both close their pools in a hook that must be older than ours
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from retriable_kafka_client.runtime.forks import in_child

__all__ = ["Leaving", "Sending", "consumer_ended", "consumer_runs", "producer_ended", "producer_runs"]

log = logging.getLogger("retriable_kafka_client")

FLUSH_SECONDS = 5.0  # for all producers together
LOOK_SECONDS = 0.05  # for each producer in turn
LEAVE_SECONDS = 20.0  # for a consumer beyond its drain: last commits, leaving the group
MOST_SHOWN = 10  # topics in one line


class Sending(Protocol):
    """A producer at the end."""

    def _last_call(self) -> None:
        """Take nothing more, and count what fails from now on."""

    def _send_rest(self, timeout: float) -> bool:
        """Go on sending for so many seconds; whether all is settled."""

    def _give_up(self) -> Counter[tuple[str, str]]:
        """Settle the rest as failed; returns what was not delivered, by topic and code."""

    def _forked(self) -> None:
        """This is a child that was forked: all that it holds is the parent's."""


class Leaving(Protocol):
    """A consumer at the end."""

    def _leave(self, *, hard: bool) -> None:
        """Stop; ``hard``: without a drain."""

    @property
    def _drain_seconds(self) -> float: ...


_producers: set[Sending] = set()
_consumers: dict[Leaving, tuple[int, threading.Thread]] = {}  # and the process and thread that each runs in
_lock = threading.Lock()
_children_flush = False


def producer_runs(producer: Sending) -> None:
    """Send what it holds when the interpreter ends."""
    with _lock:
        _producers.add(producer)
    _flush_in_child()


def producer_ended(producer: Sending) -> None:
    """It was closed."""
    with _lock:
        _producers.discard(producer)


def consumer_runs(consumer: Leaving) -> None:
    """Stop it when the interpreter ends, if the present thread, which runs it, is a daemon: no other one is waited for."""
    thread = threading.current_thread()
    with _lock:
        if thread.daemon:
            _consumers[consumer] = os.getpid(), thread


def consumer_ended(consumer: Leaving) -> None:
    """It has ended."""
    with _lock:
        _consumers.pop(consumer, None)


def _flush_in_child() -> None:
    """A process that multiprocessing forked ends without the interpreter's exit functions, but with its own."""
    global _children_flush  # noqa: PLW0603 - once for each process
    import multiprocessing
    from multiprocessing import util

    if multiprocessing.parent_process() is not None and not _children_flush:
        _children_flush = True
        util.Finalize(None, _flush, exitpriority=0)


def _flush() -> None:
    with _lock:
        producers = list(_producers)
        _producers.clear()
    for producer in producers:
        producer._last_call()
    left = producers
    deadline = time.monotonic() + FLUSH_SECONDS
    try:
        while left and time.monotonic() < deadline:
            left = [
                one for one in left if not one._send_rest(LOOK_SECONDS if len(left) > 1 else 2 * LOOK_SECONDS)
            ]
    except KeyboardInterrupt:
        pass  # whoever does not want to wait; what is lost is counted
    lost: Counter[tuple[str, str]] = Counter()
    for producer in producers:
        lost += producer._give_up()
    if lost:
        shown = ", ".join(
            f"{topic}: {count} ({code})" for (topic, code), count in lost.most_common(MOST_SHOWN)
        )
        log.error(
            "the interpreter ends, and records that were sent are not delivered: %d (%s%s); close a Producer, or use it in"
            " `with`, and it waits for them",
            lost.total(),
            shown,
            ", …" if len(lost) > MOST_SHOWN else "",
        )


def _stop() -> None:
    with _lock:
        running = {one: thread for one, (pid, thread) in _consumers.items() if pid == os.getpid()}
    if not running:
        return
    for consumer in running:
        consumer._leave(hard=False)
    deadline = time.monotonic() + max(one._drain_seconds for one in running) + LEAVE_SECONDS
    while any(thread.is_alive() for thread in running.values()) and time.monotonic() < deadline:
        try:
            for thread in running.values():
                thread.join(max(0.0, deadline - time.monotonic()))
        except KeyboardInterrupt:
            for consumer in running:
                consumer._leave(hard=True)


def _forked() -> None:
    global _lock, _children_flush  # noqa: PLW0603 - a thread that is not here may have held it
    _lock = threading.Lock()
    _children_flush = False
    for producer in _producers:
        producer._forked()
    _producers.clear()
    _consumers.clear()


# Registered when the library is imported, so that what programs register later runs before.
atexit.register(_flush)
in_child(_forked)
_before_pools_close: Callable[[Callable[[], None]], object] = getattr(
    threading, "_register_atexit", atexit.register
)
_before_pools_close(_stop)
