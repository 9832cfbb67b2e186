"""Where the demo runs: the embedded broker, or a real cluster on which it makes its topics and deletes them again."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from retriable_kafka_client.brokers.client import admin_settings, consumer_settings, open_client
from retriable_kafka_client.cli.demo.scenario import DemoTopics
from retriable_kafka_client.cli.ending import Code, CommandFailed
from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire.headers import DEAD_ATTEMPTS, DEAD_ERROR, DEAD_REASON, ID, ORIGIN

__all__ = ["DeadLetter", "DemoCluster", "embedded", "look", "real"]

PARTITIONS = {"orders": 4, "retry": 2, "dead_letters": 1}
SECONDS = 15.0  # for the brokers to do what an administrator asks


@dataclass(frozen=True, slots=True)
class DemoCluster:
    """A cluster with the demo's topics."""

    cluster: Cluster
    names: DemoTopics
    title: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the dead-letter topic says of one message."""

    origin: str
    reason: str
    error: str
    attempts: int
    id: str


@contextmanager
def embedded() -> Iterator[DemoCluster]:
    """The mock cluster, in this process."""
    names = DemoTopics()
    topics = {getattr(names, role): count for role, count in PARTITIONS.items()}
    # It has no topic settings, and the library would warn of that.
    logging.getLogger("retriable_kafka_client.topics").setLevel(logging.ERROR)
    with MockKafka(topics) as kafka:
        yield DemoCluster(Cluster(kafka.bootstrap_servers), names, "the embedded broker")


@contextmanager
def real(bootstrap_servers: str) -> Iterator[DemoCluster]:
    """A real cluster. Raises CommandFailed when it cannot be used; deletes what it made, as far as it may."""
    from retriable_kafka_client.cli.connection import cluster_of  # costs 0.15 s, and only this needs it

    cluster = cluster_of(bootstrap_servers)
    health = cluster.check()
    if not health.ready:
        code = Code.FAILED if health.alive else Code.UNREACHABLE
        raise CommandFailed(code, "; ".join(health.reasons))
    prefix = f"rkc-demo-{secrets.token_hex(4)}"
    names = DemoTopics(f"{prefix}-orders", f"{prefix}-retry", f"{prefix}-dead-letters", prefix)
    admin = open_client(AdminClient, admin_settings(cluster))
    made = {getattr(names, role): count for role, count in PARTITIONS.items()}
    try:
        _create(admin, made)
        yield DemoCluster(cluster, names, bootstrap_servers)
    finally:
        _delete(admin, names, list(made))


def look(place: DemoCluster) -> tuple[int, list[DeadLetter]]:
    """Ask the brokers: how many records the group has not committed, and the dead letters."""
    names = place.names
    settings = consumer_settings(place.cluster, Limits(), names.group)
    consumer = open_client(KafkaConsumer, settings)
    try:
        lag = _lag(consumer, [names.orders, names.retry])
        return lag, _dead_letters(consumer, names.dead_letters)
    except KafkaException as error:
        raise CommandFailed(Code.FAILED, f"looking at the topics failed: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _lag(consumer: KafkaConsumer, topics: Sequence[str]) -> int:
    lag = 0
    known = consumer.list_topics(timeout=SECONDS).topics
    places = [TopicPartition(topic, partition) for topic in topics for partition in known[topic].partitions]
    for place in consumer.committed(places, timeout=SECONDS):
        low, high = consumer.get_watermark_offsets(place, timeout=SECONDS)
        lag += high - (place.offset if place.offset >= 0 else low)
    return lag


def _dead_letters(consumer: KafkaConsumer, topic: str) -> list[DeadLetter]:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
    consumer.assign([TopicPartition(topic, 0, low)])
    found: list[DeadLetter] = []
    deadline = time.monotonic() + SECONDS
    while low < high and time.monotonic() < deadline:
        record = consumer.poll(0.2)
        if record is None or record.error() is not None:
            continue
        low = (record.offset() or 0) + 1
        headers = dict(record.headers() or ())
        found.append(
            DeadLetter(
                origin=_text(headers.get(ORIGIN)),
                reason=_text(headers.get(DEAD_REASON)),
                error=_text(headers.get(DEAD_ERROR)),
                attempts=int.from_bytes(_bytes(headers.get(DEAD_ATTEMPTS))),
                id=_text(headers.get(ID)),
            )
        )
    return found


def _bytes(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _text(value: bytes | str | None) -> str:
    return _bytes(value).decode("utf-8", "replace")


def _create(admin: AdminClient, topics: dict[str, int]) -> None:
    try:
        for future in admin.create_topics([NewTopic(name, count) for name, count in topics.items()]).values():
            future.result(SECONDS)
    except KafkaException as error:
        raise CommandFailed(Code.FAILED, f"the topics could not be made: {error.args[0].str()}") from error
    _await(lambda: topics.keys() <= admin.list_topics(timeout=SECONDS).topics.keys())


def _await(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.1)


def _delete(admin: AdminClient, names: DemoTopics, topics: list[str]) -> None:
    log = logging.getLogger("retriable_kafka_client.cli")
    try:
        for future in admin.delete_topics(topics).values():
            future.result(SECONDS)
        for future in admin.delete_consumer_groups([names.group]).values():
            future.result(SECONDS)
    except KafkaException as error:
        log.warning("what the demo made could not all be deleted: %s", error.args[0].str())
