import asyncio
import gc
import io
import logging
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from datetime import UTC, datetime, timedelta
from mmap import mmap
from typing import Any

import pytest
from confluent_kafka import KafkaError

from retriable_kafka_client.config import Cluster
from retriable_kafka_client.errors import YEAR, ConfigError, DeliveryError, QueueFull, RetriableKafkaError
from retriable_kafka_client.message import STDLIB_JSON
from retriable_kafka_client.producer.delivery import Delivery
from retriable_kafka_client.producer.producer import Producer
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import read_marks
from tests.support.kafka import Kafka
from tests.support.names import unique
from tests.support.records import Read, read_all
from tests.support.waiting import wait_until

WAIT = 30.0
NOWHERE = "127.0.0.1:1"  # nobody listens on it


@pytest.fixture
def producer(mock: MockKafka) -> Iterator[Producer]:
    with Producer(Cluster(mock.bootstrap_servers)) as producer:
        yield producer


def sent(mock: MockKafka, topic: str) -> list[Read]:
    return read_all(mock.bootstrap_servers, topic)


# What goes on the wire -------------------------------------------------------------------------------------


def test_a_record_is_acknowledged_where_it_stands(mock: MockKafka, producer: Producer, orders: str) -> None:
    first = producer.send(orders, {"id": 1}, key="k", headers={"h": "v"}).result(WAIT)
    second = producer.send(orders, {"id": 2}).result(WAIT)
    assert (first.topic, first.partition, first.offset, second.offset) == (orders, 0, 0, 1)
    one, two = sent(mock, orders)
    assert (one.value, one.key, list(one.headers)) == (b'{"id":1}', b"k", [("h", b"v")])
    assert (two.value, two.key, list(two.headers)) == (b'{"id":2}', None, [])


def mapped(body: bytes) -> mmap:
    made = mmap(-1, len(body))
    made.write(body)
    made.seek(0)
    return made


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw")[1:], b"aw"),
        (array("h", [1, 2]), array("h", [1, 2]).tobytes()),
        (mapped(b"raw"), b"raw"),
        (b"", b""),
        (None, None),
        ("text", b'"text"'),
        (0, b"0"),
        ({}, b"{}"),
        ([1, None], b"[1,null]"),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, memoryview) else repr(given),
)
def test_bytes_go_as_they_are_and_the_rest_as_json(
    mock: MockKafka, producer: Producer, orders: str, value: object, body: bytes | None
) -> None:
    producer.send(orders, value).result(WAIT)
    assert [one.value for one in sent(mock, orders)] == [body]


def test_files_are_read_from_where_they_stand(mock: MockKafka, producer: Producer, orders: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"head body")
        file.seek(5)
        producer.send(orders, file).result(WAIT)
    producer.send(orders, io.BytesIO(b"other")).result(WAIT)
    assert [one.value for one in sent(mock, orders)] == [b"body", b"other"]


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("file", [io.StringIO("text"), Pipe(b"x")], ids=["text", "not-seekable"])
def test_other_files_are_refused(producer: Producer, orders: str, file: object) -> None:
    with pytest.raises(ConfigError, match=r"Producer\.send\.value"):
        producer.send(orders, file)


def test_a_serializer_of_ones_own(mock: MockKafka, orders: str) -> None:
    with Producer(Cluster(mock.bootstrap_servers), serializer=lambda value: repr(value).encode()) as own:
        own.send(orders, {1, 2}).result(WAIT)
        own.send(orders, b"raw").result(WAIT)
    with Producer(Cluster(mock.bootstrap_servers), serializer=STDLIB_JSON) as stdlib:
        stdlib.send(orders, float("nan")).result(WAIT)
    assert [one.value for one in sent(mock, orders)] == [b"{1, 2}", b"raw", b"NaN"]


def test_a_serializers_trouble_is_the_senders(mock: MockKafka, producer: Producer, orders: str) -> None:
    with pytest.raises(TypeError):
        producer.send(orders, object())
    with Producer(Cluster(mock.bootstrap_servers), serializer=str) as wrong:  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"Producer\.serializer") as caught:
            wrong.send(orders, 4711)
        assert "4711" not in str(caught.value)
    assert sent(mock, orders) == []


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ({"a": "ä", "b": b"\xff", "c": None}, [("a", "ä".encode()), ("b", b"\xff"), ("c", None)]),
        ([("a", "1"), ("a", bytearray(b"2"))], [("a", b"1"), ("a", b"2")]),
        (iter([("a", memoryview(b"1"))]), [("a", b"1")]),
        ((), []),
    ],
)
def test_headers_are_a_mapping_or_pairs(
    mock: MockKafka, producer: Producer, orders: str, headers: Any, read: list[tuple[str, bytes | None]]
) -> None:
    producer.send(orders, None, headers=headers).result(WAIT)
    assert list(sent(mock, orders)[0].headers) == read


