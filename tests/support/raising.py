"""What a call raises, as a value."""

from collections.abc import Callable

__all__ = ["raised_by"]


def raised_by(function: Callable[[], object]) -> BaseException:
    """The exception with its traceback; an AssertionError if there is none."""
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("it raised nothing")
