"""What a worker does with one message: build nothing global, run the handler, judge how it ended."""

from __future__ import annotations

import functools
import inspect
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.retry import Failure, Policy, judge
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.message import Deserializer, Message, PlainRecord
from retriable_kafka_client.outbox import Output, identified, size_of
from retriable_kafka_client.wire import PLAIN, Marks

__all__ = [
    "ENOUGH_BYTES",
    "AwaitableReturned",
    "HandlerSpec",
    "Item",
    "Outcome",
    "check_async",
    "check_sync",
    "dump",
    "ended",
    "failed",
    "is_async",
    "item_of",
    "load",
    "message_of",
    "refuse_awaitable",
    "run",
    "run_async",
    "sent_bytes",
    "timed_out",
]


class AwaitableReturned(TypeError):
    """A handler returned an awaitable where nobody awaits it: its body never ran, so the attempt failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSpec:
    """Everything that a worker must know of its consumer. Pickles if the handler and the deserializer do."""

    handler: Callable[[Message[Any]], object]
    deserializer: Deserializer
    policies: tuple[Policy | None, ...]  # by Entry.route; None: one attempt
    error_text: bool = False  # whether a Failure keeps the exception's text
    timeout: float | None = None  # seconds that one run may take
    group: str = ""  # the consumer's; goes into the ids of what handlers send


Outcome = Failure | tuple[Output, ...] | None
"""How a run ended: it failed; it succeeded and sent something; None: it succeeded."""

ENOUGH_BYTES = 1_000_000  # sent by one slice: its worker leaves the rest of it, so that the loop can keep up


def sent_bytes(outcome: Outcome) -> int:
    """How much a run that ended so has sent."""
    return 0 if outcome is None or isinstance(outcome, Failure) else size_of(outcome)


def run(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """Run the handler once. Raises nothing, whatever the handler raises.

    A payload that could not be decoded fails the message even if the handler swallowed the error.
    KeyboardInterrupt and SystemExit out of a handler are failed attempts like any other exception.
    """
    try:
        result = spec.handler(message)
        if result is not None:
            refuse_awaitable(result)
    except BaseException as error:  # noqa: BLE001 - the worker outlives whatever a handler raises
        return failed(spec, message, route, error)
    message.ended = True
    return ended(spec, message, route) if message.eventful else None


async def run_async(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """Like ``run``, and awaits what the handler returns. A cancellation is a failed attempt too: whoever
    cancels from outside drops the result.
    """
    try:
        result = spec.handler(message)
        if inspect.isawaitable(result):
            await result
    except BaseException as error:  # noqa: BLE001 - the event loop outlives whatever a handler raises
        return failed(spec, message, route, error)
    message.ended = True
    return ended(spec, message, route) if message.eventful else None


def timed_out(spec: HandlerSpec, entry: Entry) -> Failure:
    """Judge a run that took longer than the spec's timeout."""
    error = TimeoutError(f"the handler did not end within {spec.timeout:g} s")
    failure = judge(spec.policies[entry.route], entry.attempt, error, random.random(), spec.error_text)
    return replace(failure, timed_out=True)


def refuse_awaitable(result: object) -> None:
    """Raise AwaitableReturned if a handler's ``result`` would have to be awaited."""
    if not inspect.isawaitable(result):
        return
    if inspect.iscoroutine(result):
        result.close()  # or the interpreter warns that it was never awaited
    raise AwaitableReturned("the handler returned an awaitable; `async def` handlers need an AsyncExecutor")


def ended(spec: HandlerSpec, message: Message[Any], route: int) -> Outcome:
    """Say what came of an eventful message whose handler has returned."""
    if message.decode_error is not None:
        return failed(spec, message, route, message.decode_error)
    return identified(message.outbox, message.id, spec.group)


def failed(spec: HandlerSpec, message: Message[Any], route: int, error: BaseException) -> Failure:
    """Judge what a handler raised."""
    message.ended = True
    decode_error = message.decode_error
    if decode_error is not None:
        error = decode_error  # what the handler made of it does not matter
        message.decode_error = None  # it refers back to the message, whose payload would wait for the next gc
    return judge(spec.policies[route], message.attempt, error, random.random(), spec.error_text)


# What a handler is, as far as it can be known without calling it ------------------------------------------


def is_async(function: Callable[..., object]) -> bool:
    """Whether a call of it is known to return before its body runs, to be awaited."""
    plain = _plain(function)
    return inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)


def check_sync(handler: Callable[..., object]) -> None:
    """Refuse a handler whose call would return before its body runs. Raises ConfigError."""
    plain = _plain(handler)
    if is_async(handler):
        raise ConfigError(
            "Consumer.handler", handler, "a plain function here; `async def` needs executor=AsyncExecutor()"
        )
    if inspect.isgeneratorfunction(plain):
        raise ConfigError(
            "Consumer.handler",
            handler,
            "a function without `yield`: calling a generator function runs nothing",
        )


def check_async(handler: Callable[..., object]) -> None:
    """Refuse a handler that would block the event loop, as far as that can be known. Raises ConfigError.

    Accepted: ``async def`` functions and methods, partials of them, objects whose ``__call__`` is one,
    functions marked as coroutine functions, and wrappers (``functools.wraps``) around any of these. Refused:
    every other Python function. What is no Python function at all is accepted, and a plain return value from
    it counts as success: its work is done.
    """
    plain = _plain(handler)
    if inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(_plain(_unwrapped(plain))):
        return
    if inspect.isroutine(plain) and not inspect.isbuiltin(plain):
        raise ConfigError("Consumer.handler", handler, "an `async def` function with AsyncExecutor")


def _plain(handler: Any) -> Any:
    """The function or method that a call ends in, through partials and callable objects."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler) or inspect.isclass(handler) or inspect.iscoroutinefunction(handler):
        return handler
    return getattr(handler, "__call__", handler)  # noqa: B004 - the bound method is wanted, not whether there is one


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
    for field, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception as error:
            raise ConfigError(
                field,
                part,
                "must pickle, because it runs in another process: a function at a module's top level, or an"
                f" object of a class at one ({type(error).__name__})",
            ) from error
    return pickle.dumps(spec)


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
