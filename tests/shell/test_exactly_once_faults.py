"""Exactly once when brokers, members and rights fail, on real Kafka."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from retriable_kafka_client import Consumer, ConsumerFailed, Message
from retriable_kafka_client import events as ev
from tests.shell.lab import Lab, Log, as_json
from tests.shell.test_exactly_once import ONCE, dead_letters, numbers
from tests.shell.test_security import alice, grant, reads, revoke, rule, writes
from tests.support.evidence import read_evidence
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.processes import Program
from tests.support.waiting import WAIT, wait_until

pytestmark = pytest.mark.kafka

USERS = {"admin": "admin-password", "alice": "alice-password-that-nobody-may-see"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    with KafkaCluster(acl=True, users=USERS) as cluster:
        yield cluster


@pytest.fixture
def guarded_lab(guarded: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(guarded.bootstrap_servers, guarded.create_topic, request.node.originalname, real=True) as made:
        yield made


def transactional(lab: Lab) -> list[Any]:
    """The rights on the transactional ids of a group: their names begin with the group's."""
    return [
        AclBinding(
            ResourceType.TRANSACTIONAL_ID,
            lab.group,
            ResourcePatternType.PREFIXED,
            "User:alice",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE)
    ]


def of_alice(lab: Lab, guarded: KafkaCluster, topic: Any, handler: Callable[..., object]) -> Any:
    return Consumer(
        alice(guarded),
        group_id=lab.group,
        topics=[topic],
        handler=handler,
        executor=2,
        commit_interval=0.1,
        on_event=lab.events.add,
        guarantee="exactly_once",
    )


def test_no_right_to_the_transactional_id_ends_the_run(guarded: KafkaCluster, guarded_lab: Lab) -> None:
    lab = guarded_lab
    entry = lab.entry()
    assert entry.retry
    grant(guarded, *reads(lab, entry.name, str(entry.retry.topic)))
    consumer = of_alice(lab, guarded, entry, lambda _message: None)
    with pytest.raises(ConsumerFailed, match=rf"transactional id '{lab.group}-.*AUTHORIZATION_FAILED"):
        consumer.run()


