import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.client import (
    admin_settings,
    consumer_settings,
    open_client,
    producer_settings,
)
from retriable_kafka_client.brokers.client_callbacks import ClientLog
from retriable_kafka_client.brokers.error_codes import delivery_error, is_retriable
from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.testing import MockKafka
from tests.support.kafka import KafkaCluster

SECRET = "correct-horse"


@pytest.fixture(scope="module")
def mock() -> Iterator[MockKafka]:
    with MockKafka({"orders": 1}) as kafka:
        yield kafka


def test_consumer_settings_are_the_ones_shared_with_0x_and_those_that_the_library_owns() -> None:
    settings = consumer_settings(Cluster("a:1"), Limits(), "billing")
    expected = {
        "bootstrap.servers": "a:1",
        "security.protocol": "PLAINTEXT",
        "group.id": "billing",
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": 65_536,
    }
    assert settings.items() >= expected.items()


def test_users_settings_win_over_defaults() -> None:
    given = {"auto.offset.reset": "error", "partition.assignment.strategy": "range", "client.id": "me"}
    settings = consumer_settings(Cluster("a:1", settings=given), Limits(), "g")
    assert settings.items() >= given.items()


@pytest.mark.parametrize("word", ["latest", "largest", "end"])
def test_the_client_passes_over_nothing_that_is_left(word: str) -> None:
    """Where a partition without a position begins is the engine's to say."""
    settings = consumer_settings(Cluster("a:1", settings={"auto.offset.reset": word}), Limits(), "g")
    assert settings["auto.offset.reset"] == "earliest"


def test_the_consumer_protocol_leaves_out_what_it_refuses(mock: MockKafka) -> None:
    given = {"group.protocol": "consumer", "session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
    cluster = Cluster(mock.bootstrap_servers, settings=given)
    settings = consumer_settings(cluster, Limits(), "g")
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & set(
        settings
    )
    open_client(Consumer, settings).close()


@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(buffer_bytes=1024),
        Limits(buffer_bytes=2**40),
        Limits(buffer_bytes=2**30, message_bytes=2**29),
    ],
    ids=["default", "small", "huge", "large"],
)
@pytest.mark.parametrize("settings", [{}, {"message.max.bytes": 80_000_000}], ids=["plain", "large-records"])
def test_the_client_takes_the_queue_sizes_of_any_limits(
    mock: MockKafka, limits: Limits, settings: dict[str, Any]
) -> None:
    cluster = Cluster(mock.bootstrap_servers, settings=settings)
    open_client(Consumer, consumer_settings(cluster, limits, "g")).close()
    open_client(Producer, producer_settings(cluster, limits))
    open_client(Producer, producer_settings(cluster, limits, hand_off=True))
    open_client(AdminClient, admin_settings(cluster))


def test_producers_are_idempotent_and_hand_offs_never_time_out() -> None:
    settings = producer_settings(Cluster("a:1"), Limits(buffer_bytes=4 * 1024 * 1024))
    assert settings["enable.idempotence"] is True
    assert settings["queue.buffering.max.kbytes"] == 4096
    assert "message.timeout.ms" not in settings
    assert producer_settings(Cluster("a:1"), Limits(), hand_off=True)["message.timeout.ms"] == 0


@pytest.mark.parametrize("name", ["max.in.flight", "max.in.flight.requests.per.connection"])
def test_producers_have_one_request_at_a_time_under_way_unless_told_otherwise(name: str) -> None:
    assert producer_settings(Cluster("a:1"), Limits())["max.in.flight"] == 1
    told = producer_settings(Cluster("a:1", settings={name: 3}), Limits())
    assert {one: value for one, value in told.items() if one.startswith("max.in.flight")} == {name: 3}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"no.such.thing": 1}, "Cluster.settings['no.such.thing']"),
        ({"compression.type": "zip"}, "Cluster.settings['compression.type']"),
        ({"linger.ms": "soon"}, "Cluster.settings['linger.ms']"),
        ({"ssl.ca.location": "/no/such/file", "security.protocol": "SSL"}, "Cluster.settings"),
    ],
)
def test_what_the_client_refuses_is_a_config_error(settings: dict[str, Any], field: str) -> None:
    cluster = Cluster("a:1", settings={**settings, "ssl.key.password": SECRET})
    with pytest.raises(ConfigError) as caught:
        open_client(Producer, producer_settings(cluster, Limits()))
    assert caught.value.field.startswith(field)
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError):
        cluster.check()


def broken(*_told: object) -> None:
    raise RuntimeError("from a user's callback")


