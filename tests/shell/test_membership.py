"""Members that nothing is assigned to, and groups without a coordinator."""

from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, ConsumerFailed, Topic
from tests.shell.lab import Lab
from tests.support.kafka import KafkaCluster
from tests.support.waiting import wait_until

SETTINGS: dict[str, dict[str, Any]] = {
    "classic": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
    "consumer": {"group.protocol": "consumer"},
}


@pytest.mark.parametrize("protocol", SETTINGS)
def test_a_member_that_is_to_spare_is_ready(real_lab: Lab, protocol: str) -> None:
    lab = real_lab
    only = Topic(lab.topic("one", 1), dead_letter=DISCARD)
    members = [lab.start(only, print, settings=SETTINGS[protocol]) for _ in range(2)]
    for member in members:
        wait_until(lambda member=member: member.health().ready, 60, "both are ready")  # type: ignore[misc]
    spare = [member for member in members if not member.stats().partitions]
    assert len(spare) == 1
    # It takes over.
    other = next(member for member in members if member is not spare[0])
    other.stop()
    wait_until(lambda: bool(spare[0].stats().partitions), 60, "the spare one has the partition")
    wait_until(lambda: spare[0].health().ready, 60, "it is ready again")


@pytest.mark.parametrize("protocol", SETTINGS)
def test_a_member_that_is_to_spare_is_ready_again_after_an_outage(
    own_kafka: Callable[..., KafkaCluster], lab_on: Callable[[KafkaCluster], Lab], protocol: str
) -> None:
    """It has no partition of which a record, or an answer, could tell that the brokers are back."""
    cluster = own_kafka()
    lab = lab_on(cluster)
    only = Topic(lab.topic("one", 1), dead_letter=DISCARD)
    settings = SETTINGS[protocol] | ({"session.timeout.ms": 30_000} if protocol == "classic" else {})
    members = [lab.start(only, print, settings=settings) for _ in range(2)]
    for member in members:
        wait_until(lambda member=member: member.health().ready, 60, "both are ready")  # type: ignore[misc]
    broker = cluster.broker(1)
    broker.stop()
    try:
        for member in members:
            wait_until(lambda member=member: not member.health().ready, 60, "the broker is away")  # type: ignore[misc]
    finally:
        broker.start()
    for member in members:
        wait_until(lambda member=member: member.health().ready, 60, repr(member.health()))  # type: ignore[misc]


def test_a_group_that_nobody_can_coordinate_ends_the_run(
    own_kafka: Callable[..., KafkaCluster], lab_on: Callable[[KafkaCluster], Lab]
) -> None:
    """The topic of the groups' offsets cannot be made: it is to have more replicas than there are brokers."""
    lab = lab_on(own_kafka(extra={"offsets.topic.replication.factor": "3"}))
    consumer = lab.consumer(Topic(lab.topic("one", 1), dead_letter=DISCARD), print)
    with pytest.raises(ConsumerFailed, match="coordinator"):
        consumer.run()
