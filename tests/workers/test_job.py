"""What a worker does with one message."""

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.errors import ConfigError, Reject, RetryAfter
from retriable_kafka_client.events import REASON_EXHAUSTED, REASON_REJECTED, REASON_UNDECODABLE
from retriable_kafka_client.message import JSON, Message
from retriable_kafka_client.wire.headers import Marks
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


class Holder:
    """Calls what it holds, and is marked as a wrapper of it."""

    def __init__(self, held: Callable[..., object]) -> None:
        functools.update_wrapper(self, held)
        self.held = held

    def __call__(self, message: Message[Any]) -> object:
        return self.held(message)


class Static:
    """Whose call is a static method."""

    @staticmethod
    async def __call__(message: Message[Any]) -> None:
        pass


class OfAPartial:
    """Whose call is a partial."""

    __call__ = functools.partial(handlers.nothing_async)


async def async_generator(message: Message[Any]) -> Any:
    """Never run."""
    yield message


def wrapped_twice(message: Message[Any]) -> Any:
    return wrapper(message)


ASYNC_BEHIND = [
    wrapper,
    functools.wraps(wrapper)(wrapped_twice),
    functools.partial(wrapper),
    functools.lru_cache(handlers.nothing_async),
    Holder(handlers.nothing_async),
    Holder(Holder(handlers.nothing_async)),
    staticmethod(handlers.nothing_async),
    Static(),
    OfAPartial(),
    functools.partial(AsyncObject().method),
]
GENERATORS = [
    handlers.generator,
    functools.partial(handlers.generator),
    contextlib.contextmanager(handlers.generator),
    Holder(handlers.generator),
    async_generator,
    functools.partial(async_generator),
]


@functools.wraps(handlers.nothing_async)
def runs_it(message: Message[Any]) -> None:
    asyncio.run(handlers.nothing_async(message))


@functools.wraps(handlers.generator)
def goes_through_it(message: Message[Any]) -> None:
    for _ in handlers.generator(message):
        pass


@pytest.mark.parametrize("handler", ASYNC_BEHIND)
def test_async_handlers_behind_others_are_known(handler: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match="AsyncExecutor"):
        check_sync(handler)


@pytest.mark.parametrize("handler", [runs_it, goes_through_it])
def test_wrappers_that_do_the_work_are_plain(handler: Callable[..., object]) -> None:
    check_sync(handler)
    assert run(spec(handler), one(), 0) is None


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
    with pytest.raises(ConfigError, match=r"yield|AsyncExecutor"):
        check_sync(handler)
    with pytest.raises(ConfigError):
        check_async(handler)


def test_what_cannot_be_known_is_accepted() -> None:
    check_async(wrapper)
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


# A deserializer that cannot decode now --------------------------------------------------------------------


def chained() -> Exception:
    error = ValueError("the registry does not answer")
    error.__cause__ = ConnectionRefusedError()
    return error


def as_a_registrys_client_does() -> Exception:
    """As httpx: its own error from another one's, which was raised while a socket's was handled."""
    try:
        try:
            try:
                raise ConnectionRefusedError
            except OSError:
                raise LookupError("all connection attempts failed") from None
        except LookupError as error:
            raise ValueError("connect") from error
    except ValueError as error:
        return error


def after_a_missing_file() -> Exception:
    try:
        try:
            raise FileNotFoundError(2, "no such file", "cache")
        except OSError:
            raise ValueError("bad payload")  # noqa: B904 - without `from`
    except ValueError as error:
        return error


NEVER: list[BaseException] = [
    *(after_a_missing_file(), ValueError(), KeyError()),
    *(SystemExit(), KeyboardInterrupt(), GeneratorExit()),
]
NOT_NOW = [
    (as_a_registrys_client_does(), 5.0),
    (OSError(), 5.0),
    (ConnectionResetError(), 5.0),
    (TimeoutError(), 5.0),
    (RetryAfter(7), 7.0),
    (MemoryError(), 5.0),
    (ExceptionGroup("several", [ValueError(), ExceptionGroup("more", [OSError()])]), 5.0),
    (ExceptionGroup("several", [RetryAfter(9), ConnectionError()]), 9.0),
    (chained(), 5.0),
]


def reading(swallow: bool, error: BaseException, attempt: int = 1, route: int = 0) -> Failure:
    """How a run ends that reads what the deserializer cannot decode."""

    def decode(body: bytes, about: Message[Any]) -> Any:
        raise error

    made = entry(7, marks=Marks(failed=attempt - 1))
    message: Message[Any] = Message(made.raw, made.marks, "uid", decode)
    handler: Callable[[Message[Any]], object] = handlers.read_nothing if swallow else lambda m: m.value
    failure = run(spec(handler), message, route)
    assert isinstance(failure, Failure)
    return failure


