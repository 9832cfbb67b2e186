"""From a 0.x program's connection to ours: what wins, what is ignored, and whether it works."""

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaException

from retriable_kafka_client import Cluster
from retriable_kafka_client.compat import CommonConfig, HealthCheckClient
from retriable_kafka_client.compat.connection import cluster_of, group_of
from retriable_kafka_client.testing import MockKafka
from tests.support.kafka import KafkaCluster


def config(**settings: Any) -> CommonConfig:
    return CommonConfig(
        kafka_hosts=["one:1", "two:2"],
        username="alice",
        password="secret-word",
        additional_settings=settings,
    )


def test_defaults_are_those_of_0x() -> None:
    cluster = cluster_of(config())
    assert cluster.bootstrap_servers == "one:1,two:2"
    assert (cluster.security_protocol, cluster.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (cluster.username, cluster.password) == ("alice", "secret-word")


@pytest.mark.parametrize("name", ["bootstrap.servers", "metadata.broker.list"])
def test_additional_settings_win(name: str) -> None:
    given = {
        name: "three:3",
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "bob",
        "sasl.password": "other",
        "linger.ms": 7,
        "client.id": None,
        "default.topic.config": {"auto.offset.reset": "latest", "linger.ms": 8},
        "group.id": "another-group",
    }
    cluster = cluster_of(config(**given), at_once=True)
    assert cluster == Cluster(
        "three:3",
        security_protocol=None,
        settings={
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "bob",
            "sasl.password": "other",
            "linger.ms": 7,
            "auto.offset.reset": "latest",
        },
    )
    assert cluster_of(config(), at_once=True).settings["linger.ms"] == 0
    assert group_of(config(**given), "own") == "another-group"
    assert group_of(config(), "own") == "own"


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "plaintext", "SSL"])
def test_a_user_is_named_where_nobody_logs_in_and_that_is_no_error(protocol: str) -> None:
    cluster = cluster_of(config(**{"security.protocol": protocol}))
    assert (cluster.username, cluster.password) == (None, None)


def test_what_the_library_must_own_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    given = {
        "acks": 1,
        "enable.auto.commit": True,
        "message.timeout.ms": 1000,
        "on_commit": print,
        "compression.type": "zstd",
    }
    cluster = cluster_of(config(**given))
    assert dict(cluster.settings) == {"compression.type": "zstd"}
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(lines) == 4
    for name in given.keys() - {"compression.type"}:
        assert sum(repr(name) in line for line in lines) == 1
    caplog.clear()
    cluster_of(config(**given), warn=False)
    assert not caplog.records


def client(servers: str, **settings: Any) -> HealthCheckClient:
    given = CommonConfig(
        kafka_hosts=[servers],
        username="alice",
        password="secret-word",
        additional_settings={"security.protocol": "PLAINTEXT", **settings},
    )
    return HealthCheckClient(given)


def test_brokers_that_answer_are_healthy(mock: MockKafka, caplog: pytest.LogCaptureFixture) -> None:
    assert client(mock.bootstrap_servers).connection_healthcheck() is True
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_brokers_that_do_not_answer_are_not(caplog: pytest.LogCaptureFixture) -> None:
    assert client("127.0.0.1:1").connection_healthcheck() is False
    assert any("127.0.0.1:1" in one.getMessage() for one in caplog.records)


def test_settings_that_the_client_does_not_know_are_a_kafka_exception() -> None:
    with pytest.raises(KafkaException, match=r"no\.such\.setting"):
        client("127.0.0.1:1", **{"no.such.setting": 1}).connection_healthcheck()


@pytest.mark.kafka
def test_a_wrong_password_is_not_healthy_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with KafkaCluster() as cluster:
        for password, healthy in ((cluster.users["alice"], True), ("wrong-secret-word", False)):
            given = CommonConfig(
                kafka_hosts=cluster.sasl_bootstrap_servers.split(","),
                username="alice",
                password=password,
                additional_settings={"security.protocol": "SASL_PLAINTEXT"},
            )
            assert HealthCheckClient(given).connection_healthcheck() is healthy
    assert "secret-word" not in caplog.text
