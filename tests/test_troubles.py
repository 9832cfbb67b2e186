"""What is wrong is told once when it begins and once when it is over."""

import logging

import pytest

from retriable_kafka_client.consumer.problems import Troubles


def test_a_trouble_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    troubles = Troubles("billing")
    for _ in range(100):
        troubles.note("brokers", "they are away")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert troubles.reasons() == ("they are away",)
    for _ in range(100):
        troubles.clear("brokers", "login")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert troubles.reasons() == ()


def test_records_that_arrive_do_not_hide_a_commit_that_is_not_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    troubles = Troubles("billing")
    for _ in range(100):
        troubles.mark("commit", "no answer", holds=True)
        troubles.clear("brokers", "login")  # as after each poll
    assert troubles.reasons() == ("no answer",)
    troubles.mark("commit", "no answer", holds=False)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
