"""Where in a user's code an exception was raised: names and lines only, never what an exception or a variable holds."""

from __future__ import annotations

import functools
import os
import sysconfig
import traceback
from collections.abc import Callable
from enum import Enum
from types import CodeType, TracebackType
from typing import Any

__all__ = ["place_in", "place_of", "traceback_of"]

_LONGEST = 300  # characters
_LONGEST_TRACE = 4_000
_MOST_FRAMES = 20
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


class _Owner(Enum):
    """Whose code a frame runs."""

    LIBRARY = 0
    STDLIB = 1
    INSTALLED = 2
    USER = 3


def place_of(*errors: BaseException, function: Callable[..., object] | None = None) -> str | None:
    """``module:line function`` of the innermost frame of the user's code that one of ``errors`` passed, the first that has
    one; else of the innermost frame that is not this library's; else where ``function`` is defined.

    The user's is what stands neither in site-packages nor in the standard library, and the package that this library
    called, wherever it is installed.
    """
    for error in errors:
        found = _innermost(error, _is_users)
        if found is not None:
            return found
    for error in errors:
        found = _innermost(error, _is_not_ours)
        if found is not None:
            return found
    return None if function is None else place_in(function)


def place_in(function: Any) -> str | None:
    """``module:line function`` where a function, or what a callable object's class calls, is defined. None: not in
    Python, or in this library.
    """
    try:
        for _ in range(100):
            inner = getattr(function, "__dict__", {}).get("__wrapped__")
            if isinstance(function, functools.partial):
                function = function.func
            elif hasattr(function, "__func__"):
                function = function.__func__
            elif callable(inner):
                function = inner
            else:
                break
        if not hasattr(function, "__code__"):
            function = getattr(type(function), "__call__", None)  # noqa: B004 - the function itself is wanted
        code, module = getattr(function, "__code__", None), getattr(function, "__module__", None)
    except BaseException:  # noqa: BLE001 - an object of the user's may do anything
        return None
    if not isinstance(code, CodeType) or _owner(code.co_filename) is _Owner.LIBRARY:
        return None
    return _written(module, code.co_firstlineno, code.co_name)


def traceback_of(error: BaseException) -> str | None:
    """The traceback with the exception's text, its end if it is long. Only where users opted in to such texts."""
    try:
        text = "".join(traceback.format_exception(error, limit=-_MOST_FRAMES))
    except BaseException:  # noqa: BLE001 - a handler's exception may do anything
        return None
    return text if len(text) <= _LONGEST_TRACE else "…" + text[-_LONGEST_TRACE:]


def _innermost(error: BaseException, wanted: Callable[[_Owner, str, str], bool]) -> str | None:
    trace: TracebackType | None = error.__traceback__
    entered = ""  # the package that the library called
    found: TracebackType | None = None
    while trace is not None:
        frame = trace.tb_frame
        owner, package = _owner(frame.f_code.co_filename), _package(frame.f_globals)
        if not entered and owner in (_Owner.USER, _Owner.INSTALLED):
            entered = package
        if wanted(owner, package, entered):
            found = trace
        trace = trace.tb_next
    if found is None:
        return None
    frame = found.tb_frame
    return _written(frame.f_globals.get("__name__"), found.tb_lineno, frame.f_code.co_name)


def _is_users(owner: _Owner, package: str, entered: str) -> bool:
    return owner is _Owner.USER or (owner is _Owner.INSTALLED and package == entered)


def _is_not_ours(owner: _Owner, package: str, entered: str) -> bool:  # noqa: ARG001
    return owner is not _Owner.LIBRARY


def _package(names: dict[str, Any]) -> str:
    name = names.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


@functools.lru_cache(maxsize=4096)
def _owner(filename: str) -> _Owner:
    if filename.startswith(_OURS):
        return _Owner.LIBRARY
    if filename.startswith("<frozen"):
        return _Owner.STDLIB
    if f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}dist-packages{os.sep}" in filename:
        return _Owner.INSTALLED
    return _Owner.STDLIB if filename.startswith(_stdlib()) else _Owner.USER


@functools.lru_cache(maxsize=1)
def _stdlib() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(
        {paths[name] + os.sep for name in ("stdlib", "platstdlib")} | {os.path.dirname(os.__file__) + os.sep}
    )


def _written(module: object, line: int | None, name: str) -> str:
    # Worker processes have the program's main module under another name.
    module = "__main__" if module == "__mp_main__" else module
    text = f"{module if isinstance(module, str) else '?'}:{line or 0} {name}"
    text = text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
    return text[:_LONGEST]