@pytest.mark.parametrize(
    "headers",
    [
        {wire.ATTEMPT: b"1"},
        {"retriable_kafka_": b""},
        [("retriable_kafka_mine", "x")],
        {5: b"x"},
        {"n": 5},
        {"a\0b": b"x"},
        {"\ud800": b"x"},
        [("n",)],
        [5],
        ["ab", "c"],
    ],
)
def test_header_names_of_the_library_and_what_is_no_header_are_value_errors(
    producer: Producer, orders: str, headers: Any
) -> None:
    with pytest.raises(ValueError, match=r"Producer\.send\.headers"):
        producer.send(orders, None, headers=headers)


@pytest.mark.parametrize(
    ("key", "read"),
    [("ä", "ä".encode()), (b"\xff", b"\xff"), (bytearray(b"k"), b"k"), ("", b""), (None, None)],
)
def test_keys(mock: MockKafka, producer: Producer, orders: str, key: Any, read: bytes | None) -> None:
    producer.send(orders, None, key=key).result(WAIT)
    assert sent(mock, orders)[0].key == read


@pytest.mark.parametrize("topic", ["", "a b", "^a", None, 5, b"orders"])
def test_topics_are_checked(producer: Producer, topic: Any) -> None:
    with pytest.raises(ConfigError, match=r"Producer\.send\.topic"):
        producer.send(topic, None)


def test_keys_are_checked(producer: Producer, orders: str) -> None:
    with pytest.raises(ConfigError, match=r"Producer\.send\.key"):
        producer.send(orders, None, key=5)  # type: ignore[arg-type]


# Scheduled jobs --------------------------------------------------------------------------------------------


def test_a_delay_is_counted_from_now_and_never_early(
    mock: MockKafka, producer: Producer, orders: str
) -> None:
    before = time.time()
    producer.send(orders, None, delay=timedelta(minutes=1), headers={"own": "x"}).result(WAIT)
    after = time.time()
    headers = sent(mock, orders)[0].headers
    due = read_marks(list(headers)).not_before_ms
    assert due is not None
    assert before + 60 <= due / 1000 <= after + 60.002
    assert headers[0] == ("own", b"x")


def test_an_instant_is_kept_to_the_millisecond_and_rounded_up(
    mock: MockKafka, producer: Producer, orders: str
) -> None:
    whole = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    for microsecond in (0, 1, 999, 1000, 999_999):
        producer.send(orders, None, not_before=whole.replace(microsecond=microsecond)).result(WAIT)
    base = int(whole.timestamp()) * 1000
    due = [read_marks(list(one.headers)).not_before_ms for one in sent(mock, orders)]
    assert due == [base, base + 1, base + 1, base + 1, base + 1000]
    seconds = [int.from_bytes(dict(one.headers)[wire.TIMESTAMP] or b"") * 1000 for one in sent(mock, orders)]
    assert seconds == [base, *[base + 1000] * 4]


@pytest.mark.parametrize(
    "schedule",
    [
        {"delay": 0},
        {"not_before": datetime(2020, 1, 1, tzinfo=UTC)},
        {"not_before": datetime.min.replace(tzinfo=UTC)},
    ],
)
def test_what_is_due_already_carries_no_header(
    mock: MockKafka, producer: Producer, orders: str, schedule: dict[str, Any]
) -> None:
    producer.send(orders, None, **schedule).result(WAIT)
    assert list(sent(mock, orders)[0].headers) == []


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": YEAR + 1}, "delay"),
        ({"delay": True}, "delay"),
        ({"not_before": datetime(2030, 1, 1)}, "not_before"),  # noqa: DTZ001
        ({"not_before": datetime.now(UTC) + timedelta(days=366)}, "not_before"),
        ({"not_before": datetime.max.replace(tzinfo=UTC)}, "not_before"),
        ({"not_before": 1_700_000_000}, "not_before"),
        ({"not_before": datetime.now(UTC), "delay": 1}, "not_before"),
    ],
)
def test_wrong_schedules_are_refused(
    producer: Producer, orders: str, schedule: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValueError, match=rf"Producer\.send\.{field}"):
        producer.send(orders, None, **schedule)


# Futures and failures --------------------------------------------------------------------------------------


