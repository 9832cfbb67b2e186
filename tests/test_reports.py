"""What a client's statistics and settings say, to those who ask by what is meant."""

import json

import pytest

from retriable_kafka_client.brokers import derived_settings, setting_values
from retriable_kafka_client.brokers.statistics import LatestReport, read_report, reporting

TEXT = json.dumps(
    {
        "brokers": {
            "a": {"state": "UP", "req": {"FindCoordinator": 2, "EndTxn": 1}, "req_timeouts": 1},
            "b": {"state": "DOWN", "req": None, "req_timeouts": 2},
        },
        "cgrp": {"state": "wait-coord"},
    }
)


def test_a_report_is_read_over_all_brokers() -> None:
    report = read_report(TEXT)
    assert report.group_state == "wait-coord"
    assert report.has_broker
    assert (report.coordinator_questions, report.transactions_ended, report.timed_out) == (2, 1, 3)


def test_a_report_without_brokers_or_group_says_so() -> None:
    for text in ("{}", '{"brokers": null, "cgrp": null}'):
        report = read_report(text)
        assert (report.group_state, report.has_broker, report.timed_out) == ("", False, 0)


def test_what_is_no_report_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        read_report("{")


def test_the_latest_report_counts_from_when_it_was_cleared() -> None:
    latest = LatestReport()
    latest.take(TEXT)
    assert (latest.count, latest.read().transactions_ended) == (1, 1)
    latest.clear()
    assert (latest.count, latest.read().transactions_ended) == (0, 0)


def test_a_client_that_reports_is_told_how_often_in_milliseconds() -> None:
    given = {"client.id": "x"}
    settings = reporting(given, print, 0.04)
    assert settings["statistics.interval.ms"] == 40
    assert settings["client.id"] == "x"
    assert len(given) == 1


@pytest.mark.parametrize(
    ("settings", "eager"),
    [
        ({}, False),
        ({"partition.assignment.strategy": "range,roundrobin"}, True),
        ({"partition.assignment.strategy": "range", "group.protocol": "consumer"}, False),
        ({"group.protocol": "Classic", "partition.assignment.strategy": "range"}, True),
    ],
)
def test_eager_is_classic_without_cooperation(settings: dict[str, str], eager: bool) -> None:
    assert setting_values.is_eager(settings) is eager


def test_durations_are_in_seconds_and_defaults_librdkafkas() -> None:
    assert setting_values.session_seconds({}) == 45.0
    assert setting_values.session_seconds({"session.timeout.ms": "6000"}) == 6.0
    assert setting_values.session_seconds({"session.timeout.ms": "six"}) == 45.0
    assert setting_values.request_seconds({}) == 60.0
    assert setting_values.transaction_seconds({"transaction.timeout.ms": 2500}) == 2.5


def test_a_rereader_joins_no_group_and_fetches_little_ahead() -> None:
    given = {"group.protocol": "consumer", "queued.max.messages.kbytes": 65536, "auto.offset.reset": "latest"}
    settings = derived_settings.rereader_settings(given)
    assert settings["group.protocol"] == "classic"
    assert settings["queued.max.messages.kbytes"] == 8192
    assert settings["auto.offset.reset"] == "earliest"
    assert (
        derived_settings.rereader_settings({"queued.max.messages.kbytes": 5})["queued.max.messages.kbytes"]
        == 5
    )


def test_the_client_that_looks_for_a_coordinator_answers_no_commits() -> None:
    settings = derived_settings.committing_settings({"group.id": "g"}, print)
    assert "on_commit" in settings
    assert "on_commit" not in derived_settings.coordinator_settings(settings, print, 1.0)
