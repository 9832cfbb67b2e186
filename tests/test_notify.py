"""Which events become log lines, and how many."""

import logging

import pytest

from retriable_kafka_client import events as ev
from retriable_kafka_client.notify import Notifier

OF_MESSAGES = [
    ev.ChunksGivenUp(topic="orders", partition=0, offset=7, reason="incomplete", chunks=1, expected=2),
    ev.HandlerTimedOut(topic="orders", partition=0, offset=7, attempt=1, running=True),
    ev.NoRetryTopic(topic="orders", partition=0, offset=7, attempt=1, pattern="^orders-retry.*"),
    ev.OffsetMapOverflow(topic="orders", partition=0, position=7),
    ev.WorkerDied(topic="orders", partition=0, offset=7, attempt=1),
]


@pytest.mark.parametrize("event", OF_MESSAGES, ids=lambda event: type(event).__name__)
def test_a_thousand_messages_do_not_flood_the_log(event: ev.Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier(None, group="billing")
    for _ in range(1_000):
        notifier.tell(event)
    assert 2 <= len(caplog.records) <= 20
    assert all("orders/0" in record.getMessage() for record in caplog.records)


def test_a_kind_of_line_does_not_use_up_another_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier(None, group="billing")
    for event in OF_MESSAGES:
        before = len(caplog.records)
        for _ in range(100):
            notifier.tell(event)
        assert len(caplog.records) > before


def test_a_run_that_was_cancelled_in_time_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier(None, group="billing")
    notifier.tell(ev.HandlerTimedOut(topic="orders", partition=0, offset=7, attempt=1, running=False))
    assert not caplog.records
