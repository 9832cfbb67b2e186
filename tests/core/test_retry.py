from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client import events
from retriable_kafka_client.core.retry import Failure, Policy, decisive, judge, judge_death
from retriable_kafka_client.errors import DecodeError, Reject, RetryAfter
from tests.core.harness import After

POLICY = Policy(max_attempts=3, delay=After(5.0), give_up_on=(KeyError,))


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_is_retried_after_the_delay() -> None:
    failure = judge(POLICY, 1, ValueError("payload"), 0.5, error_text=False)
    assert failure == Failure(reason=events.REASON_EXHAUSTED, retry_in=5.0, error="ValueError", text=None)


@given(attempt=st.integers(1, 10), most=st.integers(1, 10))
def test_attempts_are_counted_by_runs(attempt: int, most: int) -> None:
    policy = Policy(max_attempts=most, delay=After(0.0))
    for failure in (
        judge(policy, attempt, OSError(), 0.0, error_text=False),
        judge_death(policy, attempt, 0.0),
    ):
        assert (failure.retry_in is None) == (attempt >= most)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Reject("not ours"), events.REASON_REJECTED),
        (DecodeError("bad"), events.REASON_UNDECODABLE),
        (KeyError("x"), events.REASON_GIVEN_UP),
    ],
)
def test_some_failures_are_final(error: Exception, reason: str) -> None:
    failure = judge(POLICY, 1, error, 0.5, error_text=False)
    assert (failure.reason, failure.retry_in) == (reason, None)


def test_a_subclass_is_given_up_too() -> None:
    policy = Policy(max_attempts=3, delay=After(1.0), give_up_on=(LookupError,))
    assert judge(policy, 1, IndexError(), 0.0, error_text=False).reason == events.REASON_GIVEN_UP


def test_the_handler_may_choose_the_delay_but_not_the_number_of_attempts() -> None:
    assert judge(POLICY, 2, RetryAfter(77.0), 0.5, error_text=False).retry_in == 77.0
    assert judge(POLICY, 3, RetryAfter(77.0), 0.5, error_text=False).retry_in is None


@pytest.mark.parametrize("error", [ValueError(), RetryAfter(1.0), KeyError()])
def test_without_a_policy_there_is_one_attempt(error: Exception) -> None:
    assert judge(None, 1, error, 0.5, error_text=False).retry_in is None
    assert judge_death(None, 1, 0.5).retry_in is None


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)


GROUPS = [
    (group(Reject("a"), Reject("b")), events.REASON_REJECTED, None, Reject),
    (group(group(Reject("a")), group(group(Reject("b")))), events.REASON_REJECTED, None, Reject),
    (group(KeyError(), group(KeyError())), events.REASON_GIVEN_UP, None, KeyError),
    (group(KeyError(), Reject("a"), Reject("b")), events.REASON_REJECTED, None, Reject),
    (group(RetryAfter(7), group(RetryAfter(9), ValueError())), events.REASON_EXHAUSTED, 9.0, RetryAfter),
    (group(Reject("a"), RetryAfter(7)), events.REASON_EXHAUSTED, 7.0, RetryAfter),
    (group(KeyError(), RetryAfter(7)), events.REASON_EXHAUSTED, 7.0, RetryAfter),
    (group(Reject("a"), ValueError()), events.REASON_EXHAUSTED, 5.0, ValueError),
    (group(KeyError(), ValueError(), TypeError()), events.REASON_EXHAUSTED, 5.0, ValueError),
    (group(SystemExit(), KeyboardInterrupt()), events.REASON_EXHAUSTED, 5.0, SystemExit),
    (group(DecodeError("bad"), KeyError()), events.REASON_UNDECODABLE, None, DecodeError),
]


@pytest.mark.parametrize(("error", "reason", "retry_in", "named"), GROUPS)
def test_a_group_is_judged_by_what_stands_in_it(
    error: BaseException, reason: str, retry_in: float | None, named: type[BaseException]
) -> None:
    failure = judge(POLICY, 1, error, 0.5, error_text=False)
    assert (failure.reason, failure.retry_in) == (reason, retry_in)
    assert (failure.error or "").endswith(named.__name__)
    assert failure.text == ("a; b" if reason == events.REASON_REJECTED else None)
    assert type(decisive(POLICY, error)) is named
    last = judge(POLICY, 3, error, 0.5, error_text=False)
    assert (last.reason, last.retry_in) == (reason, None)


def test_a_group_may_itself_be_given_up_on() -> None:
    policy = Policy(max_attempts=3, delay=After(1.0), give_up_on=(ExceptionGroup,))
    failure = judge(policy, 1, group(ValueError()), 0.0, error_text=False)
    assert (failure.reason, failure.error) == (events.REASON_GIVEN_UP, "ValueError")


class Wild(type):
    """Classes that answer whatever they are asked with an exit."""

    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit


class WildError(Exception, metaclass=Wild):
    def __str__(self) -> str:
        raise SystemExit


class Wilder(Exception, metaclass=Wild):
    pass


class Hasty(RetryAfter):
    def __init__(self, seconds: object) -> None:
        self.seconds = seconds  # type: ignore[assignment]


@pytest.mark.parametrize("error", [ValueError(), WildError(), Hasty("soon"), Hasty(float("nan")), Hasty(-1)])
def test_nothing_that_an_exception_does_hinders_its_judgement(error: BaseException) -> None:
    policy = Policy(max_attempts=3, delay=After(5.0), give_up_on=(Wilder,))
    for one in (error, group(error)):
        assert judge(policy, 1, one, 0.5, error_text=True).retry_in == 5.0


def undecodable(cause: BaseException) -> DecodeError:
    error = DecodeError("the payload cannot be decoded")
    error.__cause__ = cause
    return error


def test_a_decode_error_is_named_by_what_the_deserializer_raised() -> None:
    failure = judge(POLICY, 1, undecodable(UnicodeError("why")), 0.5, error_text=True)
    assert (failure.reason, failure.error, failure.text) == (events.REASON_UNDECODABLE, "UnicodeError", "why")


def test_the_text_is_kept_only_if_opted_in() -> None:
    assert judge(POLICY, 1, ValueError("secret"), 0.5, error_text=False).text is None
    assert judge(POLICY, 1, ValueError("secret"), 0.5, error_text=True).text == "secret"
    assert judge(POLICY, 1, Reject("why"), 0.5, error_text=False).text == "why"


def test_an_exception_whose_text_cannot_be_read_is_judged() -> None:
    assert "could not be read" in (judge(POLICY, 1, Speechless(), 0.5, error_text=True).text or "")


def test_a_death_says_so() -> None:
    assert judge_death(POLICY, 1, 0.5) == Failure(reason=events.REASON_WORKER_DIED, retry_in=5.0)
    assert judge_death(POLICY, 3, 0.5) == Failure(reason=events.REASON_WORKER_DIED, retry_in=None)


def test_what_crosses_to_another_process_pickles() -> None:
    failure = judge(POLICY, 1, Speechless(), 0.5, error_text=False)
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert pickle.loads(pickle.dumps(POLICY)) == POLICY
    assert failure.error == f"{__name__}.Speechless"
