"""What is too large for its topic goes in chunks: real Kafka, which says what is too large."""

import asyncio
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from retriable_kafka_client import Cluster, DeliveryError, QueueFull
from retriable_kafka_client.producer.delivery import Delivery
from retriable_kafka_client.producer.producer import Producer
from retriable_kafka_client.sending.splitting import batch_bytes, room
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire import headers as wire
from tests.shell.chunked import random_bytes, sent, set_limit
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.names import Topics
from tests.support.processes import Program
from tests.support.waiting import WAIT, wait_until

NOWHERE = "127.0.0.1:1"
MIB = 1 << 20


@pytest.fixture
def producer(kafka: Kafka) -> Iterator[Producer]:
    with Producer(Cluster(kafka.bootstrap_servers), split=True) as producer:
        yield producer


def limited(topics: Topics, limit: int, partitions: int = 3, **settings: str) -> str:
    """A topic that takes batches of so many bytes."""
    config = {name.replace("_", "."): value for name, value in settings.items()}
    return topics("limited", partitions, {"max.message.bytes": str(limit)} | config)


def known(producer: Producer, topic: str) -> None:
    """Let the producer learn the topic's limit: from the second large value on it does not guess."""
    producer.send(topic, b"x" * 1_100_000).result(WAIT)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(("limit", "size"), [(10_000, 300_000), (100_000, 2_000_000), (1_048_588, 3_500_000)])
