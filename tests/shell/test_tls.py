"""TLS with a client certificate against real Kafka: whose certificate and which authority are good, and which are not."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, Cluster, ConfigError, Consumer, ConsumerFailed, Producer, Topic
from tests.shell.lab import Lab, Log, nothing
from tests.support.certificates import Authority, Identity
from tests.support.kafka import KafkaCluster

pytestmark = pytest.mark.kafka

KEY_PASSWORD = "key-password-that-nobody-may-see"


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker that lets in only whom our authority has signed."""

    kafka: KafkaCluster
    authority: Authority
    stranger: Authority
    alice: Identity
    mallory: Identity  # signed by the stranger

    def cluster(
        self, identity: Identity | None, authority: Authority, password: str = KEY_PASSWORD
    ) -> Cluster:
        settings: dict[str, Any] = {
            "ssl.ca.location": str(authority.certificate),
            "fetch.wait.max.ms": 20,
        }
        if identity is not None:
            settings |= {
                "ssl.certificate.location": str(identity.certificate),
                "ssl.key.location": str(identity.key),
                "ssl.key.password": password,
            }
        # The second listener speaks TLS here.
        return Cluster(self.kafka.sasl_bootstrap_servers, security_protocol="SSL", settings=settings)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    ours, strange = Authority(folder, "ours"), Authority(folder, "strange")
    server = ours.sign("broker", loopback=True)
    store = folder / "broker.pem"
    store.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
    extra = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ours.certificate),
        "ssl.client.auth": "required",
    }
    with KafkaCluster(extra=extra) as kafka:
        yield Secured(
            kafka=kafka,
            authority=ours,
            stranger=strange,
            alice=ours.sign("alice", password=KEY_PASSWORD),
            mallory=strange.sign("mallory", password=KEY_PASSWORD),
        )


@pytest.fixture
def lab(secured: Secured, request: pytest.FixtureRequest) -> Iterator[Lab]:
    kafka = secured.kafka
    with Lab(kafka.bootstrap_servers, kafka.create_topic, request.node.originalname, real=True) as made:
        yield made


def test_a_client_with_its_certificate_is_let_in(
    lab: Lab, secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cluster, log = secured.cluster(secured.alice, secured.authority), Log()
    entry = lab.entry(max_attempts=2)

    def handler(message: Any) -> None:
        log.add((message.attempt, message.value))
        if message.attempt == 1:
            raise ValueError

    with (
        Consumer(
            cluster, group_id=lab.group, topics=[entry], handler=handler, executor=2, commit_interval=0.1
        ),
        Producer(cluster) as producer,
    ):
        producer.send(entry.name, 1).result(30)
        log.wait(2)
        lab.caught_up(entry)
    assert log.items == [(1, 1), (2, 1)]
    assert cluster.check(20).ready
    assert KEY_PASSWORD not in caplog.text + repr(cluster)


def refused(lab: Lab, cluster: Cluster) -> tuple[ConsumerFailed, float]:
    """How a run ends that was not let in, and after how many seconds."""
    topics = [Topic(lab.topic(), dead_letter=DISCARD)]
    consumer = Consumer(cluster, group_id=lab.group, topics=topics, handler=nothing, executor=1)
    began = time.monotonic()
    with pytest.raises(ConsumerFailed) as failure:
        consumer.run()
    return failure.value, time.monotonic() - began


def test_a_broker_that_another_authority_has_signed_is_not_trusted(lab: Lab, secured: Secured) -> None:
    error, seconds = refused(lab, secured.cluster(secured.alice, secured.stranger))
    assert seconds < 20
    assert "their certificate is not trusted (ssl.ca.location)" in str(error), error
    assert secured.kafka.sasl_bootstrap_servers in str(error)


@pytest.mark.parametrize("name", ["nobody", "mallory"])
def test_a_client_without_a_certificate_that_the_broker_trusts_is_refused(
    lab: Lab, secured: Secured, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    identity = secured.mallory if name == "mallory" else None
    error, seconds = refused(lab, secured.cluster(identity, secured.authority))
    assert seconds < 20
    assert "they refuse our certificate (ssl.certificate.location" in str(error), error
    assert secured.kafka.sasl_bootstrap_servers in str(error)
    assert KEY_PASSWORD not in f"{caplog.text}{error!r}{error}"


def test_a_wrong_password_of_the_key_is_a_config_error_at_once(lab: Lab, secured: Secured) -> None:
    secret = "wrong-password-that-nobody-may-see"
    cluster = secured.cluster(secured.alice, secured.authority, secret)
    topics = [Topic(lab.topic(), dead_letter=DISCARD)]
    with pytest.raises(ConfigError, match=r"Cluster\.settings") as failure:
        Consumer(cluster, group_id=lab.group, topics=topics, handler=nothing, executor=1).run()
    assert "key" in str(failure.value) and secret not in f"{failure.value!r}{failure.value}"