@pytest.mark.parametrize(("error", "retry_in"), NOT_NOW, ids=repr)
@pytest.mark.parametrize("swallow", [False, True])
def test_what_cannot_be_decoded_now_is_a_failed_attempt(
    error: BaseException, retry_in: float, swallow: bool
) -> None:
    first = reading(swallow, error)
    assert (first.reason, first.retry_in) == (REASON_EXHAUSTED, retry_in)
    assert "DecodeError" not in (first.error or "")
    for last in (reading(swallow, error, attempt=3), reading(swallow, error, route=1)):
        assert (last.reason, last.retry_in) == (REASON_EXHAUSTED, None)


@pytest.mark.parametrize(
    "error",
    [
        after_a_missing_file(),
        ValueError(),
        KeyError(),
        SystemExit(),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
)
@pytest.mark.parametrize("swallow", [False, True])
def test_what_can_never_be_decoded_is_named_by_its_own_type(error: BaseException, swallow: bool) -> None:
    failure = reading(swallow, error)
    assert (failure.reason, failure.retry_in) == (REASON_UNDECODABLE, None)
    assert failure.error == type(error).__name__


def test_a_trouble_of_the_handlers_own_does_not_make_a_bad_payload_a_good_one() -> None:
    def decode(body: bytes, about: Message[Any]) -> Any:
        raise ValueError

    def handler(message: Message[Any]) -> None:
        try:
            raise ConnectionError
        except ConnectionError:
            message.value  # noqa: B018 - the read is what matters

    made = entry(7)
    failure = run(spec(handler), Message(made.raw, made.marks, "uid", decode), 0)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.error) == (REASON_UNDECODABLE, "ValueError")


def test_a_rejection_by_the_deserializer_stands_though_the_handler_swallowed_it() -> None:
    failure = reading(True, Reject("old version"))
    assert (failure.reason, failure.text) == (REASON_REJECTED, "old version")


def test_the_handler_may_say_when_to_try_again() -> None:
    def decode(body: bytes, about: Message[Any]) -> Any:
        raise ConnectionError

    def handler(message: Message[Any]) -> None:
        try:
            message.value  # noqa: B018 - the read is what matters
        except ConnectionError:
            raise RetryAfter(77) from None

    made = entry(7)
    failure = run(spec(handler), Message(made.raw, made.marks, "uid", decode), 0)
    assert isinstance(failure, Failure)
    assert failure.retry_in == 77.0


# Work that nobody does ------------------------------------------------------------------------------------


async def task_of(message: Message[Any]) -> Any:
    """Return a task."""
    return asyncio.get_running_loop().create_task(handlers.nothing_async(message))


UNFINISHED: list[Callable[[Message[Any]], Any]] = [
    handlers.nothing_async,
    handlers.generator,
    async_generator,
    lambda message: concurrent.futures.Future(),
    lambda message: [handlers.nothing_async(message), handlers.nothing_async(message)],
    lambda message: (None, handlers.nothing_async(message)),
    lambda message: {"a": [handlers.nothing_async(message)]},
    lambda message: {1: handlers.generator(message)},
    lambda message: map(print, [message]),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("work", UNFINISHED)
def test_work_that_nobody_does_is_a_failed_attempt(work: Callable[[Message[Any]], Any]) -> None:
    def hidden(message: Message[Any]) -> Any:
        return work(message)

    failure = run(spec(hidden), one(), 0)
    assert isinstance(failure, Failure)
    assert failure.error is not None
    assert (failure.error.rpartition(".")[2], failure.retry_in) == ("AwaitableReturned", 5.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("work", [*UNFINISHED, task_of])
def test_so_it_is_out_of_an_await(work: Callable[[Message[Any]], Any]) -> None:
    async def forgets(message: Message[Any]) -> Any:
        result = work(message)
        return await result if work is task_of else result

    failure = asyncio.run(run_async(spec(forgets), one(), 0))
    assert isinstance(failure, Failure)
    assert failure.error is not None
    assert (failure.error.rpartition(".")[2], failure.retry_in) == ("AwaitableReturned", 5.0)


@pytest.mark.parametrize("value", [[1, [2]], {"a": (1,)}, iter([1]), {1, 2}, range(3), object(), b"", "text"])
def test_other_values_are_ignored(value: Any) -> None:
    async def gives(message: Message[Any]) -> Any:
        return value

    assert run(spec(lambda message: value), one(), 0) is None
    assert asyncio.run(run_async(spec(gives), one(), 0)) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("swallow", [False, True])
def test_a_deserializer_that_returns_a_coroutine_cannot_decode(swallow: bool) -> None:
    async def decode(body: bytes, message: Message[Any]) -> Any:
        pass

    made = entry(7)
    message: Message[Any] = Message(made.raw, made.marks, "uid", decode)
    failure = run(spec(handlers.read_nothing if swallow else lambda m: m.value), message, 0)
    assert isinstance(failure, Failure)
    assert failure.reason == REASON_UNDECODABLE
