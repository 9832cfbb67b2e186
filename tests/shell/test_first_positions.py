"""Where partitions begin for which the group has committed nothing, and that it soon has."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Any

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from retriable_kafka_client import Consumer, Message, Retry, Topic
from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log, as_json, ready, settings_of
from tests.support.records import end_offsets
from tests.support.waiting import wait_until


def committed(lab: Lab, topic: str) -> dict[int, int]:
    """The group's positions in a topic."""
    client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group})
    try:
        places = [TopicPartition(topic, number) for number in end_offsets(lab.servers, topic)]
        return {one.partition: one.offset for one in client.committed(places, 30) if one.offset >= 0}
    finally:
        client.close()


def positions_known(lab: Lab, *topics: str) -> None:
    for topic in topics:
        count = len(end_offsets(lab.servers, topic))
        wait_until(lambda: len(committed(lab, topic)) == count, what=f"a position in all of {topic}")  # noqa: B023


def retry_topic(entry: Topic) -> str:
    assert entry.retry is not None and entry.retry.topic is not None
    return entry.retry.topic


def add_partitions(lab: Lab, entry: Topic, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": lab.servers})
    for made in admin.create_partitions([NewPartitions(entry.name, count)]).values():
        made.result(30)

    def are_there() -> bool:
        with suppress(KafkaException):  # not every broker knows of them yet
            return len(end_offsets(lab.servers, entry.name)) == count
        return False

    wait_until(are_there, what=f"{count} partitions")


def with_rule(rule: str, protocol: str = "consumer") -> Mapping[str, Any]:
    return {**settings_of(protocol), "auto.offset.reset": rule}


def skips_nothing_later(lab: Lab, protocol: str, **options: Any) -> None:
    """With `latest`: what was there is not run; what comes after is, whoever owns the partition, and so are retries."""
    entry, runs = lab.entry(max_attempts=2), Log()
    lab.fill(entry, map(as_json, ["before"] * 20))
    lab.send(retry_topic(entry), as_json("job"), headers=wire.write_marks(wire.Marks(not_before_ms=1)))

    def handler(message: Message[Any]) -> None:
        runs.add((message.value, message.attempt))
        if message.attempt == 1 and message.value != "job":
            raise ValueError

    start = partial(lab.start, entry, handler, settings=with_rule("latest", protocol), **options)
    first = start()
    positions_known(lab, entry.name, retry_topic(entry))
    runs.wait(1, "job")
    first.stop()
    assert first.join(60)
    lab.fill(entry, (as_json(number) for number in range(20)))
    ready(start())
    runs.wait(41)
    lab.caught_up(entry)
    wanted = [(number, attempt) for number in range(20) for attempt in (1, 2)]
    assert sorted(runs.items[1:]) == wanted and runs.items[0] == ("job", 1)


@pytest.mark.parametrize("protocol", ["cooperative", "range", "consumer"])
def test_latest_skips_what_was_there_before_and_nothing_else(lab: Lab, protocol: str) -> None:
    skips_nothing_later(lab, protocol)


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_latest_skips_nothing_else_exactly_once(real_lab: Lab, protocol: str) -> None:
    skips_nothing_later(real_lab, protocol, guarantee="exactly_once")


@pytest.mark.parametrize("rule", ["smallest", "Largest", "end", "error", "beginning"])
def test_a_retry_topic_begins_at_its_beginning_whatever_the_rule(lab: Lab, rule: str) -> None:
    entry, runs = lab.entry(), Log()
    lab.fill(entry, map(as_json, range(4)))
    lab.fill(
        retry_topic(entry),
        map(as_json, ["job"] * 4),
        headers=wire.write_marks(wire.Marks(not_before_ms=1)),
    )
    lab.start(entry, lambda message: runs.add(message.value), settings=with_rule(rule))
    positions_known(lab, retry_topic(entry))
    if rule in ("smallest", "beginning"):
        assert sorted(map(str, runs.wait(8))) == ["0", "1", "2", "3", "job", "job", "job", "job"]
    else:
        assert runs.wait(4) == ["job"] * 4


@pytest.mark.kafka
@pytest.mark.parametrize("rule", ["latest", "error"])
def test_a_partition_that_is_added_is_read_from_its_beginning(real_lab: Lab, rule: str) -> None:
    lab = real_lab
    entry, runs = lab.entry(partitions=1), Log()
    if rule == "error":
        client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group})
        client.commit(offsets=[TopicPartition(entry.name, 0, 0)], asynchronous=False)
        client.close()
    settings = {**with_rule(rule, "cooperative"), "topic.metadata.refresh.interval.ms": 500}
    ready(lab.start(entry, lambda message: runs.add(message.value), settings=settings))
    positions_known(lab, entry.name, retry_topic(entry))
    add_partitions(lab, entry, 3)
    for number in range(9):
        lab.send(entry, as_json(number), partition=number % 3)
    assert sorted(runs.wait(9)) == list(range(9))
    lab.caught_up(entry)


