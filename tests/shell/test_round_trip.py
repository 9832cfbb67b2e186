"""Brokers that are far away: everything works as near by, and takes the time that the way takes."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition

from retriable_kafka_client import Consumer, Limits, Message
from retriable_kafka_client import events as ev
from retriable_kafka_client.testing import MockKafka
from tests.shell.chunk_records import Split, produce_chunks
from tests.shell.lab import Lab, Log, as_json, settings_of
from tests.support.waiting import wait_until

FAR = 0.12  # seconds there and back
VERY_FAR = 1.0


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka() as running:
        yield running


@pytest.fixture
def far_lab(mock: MockKafka, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """On a mock cluster of the test's own. It is near again for the stops at the test's end."""
    name = request.node.originalname
    with Lab(
        mock.bootstrap_servers, lambda topic, n, _: mock.create_topic(topic, n), name, real=False
    ) as lab:
        yield lab
        mock.set_round_trip(0)


class Runs(Log):
    """A handler that fails each message once, and what it ran."""

    def __call__(self, message: Message[Any]) -> None:
        self.add((message.value["i"], message.attempt))
        if message.attempt == 1:
            raise ValueError


def stopped_in_order(lab: Lab, *consumers: Consumer, within: float) -> bool:
    """Stop them all; whether they ended in time."""
    for consumer in consumers:
        consumer.stop()
    return all(consumer.join(within) for consumer in consumers)


def twice(count: int, first: int = 0) -> dict[tuple[int, int], int]:
    return {(i, attempt): 1 for i in range(first, first + count) for attempt in (1, 2)}


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_brokers_that_are_far_away_from_the_start(
    far_lab: Lab, mock: MockKafka, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    lab, runs = far_lab, Runs()
    entry = lab.entry()
    lab.fill(entry, [as_json({"i": i}) for i in range(2)])
    mock.set_round_trip(FAR)
    consumer = lab.start(entry, runs, settings=settings_of(protocol))
    runs.wait(4)
    assert stopped_in_order(lab, consumer, within=20)
    assert runs.counts() == twice(2)
    assert not lab.events.of(ev.CommitFailed)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    mock.set_round_trip(0)
    lab.caught_up(entry)


@pytest.mark.parametrize("protocol", ["consumer"])
def test_a_second_member_gets_its_share_far_away(far_lab: Lab, mock: MockKafka, protocol: str) -> None:
    lab, runs = far_lab, Runs()
    entry = lab.entry(partitions=4)
    lab.fill(entry, [as_json({"i": i}) for i in range(20)])
    mock.set_round_trip(FAR)
    first = lab.start(entry, runs, settings=settings_of(protocol))
    runs.wait(40)
    second = lab.start(entry, runs, settings=settings_of(protocol))
    wait_until(lambda: second.stats().partitions and second.health().ready)
    lab.fill(entry, [as_json({"i": i}) for i in range(20, 40)])
    runs.wait(80)
    assert second.stats().handled + second.stats().failed
    assert stopped_in_order(lab, first, second, within=30)
    assert runs.counts() == twice(40)
    assert not lab.events.of(ev.CommitFailed)


@pytest.mark.parametrize("round_trip", [FAR, VERY_FAR])
@pytest.mark.parametrize("drain", [0.5, 30.0])
def test_brokers_that_move_away_while_it_runs(
    far_lab: Lab, mock: MockKafka, caplog: pytest.LogCaptureFixture, round_trip: float, drain: float
) -> None:
    lab, runs = far_lab, Runs()
    entry = lab.entry()
    # What it commits on its way tells it how far away the brokers are.
    consumer = lab.start(entry, runs, limits=Limits(drain_timeout=drain), settings=settings_of("consumer"))
    lab.fill(entry, [as_json({"i": i}) for i in range(2)])
    runs.wait(4)
    mock.set_round_trip(round_trip)
    lab.fill(entry, [as_json({"i": i}) for i in range(2, 4)])
    runs.wait(8)
    assert stopped_in_order(lab, consumer, within=20)
    assert runs.counts() == twice(4)
    assert not lab.events.of(ev.CommitFailed)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    mock.set_round_trip(0)
    lab.caught_up(entry)


def test_chunks_whose_rest_never_comes_are_given_up_far_away(far_lab: Lab, mock: MockKafka) -> None:
    lab, runs = far_lab, Runs()
    entry = lab.entry(partitions=1)
    message = Split(b"abcdef" * 100, 150, b"key", ())
    produce_chunks(lab.servers, entry.name, [(message, 0), (message, 1)])
    mock.set_round_trip(FAR)
    lab.start(entry, runs, limits=Limits(chunk_wait=1.0))
    wait_until(lambda: lab.events.of(ev.ChunksGivenUp))
    (given_up,) = lab.events.of(ev.ChunksGivenUp)
    assert (given_up.chunks, given_up.expected, given_up.reason) == (2, 4, "incomplete")
    assert not runs.items


@pytest.mark.kafka
def test_a_locked_partition_does_not_hold_up_the_others(real_lab: Lab) -> None:
    """What another producer commits for the group in a transaction is not told until that ends."""
    lab, runs = real_lab, Runs()
    entry = lab.entry(partitions=4)
    for i in range(8):
        lab.send(entry, as_json({"i": i}), partition=i % 4)
    member = KafkaConsumer({"bootstrap.servers": lab.servers, "group.id": lab.group})
    foreign = Producer({"bootstrap.servers": lab.servers, "transactional.id": lab.group})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.send_offsets_to_transaction(
        [TopicPartition(entry.name, 1, 1)], member.consumer_group_metadata(), 30
    )
    consumer = lab.start(entry, runs)
    runs.wait(12)  # of three partitions
    assert {i for i, _ in runs} == {0, 2, 3, 4, 6, 7}
    assert not consumer.health().ready
    foreign.abort_transaction(30)
    runs.wait(16)
    assert runs.counts() == twice(8)
    lab.caught_up(entry)
    member.close()