def test_a_large_value_goes_in_chunks_of_what_the_limit_leaves(
    kafka: Kafka, topics: Topics, limit: int, size: int, compression: str
) -> None:
    topic = limited(topics, limit)
    body = random_bytes(size)
    own = [("own", b"h" * 200), ("null", None), ("own", b"again")]
    cluster = Cluster(kafka.bootstrap_servers, settings={"compression.type": compression})
    with Producer(cluster, split=True) as producer:
        keyed = producer.send(topic, body, key="k", headers=own).result(WAIT)
        bare = producer.send(topic, memoryview(body), headers=own).result(WAIT)
        small = producer.send(topic, b"small", key="k").result(WAIT)
    one, two, three = sorted(
        sent(kafka.bootstrap_servers, topic), key=lambda it: (-it.records, it.key or b"")
    )[:3]
    assert (two.key, one.key, one.body, two.body) == (b"k", None, body, body)
    assert one.headers == two.headers == tuple(own)
    assert (three.body, three.records, three.marks.chunk) == (b"small", 1, None)
    # Where the client's own limit is not the lower one, the chunks are as large as the topic lets them be.
    bound = min(limit, 1_000_000)
    for message in (one, two):
        assert bound - 200 < message.largest <= limit
        assert message.records == -(-size // (bound - 500)) or message.records == -(-size // (bound - 700))
    assert keyed.partition == two.partition == small.partition
    assert bare.partition == one.partition
    assert (keyed.topic, keyed.timestamp is None) == (topic, False)


def test_what_just_fits_goes_whole(kafka: Kafka, topics: Topics, producer: Producer) -> None:
    topic = limited(topics, 20_000, 1)
    known(producer, topic)
    largest = room(20_000, 1_000_000, b"k", [("h", b"v")])
    for size in (largest, largest + 1):
        producer.send(topic, random_bytes(size), key=b"k", headers={"h": "v"}).result(WAIT)
    whole, split = sent(kafka.bootstrap_servers, topic)[1:]
    assert (whole.records, split.records) == (1, 2)
    assert whole.marks.chunk is None
    assert batch_bytes(largest, b"k", [("h", b"v")]) == 20_000


def test_the_first_large_value_waits_for_the_limit_and_is_not_refused(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 50_000)
    producer.send(topic, random_bytes(2_000_000)).result(WAIT)
    (message,) = sent(kafka.bootstrap_servers, topic)
    assert message.records == 41


def test_all_chunks_stand_where_the_partitioner_put_the_first(kafka: Kafka, topics: Topics) -> None:
    topic = limited(topics, 100_000, 8)
    cluster = Cluster(kafka.bootstrap_servers, settings={"partitioner": "random"})
    with Producer(cluster, split=True) as producer:
        futures = [producer.send(topic, random_bytes(800_000, b"%d" % i), key="k") for i in range(16)]
    messages = sent(kafka.bootstrap_servers, topic)
    assert {message.records for message in messages} == {9}
    assert len({message.partition for message in messages}) > 1
    assert sorted(future.result(0).partition for future in futures) == sorted(m.partition for m in messages)


def test_small_values_whose_batch_is_too_large_go_alone(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 10_000)
    futures = [producer.send(topic, random_bytes(900, b"%d" % i)) for i in range(200)]
    assert len({future.result(WAIT) for future in futures}) == 200
    found = sorted(message.body or b"" for message in sent(kafka.bootstrap_servers, topic))
    assert found == sorted(random_bytes(900, b"%d" % i) for i in range(200))


def test_a_limit_that_was_lowered_meanwhile_is_asked_for_again(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 500_000, 1)
    known(producer, topic)
    set_limit(kafka, topic, 100_000)
    body = random_bytes(400_000)
    producer.send(topic, body, key="whole").result(WAIT)
    producer.send(topic, body * 3, key="chunks").result(WAIT)
    _, first, second = sent(kafka.bootstrap_servers, topic, incomplete=True)
    assert (first.body, first.key, first.records) == (body, b"whole", 5)
    assert (second.body, second.key, second.records) == (body * 3, b"chunks", 13)


def test_headers_that_leave_no_room_are_refused_and_nothing_is_sent(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 10_000)
    known(producer, topic)
    future = producer.send(topic, random_bytes(50_000), headers={"large": b"h" * 9_800})
    with pytest.raises(DeliveryError, match="leave too little room") as caught:
        future.result(WAIT)
    assert (caught.value.code, caught.value.retriable) == ("MSG_SIZE_TOO_LARGE", False)
    assert len(sent(kafka.bootstrap_servers, topic)) == 1


def test_every_chunk_says_when_it_may_run(kafka: Kafka, topics: Topics, producer: Producer) -> None:
    topic = limited(topics, 100_000)
    producer.send(topic, random_bytes(500_000), delay=3600).result(WAIT)
    (message,) = sent(kafka.bootstrap_servers, topic)
    assert message.marks.not_before_ms is not None
    assert len({headers[wire.TIMESTAMP] for headers in message.every}) == 1
    assert all(headers[wire.TIMESTAMP] for headers in message.every)


def test_brokers_that_do_not_answer_for_a_while(own_kafka: Callable[..., KafkaCluster]) -> None:
    cluster = own_kafka()
    topic = cluster.create_topic("films", 2, {"max.message.bytes": "20000"})
    file = Watched(random_bytes(16_000_000))
    with Producer(Cluster(cluster.bootstrap_servers), split=True) as producer:
        future = producer.send(topic, file, key="film")
        wait_until(lambda: len(file.pieces) > 20)
        cluster.broker(1).pause()
        read = len(file.pieces)
        assert not future.done()
        cluster.broker(1).resume()
        future.result(60)
    assert read < len(file.pieces)
    (message,) = sent(cluster.bootstrap_servers, topic)
    assert message.body == file.getvalue()


def test_a_chunk_size_of_ones_own(kafka: Kafka, topics: Topics) -> None:
    topic = limited(topics, 50_000)
    with Producer(Cluster(kafka.bootstrap_servers), split=True, chunk_bytes=1000) as producer:
        producer.send(topic, b"x" * 1000).result(WAIT)
        producer.send(topic, b"y" * 1001).result(WAIT)
        producer.send(topic, {"json": "z" * 5000}).result(WAIT)
    counts = {(message.body or b"")[:1]: message.records for message in sent(kafka.bootstrap_servers, topic)}
    assert counts == {b"x": 1, b"y": 2, b"{": 6}


@pytest.fixture
def guarded() -> Iterator[KafkaCluster]:
    with KafkaCluster(acl=True) as cluster:
        yield cluster


@pytest.mark.kafka
def test_a_topic_that_may_not_be_described_is_found_out_by_halving(guarded: KafkaCluster) -> None:
    guarded.create_topic("closed", 1, {"max.message.bytes": "300000"})
    write = AclBinding(
        ResourceType.TOPIC,
        "closed",
        ResourcePatternType.LITERAL,
        "User:alice",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    for answer in guarded.admin().create_acls([write]).values():
        answer.result(30)
    cluster = Cluster(
        guarded.sasl_bootstrap_servers,
        username="alice",
        password="alice-password",
        security_protocol="SASL_PLAINTEXT",
    )
    body = random_bytes(2_000_000)
    with Producer(cluster, split=True) as producer:
        producer.send("closed", body, key="first").result(WAIT)
        producer.send("closed", body[:900_000], key="second").result(WAIT)
    first, second = sent(guarded.bootstrap_servers, "closed", incomplete=True)
    assert (first.body, first.records) == (body, 9)  # a quarter of a million bytes each
    assert (second.body, second.records) == (body[:900_000], 4)


# Files -----------------------------------------------------------------------------------------------------


class Watched(io.BytesIO):
    """Notes which pieces are read, and on which thread."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.pieces: list[int] = []
        self.threads: set[int] = set()

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.pieces.append(len(part))
        self.threads.add(threading.get_ident())
        return part


def test_a_file_is_read_piece_by_piece_and_not_by_the_sender(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 100_000)
    body = random_bytes(3_000_000)
    file = Watched(b"head" + body)
    file.seek(4)
    with tempfile.TemporaryFile() as other:
        other.write(body[:1_000_001])
        other.seek(0)
        futures = [producer.send(topic, file, key="watched"), producer.send(topic, other, key="real")]
        assert {future.result(WAIT).topic for future in futures} == {topic}
    found = {message.key: message.body for message in sent(kafka.bootstrap_servers, topic)}
    assert found == {b"watched": body, b"real": body[:1_000_001]}
    assert max(file.pieces) <= 100_000
    assert threading.get_ident() not in file.threads


def test_a_small_file_goes_whole(kafka: Kafka, topics: Topics, producer: Producer) -> None:
    topic = limited(topics, 100_000, 1)
    producer.send(topic, io.BytesIO(b"small")).result(WAIT)
    producer.send(topic, io.BytesIO(b"")).result(WAIT)
    producer.send(topic, None).result(WAIT)
    found = [(message.body, message.records) for message in sent(kafka.bootstrap_servers, topic)]
    assert found == [(b"small", 1), (b"", 1), (None, 1)]


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 1_000_000:
            raise OSError("no such disk any more")
        return super().read(size)


def test_a_file_that_fails_or_shrinks_fails_its_future_and_nothing_else(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 100_000)
    shrinking = io.BytesIO(bytes(2_000_000))
    gate = Gate(shrinking, 500_000)
    failing, cut, fine = (
        producer.send(topic, Failing(bytes(2_000_000))),
        producer.send(topic, gate),
        producer.send(topic, bytes(500_000)),
    )
    with pytest.raises(DeliveryError, match="could not be read: OSError") as caught:
        failing.result(WAIT)
    assert (caught.value.code, caught.value.retriable) == ("_FS", False)
    with pytest.raises(DeliveryError, match="ended before its 2000000 bytes"):
        cut.result(WAIT)
    assert fine.result(WAIT).topic == topic
    (message,) = sent(kafka.bootstrap_servers, topic, incomplete=True)
    assert message.body == bytes(500_000)


class Gate:
    """A file that is cut while it is read."""

    def __init__(self, file: io.BytesIO, place: int) -> None:
        self._file = file
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if self._file.tell() >= self._place:
            self._file.truncate(self._place)
        return self._file.read(size)

    def seek(self, *given: int) -> int:
        return self._file.seek(*given)


# Many at once, and the end ---------------------------------------------------------------------------------


def test_many_at_once_from_threads_and_coroutines(kafka: Kafka, topics: Topics, producer: Producer) -> None:
    topic = limited(topics, 100_000)
    bodies = {f"{i}".encode(): random_bytes(200_000 + 50_000 * i, b"%d" % i) for i in range(20)}

    async def some() -> None:
        await asyncio.gather(*(producer.asend(topic, bodies[key], key=key) for key in list(bodies)[10:]))

    def one(key: bytes) -> Future[Delivery]:
        return producer.send(topic, bodies[key], key=key)

    with ThreadPoolExecutor(4) as pool:
        futures = list(pool.map(one, list(bodies)[:10]))
        asyncio.run(some())
    assert producer.flush(WAIT) == 0
    assert all(future.done() for future in futures)
    found = {message.key: message.body for message in sent(kafka.bootstrap_servers, topic)}
    assert found == bodies


def test_asend_of_a_file_does_not_read_it_on_the_loop(
    kafka: Kafka, topics: Topics, producer: Producer
) -> None:
    topic = limited(topics, 100_000)
    file = Watched(random_bytes(1_500_000))
    delivery = asyncio.run(producer.asend(topic, file))
    assert delivery.topic == topic
    assert threading.get_ident() not in file.threads


def test_closing_waits_for_what_is_on_its_way(kafka: Kafka, topics: Topics) -> None:
    topic = limited(topics, 20_000)
    body = random_bytes(3_000_000)
    with Producer(Cluster(kafka.bootstrap_servers), split=True) as producer:
        future = producer.send(topic, body)
    assert future.done()
    assert sent(kafka.bootstrap_servers, topic)[0].body == body


def test_a_callback_may_send_flush_and_close(kafka: Kafka, topics: Topics) -> None:
    topic = limited(topics, 100_000)
    producer = Producer(Cluster(kafka.bootstrap_servers), split=True)
    left: list[object] = []

    def then(_done: Future[Delivery]) -> None:
        future = producer.send(topic, random_bytes(900_000, b"second"))
        left.append(producer.flush(WAIT))
        left.append(future.done())
        producer.close(WAIT)
        left.append("closed")

    producer.send(topic, random_bytes(1_200_000)).add_done_callback(then)
    wait_until(lambda: len(left) == 3)
    assert left == [0, True, "closed"]
    producer.close()
    assert len(sent(kafka.bootstrap_servers, topic)) == 2


def test_what_cannot_be_sent_is_settled_when_the_producer_closes() -> None:
    producer = Producer(Cluster(NOWHERE), split=True, queue_timeout=0.2)
    body = bytes(40 * MIB)
    futures = [producer.send("nowhere", body), producer.send("nowhere", b"small")]
    with pytest.raises(QueueFull):
        producer.send("nowhere", body)
    futures.append(producer.send("nowhere", io.BytesIO(body)))  # costs no memory of the producer's
    assert producer.flush(0.1) == 3
    producer.close(0.1)
    for future in futures:
        error = future.exception(0)
        assert isinstance(error, DeliveryError)
        assert (error.code, error.retriable) == ("_PURGE_QUEUE", True)


def test_the_mock_cluster_says_nothing_of_limits() -> None:
    with (
        MockKafka(topics={"orders": 2}) as mock,
        Producer(Cluster(mock.bootstrap_servers), split=True) as own,
    ):
        body = random_bytes(2_500_000)
        own.send("orders", body, key="k").result(WAIT)
        (message,) = sent(mock.bootstrap_servers, "orders")
    assert (message.body, message.records) == (body, 3)


@pytest.mark.parametrize(("kind", "share"), [("bytes", 1.2 + 1.0), ("file", 0.5)])
def test_memory(topics: Topics, kafka: Kafka, kind: str, share: float, tmp_path: Any) -> None:
    topic = limited(topics, 1_048_588, 1)
    size = 64 * MIB
    arguments = (kafka.bootstrap_servers, topic, kind, str(size))
    with Program("-m tests.shell.sending", *arguments, log=tmp_path / "log") as program:
        assert program.wait(120) == 0, program.output
        grown = int(program.output.split()[-1])
    assert grown <= share * size
    assert sum(message.records for message in sent(kafka.bootstrap_servers, topic)) > 60