@pytest.mark.kafka
@pytest.mark.parametrize(("rule", "protocol"), [("latest", "cooperative"), ("error", "consumer")])
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("more", [True, False], ids=["more-comes", "nothing-comes"])
def test_a_retry_topic_whose_position_is_gone_goes_on_at_its_beginning(
    real_lab: Lab, rule: str, protocol: str, guarantee: Any, more: bool
) -> None:
    lab, runs = real_lab, Log()
    entry = Topic(
        lab.topic(partitions=1), retry=Retry(lab.topic("retry", 1)), dead_letter=lab.topic("dead", 1)
    )
    target = retry_topic(entry)
    job = wire.write_marks(wire.Marks(not_before_ms=1))
    client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group})
    client.commit(offsets=[TopicPartition(one, 0, 0) for one in (entry.name, target)], asynchronous=False)
    client.close()
    lab.fill(target, map(as_json, range(40)), headers=job, partition=0)
    admin = AdminClient({"bootstrap.servers": lab.servers})
    for deleted in admin.delete_records([TopicPartition(target, 0, 30)]).values():
        deleted.result(30)
    settings = with_rule(rule, protocol)
    consumer = lab.start(
        entry, lambda message: runs.add(message.value), settings=settings, guarantee=guarantee
    )
    if more:
        ready(consumer)
        lab.send(target, as_json(40), headers=job, partition=0)
    count = 11 if more else 10
    runs.wait(count)
    lab.caught_up(entry)
    assert sorted(runs.items) == list(range(30, 30 + count))


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_partition_that_was_added_while_nobody_ran_is_read_from_its_beginning(
    real_lab: Lab, protocol: str
) -> None:
    lab = real_lab
    entry, runs = lab.entry(partitions=1), Log()
    lab.send(entry, as_json("before"), partition=0)
    start = partial(
        lab.start, entry, lambda message: runs.add(message.value), settings=with_rule("latest", protocol)
    )
    first = start()
    positions_known(lab, entry.name)
    first.stop()
    assert first.join(60)
    add_partitions(lab, entry, 2)
    lab.send(entry, as_json("added"), partition=1)
    lab.send(entry, as_json("after"), partition=0)
    start()
    runs.wait(2)
    lab.caught_up(entry)
    assert sorted(runs.items) == ["added", "after"]


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_copies_that_come_while_the_owner_of_a_never_used_retry_partition_stops_are_run(
    lab: Lab, protocol: str
) -> None:
    """It had no record of that partition, and drains; what comes there meanwhile is its next owner's."""
    entry, runs, gate = lab.entry(partitions=4, max_attempts=2), Log(), Event()
    target = retry_topic(entry)

    def handler(message: Message[Any]) -> None:
        if message.value == "slow":
            runs.add("slow")
            gate.wait(60)
            return
        runs.add((message.value, message.attempt))
        if message.attempt == 1:
            raise ValueError

    settings = with_rule("latest", protocol)
    members = [lab.start(entry, handler, settings=settings) for _ in range(2)]

    def owned(member: Consumer, topic: str) -> list[int]:
        return [number for name, number in member.stats().partitions if name == topic]

    def all_owned() -> bool:
        return all(one.health().ready and len(one.stats().partitions) == 3 for one in members)

    wait_until(all_owned, 60, "each owns half of the partitions")
    positions_known(lab, entry.name)
    leaving = next(one for one in members if owned(one, target))
    (staying,) = (one for one in members if one is not leaving)
    never_used = owned(leaving, target)
    lab.send(entry, as_json("slow"), partition=owned(leaving, entry.name)[0])
    runs.wait(1, "under way")
    leaving.stop()
    for number in range(20):
        lab.send(entry, as_json(number), key=b"%d" % number, partition=owned(staying, entry.name)[0])
    wait_until(lambda: sum(end_offsets(lab.servers, target).values()) == 20, what="20 copies")
    assert any(end_offsets(lab.servers, target)[number] for number in never_used)
    gate.set()
    assert leaving.join(60)
    runs.wait(41)
    lab.caught_up(entry)
    assert set(runs) == {"slow"} | {(i, attempt) for i in range(20) for attempt in (1, 2)}
