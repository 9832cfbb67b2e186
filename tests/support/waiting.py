"""Waiting for something that will happen, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["WAIT", "wait_until"]

WAIT = 30.0
"""Seconds that a test waits for what should take one or two: long enough for a busy machine."""

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = WAIT, what: str = "", every: float = 0.02) -> T:
    """Return the first true value of `predicate`, called about each `every` seconds.

    Raises AssertionError, which names `what` and the last value, when `timeout` seconds passed without one.
    The predicate is always called once more after the deadline: a slow machine does not fail what has come
    true.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = predicate()
        if value:
            return value
        if late:
            raise AssertionError(
                f"not within {timeout:g} s: {what or repr(predicate)} (last value: {value!r})"
            )
        time.sleep(every)
