"""The errors that this library raises, one small tree, and the two exceptions that a handler raises.

Every exception here pickles with all it carries, so that it crosses a process pool. No text holds a payload
or a secret.
"""

from __future__ import annotations

import math
from datetime import date, timedelta
from enum import Enum
from typing import Any

__all__ = [
    "YEAR",
    "ConfigError",
    "ConsumerFailed",
    "DecodeError",
    "DeliveryError",
    "NotReachable",
    "OwnedSetting",
    "QueueFull",
    "Reject",
    "RetriableKafkaError",
    "RetryAfter",
    "cannot_now",
    "leaves",
    "seconds",
]

YEAR = 365 * 86_400.0  # seconds: nothing is delayed, and nothing waits, longer than this

_SHOWN_LENGTH = 200


class RetriableKafkaError(Exception):
    """Root of the errors that this library raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with ``args``, which holds the text and not the constructor's arguments.
        return _restore, (type(self), self.args, dict(self.__dict__))


class ConfigError(RetriableKafkaError, ValueError):
    """A value that was given is not allowed.

    ``field`` names it ("Retry.max_attempts"), ``value`` shows it (never a secret), ``remedy`` says what is
    allowed or what to do. The text holds all three.
    """

    def __init__(self, field: str, value: object, remedy: str, *, secret: bool = False) -> None:
        self.field = field
        self.value = "(not shown)" if secret else _shown(value)
        self.remedy = remedy
        super().__init__(f"{field} = {self.value}: {remedy}")


class OwnedSetting(ConfigError):
    """A setting of the Kafka client that the library must own: leave it out. ``name`` is librdkafka's for it."""

    def __init__(self, name: str, value: object, remedy: str, *, secret: bool = False) -> None:
        super().__init__(f"Cluster.settings[{name!r}]", value, remedy, secret=secret)
        self.name = name


class DeliveryError(RetriableKafkaError):
    """A record was not acknowledged.

    ``code`` is Kafka's name of the error ("MSG_SIZE_TOO_LARGE"). ``retriable``: sending it once more may
    succeed; after a time-out that may write it twice.
    """

    def __init__(self, code: str, retriable: bool, detail: str = "", *, topic: str | None = None) -> None:
        self.code = code
        self.retriable = retriable
        self.topic = topic
        where = f" to topic {topic!r}" if topic is not None else ""
        super().__init__(f"delivery{where} failed: {code}" + (f" ({detail})" if detail else ""))


class QueueFull(RetriableKafkaError):
    """The local queue had no room for another record within ``waited`` seconds; nothing was sent."""

    def __init__(self, topic: str, waited: float) -> None:
        self.topic = topic
        self.waited = waited
        super().__init__(
            f"the local queue had no room within {waited:g} s for a record to topic {topic!r}: "
            "the brokers take records more slowly than they are sent, or cannot be reached"
        )


class DecodeError(RetriableKafkaError):
    """A message's payload is not what the deserializer reads. ``__cause__`` is the deserializer's exception,
    if any.
    """


class ConsumerFailed(RetriableKafkaError):
    """A consumer ended because it could not go on; everything that it had not committed is read again."""


class NotReachable(ConsumerFailed):
    """No broker answered before the first assignment."""


class RetryAfter(Exception):
    """Raise it from a handler: run this message again after ``duration`` (seconds or timedelta; up to a
    year).

    It counts as an attempt. A plain ``Exception``, so that a handler's own ``except Exception`` treats it as
    it treats everything else that makes the run fail.
    """

    def __init__(self, duration: float | timedelta) -> None:
        self.seconds = seconds("RetryAfter.duration", duration)
        super().__init__(self.seconds)

    def __str__(self) -> str:
        return f"retry after {self.seconds:g} s"


class Reject(Exception):
    """Raise it from a handler: this message goes straight to the dead-letter topic, with ``reason`` in a
    header.
    """

    def __init__(self, reason: str) -> None:
        # A handler's code need not be type-checked, and what it wants to reject must not be retried for a wrong text.
        self.reason = str(reason)
        super().__init__(self.reason)


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in an exception group, and in those within it, in their order; of any other exception itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found: list[BaseException] = []
    left: list[BaseException] = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left.extend(reversed(_members(one)))
        else:
            found.append(one)
    return found


def cannot_now(error: BaseException, outside: BaseException | None = None, *, implied: bool = False) -> bool:
    """Whether what a deserializer raised says that it cannot decode *now*: it is an OSError, a RetryAfter or a MemoryError,
    or one stands in it (an exception group), or it was raised ``from`` one.

    ``implied``: or while one was handled (httpx hides what it handles by ``from None``), but for what is ``outside``, which
    was handled before the deserializer was called.
    """
    left, seen = [error], {id(outside)}
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (OSError, RetryAfter, MemoryError)):
            return True
        if isinstance(one, BaseExceptionGroup):
            left.extend(_members(one))
        if one.__cause__ is not None:
            left.append(one.__cause__)
        elif implied and one.__context__ is not None:
            # A file that is not there (the error names it) was a cache, perhaps: what came of it is another matter.
            left += [one.__context__] if getattr(one.__context__, "filename", None) is None else []
    return False


def _members(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    # Not `group.exceptions`: a class of the user's may make anything of that.
    return BaseExceptionGroup.exceptions.__get__(group)  # type: ignore[no-any-return]


# Here and not in config because RetryAfter needs it, and because it needs ConfigError.
def seconds(field: str, value: object, *, positive: bool = False, maximum: float = YEAR) -> float:
    """Return a duration as seconds; a wrong one is a ConfigError about ``field``. ``positive`` refuses zero
    too.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # An integer can be too large for a float.
        number = float(value) if abs(value) <= maximum else math.inf
    else:
        raise ConfigError(field, value, "must be a duration: seconds, or a timedelta")
    if not 0.0 <= number <= maximum or (positive and number == 0.0):
        low = "more than 0" if positive else "0 or more"
        raise ConfigError(field, value, f"must be a duration of {low} and at most {maximum:g} seconds")
    return number


def _shown(value: object) -> str:
    """Show plain values as they are; of others the type, because their ``repr`` may hold anything."""
    if isinstance(value, type):
        text = value.__qualname__
    elif value is None or type(value) in (str, bool, float, timedelta) or isinstance(value, (date, Enum)):
        text = repr(value)
    elif type(value) is int:
        text = repr(value) if value.bit_length() < 256 else "(a very large integer)"
    elif type(value) in (tuple, list) and len(value) <= 20:  # type: ignore[arg-type]
        text = "[" + ", ".join(_shown(item) for item in value) + "]"  # type: ignore[attr-defined]
    else:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "…"


def _restore(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
