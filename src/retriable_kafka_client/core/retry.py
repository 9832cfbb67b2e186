"""What follows from one failed run: another attempt after a delay, or the dead-letter topic, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from retriable_kafka_client.errors import DecodeError, DeliveryError, Reject, RetryAfter

__all__ = [
    "REASON_CORRUPT",
    "REASON_EXHAUSTED",
    "REASON_FILTER",
    "REASON_GIVEN_UP",
    "REASON_INCOMPLETE",
    "REASON_MALFORMED",
    "REASON_NOT_BEFORE",
    "REASON_NO_ORIGIN",
    "REASON_ORPHAN",
    "REASON_REJECTED",
    "REASON_TOO_LARGE",
    "REASON_UNDECODABLE",
    "REASON_WORKER_DIED",
    "Delay",
    "Failure",
    "Policy",
    "judge",
    "judge_death",
    "judge_output",
]

# The reasons that a dead letter can carry. They stand on the wire and in metrics: never rename one.
REASON_EXHAUSTED = "exhausted"  # failed max_attempts times
REASON_GIVEN_UP = "given-up"  # raised one of Retry.give_up_on
REASON_REJECTED = "rejected"  # the handler raised Reject
REASON_UNDECODABLE = "undecodable"  # the payload is not what the deserializer reads
REASON_WORKER_DIED = "worker-died"  # killed its worker process max_attempts times
REASON_FILTER = "filter-failed"  # the filter raised
REASON_MALFORMED = "malformed-header"  # a library header that cannot be what it says
REASON_NO_ORIGIN = "unknown-origin"  # a retry copy of a topic that this consumer does not handle
REASON_NOT_BEFORE = "not-before-too-far"  # to run more than a year from now
REASON_CORRUPT = "corrupt"  # whole, but not of the size or checksum that its sender wrote
REASON_INCOMPLETE = "incomplete"  # one chunk of a message of which others never came
REASON_ORPHAN = "orphan"  # one chunk of a message whose first ones had been committed, or were gone, before
REASON_TOO_LARGE = "too-large"  # above Limits.message_bytes


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


def judge(
    policy: Policy | None, attempt: int, error: BaseException, chance: float, error_text: bool
) -> Failure:
    """Decide what follows when run number ``attempt`` raised ``error``.

    ``policy`` None means one attempt. ``chance`` in [0, 1) feeds the delay's jitter. The exception's text is kept only
    with ``error_text`` because it may hold payload; a Reject's reason is the handler's own words and is always kept.
    """
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    text = _text_of(error) if error_text else None
    if isinstance(error, Reject):
        return Failure(reason=REASON_REJECTED, retry_in=None, error=name, text=error.reason)
    if isinstance(error, DecodeError):
        return Failure(reason=REASON_UNDECODABLE, retry_in=None, error=name, text=text)
    if policy is not None and isinstance(error, policy.give_up_on):
        return Failure(reason=REASON_GIVEN_UP, retry_in=None, error=name, text=text)
    if policy is None or attempt >= policy.max_attempts:
        return Failure(reason=REASON_EXHAUSTED, retry_in=None, error=name, text=text)
    if isinstance(error, RetryAfter):
        return Failure(reason=REASON_EXHAUSTED, retry_in=error.seconds, error=name, text=text)
    return Failure(
        reason=REASON_EXHAUSTED, retry_in=policy.delay.delay(attempt, chance), error=name, text=text
    )


def judge_death(policy: Policy | None, attempt: int, chance: float) -> Failure:
    """Decide what follows when run number ``attempt`` took its worker process down."""
    if policy is None or attempt >= policy.max_attempts:
        return Failure(reason=REASON_WORKER_DIED, retry_in=None)
    return Failure(reason=REASON_WORKER_DIED, retry_in=policy.delay.delay(attempt, chance))


def judge_output(policy: Policy | None, attempt: int, chance: float, code: str) -> Failure:
    """Decide what follows when the handler succeeded in run number ``attempt``, and a broker refused with ``code`` what
    it sends.
    """
    retry_in = None
    if policy is not None and attempt < policy.max_attempts:
        retry_in = policy.delay.delay(attempt, chance)
    error = f"{DeliveryError.__module__}.{DeliveryError.__qualname__}"
    return Failure(reason=REASON_EXHAUSTED, retry_in=retry_in, error=error, text=code)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a handler's exception may do anything
        return "(the exception's text could not be read)"
