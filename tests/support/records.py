"""Records in and out of topics, and what a group has committed, without the library under test.

Every function takes the bootstrap servers and works with real Kafka and with the mock cluster alike.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tests.support.waiting import WAIT, wait_until

__all__ = [
    "Commit",
    "Read",
    "committed",
    "each_record",
    "end_offsets",
    "group_lag",
    "group_size",
    "produce_many",
    "produce_one",
    "read_all",
]

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Read:
    """One record as it stands in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int

    def header(self, name: str) -> bytes | None:
        """The last header of that name; KeyError when there is none."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a group has committed for one partition."""

    offset: int
    metadata: str


@functools.lru_cache(maxsize=8)
def _admin(bootstrap_servers: str) -> AdminClient:
    # Kept, because these functions are called again and again while a test waits for something.
    return AdminClient(
        {"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 500, "log_level": 0}
    )


def _producer(bootstrap_servers: str, settings: Mapping[str, Any] | None) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "log_level": 0,
            **(settings or {}),
        }
    )


def produce_many(
    bootstrap_servers: str,
    topic: str,
    payloads: Iterable[bytes | None],
    *,
    keys: Iterable[bytes | None] | None = None,
    headers: Sequence[Header] = (),
    partition: int = -1,
    settings: Mapping[str, Any] | None = None,
    timeout: float = 120.0,
) -> int:
    """Produce one record for each payload, in order, and return their number once all were acknowledged.

    `keys` goes along the payloads; without it the records have none and spread over the partitions
    (`partition=-1`). Raises KafkaException for the first record that was refused, AssertionError after
    `timeout` seconds of flushing.
    """
    producer = _producer(bootstrap_servers, settings)
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    count = 0
    key_of = iter(keys) if keys is not None else None
    more: dict[str, Any] = {"headers": list(headers)} if headers else {}
    for payload in payloads:
        key = next(key_of) if key_of is not None else None
        while True:
            try:
                producer.produce(topic, payload, key=key, partition=partition, on_delivery=delivered, **more)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1000 == 0:
            producer.poll(0)
    left = producer.flush(timeout)
    if refused:
        raise KafkaException(refused[0])
    if left:
        raise AssertionError(f"{left} records for {topic} not acknowledged within {timeout:g} s")
    return count


def produce_one(
    bootstrap_servers: str,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    partition: int = -1,
    timestamp_ms: int = 0,
    settings: Mapping[str, Any] | None = None,
    timeout: float = WAIT,
) -> tuple[int, int]:
    """Produce one record and return its partition and offset; KafkaException when it is refused."""
    producer = _producer(bootstrap_servers, {"linger.ms": 0, **(settings or {})})
    answers: list[tuple[KafkaError | None, Message]] = []
    producer.produce(
        topic,
        value,
        key=key,
        partition=partition,
        timestamp=timestamp_ms,
        headers=list(headers),
        on_delivery=lambda error, message: answers.append((error, message)),
    )
    producer.flush(timeout)
    if not answers:
        raise AssertionError(f"a record for {topic} was not acknowledged within {timeout:g} s")
    error, message = answers[0]
    if error is not None:
        raise KafkaException(error)
    found, offset = message.partition(), message.offset()
    assert found is not None and offset is not None
    return found, offset


def read_all(
    bootstrap_servers: str,
    topic: str,
    *,
    settings: Mapping[str, Any] | None = None,
    timeout: float = 120.0,
) -> list[Read]:
    """Every committed record that the topic holds now, partition by partition, in the order of offsets.

    Reads as `read_committed`: aborted records are left out, and so is what lies behind an open transaction.
    No group is joined and nothing is committed.
    """
    found = list(each_record(bootstrap_servers, topic, settings=settings, timeout=timeout))
    return sorted(found, key=lambda one: (one.partition, one.offset))


def each_record(
    bootstrap_servers: str,
    topic: str,
    *,
    settings: Mapping[str, Any] | None = None,
    timeout: float = 120.0,
) -> Iterator[Read]:
    """The same one by one, each partition's in the order of offsets, the partitions mixed: for topics beyond memory."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests-read-all",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
            **(settings or {}),
        }
    )
    try:
        known = consumer.list_topics(topic, timeout=timeout).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        waiting = set(known.partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in waiting])
        while waiting:
            # The time-out is for one batch, not for the whole topic.
            batch = consumer.consume(1000, 0.05) or consumer.consume(1, timeout)
            if not batch:
                raise AssertionError(f"{topic} gave nothing for {timeout:g} s, partitions left: {waiting}")
            for message in batch:
                found = _take(message, waiting)
                if found is not None:
                    yield found
    finally:
        consumer.close()


def _take(message: Message, waiting: set[int]) -> Read | None:
    """The record, if it is one and not behind the end that was reported; what is at its end waits no more."""
    error = message.error()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    if error is not None:
        if error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        waiting.discard(partition)
    elif partition in waiting:
        headers = tuple(message.headers() or ())
        at = message.timestamp()[1]
        return Read(topic, partition, offset, message.key(), message.value(), headers, at)  # type: ignore[arg-type]
    return None


def committed(bootstrap_servers: str, group: str, topic: str) -> dict[int, Commit]:
    """What the group has committed, by partition; partitions without a commit are left out."""
    partitions = [TopicPartition(topic, one) for one in _partitions(_admin(bootstrap_servers), topic)]
    # A consumer that does not join. Not AdminClient.list_consumer_group_offsets: librdkafka 2.16 ends the process
    # (SIGSEGV in rd_kafka_cgrp_op) when the coordinator's answer to that is an error, as after a broker's pause.
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group})

    def answered() -> list[TopicPartition] | None:
        try:
            found = consumer.committed(partitions, WAIT)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.NOT_COORDINATOR:
                return None  # as a new cluster says once, while its topic of commits is being made
            raise
        return None if any(one.error is not None and one.error.retriable() for one in found) else found

    try:
        answer = wait_until(answered, what=f"a coordinator of group {group}") or []
    finally:
        consumer.close()
    return {
        one.partition: Commit(one.offset, one.metadata or "")
        for one in answer
        if one.error is None and one.offset >= 0
    }


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    known = admin.list_topics(topic, timeout=WAIT).topics[topic]
    if known.error is not None:
        raise KafkaException(known.error)
    return sorted(known.partitions)


def _offsets(bootstrap_servers: str, topic: str, spec: OffsetSpec) -> dict[int, int]:
    admin = _admin(bootstrap_servers)
    asked = {TopicPartition(topic, partition): spec for partition in _partitions(admin, topic)}
    answers = admin.list_offsets(asked, request_timeout=WAIT)
    return {one.partition: answer.result(WAIT).offset for one, answer in answers.items()}


def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The offset that the next record will get, by partition (transaction markers count)."""
    return _offsets(bootstrap_servers, topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def group_lag(bootstrap_servers: str, group: str, topic: str) -> int:
    """How many offsets lie between the group's commits (where it has none: the log's start) and the end."""
    ends = end_offsets(bootstrap_servers, topic)
    starts = _offsets(bootstrap_servers, topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    commits = committed(bootstrap_servers, group, topic)
    return sum(
        max(0, end - (commits[partition].offset if partition in commits else starts[partition]))
        for partition, end in ends.items()
    )


def group_size(bootstrap_servers: str, group: str) -> int:
    """How many members the group has; 0 for a group that does not exist. Real Kafka only."""
    answer = _admin(bootstrap_servers).describe_consumer_groups([group], request_timeout=WAIT)[group]
    try:
        return len(answer.result(WAIT).members)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.COORDINATOR_NOT_AVAILABLE):
            return 0
        raise
