"""The executors that come with the library, and which runner serves which executor."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.runtime.monkey_patching import patched_by_gevent, refuse_patched
from retriable_kafka_client.workers.async_executor import AsyncExecutor
from retriable_kafka_client.workers.async_runner import AsyncRunner
from retriable_kafka_client.workers.futures import FuturesRunner
from retriable_kafka_client.workers.job import HandlerSpec, check_async, check_sync
from retriable_kafka_client.workers.processes import ProcessExecutor, ProcessRunner
from retriable_kafka_client.workers.runner import Runner, Running
from retriable_kafka_client.workers.threads import DaemonThreads

__all__ = [
    "AsyncExecutor",
    "ProcessExecutor",
    "Runner",
    "Running",
    "check_executor",
    "make_runner",
    "refuse_patched_pool",
    "shares_interpreter",
]


# What gevent must leave alone for pools besides threads, as it was tried.
_POOLS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (ThreadPoolExecutor, ("queue",)),
    (AsyncExecutor, ("select",)),
    (ProcessExecutor, ("select", "queue", "os", "subprocess", "socket")),
    (ProcessPoolExecutor, ("select", "queue", "os", "subprocess", "socket")),
)


def check_executor(executor: object, handler: Callable[..., object]) -> int | Executor:
    """Return a Consumer's ``executor`` if it can be one, and can run ``handler``. Raises ConfigError; starts nothing."""
    is_number = isinstance(executor, int) and not isinstance(executor, bool) and executor >= 1
    if isinstance(executor, Executor) or is_number:
        check = check_async if isinstance(executor, AsyncExecutor) else check_sync
        check(handler)
        return executor  # type: ignore[return-value]
    raise ConfigError(
        "Consumer.executor",
        executor,
        "must be a number of threads, 1 or more, or a concurrent.futures.Executor",
    )


def make_runner(executor: int | Executor, spec: HandlerSpec, *, slots: int | None = None) -> Runner:
    """Make the runner for one consumer. Starts nothing: ``Runner.start`` does.

    ``slots``: how many slices to keep with an executor that is not the library's; default: as many as it has
    workers, or, where it does not say (a cluster), four for each core here.
    """
    if isinstance(executor, int):
        return FuturesRunner(DaemonThreads(executor), spec, executor, owned=True)
    if isinstance(executor, AsyncExecutor):
        return AsyncRunner(executor, spec)
    if isinstance(executor, ProcessExecutor):
        return ProcessRunner(executor, spec)
    if slots is None:
        # The stdlib's pools have no public name for it.
        workers = getattr(executor, "_max_workers", None)
        slots = workers if isinstance(workers, int) and workers > 0 else 4 * (os.cpu_count() or 1)
    return FuturesRunner(executor, spec, slots)


def shares_interpreter(executor: int | Executor) -> bool:
    """Whether a handler that keeps the interpreter's lock keeps the consumer's loop from running."""
    return not isinstance(executor, (ProcessExecutor, ProcessPoolExecutor))


def refuse_patched_pool(executor: object) -> None:
    """Raise ConfigError where threads are greenlets by now, or what a consumer's pool is made of is gevent's."""
    refuse_patched()
    for kind, names in _POOLS:
        if isinstance(executor, kind) and patched_by_gevent(names):
            flags = ", ".join(f"{name}=False" for name in ("thread", *names))
            raise ConfigError(
                "Consumer.executor",
                executor,
                f"a {kind.__name__} does not work on what gevent has patched; call patch_all({flags}), or give the consumer"
                " a number of threads",
            )
