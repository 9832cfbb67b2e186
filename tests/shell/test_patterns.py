"""Topics by pattern: those that are there, those that appear later, those that go, and those that must not be read."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, ConfigError, Message, Retry, Topic
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log, as_json, raiser, settings_of
from tests.support.kafka import Kafka
from tests.support.names import unique
from tests.support.records import committed
from tests.support.waiting import wait_until

# The client asks for the topics of the cluster so often.
SOON = {"topic.metadata.refresh.interval.ms": 200}


class Family:
    """Topics whose names begin alike, so that a pattern means them and no other test's."""

    def __init__(self, lab: Lab, kafka: Any) -> None:
        self.lab = lab
        self.start = unique(lab.test[:60])
        self._kafka = kafka

    def topic(self, label: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        name = f"{self.start}-{label}"
        self._kafka.create_topic(name, partitions, *([config] if config else []))
        return name

    def pattern(self, rest: str) -> str:
        return f"^{self.start}-{rest}"


@pytest.fixture
def family(lab: Lab, request: pytest.FixtureRequest) -> Family:
    return Family(lab, request.getfixturevalue("kafka" if lab.real else "shared_mock"))


@pytest.fixture
def real_family(real_lab: Lab, kafka: Kafka) -> Family:
    return Family(real_lab, kafka)


def quick(protocol: str) -> dict[str, Any]:
    return settings_of(protocol) | SOON


def positions(lab: Lab, topic: str) -> list[int]:
    """What the group has committed of the topic's partitions."""
    return [one.offset for one in committed(lab.servers, lab.group, topic).values()]


def test_a_pattern_takes_in_what_is_there_and_what_appears(family: Family) -> None:
    lab, runs = family.lab, Log()
    entry = Topic(
        family.pattern("orders-[a-z]+"),
        retry=Retry(family.topic("retry"), delay=0.05, max_attempts=3),
        dead_letter=family.topic("dead"),
    )
    there, odd = family.topic("orders-eu", 2), family.topic("orders-1")
    lab.send(there, b"1")
    lab.send(odd, b"0")

    def handler(m: Message[Any]) -> None:
        runs.add((m.topic, m.value, m.attempt))
        if m.attempt < m.value:
            raise ValueError

    consumer = lab.start(entry, handler, settings=quick("classic"))
    runs.wait(1)
    later = family.topic("orders-us", 2)
    for value in (1, 2, 3):
        lab.send(later, as_json(value))
    runs.wait(7, timeout=60)
    wait_until(lambda: consumer.stats().retried == 3 and consumer.stats().handled == 4)
    wanted = {(there, 1, 1)} | {(later, value, n) for value in (1, 2, 3) for n in range(1, value + 1)}
    assert set(runs) == wanted and len(runs) == len(wanted)
    wait_until(lambda: sum(positions(lab, later)) == 3)
    assert consumer.health().ready, consumer.health()


def test_without_any_topic_it_is_ready_and_waits(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    lab, runs = family.lab, Log()
    entry = Topic(family.pattern("orders-.*"), dead_letter=DISCARD)
    with caplog.at_level(logging.WARNING):
        consumer = lab.start(entry, lambda m: runs.add(m.value), settings=quick("classic"))
        wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))
    (line,) = [one.getMessage() for one in caplog.records if "no topic matches" in one.getMessage()]
    assert entry.name in line
    lab.send(family.topic("orders-new"), b"5")
    assert runs.wait(1, timeout=60) == [5]
    consumer.stop()
    assert consumer.join(30)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_copies_go_back_to_the_retry_topic_that_they_came_from(family: Family) -> None:
    lab, runs = family.lab, Log()
    base, retry_a, retry_b = family.topic("orders"), family.topic("retry-a"), family.topic("retry-b")
    dead = family.topic("dead")
    entry = Topic(base, retry=Retry(family.pattern("retry-.*"), delay=0.05, max_attempts=3), dead_letter=dead)

    def handler(m: Message[Any]) -> None:
        runs.add((m.record.topic, m.value, m.attempt))
        raise ValueError

    for index, topic in enumerate((base, retry_a, retry_b)):
        lab.send(topic, as_json(index))
    lab.start(entry, handler, settings=quick("classic"))
    letters = lab.dead(entry, 3, 60)
    assert runs.counts() == {(base, 0, 1): 1} | {
        (topic, value, n): 1 for value, topic in ((1, retry_a), (2, retry_b)) for n in (1, 2, 3)
    }
    assert {(one.value, one.header(wire.DEAD_REASON)) for one in letters} == {
        (as_json(value), b"exhausted") for value in range(3)
    }
    (event,) = lab.events.of(ev.NoRetryTopic)
    assert (event.topic, event.attempt) == (base, 1)