def test_users_callbacks_cannot_raise_into_the_client(
    mock: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    class BrokenLogger:
        log = broken

    callbacks = {"stats_cb": broken, "error_cb": broken, "throttle_cb": broken, "logger": BrokenLogger()}
    cluster = Cluster("127.0.0.1:1", settings={**callbacks, "statistics.interval.ms": 10})
    client = open_client(
        Producer, producer_settings(cluster, Limits(), on_error=lambda error: told.append(error.name()))
    )
    deadline = time.monotonic() + 30
    while not ("stats_cb" in caplog.text and "error_cb" in caplog.text and told):
        assert time.monotonic() < deadline
        client.poll(0.1)
    assert "_TRANSPORT" in told


def test_a_token_callback_that_fails_is_told_to_the_client_and_logged_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def token(_config: str) -> Any:
        raise RuntimeError(SECRET)

    settings = {"oauth_cb": token, "sasl.mechanisms": "OAUTHBEARER", "security.protocol": "SASL_PLAINTEXT"}
    health = Cluster("127.0.0.1:1", settings=settings).check(0.5)
    assert not health.ready
    assert "oauth_cb in Cluster.settings failed: RuntimeError" in caplog.text
    assert SECRET not in caplog.text + str(health)


def test_the_clients_log_goes_to_logging_and_an_outage_does_not_flood_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "retriable_kafka_client.librdkafka")
    cluster = Cluster("127.0.0.1:1", settings={"reconnect.backoff.ms": 1, "reconnect.backoff.max.ms": 5})
    client = open_client(Producer, producer_settings(cluster, Limits()))
    deadline = time.monotonic() + 30
    while len(lines := [one for one in caplog.records if "refused" in one.getMessage()]) < 10:
        assert time.monotonic() < deadline
        client.poll(0.05)
    assert {one.name for one in lines} == {"retriable_kafka_client.librdkafka"}
    assert [one.levelno for one in lines[:2]] == [logging.ERROR, logging.DEBUG]
    assert sum(one.levelno > logging.DEBUG for one in lines) == 1


def test_each_kind_of_line_stands_out_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    now = 0.0
    log = ClientLog(logging.getLogger("target"), interval=60.0, clock=lambda: now)
    for now, kind in ((0.0, "FAIL"), (1.0, "FAIL"), (2.0, "OTHER"), (59.9, "FAIL"), (60.0, "FAIL")):  # noqa: B007
        log.log(logging.ERROR, "%s [%s] %s", kind, "client-1", "text")
    log.log(
        logging.WARNING,
        "%s [%s] %s",
        "CONFWARN",
        "client-1",
        "x is a consumer property and will be ignored by this producer instance",
    )
    levels = [one.levelno for one in caplog.records]
    error, debug = logging.ERROR, logging.DEBUG
    assert levels == [error, debug, error, debug, error, debug]


@pytest.mark.parametrize(
    ("code", "retriable"),
    [
        (KafkaError._MSG_TIMED_OUT, True),
        (KafkaError.NOT_ENOUGH_REPLICAS, True),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True),
        (KafkaError.MSG_SIZE_TOO_LARGE, False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError.INVALID_RECORD, False),
    ],
)
def test_errors_are_mapped_at_the_border(code: int, retriable: bool) -> None:
    error = delivery_error(KafkaError(code), "orders")
    assert error.code == KafkaError(code).name()
    assert error.retriable is retriable
    assert not is_retriable(KafkaError(code, "text", fatal=True))


# Cluster.check ---------------------------------------------------------------------------------------------


def timed(check: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.monotonic()
    return check(), time.monotonic() - begin


def test_check_of_brokers_that_answer(mock: MockKafka) -> None:
    health, took = timed(Cluster(mock.bootstrap_servers).check)
    assert (health.alive, health.ready, health.reasons) == (True, True, ())
    assert took < 5


def test_check_of_brokers_that_cannot_be_reached_is_bounded() -> None:
    health, took = timed(lambda: Cluster("127.0.0.1:1").check(0.5))
    assert (health.alive, health.ready) == (False, False)
    assert "127.0.0.1:1" in health.reasons[0]
    assert 0.4 < took < 3


def test_check_of_a_listener_that_never_answers_is_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        health, took = timed(lambda: Cluster(f"127.0.0.1:{port}").check(0.5))
    assert not health.ready
    assert "no broker answered" in health.reasons[0]
    assert took < 3


@pytest.mark.parametrize("timeout", [0, -1, None, True, float("nan")])
def test_check_wants_a_time(timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"Cluster\.check\.timeout"):
        Cluster("a:1").check(timeout)


def test_check_names_refused_credentials_without_the_secret(own_kafka: Callable[..., KafkaCluster]) -> None:
    kafka = own_kafka()
    right = Cluster(
        kafka.sasl_bootstrap_servers,
        username="alice",
        password=kafka.users["alice"],
        security_protocol="SASL_PLAINTEXT",
    )
    assert right.check(20).ready
    wrong = Cluster(
        kafka.sasl_bootstrap_servers,
        username="alice",
        password=SECRET,
        security_protocol="SASL_PLAINTEXT",
    )
    health, took = timed(lambda: wrong.check(20))
    assert (health.alive, health.ready) == (True, False)
    assert "refused for user 'alice'" in health.reasons[0]
    assert SECRET not in str(health)
    assert took < 10
