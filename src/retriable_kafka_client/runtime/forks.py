"""What a forked child must leave alone: the clients and threads of its parent.

librdkafka's threads do not survive a fork, so every call to an inherited client waits for ever, and ending one, as the
interpreter does at its exit, breaks the process. Children keep inherited clients as they are, and never end them.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from retriable_kafka_client.errors import RetriableKafkaError

__all__ = ["Home", "in_child", "open_lasting", "used_before_fork"]

Client = TypeVar("Client")

_REMEDY = (
    "was used before this process was forked, and its threads and connections are the parent's: make it after the fork"
    " (gunicorn: in the hook post_fork; celery: on the signal worker_process_init; multiprocessing: in the pool's"
    " initializer, or with the start method 'spawn')"
)

_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_told: list[Callable[[], None]] = []


def in_child(function: Callable[[], None]) -> None:
    """Have it called first thing in each child that is forked, once the inherited clients are safe."""
    _told.append(function)


def used_before_fork(what: str) -> RetriableKafkaError:
    """Return what is raised when ``what``, which its parent used, is used in a forked child."""
    return RetriableKafkaError(f"this {what} {_REMEDY}")


class Home:
    """The process in which something was first used; it works in no other one."""

    __slots__ = ("_pid", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid: int | None = None

    @property
    def lost(self) -> bool:
        """Whether this is a child that was forked since."""
        return self._pid is not None and self._pid != os.getpid()

    def settle(self) -> None:
        """It is used from here on. Raises RetriableKafkaError where it was in the parent."""
        self.check()
        self._pid = os.getpid()

    def check(self) -> None:
        """Raises RetriableKafkaError in a child that was forked after the first use."""
        if self.lost:
            raise used_before_fork(self._what)


def open_lasting(kind: Callable[[dict[str, Any]], Client], settings: dict[str, Any]) -> Client:
    """Make a client that no forked child ends."""
    client = _weak(kind)(settings) if isinstance(kind, type) else kind(settings)
    with suppress(TypeError):  # a stand-in
        _clients.add(client)
    return client


@cache
def _weak(kind: type) -> Any:
    """The client's own types take no weak references."""
    return kind if kind.__weakrefoffset__ else type(kind.__name__, (kind,), {"__slots__": ("__weakref__",)})


def _forked() -> None:
    # One reference too many: nothing ends them any more, not even the interpreter.
    for client in list(_clients):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
    _clients.clear()
    for function in _told:
        function()


os.register_at_fork(after_in_child=_forked)
