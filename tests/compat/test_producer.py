"""BaseProducer: what it writes, and what it raises."""

import asyncio
import gc
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client import Cluster, ConfigError, Producer
from retriable_kafka_client.compat import ProducerConfig, SendError
from retriable_kafka_client.compat.producer import BaseProducer
from retriable_kafka_client.wire import headers as wire
from tests.compat.old import connection, producer
from tests.shell.lab import Lab
from tests.support.kafka import KafkaCluster
from tests.support.waiting import wait_until


def send_by(
    how: str, sender: BaseProducer, message: Any, headers: dict[str, str | bytes] | None = None
) -> None:
    """Send with the one method or the other."""
    if how == "sync":
        sender.send_sync(message, headers)
    else:
        asyncio.run(sender.send(message, headers))


def values(lab: Lab, topic: str) -> list[bytes | None]:
    return [one.value for one in lab.read(topic)]


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ({"a": "ä", "n": 10**30}, b'{"a": "\\u00e4", "n": 1000000000000000000000000000000}'),
        ({"nan": float("nan")}, b'{"nan": NaN}'),
        (b"as it is \xff", b"as it is \xff"),
        ([b"in ", b"pieces"], b"in pieces"),
        ([], b""),
        ("text", b'"text"'),
        (None, b"null"),
    ],
)
def test_a_message_goes_to_every_topic_as_0x_wrote_it(lab: Lab, message: Any, written: bytes) -> None:
    topics = [lab.topic("one", 1), lab.topic("two", 1)]
    sender = producer(lab, *topics)
    try:
        sender.send_sync(message, {"text": "ä", "bytes": b"\xff"})
        asyncio.run(sender.send(message))
    finally:
        sender.close()
    for topic in topics:
        first, second = lab.read(topic)
        assert first.value == second.value == written
        assert first.headers == (("text", "ä".encode()), ("bytes", b"\xff"))
        assert (first.key, second.headers) == (None, ())


@pytest.mark.parametrize("message", [{"a": {1}}, [1, 2], [b"a", "b"], bytearray(b"a"), object()])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_json_cannot_say_is_a_type_error_and_nothing_is_sent(lab: Lab, message: Any, how: str) -> None:
    topic = lab.topic()
    sender = producer(lab, topic)
    with pytest.raises(TypeError):
        send_by(how, sender, message)
    assert values(lab, topic) == []
    sender.close()


@pytest.mark.parametrize("headers", [{"a": 1}, {1: "a"}, [("a", ["b"])]])
def test_headers_of_other_types_are_a_type_error(lab: Lab, headers: Any) -> None:
    with pytest.raises(TypeError):
        producer(lab, "no-topic").send_sync(b"", headers)


def test_headers_may_be_pairs_and_without_a_value(lab: Lab) -> None:
    topic = lab.topic()
    sender = producer(lab, topic)
    sender.send_sync(b"", [("a", "1"), ("a", None)])  # type: ignore[arg-type]
    assert lab.read(topic)[0].headers == (("a", b"1"), ("a", None))
    sender.close()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_librarys_own_headers_go_out_as_they_are(lab: Lab, how: str, split: bool) -> None:
    topic = lab.topic()
    sender = producer(lab, topic, split_messages=split)
    given: dict[str, str | bytes] = {
        wire.TIMESTAMP: (1_700_000_000).to_bytes(8, "big"),
        wire.ATTEMPT: bytes(8),
        "retriable_kafka_of_a_later_release": "text",
        "own": b"1",
    }
    send_by(how, sender, b"1", given)
    sender.close()
    written = {name: value.encode() if isinstance(value, str) else value for name, value in given.items()}
    (record,) = lab.read(topic)
    assert record.headers == tuple(written.items())


def test_only_the_0x_interface_may_send_them(lab: Lab) -> None:
    with Producer(Cluster(lab.servers)) as sender, pytest.raises(ConfigError, match="retriable_kafka_"):
        sender.send(lab.topic(), 1, headers={wire.ATTEMPT: bytes(8)})