def test_retries_of_topics_by_pattern_find_their_entry_by_origin(family: Family) -> None:
    lab, runs = family.lab, Log()
    retry, dead = family.topic("retry"), family.topic("dead")
    quickly = Retry(retry, delay=0.05, max_attempts=2)
    patient = Retry(retry, delay=0.05, max_attempts=3)
    entries = [
        Topic(family.pattern("a-.*"), retry=quickly, dead_letter=dead),
        Topic(family.pattern("b-.*"), retry=patient, dead_letter=dead),
    ]
    topics = [family.topic(name) for name in ("a-1", "a-2", "b-1", "b-2")]
    for topic in topics:
        lab.send(topic, b"1")

    def handler(m: Message[Any]) -> None:
        runs.add((m.topic, m.attempt))
        raise ValueError

    lab.start(entries, handler, settings=quick("classic"))
    lab.dead(entries[0], 4, 60)
    assert runs.counts() == {(topic, n): 1 for topic in topics for n in range(1, 3 + ("-b-" in topic))}


# Real Kafka: both protocols, topics that go, and what is refused ---------------------------------------------------


@pytest.mark.parametrize("protocol", ["classic", "range", "consumer"])
def test_the_pattern_means_the_same_in_each_protocol(real_family: Family, protocol: str) -> None:
    family, lab, runs = real_family, real_family.lab, Log()
    names = ["orders", "orders-eu", "reorders", "bills", "bills-late"]
    for name in names:
        lab.send(family.topic(name), as_json(name))
    entry = Topic(family.pattern("orders") + "|" + family.pattern("bills$"), dead_letter=DISCARD)
    lab.start(entry, lambda m: runs.add(m.value), settings=quick(protocol))
    runs.wait(3)
    lab.send(family.topic("orders-later"), as_json("orders-later"))
    runs.wait(4, timeout=60)
    assert sorted(runs) == ["bills", "orders", "orders-eu", "orders-later"]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_topic_that_goes_and_comes_again(real_family: Family, kafka: Kafka, protocol: str) -> None:
    family, lab, runs = real_family, real_family.lab, Log()
    keeps, goes = family.topic("orders-a"), family.topic("orders-b")
    entry = Topic(family.pattern("orders-.*"), dead_letter=DISCARD)
    consumer = lab.start(entry, lambda m: runs.add((m.topic, m.value)), settings=quick(protocol))
    lab.send(goes, b"1")
    runs.wait(1)
    wait_until(lambda: positions(lab, goes) == [1])
    kafka.delete_topic(goes)
    wait_until(lambda: (goes, 0) not in consumer.stats().partitions, 60, "it is given away")
    lab.send(keeps, b"2")
    runs.wait(2)
    wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))
    assert family.topic("orders-b") == goes
    lab.send(goes, b"3")
    runs.wait(3, timeout=60)
    assert sorted(runs) == [(keeps, 2), (goes, 1), (goes, 3)]
    wait_until(lambda: positions(lab, goes) == [1])
    wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(real_family: Family, kafka: Kafka) -> None:
    family, lab, runs = real_family, real_family.lab, Log()
    name = family.topic("orders-a")
    entry = Topic(family.pattern("orders-.*"), dead_letter=DISCARD)
    # The client hears of the topics so seldom that nothing but the new id tells.
    settings = settings_of("classic") | {"topic.metadata.refresh.interval.ms": 60_000}
    consumer = lab.start(entry, lambda m: runs.add((m.value, m.id)), settings=settings)
    lab.fill(name, [b"1", b"2", b"3"])
    runs.wait(3)
    wait_until(lambda: positions(lab, name) == [3])
    kafka.delete_topic(name)
    assert family.topic("orders-a") == name
    lab.fill(name, [b"4", b"5", b"6", b"7"])
    wait_until(lambda: len({value for value, _ in runs}) == 7, 90)
    # What the old client read at its old position, before the new id was known, runs again.
    assert {value for value, _ in runs} == {1, 2, 3, 4, 5, 6, 7}
    assert len({identity for _, identity in runs}) == len(runs)
    wait_until(lambda: positions(lab, name) == [4])
    wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))


