"""Which events become log lines, and how many."""

import logging

import pytest

from retriable_kafka_client import events as ev
from retriable_kafka_client.notify import Notifier


def test_a_sender_of_a_thousand_messages_that_are_never_whole_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    notifier = Notifier(None, group="billing")
    for offset in range(1_000):
        notifier.tell(
            ev.ChunksGivenUp(
                topic="orders", partition=0, offset=offset, reason="incomplete", chunks=1, expected=2
            )
        )
    assert len(caplog.records) <= 2
    assert "orders/0/0" in caplog.records[0].getMessage()
