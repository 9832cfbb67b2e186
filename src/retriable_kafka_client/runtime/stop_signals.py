"""SIGINT and SIGTERM, for consumers that run in the main thread: the first drains and stops, the second stops hard."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

__all__ = ["Interruptible", "interrupted", "interrupted_too"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible(Protocol):
    """A consumer that a signal stops."""

    def _interrupt(self) -> None: ...


@contextmanager
def interrupted(consumers: Sequence[Interruptible]) -> Iterator[None]:
    """While the block, which blocks the main thread, runs, signals stop the consumers and do nothing else."""
    if not _in_main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        for consumer in consumers:
            consumer._interrupt()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: a program in C around us had set it, and only it can set it again
                signal.signal(number, handler)


_running: list[Interruptible] = []  # in coroutines of the main thread, which alone touches these two
_before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}


@contextmanager
def interrupted_too(consumer: Interruptible) -> Iterator[None]:
    """While the block, which awaits, runs, signals stop the consumer and go on to a handler of the program's own.

    A web server has such handlers, and must go on hearing of its end. asyncio's own for SIGINT is left out: it cancels
    the main task. Any number of blocks may overlap; the last that ends restores the handlers.
    """
    if not _in_main_thread():
        yield
        return
    if not _running:
        _before.update({number: signal.signal(number, _handle) for number in _SIGNALS})
    _running.append(consumer)
    try:
        yield
    finally:
        _running.remove(consumer)
        if not _running:
            for number, handler in _before.items():
                # Who has put another handler there since puts ours, or the one before it, back.
                if signal.getsignal(number) is _handle and handler is not None:
                    signal.signal(number, handler)
            _before.clear()


def _handle(number: int, frame: FrameType | None) -> None:
    for consumer in _running:
        consumer._interrupt()
    before = _before.get(number)
    if callable(before) and before is not signal.default_int_handler and not _is_asyncios(before):
        before(number, frame)


def _is_asyncios(handler: object) -> bool:
    return isinstance(handler, partial) and isinstance(
        getattr(handler.func, "__self__", None), asyncio.Runner
    )


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
