"""One broker of three hangs, and the others do not know it yet: nobody who starts meanwhile gives up."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, Consumer, Message, Topic
from retriable_kafka_client.config import Retry
from tests.shell.lab import Lab, Log
from tests.support.kafka import KafkaCluster
from tests.support.names import unique
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.campaign]

HANGS_SECONDS = 45.0  # longer than anybody may take to say that no broker answers
MEMBERS = 5  # of each kind: each asks whom it takes for the controller, and has a coordinator, of three
KINDS: Mapping[str, Mapping[str, Any]] = {
    "cooperative": {},
    "kip-848": {"settings": {"group.protocol": "consumer"}},
    "latest": {"settings": {"auto.offset.reset": "latest"}},
    "exactly-once": {"guarantee": "exactly_once"},
}


def test_who_starts_while_one_of_three_brokers_hangs_does_not_give_up(
    own_kafka: Callable[..., KafkaCluster],
) -> None:
    cluster = own_kafka(3, extra={"broker.session.timeout.ms": "120000"})
    create = partial(cluster.create_topic, replication_factor=3)
    with Lab(cluster.bootstrap_servers, create, "hung", real=True) as lab:
        runs = Log()

        def handler(message: Message[Any]) -> None:
            runs.add(message.value)

        topic = Topic(lab.topic(partitions=3), retry=Retry(lab.topic("retry", 3)), dead_letter=DISCARD)
        # The topics of positions and of transactions are there.
        warm = lab.start(topic, handler, guarantee="exactly_once", settings={})
        warm.wait_ready(60)
        warm.stop()
        assert warm.join(60)
        broker = cluster.broker(2)
        broker.pause()
        members: list[Consumer] = []
        try:
            for options in KINDS.values():
                for _ in range(MEMBERS):
                    group = unique("hung-group")
                    members.append(
                        lab.start(topic, handler, **({"settings": {}, "group": group} | dict(options)))
                    )
            began = time.monotonic()
            wait_until(
                lambda: (
                    time.monotonic() > began + HANGS_SECONDS or not all(one.health().alive for one in members)
                ),
                2 * HANGS_SECONDS,
            )
            ended = [one for one in members if not one.health().alive]
            for one in ended:
                one.join(1)  # raises why
            assert not ended
        finally:
            broker.resume()
        for one in members:
            one.wait_ready(90)
        lab.send(topic, b'"after"')
        runs.wait(len(members), "of each group", 90)
        assert runs.counts() == {"after": len(members)}
