"""What functions of users return: a value, or something whose work nobody would ever do."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Generator
from concurrent.futures import Future
from contextlib import suppress
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

__all__ = ["AwaitableReturned", "refuse_unfinished"]

# Their types, not the objects, are asked: an object of a user's may answer anything.
_LAZY = (Awaitable, Generator, AsyncGenerator, Future, map, filter, itertools.starmap)
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray))
_DEPTH = 4  # of containers in containers


class AwaitableReturned(TypeError):
    """A function returned an awaitable, a generator or a future: its work is not done, and nobody does it.

    Its text is the library's own, and holds nothing of what was returned.
    """

    # Dead letters carry the name, which stays what it was.
    __module__ = "retriable_kafka_client.workers.job"


def refuse_unfinished(result: object, who: str = "the handler") -> None:
    """Raise AwaitableReturned if ``result`` is, or holds, work that nobody does. Coroutines in it are closed."""
    kind = type(result)
    if kind in _PLAIN:
        return
    found = _unfinished(result, kind, _DEPTH)
    if found is not None:
        _close(result, _DEPTH)
        raise AwaitableReturned(
            f"{who} returned {_named(found)}: its work is not done, and nobody does it; {_REMEDY}"
        )


_REMEDY = "`async def` handlers need an AsyncExecutor, and await what they call; other functions return when all is done"


def _unfinished(result: Any, kind: type, depth: int) -> type | None:
    """The type of what is not done, if there is any. By types: a list of a million numbers costs some milliseconds."""
    if issubclass(kind, _LAZY) or (hasattr(kind, "add_done_callback") and hasattr(kind, "result")):
        return kind
    if depth:
        items = _items(result, kind)
        kinds = set(map(type, items)) - _PLAIN
        for one in kinds:
            if issubclass(one, (list, tuple, set, frozenset, dict)):
                inner = (_unfinished(item, one, depth - 1) for item in items if type(item) is one)
                found = next((each for each in inner if each is not None), None)
            else:
                found = _unfinished(None, one, 0)
            if found is not None:
                return found
    return None


def _items(result: Any, kind: type) -> Any:
    if issubclass(kind, dict):
        return dict.values(result)
    if issubclass(kind, list):
        return list.__getitem__(result, slice(None))
    return result if kind in (tuple, set, frozenset) else ()


def _close(result: Any, depth: int) -> None:
    """Or the interpreter warns of each coroutine that it was never awaited."""
    kind = type(result)
    if issubclass(kind, (CoroutineType, GeneratorType)):
        with suppress(BaseException):  # somebody else runs it
            result.close()
    elif depth:
        for item in _items(result, kind):
            _close(item, depth - 1)


def _named(kind: type) -> str:
    if issubclass(kind, CoroutineType):
        return "a coroutine"
    if issubclass(kind, AsyncGeneratorType):
        return "an async generator"
    if issubclass(kind, GeneratorType):
        return "a generator"
    return f"an object of type {kind.__qualname__}"