def test_the_config_is_read_when_it_sends(lab: Lab) -> None:
    one, two = lab.topic("one"), lab.topic("two")
    config = ProducerConfig(topics=[one], **{**connection(lab), "kafka_hosts": ["127.0.0.1:1"]})
    sender = BaseProducer(config)
    config.kafka_hosts, config.topics = [lab.servers], [two]
    assert sender.topics == [two]
    sender.send_sync(b"1")
    config.topics = [one]
    sender.send_sync(b"2")
    sender.close()
    assert (values(lab, one), values(lab, two)) == ([b"2"], [b"1"])


def test_many_coroutines_send_at_once(lab: Lab) -> None:
    topic = lab.topic()
    sender = producer(lab, topic)

    async def many() -> None:
        await asyncio.gather(*(sender.send({"i": i}) for i in range(500)))

    asyncio.run(many())
    asyncio.run(many())  # another event loop
    sender.close()
    seen = [json.loads(one or b"")["i"] for one in values(lab, topic)]
    assert sorted(seen) == sorted([*range(500), *range(500)])


def test_threads_share_one(lab: Lab) -> None:
    topic = lab.topic()
    sender = producer(lab, topic)
    threads = [threading.Thread(target=lambda i=i: sender.send_sync({"i": i})) for i in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    sender.close()
    assert len(values(lab, topic)) == 20


def test_it_sends_after_it_was_closed(lab: Lab) -> None:
    topic = lab.topic()
    sender = producer(lab, topic)
    sender.close()
    for body in (b"1", b"2"):
        sender.send_sync(body)
        sender.close()
        sender.close()
    assert sorted(one or b"" for one in values(lab, topic)) == [b"1", b"2"]


def test_one_that_is_dropped_leaves_no_thread(lab: Lab) -> None:
    topic = lab.topic()
    before = threading.active_count()
    for _ in range(3):
        producer(lab, topic).send_sync(b"1")
    gc.collect()
    wait_until(lambda: threading.active_count() <= before, what="its threads are gone")


def test_what_the_client_refuses_is_both_errors_at_once(lab: Lab) -> None:
    topic, other = lab.topic("one"), lab.topic("two")
    sender = producer(lab, topic, other, fallback_base=60.0)
    for how, kind in itertools.product(("sync", "async"), (SendError, KafkaException)):
        with pytest.raises(kind) as caught:
            send_by(how, sender, b"x" * 1_100_000)
        error: Any = caught.value
        assert error.kafka_error is error.args[0]
        assert error.kafka_error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        assert (error.retriable, error.fatal) == (False, False)
        assert topic in str(error) and "xxx" not in str(error)
    sender.close()


def test_what_a_broker_refuses_for_one_topic_is_raised_and_the_other_has_it(real_lab: Lab) -> None:
    small, large = real_lab.topic("small", 1, {"max.message.bytes": "1000"}), real_lab.topic("large", 1)
    sender = producer(real_lab, small, large, fallback_base=60.0)
    with pytest.raises(SendError, match="MSG_SIZE_TOO_LARGE") as caught:
        sender.send_sync(b"x" * 5000)
    assert caught.value.kafka_error is not None and not caught.value.retriable
    assert small in str(caught.value)
    sender.close()
    assert (len(values(real_lab, small)), len(values(real_lab, large))) == (0, 1)


@pytest.fixture(scope="module")
def strict() -> Iterator[KafkaCluster]:
    """Brokers that do not make a topic because somebody sends to it."""
    with KafkaCluster(extra={"auto.create.topics.enable": "false"}) as cluster:
        yield cluster


HASTY = {"topic.metadata.propagation.max.ms": 100}  # how long the client waits for a topic that is not there


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_topic_that_appears_meanwhile_gets_it(
    strict: KafkaCluster, lab_on: Callable[[KafkaCluster], Lab], how: str
) -> None:
    """The client gives up on a topic that is not there; the retries are what is left."""
    lab = lab_on(strict)
    there, later = lab.topic("there", 1), f"{lab.group}-later"
    patient = {"retries": 60, "fallback_factor": 1.0, "fallback_base": 0.5}
    sender = producer(lab, there, later, settings=HASTY, **patient)

    sending = threading.Thread(target=send_by, args=(how, sender, {"a": 1}))
    sending.start()
    wait_until(lambda: len(values(lab, there)) == 1, what="the topic that is there has it")
    assert sending.is_alive()
    strict.create_topic(later, 1)
    sending.join(60)
    assert not sending.is_alive()
    assert values(lab, later) == [b'{"a": 1}']
    assert len(values(lab, there)) == 1, "only what failed is sent again"
    sender.close()


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_topic_that_refuses_does_not_keep_it_from_one_that_appears(
    strict: KafkaCluster, lab_on: Callable[[KafkaCluster], Lab], how: str
) -> None:
    lab = lab_on(strict)
    small, later = lab.topic("small", 1, {"max.message.bytes": "1000"}), f"{lab.group}-later"
    sender = producer(lab, small, later, settings=HASTY, retries=60, fallback_factor=1.0, fallback_base=0.5)
    failures: list[BaseException] = []

    def send() -> None:
        try:
            send_by(how, sender, b"x" * 5000)
        except SendError as error:
            failures.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    sending.join(2.0)
    assert sending.is_alive(), "the topic that is not there is still waited for"
    strict.create_topic(later, 1)
    sending.join(60)
    assert not sending.is_alive()
    assert [len(values(lab, small)), len(values(lab, later))] == [0, 1]
    assert [str(one) for one in failures if "MSG_SIZE_TOO_LARGE" in str(one)]
    sender.close()


@pytest.mark.kafka
def test_the_retries_are_counted_and_then_the_error_is_raised(
    strict: KafkaCluster, lab_on: Callable[[KafkaCluster], Lab]
) -> None:
    missing = f"{lab_on(strict).group}-missing"
    for retries, pauses in ((2, 0.05 + 0.1), (0, 0.0), (-1, 0.0)):
        sender = producer(lab_on(strict), missing, settings=HASTY, retries=retries)
        began = time.monotonic()
        with pytest.raises(KafkaException) as caught:
            sender.send_sync({})
        assert time.monotonic() - began >= pauses
        assert caught.value.args[0].code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)
        assert isinstance(caught.value, SendError) and caught.value.retriable
        sender.close()


def test_a_full_queue_is_a_buffer_error() -> None:
    config = ProducerConfig(
        topics=["t"],
        retries=0,
        kafka_hosts=["127.0.0.1:1"],
        username="",
        password="",
        additional_settings={"security.protocol": "PLAINTEXT"},
    )
    sender = BaseProducer(config)

    async def fill() -> None:
        sending = [asyncio.ensure_future(sender.send(b"x" * 900_000)) for _ in range(80)]
        try:
            done, _ = await asyncio.wait(sending, return_when=asyncio.FIRST_EXCEPTION)
            raise next(error for one in done if (error := one.exception()))
        finally:
            for one in sending:
                one.cancel()

    with pytest.raises(BufferError):
        asyncio.run(fill())


def test_settings_that_the_client_does_not_know_are_a_kafka_exception(lab: Lab) -> None:
    sender = producer(lab, "t", settings={"no.such.setting": 1})
    for _ in range(2):
        with pytest.raises(KafkaException, match=r"no\.such\.setting"):
            sender.send_sync(b"")


def test_health(lab: Lab) -> None:
    sender = producer(lab, lab.topic())
    assert sender.connection_healthcheck() is True
    sender.send_sync(b"")
    sender.close()
    assert sender.connection_healthcheck() is True
