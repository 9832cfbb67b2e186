"""The client's statistics are the user's: nothing of ours asks for them, or waits for them."""

import json
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, Topic
from retriable_kafka_client.testing import MockKafka
from tests.shell.lab import Lab, Log
from tests.support.waiting import wait_until

CLASSIC = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300}


@pytest.fixture
def mock_lab(shared_mock: MockKafka, request: pytest.FixtureRequest) -> Any:
    with Lab(
        shared_mock.bootstrap_servers,
        lambda topic, n, _: shared_mock.create_topic(topic, n),
        request.node.originalname,
        real=False,
    ) as made:
        yield made


@pytest.mark.parametrize("protocol", [{"group.protocol": "consumer"}, CLASSIC], ids=["consumer", "classic"])
def test_a_member_to_spare_with_a_stats_cb_of_the_users_and_no_interval_is_ready(
    mock_lab: Lab, protocol: dict[str, Any]
) -> None:
    told = Log()
    only = Topic(mock_lab.topic("one", 1), dead_letter=DISCARD)
    settings = {**protocol, "stats_cb": told.add}
    members = [mock_lab.start(only, print, settings=settings) for _ in range(2)]
    for member in members:
        wait_until(lambda member=member: member.health().ready, what=repr(member.health()))  # type: ignore[misc]
    assert sorted(len(member.stats().partitions) for member in members) == [0, 1]
    assert not len(told), "nobody asked for statistics"


@pytest.mark.parametrize("protocol", [{"group.protocol": "consumer"}, CLASSIC], ids=["consumer", "classic"])
def test_statistics_come_as_the_user_wants_them(mock_lab: Lab, protocol: dict[str, Any]) -> None:
    told = Log()
    entry = mock_lab.entry(retry=False)
    settings = {**protocol, "stats_cb": told.add, "statistics.interval.ms": 100}
    consumer = mock_lab.start(entry, print, settings=settings)
    wait_until(lambda: consumer.health().ready)
    before = len(told)
    told.wait(before + 3)
    assert all(json.loads(text)["type"] for text in told)
