"""Topics that are unfit, go wrong, vanish and come back, on real Kafka."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from retriable_kafka_client import DISCARD, Cluster, Consumer, ConsumerFailed, Message, Reject, Retry, Topic
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, ready, settings_of
from tests.support.kafka import Kafka
from tests.support.ports import PortLease
from tests.support.records import committed, group_lag
from tests.support.waiting import WAIT, wait_until


def number_of(message: Message[Any]) -> int:
    return int(message.body or b"")


def fails_first(runs: Log) -> Callable[[Message[Any]], None]:
    def handler(m: Message[Any]) -> None:
        runs.add((number_of(m), m.attempt))
        if m.attempt == 1:
            raise ValueError

    return handler


def reason(consumer: Consumer, *words: str) -> bool:
    """Whether it is not ready for a reason that holds all the words."""
    health = consumer.health()
    return health.alive and not health.ready and any(all(w in one for w in words) for one in health.reasons)


# Topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["cooperative", "consumer"])
def test_a_deleted_retry_topic_holds_its_copies_until_it_is_back(
    real_lab: Lab, kafka: Kafka, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(max_attempts=3, delay=0.2)
    assert entry.retry and entry.retry.topic
    lab.fill(entry, [b"%d" % i for i in range(5)])
    consumer = lab.start(entry, fails_first(runs), settings=settings_of(protocol))
    runs.wait(10)
    lab.caught_up(entry)
    ready(consumer)
    kafka.delete_topic(entry.retry.topic)
    lab.fill(entry, [b"%d" % i for i in range(5, 45)])
    runs.wait(50)
    wait_until(
        lambda: reason(consumer, entry.retry.topic, "refuses copies"),  # type: ignore[union-attr,arg-type]
        what=repr(consumer.health()),
    )
    assert sum(one.offset for one in committed(lab.servers, lab.group, entry.name).values()) < 45
    kafka.create_topic(entry.retry.topic, 2)
    wait_until(lambda: {i for i, attempt in runs if attempt == 2} == set(range(45)), 60)
    lab.caught_up(entry)
    ready(consumer)
    counts = runs.counts()
    assert counts.keys() == {(i, a) for i in range(45) for a in (1, 2)}
    assert all(counts[i, 1] == 1 for i in range(45))
    # A classic client may read copies of the new topic before it is noticed that it is another one: these run again.
    assert max(counts.values()) <= 2
    assert {one.target for one in lab.events.of(ev.HandOffRefused)} == {entry.retry.topic}
    lines = [one.getMessage() for one in caplog.records if "refuses copies" in one.getMessage()]
    assert len(lines) == 1 and entry.retry.topic in lines[0]


def test_a_deleted_dead_letter_topic_holds_its_letters_until_it_is_back(
    real_lab: Lab, kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(retry=False)
    dead = str(entry.dead_letter)

    def refuse(m: Message[Any]) -> None:
        runs.add(number_of(m))
        raise Reject("not wanted")

    lab.fill(entry, [b"%d" % i for i in range(5)])
    consumer = lab.start(entry, refuse)
    lab.caught_up(entry)
    kafka.delete_topic(dead)
    lab.fill(entry, [b"%d" % i for i in range(5, 45)])
    runs.wait(45)
    wait_until(lambda: reason(consumer, dead, "refuses copies"), what=repr(consumer.health()))
    assert sum(one.offset for one in committed(lab.servers, lab.group, entry.name).values()) < 45
    kafka.create_topic(dead, 1)
    lab.caught_up(entry, timeout=60)
    ready(consumer)
    assert runs.counts() == dict.fromkeys(range(45), 1)
    assert {int(one.value or b"") for one in lab.read(dead)} >= set(range(5, 45))
    lines = [one.getMessage() for one in caplog.records if "refuses copies" in one.getMessage()]
    assert len(lines) == 1 and dead in lines[0]


@pytest.mark.parametrize("protocol", ["cooperative", "range", "consumer"])
def test_a_base_topic_made_anew_is_read_from_its_first_offset(
    real_lab: Lab, kafka: Kafka, protocol: str
) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(retry=False)
    lab.fill(entry, [b"%d" % i for i in range(100)])
    consumer = lab.start(entry, lambda m: runs.add((m.id, number_of(m))), settings=settings_of(protocol))
    runs.wait(100)
    lab.caught_up(entry)
    kafka.delete_topic(entry.name)
    kafka.create_topic(entry.name, 2)
    lab.fill(entry, [b"%d" % i for i in range(1000, 1300)])
    wait_until(lambda: {one.partition for one in lab.events.of(ev.TopicReset)} == {0, 1}, what="resets told")
    wait_until(lambda: {n for _, n in runs} == {*range(100), *range(1000, 1300)})
    lab.caught_up(entry)
    ready(consumer)
    # Before it is noticed, the classic client reads on where the old topic stood: these run again.
    counts = Counter(n for _, n in runs)
    assert max(counts.values()) <= 2 and all(counts[n] == 1 for n in range(100))
    assert len({name for name, _ in runs}) >= 400  # equal places, other ids
    consumer.stop()
    assert consumer.join(30)
    before = len(runs)
    again = lab.start(entry, lambda m: runs.add((m.id, number_of(m))), settings=settings_of(protocol))
    lab.send(entry, b"5000")
    runs.wait(before + 1)
    lab.caught_up(entry)
    assert again.stats().arrived == 1 and len(runs) == before + 1


def test_a_position_of_a_topic_that_is_gone_says_nothing_of_the_new_one(real_lab: Lab, kafka: Kafka) -> None:
    """A member that did not notice may commit it once more after the topic was made anew."""
    lab, runs = real_lab, Log()
    entry = lab.entry(retry=False)
    lab.fill(entry, [b"%d" % i for i in range(50)])
    with lab.consumer(entry, lambda m: runs.add(number_of(m))):
        runs.wait(50)
        lab.caught_up(entry)
    old = committed(lab.servers, lab.group, entry.name)
    kafka.delete_topic(entry.name)
    kafka.create_topic(entry.name, 2)
    lab.fill(entry, [b"%d" % i for i in range(1000, 1150)])
    client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group})
    client.commit(
        offsets=[TopicPartition(entry.name, n, one.offset, one.metadata) for n, one in old.items()],
        asynchronous=False,
    )
    client.close()
    lab.start(entry, lambda m: runs.add(number_of(m)))
    runs.wait(200)
    lab.caught_up(entry)
    assert sorted(runs) == [*range(50), *range(1000, 1150)]
    assert {one.partition for one in lab.events.of(ev.TopicReset)} == {0, 1}


def test_transaction_markers_leave_no_lag(real_lab: Lab) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry()
    producer = Producer({"bootstrap.servers": lab.servers, "transactional.id": entry.name, "linger.ms": 0})
    producer.init_transactions(30)
    consumer = lab.start(entry, lambda m: runs.add(number_of(m)))

    def transaction(first: int, end: Callable[[float], object]) -> None:
        producer.begin_transaction()
        for i in range(first, first + 10):
            producer.produce(entry.name, b"%d" % i, partition=i % 2)
        producer.flush(30)
        end(30)

    transaction(0, producer.commit_transaction)
    transaction(100, producer.abort_transaction)
    transaction(200, producer.commit_transaction)
    transaction(300, producer.abort_transaction)
    wanted = [*range(10), *range(200, 210)]
    runs.wait(20)
    lab.caught_up(entry)
    assert sorted(runs) == wanted
    consumer.stop()
    assert consumer.join(30)
    # Markers alone, with nobody there; and a partition that has never held anything else.
    transaction(400, producer.abort_transaction)
    assert group_lag(lab.servers, lab.group, entry.name) > 0
    lab.start(entry, lambda m: runs.add(number_of(m)))
    lab.caught_up(entry)
    assert sorted(runs) == wanted


def test_an_open_transaction_is_waited_for(real_lab: Lab) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry()
    producer = Producer({"bootstrap.servers": lab.servers, "transactional.id": entry.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(entry.name, b"1", partition=0)
    producer.flush(30)
    lab.send(entry, b"2", partition=0)
    lab.send(entry, b"3", partition=1)
    lab.start(entry, lambda m: runs.add(number_of(m)))
    runs.wait(1)
    assert runs.items == [3]
    producer.commit_transaction(30)
    runs.wait(3)
    assert sorted(runs) == [1, 2, 3]
    lab.caught_up(entry)


def test_records_that_are_deleted_under_it_are_passed_over(real_lab: Lab, kafka: Kafka) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(retry=False)
    lab.fill(entry, [b"%d" % i for i in range(50)], partition=0)
    with lab.consumer(entry, lambda m: runs.add(number_of(m))):
        runs.wait(50)
        lab.caught_up(entry)
    lab.fill(entry, [b"%d" % i for i in range(50, 100)], partition=0)
    asked = [TopicPartition(entry.name, 0, 80)]
    for answer in kafka.admin().delete_records(asked).values():
        answer.result(30)
    lab.start(entry, lambda m: runs.add(number_of(m)))
    runs.wait(70)
    lab.caught_up(entry)
    assert sorted(runs) == [*range(50), *range(80, 100)]


def test_a_copy_too_large_for_its_topic_is_held_and_harms_no_neighbour(
    real_lab: Lab, kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    lab, runs = real_lab, Log()
    entry = Topic(
        lab.topic(),
        retry=Retry(lab.topic("retry", 1, {"max.message.bytes": "2000"}), delay=0.1),
        dead_letter=lab.topic("dead"),
    )
    body = b'"' + b"x" * 20 + b'"'
    lab.fill(entry, [body] * 10, partition=0)
    lab.send(
        entry, body, partition=0, headers=[("own", b"y" * 3000)]
    )  # no chunk is small enough: each carries them
    lab.fill(entry, [body] * 19, partition=0)

    def handler(m: Message[Any]) -> None:
        runs.add((m.offset, m.attempt))
        if m.attempt == 1:
            raise ValueError

    consumer = lab.start(entry, handler)
    runs.wait(59)
    assert runs.counts() == {(i, a): 1 for i in range(30) for a in (1, 2) if (i, a) != (10, 2)}
    wait_until(lambda: reason(consumer, "refuses copies", "MSG_SIZE_TOO_LARGE"), what=repr(consumer.health()))
    wait_until(lambda: committed(lab.servers, lab.group, entry.name)[0].offset == 10)
    assert "yyy" not in caplog.text
    consumer.stop()
    assert consumer.join(20)  # it is given back unfinished
    assert committed(lab.servers, lab.group, entry.name)[0].offset == 10

    assert entry.retry and entry.retry.topic
    change = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, entry.retry.topic, incremental_configs=[change])
    kafka.admin().incremental_alter_configs([resource])[resource].result(30)
    again = lab.start(entry, handler)
    wait_until(lambda: (10, 2) in runs.items)
    lab.caught_up(entry)
    assert runs.counts()[10, 1] == 2 and again.stats().restored == 19


# At the start ----------------------------------------------------------------------------------------------------


UNFIT: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], tuple[str, ...]]] = {
    "compacted retry topic": ({"cleanup.policy": "compact"}, {}, ("retry", "cleanup.policy=delete")),
    "half compacted": ({"cleanup.policy": "compact,delete"}, {}, ("retry", "cleanup.policy=delete")),
    "compacted dead letters": ({}, {"cleanup.policy": "compact"}, ("dead-letter", "cleanup.policy=delete")),
    "short retention": ({"retention.ms": "60000"}, {}, ("retry", "60 s", "3600 s", "retention.ms=")),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_topic_that_does_not_keep_its_copies_is_refused(real_lab: Lab, case: str) -> None:
    lab, (retry, dead, words) = real_lab, UNFIT[case]
    entry = Topic(
        lab.topic(),
        retry=Retry(lab.topic("retry", 1, retry), delay=3600),
        dead_letter=lab.topic("dead", 1, dead),
    )
    with pytest.raises(ValueError, match=r"kafka-configs\.sh --bootstrap-server") as failure:
        lab.consumer(entry, print).run()
    for word in words:
        assert word in str(failure.value)


def test_topics_that_keep_enough_are_taken(real_lab: Lab) -> None:
    lab = real_lab
    entry = Topic(
        lab.topic(config={"cleanup.policy": "compact"}),
        retry=Retry(lab.topic("retry", 1, {"retention.ms": "7200000"}), delay=3600),
        dead_letter=lab.topic("dead", 1, {"retention.ms": "-1"}),
    )
    ready(lab.start(entry, print))


def test_a_topic_that_was_made_just_now_is_waited_for(
    real_lab: Lab, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriable_kafka_client.consumer.topic_checks.SPREADING_SECONDS", WAIT)
    name, runs = f"{real_lab.group}-late", Log()
    consumer = real_lab.start(Topic(name, dead_letter=DISCARD), lambda m: runs.add(m.value))
    assert not consumer.join(0.5)
    kafka.create_topic(name, 1)
    real_lab.send(Topic(name, dead_letter=DISCARD), b"1")
    runs.wait(1)


def test_brokers_that_cannot_be_reached_end_it_within_half_a_minute(free_port: int) -> None:
    def consumer() -> Consumer:
        return Consumer(
            Cluster(f"127.0.0.1:{free_port}"),
            group_id="nobody",
            topics=[Topic("orders", dead_letter=DISCARD)],
            handler=print,
        )

    waiting, stopped = consumer(), consumer()
    began = time.monotonic()
    waiting.start()
    stopped.start()
    stopped.stop()
    assert stopped.join(10)
    with pytest.raises(ConsumerFailed, match=f"127.0.0.1:{free_port}"):
        waiting.join(30)
    assert 5 < time.monotonic() - began < 30
    assert not waiting.health().alive


@pytest.fixture
def free_port() -> Iterator[int]:
    lease = PortLease(1)
    yield lease.ports[0]
    lease.close()
