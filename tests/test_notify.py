"""Which events become log lines, and how many."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from retriable_kafka_client import events as ev
from retriable_kafka_client.consumer.notifier import Notifier

OF_MESSAGES = [
    ev.ChunksGivenUp(topic="orders", partition=0, offset=7, reason="incomplete", chunks=1, expected=2),
    ev.ForeignCopies(topic="orders", partition=0, offset=7, group="another"),
    ev.HandlerStuck(topic="orders", partition=0, offset=7, attempt=1, seconds=300.0, alone=False),
    ev.HandlerStuck(topic="orders", partition=0, offset=7, attempt=2, seconds=300.0, alone=True),
    ev.HandlerTimedOut(topic="orders", partition=0, offset=7, attempt=1, running=True),
    ev.NoRetryTopic(topic="orders", partition=0, offset=7, attempt=1, pattern="^orders-retry.*"),
    ev.OffsetMapOverflow(topic="orders", partition=0, position=7),
    ev.WorkerDied(topic="orders", partition=0, offset=7, attempt=1),
]


@pytest.mark.parametrize("event", OF_MESSAGES, ids=lambda event: type(event).__name__)
def test_a_thousand_messages_do_not_flood_the_log(event: ev.Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier((), group="billing")
    for _ in range(1_000):
        notifier.publish(event)
    assert 2 <= len(caplog.records) <= 20
    assert all("orders" in record.getMessage() for record in caplog.records)


def test_a_kind_of_line_does_not_use_up_another_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier((), group="billing")
    for event in OF_MESSAGES:
        before = len(caplog.records)
        for _ in range(100):
            notifier.publish(event)
        assert len(caplog.records) > before


def test_a_run_that_was_cancelled_in_time_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier((), group="billing")
    notifier.publish(ev.HandlerTimedOut(topic="orders", partition=0, offset=7, attempt=1, running=False))
    assert not caplog.records


@pytest.mark.parametrize("error", [None, ValueError(), SystemExit(), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.filterwarnings("error")
def test_an_on_event_that_fails_is_one_line_and_goes_on(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    async def nobody_awaits() -> None:
        pass

    def listen(event: ev.Event) -> Any:
        told.append(event)
        if error is not None:
            raise error
        return nobody_awaits()

    notifier = Notifier([listen], group="billing")
    notifier.start()
    for _ in range(3):
        notifier.publish(ev.MessageParked(topic="orders", partition=0, offset=7))
    notifier.close(30.0)
    assert len(told) == 3
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (type(error).__name__ if error is not None else "AwaitableReturned") in line.getMessage()


FAILURES = [
    ev.MessageRetried(
        topic="orders", partition=0, offset=7, attempt=1, error="ValueError", delay=1.0, retry_topic=None
    ),
    ev.MessageDeadLettered(
        topic="orders",
        partition=0,
        offset=7,
        attempts=2,
        reason="exhausted",
        error="ValueError",
        dead_letter_topic="dead",
    ),
    ev.MessageDropped(
        topic="orders", partition=0, offset=7, attempts=2, reason="exhausted", error="ValueError"
    ),
]


@pytest.mark.parametrize("event", FAILURES, ids=lambda event: type(event).__name__)
def test_what_exceptions_say_is_logged_only_where_that_is_wanted(
    event: ev.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = replace(event, text="card 4711\n\x1b[31mred")  # type: ignore[call-arg]
    Notifier((), group="billing").publish(told)
    Notifier((), group="billing", error_text=True).publish(event)  # it says nothing
    assert not caplog.records
    notifier = Notifier((), group="billing", error_text=True)
    for _ in range(1_000):
        notifier.publish(told)
    assert 1 <= len(caplog.records) <= 20
    line = caplog.records[0].getMessage()
    assert "orders/0/7" in line and "card 4711" in line
    assert line.isprintable()
