"""Producers that are new to their partitions while leaders move: what is reported as delivered stands there."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from retriable_kafka_client import Cluster, Delivery, Producer
from tests.campaign.sizes import pick
from tests.support.brokers import Broker
from tests.support.kafka import KafkaCluster
from tests.support.names import unique
from tests.support.records import each_record
from tests.support.waiting import wait_until

TOPICS = 6  # of one partition each
MOVING = 8.0  # seconds of sending from a broker's SIGTERM on


def send_while_leaders_move(
    kafka: KafkaCluster, broker: Broker, topics: list[str], numbers: Iterator[int]
) -> dict[int, Future[Delivery]]:
    """Stop the broker while producers, of which nobody has sent anything, begin; start it again."""
    chance = random.Random(broker.id)

    def all_known() -> Any:
        known = kafka.admin().list_topics(timeout=30.0).topics
        return set(topics) <= known.keys() and known

    known = wait_until(all_known, what="the broker that was asked knows all topics")
    led = [topic for topic in topics if known[topic].partitions[0].leader == broker.id] or topics
    sent: dict[int, Future[Delivery]] = {}
    settings = {"batch.num.messages": 1, "linger.ms": 0}  # every record is a request
    with ExitStack() as stack:
        producers = [
            stack.enter_context(Producer(Cluster(kafka.bootstrap_servers, settings=settings)))
            for _ in range(pick(16, 25))
        ]
        for producer in producers:
            assert producer.health().alive
        stopping = time.monotonic()
        broker.terminate()

        def over() -> bool:
            number = next(numbers)
            producer = chance.choice(producers)
            sent[number] = producer.send(chance.choice(led), number)
            return time.monotonic() >= stopping + MOVING

        wait_until(over, MOVING + 30.0, "the leaders have moved", every=0.01)
        broker.stop()
        broker.start()
        for producer in producers:
            assert producer.flush(90.0) == 0
    kafka.wait_members()
    kafka.wait_in_sync(*topics)
    return sent


def test_nothing_that_was_acknowledged_is_lost_while_leaders_move(
    own_kafka: Callable[..., KafkaCluster], report: Callable[..., None]
) -> None:
    kafka = own_kafka(3)
    topics = [kafka.create_topic(unique("leaders"), 1) for _ in range(TOPICS)]
    numbers = itertools.count()
    sent: dict[int, Future[Delivery]] = {}
    for _ in range(pick(1, 4)):
        for broker in kafka.brokers:
            sent |= send_while_leaders_move(kafka, broker, topics, numbers)
    there = {
        (topic, one.offset): int(one.value or b"")
        for topic in topics
        for one in each_record(kafka.bootstrap_servers, topic)
    }
    deliveries = {number: future.result() for number, future in sent.items()}
    astray = {
        number: one for number, one in deliveries.items() if there.get((one.topic, one.offset)) != number
    }
    report(sent=len(sent), astray=len(astray))
    assert astray == {}
    assert sorted(there.values()) == sorted(sent)