def test_a_topic_that_two_patterns_take_in_is_not_read(
    real_family: Family, caplog: pytest.LogCaptureFixture
) -> None:
    family, lab, runs = real_family, real_family.lab, Log()
    good = family.topic("orders-us")
    entries = [
        Topic(family.pattern("orders-.*"), dead_letter=DISCARD),
        Topic(family.pattern(".*-eu"), dead_letter=DISCARD),
    ]
    consumer = lab.start(entries, lambda m: runs.add(m.value), settings=quick("classic"))
    lab.send(good, b"1")
    runs.wait(1)
    unclear = family.topic("orders-eu", 2)
    lab.send(unclear, b"2")
    wait_until(lambda: any(unclear in one for one in consumer.health().reasons), 60)
    lab.send(good, b"3")
    runs.wait(2)
    assert sorted(runs) == [1, 3]
    health = consumer.health()
    assert health.alive and not health.ready
    (reason,) = health.reasons
    assert "is not read" in reason and "make the patterns narrower" in reason
    lines = [one for one in caplog.records if one.levelno == logging.ERROR and unclear in one.getMessage()]
    assert len(lines) == 1 and {one.topic for one in lab.events.of(ev.TopicUnclear)} == {unclear}
    consumer.stop()
    assert consumer.join(30)
    assert positions(lab, unclear) == []
    # Narrowed, the patterns bring it.
    entries[0] = Topic(family.pattern("orders-us"), dead_letter=DISCARD)
    lab.start(entries, lambda m: runs.add(m.value), settings=quick("classic"))
    runs.wait(3)
    assert sorted(runs) == [1, 2, 3]


REFUSED: dict[str, tuple[Callable[[Family], list[Topic]], str, str]] = {
    "two patterns take in one topic": (
        lambda f: [
            Topic(f.pattern("orders-.*"), dead_letter=DISCARD),
            Topic(f.pattern(".*-eu"), dead_letter=DISCARD),
        ],
        "Topic.name",
        "which entry is to handle it cannot be told; make the patterns narrower",
    ),
    "a pattern and a retry pattern take in one topic": (
        lambda f: [
            Topic(f.pattern("orders-.*"), retry=Retry(f.pattern(".*-eu")), dead_letter=DISCARD),
        ],
        "Topic.name",
        "its copies would run as new messages; make the pattern narrower",
    ),
    "a retry topic by pattern that compacts": (
        lambda f: [
            Topic(f.topic("a"), retry=Retry(f.pattern("compact")), dead_letter=DISCARD),
        ],
        "retry topic",
        "cleanup.policy=delete",
    ),
    "a retry topic by pattern that keeps too short": (
        lambda f: [
            Topic(f.topic("a"), retry=Retry(f.pattern("short"), delay=3600), dead_letter=DISCARD),
        ],
        "retry topic",
        "retention.ms=",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_clusters_topics_show_is_refused_at_the_start(real_family: Family, name: str) -> None:
    family, (make, field, remedy) = real_family, REFUSED[name]
    family.topic("orders-eu")
    family.topic("compacts", 1, {"cleanup.policy": "compact"})
    family.topic("short", 1, {"retention.ms": "60000"})
    consumer = family.lab.consumer(make(family), raiser(ValueError))
    with pytest.raises(ConfigError) as failure:
        consumer.run(signals=False)
    assert failure.value.field == field and remedy in str(failure.value)
