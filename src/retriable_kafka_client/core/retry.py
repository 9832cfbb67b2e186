"""What follows from one failed run: another attempt after a delay, or the dead-letter topic, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Protocol

from retriable_kafka_client.errors import DecodeError, DeliveryError, Reject, RetryAfter, cannot_now, leaves
from retriable_kafka_client.events import (
    REASON_EXHAUSTED,
    REASON_GIVEN_UP,
    REASON_REJECTED,
    REASON_UNDECODABLE,
    REASON_WORKER_DIED,
    REASON_WORKER_STUCK,
)
from retriable_kafka_client.user_functions.results import AwaitableReturned

__all__ = [
    "Delay",
    "Failure",
    "Policy",
    "decisive",
    "judge",
    "judge_death",
    "judge_output",
    "judge_stuck",
]


class Delay(Protocol):
    """How long to wait after a failed attempt."""

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after run number ``attempt`` (1, 2, …) failed; ``chance`` in [0, 1) feeds the jitter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How one topic's failures are retried."""

    max_attempts: int  # counts all runs, the first included
    delay: Delay
    give_up_on: tuple[type[BaseException], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a worker says of one failed run; it pickles whatever the handler raised."""

    reason: str  # one of REASON_*: why it is, or in the end would be, a dead letter
    retry_in: float | None  # seconds until the next attempt; None: dead-letter now
    error: str | None = None  # the exception type's qualified name
    text: str | None = None  # the exception's text if opted in, or what Reject was given
    timed_out: bool = False  # the run took longer than Consumer.timeout
    place: str | None = None  # where in the user's code it was raised: "module:line function"
    traceback: str | None = None  # if opted in, like the text


def judge(
    policy: Policy | None, attempt: int, error: BaseException, chance: float, error_text: bool
) -> Failure:
    """Decide what follows when run number ``attempt`` raised ``error``.

    Exception groups are judged by what stands in them, also deep inside: all final (``Reject``, ``give_up_on``), so is the
    group; else the longest ``RetryAfter`` among them; else it is a failed attempt.
    ``policy`` None means one attempt. ``chance`` in [0, 1) feeds the delay's jitter. The exception's text is kept only
    with ``error_text`` because it may hold payload; a Reject's reason is the handler's own words and is always kept.
    """
    ruling = _rule(policy, error)
    shown = _shown(ruling.error)
    name = _name_of(shown)
    if ruling.reason == REASON_REJECTED:
        return Failure(reason=REASON_REJECTED, retry_in=None, error=name, text=_reasons_in(error))
    text = _text_of(shown) if error_text or isinstance(shown, AwaitableReturned) else None
    retry_in = None
    if ruling.reason == REASON_EXHAUSTED and policy is not None and attempt < policy.max_attempts:
        retry_in = policy.delay.delay(attempt, chance) if ruling.after is None else ruling.after
    return Failure(reason=ruling.reason, retry_in=retry_in, error=name, text=text)


def decisive(policy: Policy | None, error: BaseException) -> BaseException:
    """The exception that a Failure names: of a group the one that decides, of a DecodeError what the deserializer raised."""
    return _shown(_rule(policy, error).error)


@dataclass(frozen=True, slots=True)
class _Ruling:
    """Which exception decides, and what it says."""

    error: BaseException
    reason: str
    after: float | None = None  # seconds, that a RetryAfter asks for


def _rule(policy: Policy | None, error: BaseException) -> _Ruling:
    give_up_on = () if policy is None else policy.give_up_on
    every = leaves(error)
    reasons = [_final(one, give_up_on) for one in every]
    if None not in reasons:
        for reason in (REASON_REJECTED, REASON_UNDECODABLE, REASON_GIVEN_UP):
            if reason in reasons:
                return _Ruling(every[reasons.index(reason)], reason)
    first = every[reasons.index(None)]
    if first is not error and _is_of(error, give_up_on):
        return _Ruling(first, REASON_GIVEN_UP)
    asked = [(after, one) for one in every if (after := _after(one)) is not None]
    if asked:
        after, one = max(asked, key=itemgetter(0))
        return _Ruling(one, REASON_EXHAUSTED, after)
    return _Ruling(first, REASON_EXHAUSTED)


def _final(error: BaseException, give_up_on: tuple[type[BaseException], ...]) -> str | None:
    if isinstance(error, Reject):
        return REASON_REJECTED
    if isinstance(error, DecodeError) and not cannot_now(error):
        return REASON_UNDECODABLE
    return REASON_GIVEN_UP if _is_of(error, give_up_on) else None


def _is_of(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    try:
        return isinstance(error, types)
    except BaseException:  # noqa: BLE001 - a class of the user's may have a say, and say anything
        return False


def _after(error: BaseException) -> float | None:
    if not isinstance(error, RetryAfter):
        return None
    after = getattr(
        error, "seconds", None
    )  # one of the user's own class need not have it, or not as it should be
    return float(after) if isinstance(after, (int, float)) and 0 <= after < math.inf else None


def _shown(error: BaseException) -> BaseException:
    cause = error.__cause__ if isinstance(error, DecodeError) else None
    return error if cause is None else leaves(cause)[0]


def judge_death(policy: Policy | None, attempt: int, chance: float) -> Failure:
    """Decide what follows when run number ``attempt`` took its worker process down."""
    if policy is None or attempt >= policy.max_attempts:
        return Failure(reason=REASON_WORKER_DIED, retry_in=None)
    return Failure(reason=REASON_WORKER_DIED, retry_in=policy.delay.delay(attempt, chance))


def judge_stuck(policy: Policy | None, attempt: int, chance: float) -> Failure:
    """Decide what follows when run number ``attempt``, alone, held the process up until the partitions were lost."""
    return replace(judge_death(policy, attempt, chance), reason=REASON_WORKER_STUCK)


def judge_output(policy: Policy | None, attempt: int, chance: float, code: str) -> Failure:
    """Decide what follows when the handler succeeded in run number ``attempt``, and a broker refused with ``code`` what
    it sends.
    """
    retry_in = None
    if policy is not None and attempt < policy.max_attempts:
        retry_in = policy.delay.delay(attempt, chance)
    error = f"{DeliveryError.__module__}.{DeliveryError.__qualname__}"
    return Failure(reason=REASON_EXHAUSTED, retry_in=retry_in, error=error, text=code)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    try:
        return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    except BaseException:  # noqa: BLE001 - a handler's exception may do anything
        return "(an exception whose type could not be read)"


def _reasons_in(error: BaseException) -> str:
    """What all the Rejects among them were given, each once."""
    found = [_plain_text(one.reason) for one in leaves(error) if isinstance(one, Reject)]
    return "; ".join(dict.fromkeys(found))


def _text_of(error: BaseException) -> str:
    try:
        return _plain_text(str(error))
    except BaseException:  # noqa: BLE001 - a handler's exception may do anything
        return "(the exception's text could not be read)"


def _plain_text(text: object) -> str:
    """A text of no class of the user's: it goes to other processes."""
    return str.__str__(text)[:] if isinstance(text, str) else "(not a text)"
