"""Telling a signal from an exception of a message's own."""

from __future__ import annotations

import functools
import opcode
import signal
import threading
from collections.abc import Iterator
from types import CodeType
from typing import Any

__all__ = ["is_from_signal"]

_RAISE = opcode.opmap["RAISE_VARARGS"]


def is_from_signal(error: BaseException) -> bool:
    """Whether a signal handler raised it, such as the interpreter's own for Ctrl-C, while a function of the user's ran.

    Everything else that such a function raises is its own, KeyboardInterrupt and SystemExit too: that fails one message,
    and must not end the program each time the message is read.
    """
    if isinstance(error, Exception) or threading.current_thread() is not threading.main_thread():
        return False
    handlers = frozenset(_codes_of_handlers())
    trace, innermost = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace, innermost = trace.tb_next, trace
    if (
        not isinstance(error, KeyboardInterrupt)
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return False
    # The interpreter's handler has no frame. It comes between two instructions, and never stands at a `raise`.
    return innermost is None or innermost.tb_frame.f_code.co_code[innermost.tb_lasti] != _RAISE


def _codes_of_handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        if isinstance(code, CodeType):
            yield code
