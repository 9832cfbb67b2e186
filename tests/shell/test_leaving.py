"""Who stops is out of the group at once, as the broker sees it, whatever it has and whatever goes on."""

import logging
import threading

import pytest
from confluent_kafka import Consumer as KafkaConsumer

from retriable_kafka_client import DISCARD, ConfigError, Consumer, ConsumerFailed, Limits, Topic
from tests.shell.lab import Lab, settings_of
from tests.support.records import group_size
from tests.support.waiting import wait_until

# A session longer than the tests wait: nobody is put out for his silence.
LONG = {"session.timeout.ms": 45_000}
PROTOCOLS = {
    "cooperative": settings_of("classic") | LONG,
    "range": settings_of("range") | LONG,
    "roundrobin": settings_of("range") | LONG | {"partition.assignment.strategy": "roundrobin"},
    "consumer": settings_of("consumer"),
}
WITHIN = 15.0  # of a session of 45 s, on a busy machine


def all_ready(*members: Consumer) -> None:
    for member in members:
        wait_until(lambda member=member: member.health().ready, 60, "it is ready")  # type: ignore[misc]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_member_without_partitions_that_ends_is_out_of_the_group(
    real_lab: Lab, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "retriable_kafka_client")
    lab = real_lab
    only = Topic(lab.topic("one", 1), dead_letter=DISCARD)
    members = [lab.start(only, print, settings=PROTOCOLS[protocol]) for _ in range(2)]
    all_ready(*members)
    spare = next(member for member in members if not member.stats().partitions)
    assert group_size(lab.servers, lab.group) == 2
    spare.stop()
    assert spare.join(60.0)
    assert group_size(lab.servers, lab.group) == 1
    other = next(member for member in members if member is not spare)
    other.stop()
    assert other.join(60.0)
    assert group_size(lab.servers, lab.group) == 0
    assert not [record for record in caplog.records if "did not leave" in record.getMessage()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_member_that_stops_amid_a_rebalance_leaves_its_partitions_to_the_others(
    real_lab: Lab, protocol: str
) -> None:
    lab = real_lab
    topic = Topic(lab.topic("four", 4), dead_letter=DISCARD)
    go, begun = threading.Event(), threading.Event()

    def slow(_message: object) -> None:
        begun.set()
        go.wait(30.0)

    settings, limits = PROTOCOLS[protocol], Limits(drain_timeout=30.0)
    first = lab.start(topic, slow, settings=settings, limits=limits)
    all_ready(first)
    for partition in range(4):
        lab.send(topic, b"1", partition=partition)
    assert begun.wait(30.0)
    joining = lab.start(topic, print, settings=settings, limits=limits)
    # The first one drains for the rebalance that this began.
    wait_until(lambda: group_size(lab.servers, lab.group) == 2, 60, "both are in the group")
    joining.stop()
    assert joining.join(60.0)
    go.set()
    wait_until(
        lambda: len(first.stats().partitions) == 4 and first.health().ready, WITHIN, "the first has all again"
    )
    wait_until(lambda: group_size(lab.servers, lab.group) == 1, WITHIN, "the other has left")


def test_two_members_of_one_instance_id(real_lab: Lab) -> None:
    """A stranger takes the place of a static member: that one's run ends and says why."""
    lab = real_lab
    topic = Topic(lab.topic("two", 2), dead_letter=DISCARD)
    settings = settings_of("classic") | {"group.instance.id": "one"}
    member = lab.start(topic, print, settings=settings)
    all_ready(member)
    with pytest.raises(ConfigError, match=r"group\.instance\.id"):
        lab.consumer(topic, print, settings=settings).run()
    connection = {"bootstrap.servers": lab.servers, "group.id": lab.group, "group.instance.id": "one"}
    stranger = KafkaConsumer(connection | {"partition.assignment.strategy": "cooperative-sticky"})
    try:
        stranger.subscribe([topic.name])
        wait_until(
            lambda: (stranger.poll(0.1), not member.health().alive)[1], 60, "the fenced member has ended"
        )
    finally:
        stranger.close()
    with pytest.raises(ConsumerFailed, match=r"group\.instance\.id"):
        member.join()
    # The name is free again in this process.
    again = lab.start(topic, print, settings=settings)
    all_ready(again)


def test_a_group_of_another_strategy_is_joined_once_its_members_have_left(
    real_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "retriable_kafka_client")
    lab = real_lab
    topic = Topic(lab.topic("two", 2), dead_letter=DISCARD)
    old = lab.start(topic, print, settings=PROTOCOLS["range"])
    all_ready(old)
    new = lab.start(topic, print, settings=PROTOCOLS["cooperative"])
    remedy = "partition.assignment.strategy"
    wait_until(lambda: any(remedy in reason for reason in new.health().reasons), 60, "it says why")
    assert sum(remedy in record.getMessage() for record in caplog.records) == 1
    old.stop()
    all_ready(new)
