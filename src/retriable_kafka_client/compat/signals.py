"""SIGINT and SIGTERM for programs that leave them alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["draining"]


@contextmanager
def draining(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` at the first SIGINT or SIGTERM. In the main thread only, and only for a signal without a handler.

    SIGINT is a KeyboardInterrupt when the block has ended; the second one is at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        interrupted = interrupted or number == signal.SIGINT
        stop()

    defaults = ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
    before = {number: default for number, default in defaults if signal.getsignal(number) is default}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, default in before.items():
            signal.signal(number, default)
    if interrupted:
        raise KeyboardInterrupt
