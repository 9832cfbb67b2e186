"""Failures give a few lines that count, never one for each message."""

import logging
import re
from typing import Any

import pytest

from retriable_kafka_client import events as ev
from retriable_kafka_client.consumer.failure_log import FailureLines

LINE = re.compile(r"(\d+) times: retried (\d+), dead-lettered (\d+), dropped (\d+)")


def retried(
    error: str | None = "NameError", place: str | None = "shop:7 bill", **changes: Any
) -> ev.MessageRetried:
    told: dict[str, Any] = {"attempt": 1, "delay": 1.0, "retry_topic": None, **changes}
    return ev.MessageRetried(topic="orders", partition=0, offset=7, error=error, place=place, **told)


def dead(error: str | None = "NameError", **changes: Any) -> ev.MessageDeadLettered:
    told: dict[str, Any] = {
        "reason": "exhausted",
        "place": "shop:7 bill",
        "dead_letter_topic": "dead",
        **changes,
    }
    return ev.MessageDeadLettered(topic="orders", partition=0, offset=7, attempts=2, error=error, **told)


def dropped(error: str | None = "NameError", **changes: Any) -> ev.MessageDropped:
    told: dict[str, Any] = {"reason": "exhausted", "place": "shop:7 bill", **changes}
    return ev.MessageDropped(topic="orders", partition=0, offset=7, attempts=2, error=error, **told)


def counts(record: logging.LogRecord) -> tuple[int, ...]:
    found = LINE.search(record.getMessage())
    assert found is not None
    return tuple(map(int, found.groups()))


def drive(lines: FailureLines, told: list[tuple[float, Any]], until: float) -> None:
    """Tell of failures at their times, and look every tenth of a second."""
    left = sorted(told, key=lambda one: one[0])
    for tick in range(int(until * 10) + 1):
        now = tick / 10
        while left and left[0][0] <= now:
            lines.note(left.pop(0)[1], now)
        lines.look(now)


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_what_fails_together_is_one_line_that_counts(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=False)
    drive(lines, [(0.0, retried())] * 100 + [(0.5, dead())] * 19 + [(0.6, dropped())], until=5.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert counts(record) == (120, 100, 19, 1)
    for part in ("billing", "NameError", "shop:7 bill", "orders/0/7"):
        assert part in record.getMessage()


def test_there_is_at_most_one_line_in_ten_seconds_and_none_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = FailureLines("billing", error_text=False)
    drive(lines, [(tick / 10, retried()) for tick in range(600)], until=75.0)
    assert 5 <= len(caplog.records) <= 7
    assert sum(counts(record)[0] for record in caplog.records) == 600


def test_kinds_are_told_apart_by_type_and_place(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=False)
    told = [
        retried(),
        retried(place="shop:8 bill"),
        retried(error="KeyError"),
        dead(None, reason="too-large", place=None),
        retried(None, place=None, reason="worker-died"),
        dead(None, place=None, reason="worker-died"),
    ]
    drive(lines, [(0.0, one) for one in told], until=2.0)
    assert len(caplog.records) == 5
    assert "too-large" in caplog.records[3].getMessage()
    assert "worker-died, 2 times" in caplog.records[4].getMessage()


def test_a_close_tells_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=False)
    lines.note(dropped(), 0.0)
    lines.close(0.1)
    assert [(one.levelno, counts(one)) for one in caplog.records] == [(logging.WARNING, (1, 0, 0, 1))]
    caplog.clear()
    drive(lines, [(0.0, retried()), (2.0, retried())], until=3.0)
    lines.close(3.0)
    assert [one.levelno for one in caplog.records] == [logging.WARNING, logging.INFO]
    caplog.clear()
    drive(lines, [(0.0, retried()), (2.0, dropped())], until=3.0)
    lines.close(3.0)
    assert [counts(one)[3] for one in caplog.records if one.levelno == logging.WARNING] == [0, 1]


def test_what_the_handler_asks_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=False)
    drive(lines, [(0.0, retried(error="retriable_kafka_client.errors.RetryAfter"))], until=2.0)
    assert [one.levelno for one in caplog.records] == [logging.INFO]


@pytest.mark.parametrize("error_text", [False, True])
def test_a_traceback_only_where_that_is_wanted(error_text: bool, caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=error_text)
    drive(lines, [(0.0, retried(traceback="Traceback: card 4711"))], until=2.0)
    assert ("card 4711" in caplog.text) is error_text


def test_kinds_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines("billing", error_text=False)
    drive(lines, [(0.0, retried(place=f"shop:{number} bill")) for number in range(3_000)], until=2.0)
    assert len(caplog.records) < 1_100
    assert sum(counts(record)[0] for record in caplog.records) == 3_000
