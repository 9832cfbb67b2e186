"""What a worker does with one message: build nothing global, run the handler, judge how it ended."""

from __future__ import annotations

import dis
import functools
import inspect
import pickle
import random
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from enum import Enum
from types import CodeType, MethodDescriptorType, WrapperDescriptorType
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.protocol import Outcome
from retriable_kafka_client.core.retry import Failure, Policy, decisive, judge
from retriable_kafka_client.errors import ConfigError, RetryAfter
from retriable_kafka_client.message import Deserializer, Message, PlainRecord
from retriable_kafka_client.user_functions.code_places import place_in, place_of, traceback_of
from retriable_kafka_client.user_functions.interrupts import is_from_signal
from retriable_kafka_client.user_functions.results import AwaitableReturned, refuse_unfinished
from retriable_kafka_client.wire.headers import PLAIN, Marks
from retriable_kafka_client.wire.outbox import identified, size_of

__all__ = [
    "ENOUGH_BYTES",
    "AwaitableReturned",
    "HandlerSpec",
    "Item",
    "check_async",
    "check_sync",
    "dump",
    "ended",
    "failed",
    "is_async",
    "item_of",
    "load",
    "message_of",
    "run",
    "run_async",
    "run_item",
    "sent_bytes",
    "timed_out",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSpec:
    """Everything that a worker must know of its consumer. Pickles if the handler and the deserializer do."""

    handler: Callable[[Message[Any]], object]
    deserializer: Deserializer
    policies: tuple[Policy | None, ...]  # by Entry.route; None: one attempt
    error_text: bool = False  # whether a Failure keeps the exception's text
    timeout: float | None = None  # seconds that one run may take
    group: str = ""  # the consumer's; goes into the ids of what handlers send
    # In which the consumer was started, and the spec was made: runs have copies of it. It crosses to no other process.
    context: Context | None = field(default_factory=copy_context, compare=False, repr=False)


ENOUGH_BYTES = 1_000_000  # sent by one slice: its worker leaves the rest of it, so that the loop can keep up


def sent_bytes(outcome: Outcome) -> int:
    """How much a run that ended so has sent."""
    return 0 if outcome is None or isinstance(outcome, Failure) else size_of(outcome)


def run(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """Run the handler once. Raises nothing, whatever the handler raises.

    A payload that could not be decoded, or not now, fails the message even if the handler swallowed the error.
    KeyboardInterrupt and SystemExit out of a handler are failed attempts like any other exception. Only a signal that
    comes while a handler runs in the main thread goes through.
    """
    try:
        result = spec.handler(message)
        if result is not None:
            refuse_unfinished(result)
    except BaseException as error:  # noqa: BLE001 - the worker outlives whatever a handler raises
        return failed(spec, message, route, error)
    message.ended = True
    return ended(spec, message, route) if message.eventful else None


async def run_async(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """As ``run``, and awaits what the handler returns. A cancellation is a failed attempt too; whoever cancels from outside
    ignores the result.
    """
    try:
        result = spec.handler(message)
        if inspect.isawaitable(result):
            result = await result
        if result is not None:
            refuse_unfinished(result)
    except BaseException as error:  # noqa: BLE001 - the event loop outlives whatever a handler raises
        return failed(spec, message, route, error)
    message.ended = True
    return ended(spec, message, route) if message.eventful else None


def timed_out(spec: HandlerSpec, entry: Entry) -> Failure:
    """Judge a run that took longer than the spec's timeout."""
    error = TimeoutError(f"the handler did not end within {spec.timeout:g} s")
    failure = judge(spec.policies[entry.route], entry.attempt, error, random.random(), spec.error_text)
    return replace(failure, timed_out=True, place=place_in(spec.handler))


def ended(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """Say what came of an eventful message whose handler has returned."""
    error = message.decode_error or message.deserializer_error
    if error is not None:
        return failed(spec, message, route, error)
    return identified(message.outbox, message.id, spec.group)


def failed(spec: HandlerSpec, message: Message[Any], route: int, error: BaseException) -> Failure:
    """Judge what a handler raised. Raises it, if it is no doing of the handler's but a signal's."""
    if is_from_signal(error):
        raise error
    message.ended = True
    unread = message.decode_error or message.deserializer_error
    if unread is not None:
        if not (isinstance(error, RetryAfter) and unread is message.deserializer_error):
            error = unread  # what else the handler made of it does not matter
        # It refers back to the message, whose payload would wait for the next garbage collection.
        message.decode_error = message.deserializer_error = None
    policy = spec.policies[route]
    failure = judge(policy, message.attempt, error, random.random(), spec.error_text)
    place = place_of(decisive(policy, error), error, function=spec.handler)
    return replace(failure, place=place, traceback=traceback_of(error) if spec.error_text else None)


# What a handler is, as far as it can be known without calling it ------------------------------------------


def is_async(function: Callable[..., object]) -> bool:
    """Whether a call of it is known to return before its body runs, to be awaited."""
    return _kind(function) in (_CallKind.ASYNC, _CallKind.ASYNC_GENERATOR)


def check_sync(
    handler: Callable[..., object],
    *,
    field: str = "Consumer.handler",
    remedy: str = "a plain function here; `async def` needs executor=AsyncExecutor()",
) -> None:
    """Refuse a function whose call would return before its body runs. Raises ConfigError about ``field``.

    It looks through ``functools.wraps``, partials, bound and static methods, and objects with a ``__call__``. A wrapper
    that runs what it wraps itself, as with ``asyncio.run``, passes.
    """
    kind = _kind(handler)
    if kind is _CallKind.GENERATOR:
        raise ConfigError(
            field, handler, "a function without `yield`: calling a generator function runs nothing"
        )
    if kind is not _CallKind.PLAIN:
        raise ConfigError(field, handler, remedy)


def check_async(handler: Callable[..., object]) -> None:
    """Refuse a handler that would block the event loop, as far as that can be known. Raises ConfigError.

    Accepted: ``async def`` functions and methods, partials of them, objects whose ``__call__`` is one,
    functions marked as coroutine functions, and wrappers (``functools.wraps``) around any of these. Refused:
    every other Python function, and whatever ``yield`` makes a generator. What is no Python function at all is accepted,
    and a plain return value from it counts as success: its work is done.
    """
    kind = _kind(handler)
    if kind in (_CallKind.GENERATOR, _CallKind.ASYNC_GENERATOR):
        raise ConfigError(
            "Consumer.handler", handler, "an `async def` function without `yield`: nobody iterates over it"
        )
    plain = _plain(handler)
    if inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(_plain(_unwrapped(plain))):
        return
    if inspect.isroutine(plain) and not inspect.isbuiltin(plain):
        raise ConfigError("Consumer.handler", handler, "an `async def` function with AsyncExecutor")


class _CallKind(Enum):
    """What a call of a function returns."""

    PLAIN = 0
    ASYNC = 1
    ASYNC_GENERATOR = 2
    GENERATOR = 3


_MOST_WRAPPERS = 100  # one may stand around itself

# Names in the code of a wrapper that runs the coroutine, or goes through the generator, that the wrapped function returns.
_RUNS = frozenset(
    (
        *("run", "run_until_complete", "run_coroutine_threadsafe", "async_to_sync", "run_sync", "syncify"),
        *(
            "call",
            "submit",
            "send",
            "result",
            "wait",
            "start",
            "list",
            "tuple",
            "set",
            "dict",
            "deque",
            "next",
        ),
        *("sum", "all", "any", "join", "for_each"),
    )
)


def _kind(function: Any) -> _CallKind:
    for _ in range(_MOST_WRAPPERS):
        plain = _plain(function)
        if inspect.isasyncgenfunction(plain):
            return _CallKind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(plain):
            return _CallKind.ASYNC
        if inspect.isgeneratorfunction(plain):
            return _CallKind.GENERATOR
        inner = _wrapped(plain) or _wrapped(function)
        if inner is None or _runs_it(plain):
            break
        function = inner
    return _CallKind.PLAIN


def _wrapped(function: Any) -> Any:
    inner = getattr(function, "__dict__", {}).get("__wrapped__")
    return inner if callable(inner) else None


def _runs_it(wrapper: Any) -> bool:
    code = getattr(wrapper, "__code__", None)
    if not isinstance(code, CodeType):
        return False
    loops = any(one.opname in ("FOR_ITER", "SEND") for one in dis.get_instructions(code))
    return loops or not _RUNS.isdisjoint(code.co_names)


def _plain(handler: Any) -> Any:
    """The function that a call ends in, through partials, methods and callable objects."""
    for _ in range(_MOST_WRAPPERS):
        if isinstance(handler, (functools.partial, functools.partialmethod)):
            handler = handler.func
        elif isinstance(handler, (staticmethod, classmethod)) or inspect.ismethod(handler):
            handler = handler.__func__
        elif inspect.isroutine(handler) or inspect.isclass(handler) or inspect.iscoroutinefunction(handler):
            break
        else:
            call = getattr(type(handler), "__call__", None)  # noqa: B004 - the function itself is wanted
            if call is None or isinstance(call, (WrapperDescriptorType, MethodDescriptorType)):
                break
            handler = call
    return handler


def _unwrapped(function: Any) -> Any:
    try:
        return inspect.unwrap(function)
    except ValueError:  # wrappers in a circle
        return function


# Across processes -----------------------------------------------------------------------------------------


def dump(spec: HandlerSpec) -> bytes:
    """Pickle ``spec`` for worker processes. Raises ConfigError that names the part that cannot be pickled."""
    parts = {
        "Consumer.handler": spec.handler,
        "Consumer.deserializer": spec.deserializer,
        "Consumer.topics": spec.policies,
    }
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception as error:
            raise ConfigError(
                name,
                part,
                "must pickle, because it runs in another process: a function at a module's top level, or an"
                f" object of a class at one ({type(error).__name__})",
            ) from error
    return pickle.dumps(replace(spec, context=None))


@functools.lru_cache(maxsize=64)
def load(pickled: bytes) -> HandlerSpec:
    """The spec in a worker process, unpickled once for all its slices. Raises what unpickling raises."""
    spec = pickle.loads(pickled)  # noqa: S301 - it comes from our own parent process
    assert isinstance(spec, HandlerSpec)
    return spec


# One message on its way to another process: record, marks (None: PLAIN), the topic's uid, route. A plain
# tuple because the pickling of a class of our own for each message would double its cost.
Item = tuple[PlainRecord, "Marks | None", str, int]


def item_of(entry: Entry) -> Item:
    """What of ``entry`` crosses to another process."""
    marks = entry.marks
    return (PlainRecord.of(entry.raw), None if marks is PLAIN else marks, entry.assignment.uid, entry.route)


def message_of(item: Item, spec: HandlerSpec) -> Message[Any]:
    """The message that ``item`` was made of."""
    record, marks, uid, _ = item
    return Message(record, PLAIN if marks is None else marks, uid, spec.deserializer)


def run_item(item: Item, spec: HandlerSpec) -> Outcome:
    """Run the message that ``item`` was made of, in a context of its own. As ``run``."""
    *_, route = item
    return copy_context().run(run, spec, message_of(item, spec), route)
