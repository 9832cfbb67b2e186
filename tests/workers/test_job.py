"""What a worker does with one message."""

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client.core.retry import REASON_EXHAUSTED, REASON_REJECTED, REASON_UNDECODABLE, Failure
from retriable_kafka_client.errors import ConfigError, Reject, RetryAfter
from retriable_kafka_client.message import JSON, Message
from retriable_kafka_client.wire import Marks
from retriable_kafka_client.workers.job import (
    check_async,
    check_sync,
    dump,
    item_of,
    load,
    message_of,
    run,
    run_async,
)
from tests.workers import handlers
from tests.workers.driving import entry, spec


def one(body: bytes | None = b"{}", failed: int = 0) -> Message[Any]:
    made = entry(7, body, marks=Marks(failed=failed))
    return Message(made.raw, made.marks, "uid", JSON)


def raising(error: BaseException) -> Callable[[Message[Any]], None]:
    def handler(message: Message[Any]) -> None:
        raise error

    return handler


def test_success_is_none_whatever_is_returned() -> None:
    assert run(spec(handlers.nothing), one(), 0) is None
    assert run(spec(lambda message: False), one(), 0) is None


def test_a_failure_is_judged_by_the_policy_of_its_route() -> None:
    failing = spec(raising(ValueError("secret")))
    first = run(failing, one(), 0)
    assert isinstance(first, Failure)
    assert (first.retry_in, first.error, first.text) == (5.0, "ValueError", None)
    last = run(failing, one(failed=2), 0)
    assert isinstance(last, Failure)
    assert (last.reason, last.retry_in) == (REASON_EXHAUSTED, None)
    without_retry = run(failing, one(), 1)
    assert isinstance(without_retry, Failure)
    assert without_retry.retry_in is None
    told = run(spec(raising(ValueError("text")), error_text=True), one(), 0)
    assert isinstance(told, Failure)
    assert told.text == "text"


def test_steering_exceptions() -> None:
    later = run(spec(raising(RetryAfter(7))), one(), 0)
    assert isinstance(later, Failure)
    assert later.retry_in == 7.0
    never = run(spec(raising(Reject("no"))), one(), 0)
    assert isinstance(never, Failure)
    assert (never.reason, never.retry_in, never.text) == (REASON_REJECTED, None, "no")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_exceptions_that_are_no_exception_are_failed_attempts(error: BaseException) -> None:
    failure = run(spec(raising(error)), one(), 0)
    assert isinstance(failure, Failure)
    assert failure.retry_in == 5.0


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_an_undecodable_payload_is_a_dead_letter_though_the_handler_swallowed_it(body: bytes) -> None:
    failure = run(spec(handlers.read_nothing), one(body), 0)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.retry_in) == (REASON_UNDECODABLE, None)


def test_an_undecodable_payload_stays_one_whatever_the_handler_made_of_it() -> None:
    def handler(message: Message[Any]) -> None:
        try:
            message.value  # noqa: B018 - the read is what matters
        except Exception as error:
            raise RuntimeError from error

    failure = run(spec(handler), one(b"{"), 0)
    assert isinstance(failure, Failure)
    assert failure.reason == REASON_UNDECODABLE


def test_a_payload_that_is_not_read_need_not_be_decodable() -> None:
    assert run(spec(handlers.nothing), one(b"{"), 0) is None


def test_a_returned_coroutine_is_a_failed_attempt_and_closed() -> None:
    # pytest turns "coroutine … was never awaited" into an error.
    failure = run(spec(handlers.returns_coroutine), one(), 0)
    assert isinstance(failure, Failure)
    assert failure.retry_in == 5.0
    assert failure.error is not None
    assert failure.error.endswith("AwaitableReturned")


def test_a_coroutine_is_awaited_and_judged() -> None:
    async def failing(message: Message[Any]) -> None:
        raise KeyError("x")

    assert drive(run_async(spec(handlers.nothing_async), one(), 0)) is None
    assert drive(run_async(spec(handlers.returns_coroutine), one(), 0)) is None
    assert drive(run_async(spec(failing), one(), 0)).error == "KeyError"
    assert drive(run_async(spec(handlers.read_nothing), one(b"{"), 0)).reason == REASON_UNDECODABLE


def drive(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


class AsyncObject:
    async def __call__(self, message: Message[Any]) -> None: ...

    async def method(self, message: Message[Any]) -> None: ...


class PlainObject:
    def __call__(self, message: Message[Any]) -> None: ...

    def method(self, message: Message[Any]) -> None: ...


@functools.wraps(handlers.nothing_async)
def wrapper(message: Message[Any]) -> Any:
    return handlers.nothing_async(message)


ASYNC = [
    handlers.nothing_async,
    functools.partial(handlers.nothing_async),
    functools.partial(functools.partial(handlers.nothing_async)),
    AsyncObject(),
    AsyncObject().method,
    functools.partial(AsyncObject()),
]
PLAIN = [
    handlers.nothing,
    handlers.returns_coroutine,
    functools.partial(handlers.nothing),
    PlainObject(),
    PlainObject().method,
    lambda message: None,
]
GENERATORS = [handlers.generator, functools.partial(handlers.generator)]


@pytest.mark.parametrize("handler", ASYNC)
def test_async_handlers_are_known(handler: Callable[..., object]) -> None:
    check_async(handler)
    with pytest.raises(ConfigError, match="AsyncExecutor"):
        check_sync(handler)


@pytest.mark.parametrize("handler", PLAIN)
def test_plain_handlers_are_known(handler: Callable[..., object]) -> None:
    check_sync(handler)
    with pytest.raises(ConfigError, match="async def"):
        check_async(handler)


@pytest.mark.parametrize("handler", GENERATORS)
def test_generator_functions_are_refused(handler: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match="yield"):
        check_sync(handler)
    with pytest.raises(ConfigError):
        check_async(handler)


def test_what_cannot_be_known_is_accepted() -> None:
    check_async(wrapper)
    check_sync(wrapper)
    check_async(print)
    check_sync(print)
    if hasattr(inspect, "markcoroutinefunction"):  # Python 3.12

        def marked(message: Message[Any]) -> Any:
            return handlers.nothing_async(message)

        check_async(inspect.markcoroutinefunction(marked))


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ConfigError, match="handler") as caught:
        dump(spec(lambda message: None))
    assert caught.value.field == "Consumer.handler"
    with pytest.raises(ConfigError) as caught:
        dump(spec(handlers.nothing, deserializer=lambda body, message: None))
    assert caught.value.field == "Consumer.deserializer"


def test_specs_and_messages_cross_processes() -> None:
    pickled = dump(spec(handlers.nothing))
    loaded = load(pickled)
    assert loaded.handler is handlers.nothing
    assert load(bytes(pickled)) is loaded
    for marks in (Marks(), Marks(failed=2, id="x")):
        made = entry(5, b'{"a": 1}', marks=marks)
        item = pickle.loads(pickle.dumps(item_of(made)))
        message = message_of(item, loaded)
        here: Message[Any] = Message(made.raw, made.marks, "uid", JSON)
        assert (message.value, message.attempt, message.id) == (here.value, here.attempt, here.id)
