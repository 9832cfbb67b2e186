import pickle
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

import pytest

from retriable_kafka_client.errors import (
    YEAR,
    ConfigError,
    ConsumerFailed,
    DecodeError,
    DeliveryError,
    QueueFull,
    Reject,
    RetriableKafkaError,
    RetryAfter,
)

ALL = [
    ConfigError("Retry.max_attempts", 0, "must be a whole number from 1"),
    ConfigError("Cluster.password", "hush", "must be given with a username", secret=True),
    DeliveryError("MSG_SIZE_TOO_LARGE", False, "Broker: Message size too large", topic="orders"),
    QueueFull("orders", 10.0),
    DecodeError("the payload is empty"),
    ConsumerFailed("the pool broke"),
    RetriableKafkaError("anything"),
    RetryAfter(timedelta(minutes=1)),
    Reject("no such customer"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_pickles_with_all_it_carries(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def raise_it(index: int) -> None:
    raise ALL[index]


def test_errors_survive_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for index, error in enumerate(ALL):
            raised = pool.submit(raise_it, index).exception(60)
            assert type(raised) is type(error)
            assert str(raised) == str(error)


@pytest.mark.parametrize("error", ALL[:7], ids=lambda error: type(error).__name__)
def test_the_librarys_own_errors_have_one_root(error: Exception) -> None:
    assert isinstance(error, RetriableKafkaError)


def test_what_a_handler_raises_is_an_exception_but_not_an_error_of_the_library() -> None:
    assert not issubclass(RetryAfter, RetriableKafkaError)
    assert not issubclass(Reject, RetriableKafkaError)


def test_config_error_names_field_value_and_remedy() -> None:
    error = ConfigError("Retry.max_attempts", 0, "must be a whole number from 1")
    assert (error.field, error.value, error.remedy) == (
        "Retry.max_attempts",
        "0",
        "must be a whole number from 1",
    )
    assert str(error) == "Retry.max_attempts = 0: must be a whole number from 1"
    assert isinstance(error, ValueError)


class Chatty:
    def __repr__(self) -> str:
        return "password=hush"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 500, "'" + "x" * 199 + "…"),
        (Chatty(), "<Chatty>"),
        ([Chatty(), 1], "[<Chatty>, 1]"),
        (Chatty, "Chatty"),
        (b"payload", "<bytes>"),
        (10**5000, "(a very large integer)"),
        (timedelta(seconds=1), "datetime.timedelta(seconds=1)"),
    ],
    ids=["long", "object", "list", "type", "bytes", "huge", "timedelta"],
)
def test_config_error_shows_plain_values_only(value: object, shown: str) -> None:
    assert ConfigError("F", value, "r").value == shown


def test_config_error_hides_a_secret() -> None:
    error = ConfigError("Cluster.password", "hush", "r", secret=True)
    assert "hush" not in str(error) + repr(error) + str(vars(error))


def test_delivery_error_carries_code_and_whether_to_try_again() -> None:
    error = DeliveryError("_MSG_TIMED_OUT", True, "Local: Message timed out", topic="orders")
    assert (error.code, error.retriable, error.topic) == ("_MSG_TIMED_OUT", True, "orders")
    assert str(error) == "delivery to topic 'orders' failed: _MSG_TIMED_OUT (Local: Message timed out)"


@pytest.mark.parametrize(
    ("duration", "seconds"), [(1, 1.0), (0, 0.0), (2.5, 2.5), (timedelta(hours=1), 3600.0), (YEAR, YEAR)]
)
def test_retry_after_takes_seconds_and_timedeltas(duration: float | timedelta, seconds: float) -> None:
    assert RetryAfter(duration).seconds == seconds


@pytest.mark.parametrize(
    "duration", [-1, float("nan"), float("inf"), YEAR + 1, True, "5", None, 10**400, timedelta(seconds=-1)]
)
def test_retry_after_refuses_what_is_no_duration(duration: object) -> None:
    with pytest.raises(ConfigError, match=r"RetryAfter\.duration"):
        RetryAfter(duration)  # type: ignore[arg-type]


@pytest.mark.parametrize(("reason", "text"), [("", ""), (None, "None"), (5, "5")])
def test_whatever_reason_a_handler_gives_it_rejects(reason: object, text: str) -> None:
    assert Reject(reason).reason == text  # type: ignore[arg-type]
