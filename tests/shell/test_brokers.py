"""Brokers that hang, die, come back and take little, on real Kafka."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retriable_kafka_client import Limits, Message
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log, ready, settings_of
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.records import end_offsets
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


def number_of(message: Message[Any]) -> int:
    return int(message.body or b"")


# Brokers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def breakable() -> Iterator[KafkaCluster]:
    """A broker that these tests pause and kill; each leaves it running."""
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def lab(breakable: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[Lab]:
    broker = breakable.broker(1)
    with Lab(
        breakable.bootstrap_servers, breakable.create_topic, request.node.originalname, real=True
    ) as made:
        yield made
        broker.resume()
        broker.start()


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_stop_is_bounded_while_the_broker_hangs(lab: Lab, breakable: KafkaCluster, protocol: str) -> None:
    runs, gate = Log(), threading.Event()
    entry = lab.entry()
    lab.fill(entry, [b"%d" % i for i in range(20)])

    def handler(m: Message[Any]) -> None:
        runs.add(number_of(m))
        if number_of(m) == 7:
            gate.wait(60)

    consumer = lab.start(entry, handler, settings=settings_of(protocol), limits=Limits(drain_timeout=2.0))
    runs.wait(20)
    breakable.broker(1).pause()
    try:
        began = time.monotonic()
        consumer.stop()
        assert consumer.join(30)
        took = time.monotonic() - began
    finally:
        gate.set()
        breakable.broker(1).resume()
        breakable.broker(1).wait_ready()
    lab.topic(
        "again", 1
    )  # its controller may still shut it out for its silence: a leader says that this is over
    assert took < 2 + 12  # the drain, and what the last commit and the leaving may take
    again = lab.start(entry, lambda m: runs.add(number_of(m)), settings=settings_of(protocol))
    lab.caught_up(entry, timeout=60)
    assert set(runs) == set(range(20))
    again.stop()
    assert again.join(30)


def test_a_broker_that_hangs_and_dies_and_comes_back(lab: Lab, breakable: KafkaCluster) -> None:
    runs = Log()
    entry = lab.entry(max_attempts=2)
    lab.fill(entry, [b"%d" % i for i in range(3000)])

    def handler(m: Message[Any]) -> None:
        runs.add((number_of(m), m.attempt))
        if number_of(m) % 50 == 0:
            raise ValueError
        time.sleep(0.002)

    consumer = lab.start(entry, handler, settings=settings_of("cooperative"))
    runs.wait(500)
    broker = breakable.broker(1)
    broker.pause()
    wait_until(lambda: not consumer.health().ready, 60, "it is noticed")
    broker.kill()
    broker.start()
    lab.dead(entry, 60, timeout=90)
    lab.caught_up(entry, timeout=90)
    ready(consumer)
    wanted = {(i, 1) for i in range(3000)} | {(i, 2) for i in range(0, 3000, 50)}
    assert set(runs) == wanted
    letters = lab.dead(entry, 60)
    assert {int(one.value or b"") for one in letters} == set(range(0, 3000, 50))
    assert {one.header(wire.DEAD_REASON) for one in letters} == {b"exhausted"}
    assert consumer.health().alive


def test_a_broker_that_takes_no_metadata_costs_the_map_and_nothing_else(
    own_kafka: Callable[..., KafkaCluster], lab_on: Callable[[Kafka], Lab]
) -> None:
    """`offset.metadata.max.bytes` of 150: the map is cut to what fits; of 20: positions go without."""
    for limit in ("150", "20"):
        lab = lab_on(own_kafka(extra={"offset.metadata.max.bytes": limit}))
        runs, gate = Log(), threading.Event()
        entry = lab.entry()
        lab.fill(entry, [b"%d" % i for i in range(2000)], partition=0)

        def handler(m: Message[Any], runs: Log = runs, gate: threading.Event = gate) -> None:
            runs.add(number_of(m))
            if number_of(m) % 7 == 0 and number_of(m) < 1400:
                gate.wait(60)

        consumer = lab.start(entry, handler, executor=300, limits=Limits(drain_timeout=20.0))
        wait_until(lambda: any(one.map_units == 0 for one in lab.events.of(ev.Committed)) or len(runs) > 1500)  # noqa: B023
        wait_until(lambda: lab.events.of(ev.OffsetMapShortened), what=repr(lab.events.items[-5:]))  # noqa: B023
        gate.set()
        lab.caught_up(entry, timeout=60)
        assert runs.counts() == dict.fromkeys(range(2000), 1)
        assert end_offsets(lab.servers, entry.name)[0] == 2000
        consumer.stop()
        assert consumer.join(30)
