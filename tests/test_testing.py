import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import Producer as Client
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.config import Cluster
from retriable_kafka_client.errors import ConfigError, DecodeError, RetriableKafkaError
from retriable_kafka_client.testing import MockKafka, make_message

PRODUCE = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1]})
producer.produce("orders", b"hello", on_delivery=lambda error, message: print(error, message.offset()))
producer.flush(20)
"""


def partitions(kafka: MockKafka) -> dict[str, int]:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    return {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=10).topics.items()}


def test_topics_have_the_partitions_that_were_asked_for() -> None:
    with MockKafka({"orders": 4, "other": 1}) as kafka:
        kafka.create_topic("later", 7)
        assert partitions(kafka) == {"orders": 4, "other": 1, "later": 7}


def test_it_starts_without_topics_and_several_run_side_by_side() -> None:
    with MockKafka() as one, MockKafka(topics={}, brokers=3) as other:
        assert one.bootstrap_servers != other.bootstrap_servers
        assert len(other.bootstrap_servers.split(",")) == 3
        assert partitions(one) == partitions(other) == {}


def test_other_processes_reach_it() -> None:
    with MockKafka({"orders": 1}) as kafka:
        command = [sys.executable, "-c", PRODUCE, kafka.bootstrap_servers]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "0"]


def test_it_goes_down_and_comes_back_with_what_it_held() -> None:
    with MockKafka({"orders": 1}) as kafka:
        cluster = Cluster(kafka.bootstrap_servers)
        assert cluster.check().ready
        kafka.down()
        assert not cluster.check(0.5).ready
        kafka.up()
        assert cluster.check().ready
        assert partitions(kafka) == {"orders": 1}


def test_a_topic_can_refuse() -> None:
    def sent(kafka: MockKafka) -> list[object]:
        codes: list[object] = []
        client = Client({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        client.produce(
            "orders", b"1", on_delivery=lambda error, _message: codes.append(error and error.name())
        )
        assert client.flush(20) == 0
        return codes

    with MockKafka({"orders": 1}) as kafka:
        kafka.set_topic_error("orders", KafkaError.TOPIC_AUTHORIZATION_FAILED)
        assert sent(kafka) == ["TOPIC_AUTHORIZATION_FAILED"]
        kafka.set_topic_error("orders", 0)
        assert sent(kafka) == [None]


def test_it_says_that_it_does_not_run() -> None:
    kafka = MockKafka({"orders": 1})
    with pytest.raises(RetriableKafkaError, match="does not run"):
        _ = kafka.bootstrap_servers
    kafka.start()
    assert kafka.start() is kafka
    kafka.stop()
    kafka.stop()
    with pytest.raises(RetriableKafkaError, match="does not run"):
        kafka.create_topic("other")
    with kafka:
        assert partitions(kafka) == {"orders": 1}


@pytest.mark.parametrize("topics", [{"a b": 1}, {"a": 0}, {"a": True}, {"a": "4"}, {"": 1}])
def test_wrong_topics_are_refused_before_anything_starts(topics: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"MockKafka\.topics"):
        MockKafka(topics)


def test_a_topic_that_exists_is_refused() -> None:
    with MockKafka({"orders": 1}) as kafka, pytest.raises(ConfigError, match="already exists"):
        kafka.create_topic("orders")


@pytest.mark.parametrize("value", [{"a": 1}, [], 0, "", "text", None, 1.5, True])
def test_a_made_message_gives_its_value_back(value: object) -> None:
    assert make_message(value).value == value


def test_a_made_message_is_a_first_run_by_default() -> None:
    one, two = make_message({}), make_message({})
    assert (one.topic, one.partition, one.attempt, one.key, one.headers) == ("test", 0, 1, None, ())
    assert one.timestamp is not None
    assert abs(one.timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert one.id != two.id


def test_a_made_message_has_what_it_is_given() -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    made = make_message(
        b"[1]",
        key="k",
        headers={"a": "text", "b": b"bytes", "c": None},
        topic="orders",
        partition=3,
        offset=17,
        timestamp=when,
        attempt=3,
        id="job-1",
    )
    assert (made.value, made.body, made.key) == ([1], b"[1]", b"k")
    assert made.headers == (("a", b"text"), ("b", b"bytes"), ("c", None))
    assert (made.topic, made.partition, made.offset, made.timestamp) == ("orders", 3, 17, when)
    assert (made.attempt, made.id) == (3, "job-1")


def test_a_made_message_may_be_undecodable() -> None:
    with pytest.raises(DecodeError):
        _ = make_message(b"{").value


@pytest.mark.parametrize(
    "arguments",
    [
        {"topic": "a b"},
        {"attempt": 0},
        {"attempt": True},
        {"timestamp": datetime(2024, 1, 1)},  # noqa: DTZ001
        {"headers": {"a": 1}},
        {"key": 5},
    ],
)
def test_a_made_message_checks_its_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="make_message"):
        make_message({}, **arguments)  # type: ignore[arg-type]