def test_futures_work_like_any_other(producer: Producer, orders: str) -> None:
    futures = [producer.send(orders, number) for number in range(100)]
    called: list[Future[Delivery]] = []
    futures[0].add_done_callback(called.append)
    assert not futures[0].cancel()
    offsets = [future.result(WAIT).offset for future in as_completed(futures, WAIT)]
    assert sorted(offsets) == list(range(100))
    wait_until(lambda: called == [futures[0]], what="the callback ran")
    assert futures[1].exception(WAIT) is None


def test_records_keep_their_order(mock: MockKafka, producer: Producer, orders: str) -> None:
    futures = [producer.send(orders, number) for number in range(5000)]
    assert producer.flush(WAIT) == 0
    assert all(future.done() for future in futures)
    assert [int(one.value or b"") for one in sent(mock, orders)] == list(range(5000))


def test_a_record_that_is_refused_fails_its_future(producer: Producer, orders: str) -> None:
    future = producer.send(orders, b"x" * 2_000_000)
    with pytest.raises(DeliveryError) as caught:
        future.result(WAIT)
    assert (caught.value.code, caught.value.retriable) == ("MSG_SIZE_TOO_LARGE", False)
    assert producer.send(orders, b"x").result(WAIT).offset == 0


def test_a_topic_that_refuses_fails_the_future(mock: MockKafka, producer: Producer, orders: str) -> None:
    mock.set_topic_error(orders, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(DeliveryError) as caught:
        producer.send(orders, b"x").result(WAIT)
    assert (caught.value.code, caught.value.retriable, caught.value.topic) == (
        "TOPIC_AUTHORIZATION_FAILED",
        False,
        orders,
    )


def unread_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "nobody read" in one.getMessage()]


def test_a_failure_that_nobody_reads_is_logged_once_and_without_its_payload(
    producer: Producer, orders: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        producer.send(orders, b"payload" * 1_000_000)
    gc.collect()
    wait_until(lambda: unread_lines(caplog), what="the failure is logged")
    producer.close()
    lines = unread_lines(caplog)
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines) == 3
    assert all(orders in line and "MSG_SIZE_TOO_LARGE" in line and "payload" not in line for line in lines)


def test_a_failure_that_is_kept_but_not_read_is_logged_at_close(
    producer: Producer, orders: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = producer.send(orders, b"x" * 2_000_000)
    assert unread_lines(caplog) == []
    producer.close()
    assert len(unread_lines(caplog)) == 1
    assert kept.done()
    del kept
    gc.collect()
    assert len(unread_lines(caplog)) == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda future: future.exception(WAIT),
        lambda future: future.add_done_callback(lambda done: None),
    ],
    ids=["exception", "callback"],
)
def test_a_failure_that_was_read_is_not_logged(
    producer: Producer, orders: str, caplog: pytest.LogCaptureFixture, look: Callable[[Any], object]
) -> None:
    look(producer.send(orders, b"x" * 2_000_000))
    producer.send(orders, b"x").result(WAIT)
    gc.collect()
    producer.close()
    assert unread_lines(caplog) == []


# The full queue --------------------------------------------------------------------------------------------


def fill(producer: Producer) -> None:
    """Fill the queue of a producer that reaches nobody."""
    for _ in range(1000):
        try:
            producer.send("orders", b"x" * 900_000)
        except QueueFull:
            return
    raise AssertionError("the queue took 900 MB")


def test_a_full_queue_waits_and_then_says_so() -> None:
    producer = Producer(Cluster(NOWHERE), queue_timeout=0.3)
    fill(producer)
    begin = time.monotonic()
    with pytest.raises(QueueFull, match="'orders'") as caught:
        producer.send("orders", b"x" * 900_000)
    assert 0.25 < time.monotonic() - begin < 5
    assert caught.value.waited == 0.3
    producer.close(0)


def test_a_queue_that_empties_takes_more(mock: MockKafka, orders: str) -> None:
    with Producer(Cluster(mock.bootstrap_servers), queue_timeout=WAIT) as producer:
        futures = [producer.send(orders, b"x" * 900_000) for _ in range(150)]
        assert {future.result(WAIT).topic for future in futures} == {orders}


def test_asend_waits_for_room_without_blocking_the_loop() -> None:
    producer = Producer(Cluster(NOWHERE), queue_timeout=0.5)
    fill(producer)
    begin = time.monotonic()
    turns = 0

    async def send_and_count() -> list[BaseException | Delivery]:
        nonlocal turns
        waiting = [asyncio.ensure_future(producer.asend("orders", b"x" * 900_000)) for _ in range(20)]
        while not all(task.done() for task in waiting):
            turns += 1
            await asyncio.sleep(0.01)
        return await asyncio.gather(*waiting, return_exceptions=True)

    outcomes = asyncio.run(send_and_count())
    assert {type(outcome) for outcome in outcomes} == {QueueFull}
    assert time.monotonic() - begin < 5
    assert turns > 10
    producer.close(0)