def test_a_right_that_is_taken_away_later_is_waited_for(
    guarded: KafkaCluster, guarded_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab, log = guarded_lab, Log()
    entry, out = lab.entry(), lab.topic("out")
    assert entry.retry
    grant(guarded, *reads(lab, entry.name, str(entry.retry.topic)), *writes(out), *transactional(lab))

    def handler(message: Message[Any]) -> None:
        log.add(message.value["i"])
        message.send(out, message.value)

    with of_alice(lab, guarded, entry, handler) as consumer:
        lab.fill(entry, [as_json({"i": 0})])
        wait_until(lambda: consumer.stats().handled == 1)
        for one in transactional(lab):
            revoke(guarded, one)
        lab.fill(entry, [as_json({"i": 1})])
        wait_until(lambda: any("transactional id" in one for one in consumer.health().reasons))
        grant(guarded, *transactional(lab))
        wait_until(lambda: consumer.stats().handled == 2)
        wait_until(lambda: consumer.health().ready)
    assert numbers(lab.read(out)) == {0: 1, 1: 1}
    assert log.counts() == {0: 1, 1: 1}
    told = [
        one for one in caplog.records if one.levelno == logging.ERROR and "transactional id" in one.message
    ]
    assert len(told) == 1


@pytest.mark.parametrize("describes", [False, True])
def test_an_output_that_may_not_be_written_fails_its_message_alone(
    guarded: KafkaCluster, guarded_lab: Lab, describes: bool
) -> None:
    lab, runs = guarded_lab, Log()
    entry, out, forbidden = lab.entry(max_attempts=2), lab.topic("out"), lab.topic("forbidden")
    assert entry.retry
    names = [out, str(entry.retry.topic), str(entry.dead_letter)]
    grant(guarded, *reads(lab, entry.name, str(entry.retry.topic)), *writes(*names), *transactional(lab))
    if describes:
        grant(guarded, rule(ResourceType.TOPIC, forbidden, AclOperation.DESCRIBE))

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add((i, message.attempt))
        message.send(out, {"i": i})
        if i % 10 == 0:
            message.send(forbidden, {"i": i})

    with of_alice(lab, guarded, entry, handler):
        lab.fill(entry, [as_json({"i": i}) for i in range(40)])
        letters = dead_letters(lab, entry, 4)
        lab.caught_up(entry)
    assert numbers(letters) == dict.fromkeys(range(0, 40, 10), 1)
    assert numbers(lab.read(out)) == {i: 1 for i in range(40) if i % 10}
    assert runs.counts() == {(i, 1): 1 for i in range(40)} | {(i, 2): 1 for i in range(0, 40, 10)}


def test_a_broker_that_comes_back_finds_everything_once(
    own_kafka: Callable[..., KafkaCluster], lab_on: Callable[[Kafka], Lab]
) -> None:
    cluster = own_kafka()
    lab, runs = lab_on(cluster), Log()
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    total = 600

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add((i, message.attempt))
        message.send(out, {"i": i})
        time.sleep(0.01)
        if i % 20 == 0 and message.attempt == 1:
            raise ValueError

    lab.fill(entry, [as_json({"i": i}) for i in range(total)])
    consumer = lab.start(entry, handler, **ONCE)
    runs.wait(100)
    cluster.broker(1).kill()
    cluster.broker(1).launch()
    cluster.broker(1).wait_ready()
    runs.wait(300, timeout=90)
    cluster.broker(1).pause()
    threading.Event().wait(15.0)  # longer than a transaction may take: it ends without us
    cluster.broker(1).resume()
    lab.caught_up(entry, timeout=120)
    assert numbers(lab.read(out)) == dict.fromkeys(range(total), 1)
    assert consumer.health().alive


def test_metadata_that_is_too_long_is_shortened(
    own_kafka: Callable[..., KafkaCluster], lab_on: Callable[[Kafka], Lab]
) -> None:
    """The broker takes less than expected; what has completed meanwhile goes into the next transaction."""
    cluster = own_kafka(extra={"offset.metadata.max.bytes": "100"})
    lab, runs, gate = lab_on(cluster), Log(), threading.Event()
    entry, out = lab.entry(partitions=1), lab.topic("out")

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add(i)
        if i % 7 == 0:
            gate.wait(WAIT)
        message.send(out, {"i": i})

    lab.fill(entry, [as_json({"i": i}) for i in range(1000)])
    consumer = lab.start(entry, handler, executor=200, **ONCE)
    wait_until(lambda: lab.events.of(ev.OffsetMapShortened))
    gate.set()
    lab.caught_up(entry, timeout=60)
    assert numbers(lab.read(out)) == dict.fromkeys(range(1000), 1)
    assert runs.counts() == dict.fromkeys(range(1000), 1)
    assert consumer.health().ready


@pytest.mark.parametrize("seconds", [4.0, 14.0])
def test_a_member_that_stood_still_is_fenced(real_lab: Lab, tmp_path: Path, seconds: float) -> None:
    """For less than the session, and for longer: then its partitions have another owner when it wakes up."""
    lab = real_lab
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    assert entry.retry
    evidence = tmp_path / "evidence"
    told = {
        "servers": lab.servers,
        "group": lab.group,
        "topic": entry.name,
        "retry": entry.retry.topic,
        "dead": entry.dead_letter,
        "out": out,
        "evidence": str(evidence),
    }
    total = 800

    def ran() -> list[Mapping[str, Any]]:
        return [one for one in read_evidence(evidence) if one["event"] == "ran"]

    lab.fill(entry, [b"%d" % i for i in range(total)])
    with (
        Program("-m tests.campaign.crash_worker", json.dumps(told), log=tmp_path / "a") as first,
        Program("-m tests.campaign.crash_worker", json.dumps(told), log=tmp_path / "b") as second,
    ):
        wait_until(lambda: len({one["pid"] for one in ran()}) == 2, 60, "both work")
        first.pause()
        threading.Event().wait(seconds)
        first.resume()
        lab.caught_up(entry, timeout=120)
        for program in (first, second):
            program.terminate()
            assert program.wait(60) == 0, program.output
    lost = {i for i in range(total) if i % 31 == 3}
    values = Counter(json.loads(one.value or b"") for one in lab.read(out))
    assert values == dict.fromkeys(set(range(total)) - lost, 1)
    assert Counter(
        json.loads(one.value or b"") for one in dead_letters(lab, entry, len(lost))
    ) == dict.fromkeys(lost, 1)
