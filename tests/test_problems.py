"""What is wrong is told once when it begins and once when it is over."""

import logging

import pytest

from retriable_kafka_client.consumer.problems import Problems


def test_a_trouble_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    problems = Problems("billing")
    for _ in range(100):
        problems.note("brokers", "they are away")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert problems.reasons() == ("they are away",)
    for _ in range(100):
        problems.clear("brokers", "login")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert problems.reasons() == ()


def test_records_that_arrive_do_not_hide_a_commit_that_is_not_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    problems = Problems("billing")
    for _ in range(100):
        problems.mark("commit", "no answer", holds=True)
        problems.clear("brokers", "login")  # as after each poll
    assert problems.reasons() == ("no answer",)
    problems.mark("commit", "no answer", holds=False)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