# asend -----------------------------------------------------------------------------------------------------


def test_asend_returns_what_was_acknowledged(mock: MockKafka, producer: Producer, orders: str) -> None:
    async def send_many() -> list[Delivery]:
        return await asyncio.gather(*[producer.asend(orders, number, key="k") for number in range(1000)])

    deliveries = asyncio.run(send_many())
    assert [delivery.offset for delivery in deliveries] == list(range(1000))
    assert [int(one.value or b"") for one in sent(mock, orders)] == list(range(1000))
    # Another loop, the same producer.
    assert asyncio.run(send_many())[0].offset == 1000


def test_asend_keeps_the_order_of_those_who_wait_for_room(mock: MockKafka, orders: str) -> None:
    async def send_many(producer: Producer) -> list[Delivery]:
        return await asyncio.gather(*[producer.asend(orders, b"x" * 900_000) for _ in range(150)])

    with Producer(Cluster(mock.bootstrap_servers), queue_timeout=WAIT) as producer:
        deliveries = asyncio.run(send_many(producer))
    assert [delivery.offset for delivery in deliveries] == list(range(150))


def test_asend_raises_what_send_raises(producer: Producer, orders: str) -> None:
    with pytest.raises(DeliveryError, match="MSG_SIZE_TOO_LARGE"):
        asyncio.run(producer.asend(orders, b"x" * 2_000_000))
    with pytest.raises(ValueError, match="headers"):
        asyncio.run(producer.asend(orders, b"x", headers={wire.ATTEMPT: b"1"}))


def test_asend_takes_files_headers_and_schedules(mock: MockKafka, producer: Producer, orders: str) -> None:
    async def send() -> None:
        await producer.asend(orders, io.BytesIO(b"file"), headers={"h": "v"}, delay=60)

    asyncio.run(send())
    one = sent(mock, orders)[0]
    assert one.value == b"file"
    assert read_marks(list(one.headers)).not_before_ms is not None


