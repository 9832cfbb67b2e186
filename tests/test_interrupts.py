"""A Ctrl-C is told from what a message's own code raises."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from retriable_kafka_client.user_functions.interrupts import is_from_signal
from tests.support.raising import raised_by


def by_hand() -> None:
    raise KeyboardInterrupt


def exits() -> None:
    raise SystemExit(3)


def interrupted() -> None:
    signal.raise_signal(signal.SIGINT)
    for _ in range(1000):
        pass


def terminated() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """SIGINT as Python handles it: a shell may have started us with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_real_one_comes_from_the_signal() -> None:
    assert is_from_signal(raised_by(interrupted))
    assert not is_from_signal(raised_by(by_hand))
    assert not is_from_signal(raised_by(exits))
    assert not is_from_signal(ValueError())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_programs_own_handler_counts(number: signal.Signals) -> None:
    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(1)

    before = signal.signal(number, leave)
    try:
        assert is_from_signal(raised_by(interrupted if number is signal.SIGINT else terminated))
        assert not is_from_signal(raised_by(by_hand))
    finally:
        signal.signal(number, before)


def test_in_other_threads_everything_is_the_messages_own() -> None:
    assert threading.current_thread() is threading.main_thread()
    error = raised_by(interrupted)
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(is_from_signal, error).result(30)
