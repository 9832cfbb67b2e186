"""Who may not log in, and who may not read, join or write: real Kafka with passwords and ACLs."""

import logging
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from retriable_kafka_client import DISCARD, Cluster, Consumer, ConsumerFailed, Message, Retry, Topic
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log
from tests.support.kafka import KafkaCluster
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

PASSWORD = "alice-password-that-nobody-may-see"


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    with KafkaCluster(acl=True, users={"admin": "admin-password", "alice": PASSWORD}) as cluster:
        yield cluster


@pytest.fixture
def lab(guarded: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[Lab]:
    name = request.node.originalname
    with Lab(guarded.bootstrap_servers, guarded.create_topic, name, real=True) as made:
        yield made


def alice(guarded: KafkaCluster, password: str = PASSWORD) -> Cluster:
    return Cluster(
        guarded.sasl_bootstrap_servers,
        username="alice",
        password=password,
        security_protocol="SASL_PLAINTEXT",
        settings={"fetch.wait.max.ms": 20, "session.timeout.ms": 6000},
    )


def rule(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    return AclBinding(
        kind, name, ResourcePatternType.LITERAL, "User:alice", "*", operation, AclPermissionType.ALLOW
    )


def grant(guarded: KafkaCluster, *rules: AclBinding) -> None:
    for answer in guarded.admin().create_acls(list(rules)).values():
        answer.result(30)


def revoke(guarded: KafkaCluster, one: AclBinding) -> None:
    wanted = AclBindingFilter(
        one.restype,
        one.name,
        one.resource_pattern_type,
        one.principal,
        one.host,
        one.operation,
        one.permission_type,
    )
    for answer in guarded.admin().delete_acls([wanted]).values():
        assert answer.result(30)


def reads(lab: Lab, *topics: str) -> list[AclBinding]:
    return [
        rule(ResourceType.GROUP, lab.group, AclOperation.READ),
        *(rule(ResourceType.TOPIC, name, AclOperation.READ) for name in topics),
    ]


def writes(*topics: str) -> list[AclBinding]:
    return [rule(ResourceType.TOPIC, name, AclOperation.WRITE) for name in topics]


def failing(message: Message[object]) -> None:
    raise ValueError


def consumer_of(lab: Lab, cluster: Cluster, topic: Topic, log: Log, *, fails: bool = False) -> Consumer:
    def handler(message: Message[object]) -> None:
        log.add((message.attempt, message.value))
        if fails and message.attempt == 1:
            raise ValueError

    return Consumer(
        cluster,
        group_id=lab.group,
        topics=[topic],
        handler=handler,
        executor=2,
        commit_interval=0.1,
        on_event=lab.events.add,
    )


def test_a_wrong_password_is_said_at_once_and_shown_nowhere(
    lab: Lab, guarded: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "wrong-password-that-nobody-may-see"
    consumer = consumer_of(lab, alice(guarded, secret), Topic(lab.topic(), dead_letter=DISCARD), Log())
    began = time.monotonic()
    with pytest.raises(ConsumerFailed, match="AUTHENTICATION") as failure:
        consumer.run()
    assert time.monotonic() - began < 15
    shown = f"{caplog.text}{failure.value!r}{failure.value}{consumer!r}{consumer.health()}{consumer.__dict__}"
    assert secret not in shown


def test_the_right_password_lets_it_in_and_is_shown_nowhere(
    lab: Lab, guarded: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    entry, log = lab.entry(max_attempts=2), Log()
    assert entry.retry and entry.retry.topic and isinstance(entry.dead_letter, str)
    grant(guarded, *reads(lab, entry.name, entry.retry.topic), *writes(entry.retry.topic, entry.dead_letter))
    with consumer_of(lab, alice(guarded), entry, log, fails=True):
        lab.send(entry, b"1")
        log.wait(2)
        lab.caught_up(entry)
    assert log.items == [(1, 1), (2, 1)]
    assert PASSWORD not in caplog.text


def test_a_group_that_is_refused_is_named(lab: Lab, guarded: KafkaCluster) -> None:
    topic = lab.topic()
    grant(guarded, rule(ResourceType.TOPIC, topic, AclOperation.READ))
    consumer = consumer_of(lab, alice(guarded), Topic(topic, dead_letter=DISCARD), Log())
    began = time.monotonic()
    with pytest.raises(ConsumerFailed, match=f"{lab.group}.*GROUP_AUTHORIZATION_FAILED"):
        consumer.run()
    assert time.monotonic() - began < 20


def test_a_topic_that_may_not_be_read_is_named(lab: Lab, guarded: KafkaCluster) -> None:
    topic = lab.topic()
    grant(guarded, rule(ResourceType.GROUP, lab.group, AclOperation.READ))
    consumer = consumer_of(lab, alice(guarded), Topic(topic, dead_letter=DISCARD), Log())
    began = time.monotonic()
    with pytest.raises(ConsumerFailed, match=f"{topic}.*AUTHORIZATION"):
        consumer.run()
    assert time.monotonic() - began < 30


def test_copies_that_may_not_be_written_are_held_until_they_may(lab: Lab, guarded: KafkaCluster) -> None:
    """Without the right to write anywhere the client's idempotent producer breaks for good each time."""
    entry, log = lab.entry(), Log()
    assert entry.retry and entry.retry.topic
    grant(guarded, *reads(lab, entry.name, entry.retry.topic))
    consumer = consumer_of(lab, alice(guarded), entry, log, fails=True)
    with consumer:
        lab.fill(entry, [b"%d" % i for i in range(10)])
        log.wait(10)
        wait_until(
            lambda: any(
                "refuses copies" in one and "AUTHORIZATION" in one for one in consumer.health().reasons
            ),
            what=repr(consumer.health()),
        )
        assert consumer.health().alive
        grant(guarded, *writes(entry.retry.topic))
        wait_until(lambda: len(log) == 20, 60)
        lab.caught_up(entry)
        wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))
    assert log.counts() == {(attempt, i): 1 for attempt in (1, 2) for i in range(10)}
    assert {one.target for one in lab.events.of(ev.HandOffRefused)} == {entry.retry.topic}


@pytest.mark.parametrize("which", ["GROUP", "TOPIC"])
def test_a_right_that_is_taken_away_later_is_one_error_line_and_waited_for(
    lab: Lab, guarded: KafkaCluster, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    topic, log = lab.topic(), Log()
    rules = reads(lab, topic)
    taken, name = (rules[0], lab.group) if which == "GROUP" else (rules[1], topic)
    grant(guarded, *rules)
    consumer = consumer_of(lab, alice(guarded), Topic(topic, dead_letter=DISCARD), log)
    with consumer:
        lab.send(topic, b"1")
        log.wait(1)
        revoke(guarded, taken)
        lab.send(topic, b"2")
        wait_until(
            lambda: any(f"{which}_AUTHORIZATION_FAILED" in one for one in consumer.health().reasons),
            what=repr(consumer.health()),
        )
        assert consumer.health().alive and not consumer.health().ready
        time.sleep(2)  # it goes on to ask, and does not go on to complain
        errors = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
        assert len(errors) == 1 and name in errors[0] and f"{which}_AUTHORIZATION_FAILED" in errors[0], errors
        grant(guarded, taken)
        log.wait(2)
        wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))
    assert log.items == [(1, 1), (1, 2)]


def set_password(guarded: KafkaCluster, password: str) -> None:
    change = UserScramCredentialUpsertion(
        "alice", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
    )
    for answer in guarded.admin().alter_user_scram_credentials([change]).values():
        answer.result(30)


def test_a_password_that_is_changed_while_it_runs_is_one_error_line_and_not_ready(
    lab: Lab, guarded: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic, log = lab.topic(), Log()
    grant(guarded, *reads(lab, topic))
    with consumer_of(lab, alice(guarded), Topic(topic, dead_letter=DISCARD), log) as consumer:
        lab.send(topic, b"1")
        log.wait(1)
        set_password(guarded, "another one")
        try:
            guarded.broker(1).stop()  # who is connected is not asked again
            guarded.broker(1).start()
            wait_until(
                lambda: any("_AUTHENTICATION" in one for one in consumer.health().reasons),
                60,
                repr(consumer.health()),
            )
            assert consumer.health().alive and not consumer.health().ready
            errors = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
            assert sum("the brokers do not let us in: _AUTHENTICATION" in one for one in errors) == 1
            assert PASSWORD not in caplog.text
        finally:
            guarded.broker(1).start()
            set_password(guarded, PASSWORD)
        lab.send(topic, b"2")
        log.wait(2, timeout=60)
        wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))


def test_a_retry_topic_that_keeps_its_settings_to_itself_is_warned_of(
    lab: Lab, guarded: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic, retry, log = lab.topic(), lab.topic("retry", 1, {"cleanup.policy": "compact"}), Log()
    grant(guarded, *reads(lab, topic, retry), *writes(retry))
    entry = Topic(topic, retry=Retry(retry, delay=0.05), dead_letter=DISCARD)
    with consumer_of(lab, alice(guarded), entry, log):
        lab.send(topic, b"1")
        log.wait(1)
    lines = [one.getMessage() for one in caplog.records if "settings" in one.getMessage()]
    assert len(lines) == 1 and retry in lines[0]