def test_a_cancelled_asend_does_no_harm(mock: MockKafka, producer: Producer, orders: str) -> None:
    async def send_and_cancel() -> Delivery:
        task = asyncio.ensure_future(producer.asend(orders, b"cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await producer.asend(orders, b"next")

    assert asyncio.run(send_and_cancel()).offset == 1
    assert [one.value for one in sent(mock, orders)] == [b"cancelled", b"next"]


def test_a_loop_that_ended_meanwhile_does_no_harm(producer: Producer, orders: str) -> None:
    async def give_up() -> None:
        asyncio.ensure_future(producer.asend(orders, b"x"))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)

    asyncio.run(give_up())
    assert producer.flush(WAIT) == 0
    assert producer.send(orders, b"y").result(WAIT).offset == 1


# Life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"split": 1}, "Producer.split"),
        ({"split": True, "chunk_bytes": 0}, "Producer.chunk_bytes"),
        ({"split": True, "chunk_bytes": True}, "Producer.chunk_bytes"),
        ({"chunk_bytes": 1000}, "Producer.chunk_bytes"),
        ({"serializer": 5}, "Producer.serializer"),
        ({"queue_timeout": -1}, "Producer.queue_timeout"),
        ({"queue_timeout": True}, "Producer.queue_timeout"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Producer(Cluster(NOWHERE), **arguments)
    assert caught.value.field == field


def test_a_producer_wants_a_cluster() -> None:
    with pytest.raises(ConfigError, match=r"Producer\.cluster"):
        Producer("localhost:9092")  # type: ignore[arg-type]


def test_the_constructor_starts_nothing() -> None:
    threads = set(threading.enumerate())
    producer = Producer(Cluster(NOWHERE))
    assert set(threading.enumerate()) == threads
    assert producer.flush(1) == 0
    producer.close()
    assert set(threading.enumerate()) == threads


def test_a_closed_one_cannot_be_entered(orders: str) -> None:
    made = Producer(Cluster("127.0.0.1:1"))
    made.close()
    with pytest.raises(RetriableKafkaError, match="closed"), made:
        pass


def test_close_waits_for_what_is_on_its_way_and_ends_its_thread(mock: MockKafka, orders: str) -> None:
    threads = set(threading.enumerate())
    with Producer(Cluster(mock.bootstrap_servers)) as producer:
        futures = [producer.send(orders, number) for number in range(1000)]
    assert all(future.done() and future.exception() is None for future in futures)
    assert set(threading.enumerate()) == threads
    producer.close()
    with pytest.raises(RetriableKafkaError, match="closed"):
        producer.send(orders, 1)
    with pytest.raises(RetriableKafkaError, match="closed"):
        asyncio.run(producer.asend(orders, 1))


def test_close_is_bounded_and_settles_every_future() -> None:
    producer = Producer(Cluster(NOWHERE))
    futures = [producer.send("orders", number) for number in range(10)]
    assert producer.flush(0.1) == 10
    begin = time.monotonic()
    producer.close(0.2)
    assert time.monotonic() - begin < 5
    for future in futures:
        error = future.exception(0)
        assert isinstance(error, DeliveryError)
        assert error.retriable


def test_a_callback_may_send(mock: MockKafka, producer: Producer, orders: str) -> None:
    ends: list[Future[Delivery]] = []

    def again(done: Future[Delivery]) -> None:
        offset = done.result(0).offset
        if offset < 200:
            producer.send(orders, offset).add_done_callback(again)
        else:
            ends.append(done)

    producer.send(orders, "first").add_done_callback(again)
    wait_until(lambda: ends, what="the chain of sends has ended")
    assert len(sent(mock, orders)) == 201


def test_many_threads_may_send(mock: MockKafka, producer: Producer, orders: str) -> None:
    def work(number: int) -> None:
        for each in range(500):
            producer.send(orders, [number, each])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert producer.flush(WAIT) == 0
    assert len({one.value for one in sent(mock, orders)}) == 2000


def test_no_repr_holds_a_secret() -> None:
    producer = Producer(Cluster("a:1", username="u", password="correct-horse"))
    assert "correct-horse" not in repr(producer)
    assert "not started" in repr(producer)


# Health ----------------------------------------------------------------------------------------------------


def test_health_follows_the_brokers() -> None:
    with MockKafka({"orders": 1}) as kafka:
        cluster = Cluster(kafka.bootstrap_servers, settings={"reconnect.backoff.max.ms": 200})
        with Producer(cluster) as producer:
            assert producer.health().ready
            producer.send("orders", 1).result(WAIT)
            kafka.down()
            wait_until(lambda: not producer.health().ready, what="health notices the outage")
            sick = producer.health()
            assert sick.alive
            assert sick.reasons
            kafka.up()
            wait_until(lambda: producer.health().ready, what="health notices the end of the outage")
            producer.send("orders", 2).result(WAIT)
        ended = producer.health()
        assert (ended.alive, ended.ready) == (False, False)


def test_health_is_bounded_also_while_others_send_and_nobody_answers() -> None:
    producer = Producer(Cluster(NOWHERE), queue_timeout=0)
    fill(producer)
    begin = time.monotonic()
    health = producer.health()
    assert time.monotonic() - begin < 3
    assert (health.alive, health.ready) == (True, False)
    producer.close(0)


def test_settings_that_the_client_refuses_come_out_at_the_first_send() -> None:
    producer = Producer(Cluster(NOWHERE, settings={"no.such.thing": 1}))
    with pytest.raises(ConfigError, match=r"no\.such\.thing"):
        producer.send("orders", 1)
    assert not producer.health().ready
    producer.close()


# Real Kafka ------------------------------------------------------------------------------------------------


def test_on_real_kafka(kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    # How long a topic that is not known may still be on its way through the cluster; 30 s by default.
    cluster = Cluster(kafka.bootstrap_servers, settings={"topic.metadata.propagation.max.ms": 1000})
    before = datetime.now(UTC) - timedelta(seconds=1)
    with Producer(cluster) as producer:
        futures = [producer.send(topic, number, key=str(number), delay=60) for number in range(2000)]
        deliveries = [future.result(WAIT) for future in futures]
        with pytest.raises(DeliveryError) as unknown:
            producer.send(unique("missing"), 1).result(WAIT)
        assert producer.health().ready
    assert len({(one.partition, one.offset) for one in deliveries}) == 2000
    stamps = [one.timestamp for one in deliveries if one.timestamp is not None]
    assert len(stamps) == 2000
    assert before < min(stamps) <= max(stamps) < datetime.now(UTC) + timedelta(seconds=1)
    assert unknown.value.code in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")
    records = read_all(kafka.bootstrap_servers, topic)
    assert sorted(int(one.value or b"") for one in records) == list(range(2000))
    assert all(read_marks(list(one.headers)).not_before_ms for one in records)
    assert [one for one in caplog.records if one.name == "retriable_kafka_client.delivery"] == []
