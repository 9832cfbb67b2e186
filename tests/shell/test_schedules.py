"""Scheduled jobs: a month away survives the topic's retention, and what is due sooner comes in time."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retriable_kafka_client import Limits, Message, Retry, Topic
from retriable_kafka_client.producer.producer import Producer
from tests.shell.lab import Lab, Log, as_json
from tests.support.kafka import Kafka
from tests.support.waiting import wait_until

RETENTION = 8.0  # seconds
# Brokers look for what is too old all the time, from the beginning.
FORGETFUL = {"log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "300"}
MONTH = timedelta(days=30)
FAR, LATER = 150, 60


def test_a_month_away_survives(own_kafka: Callable[..., Kafka], lab_on: Callable[[Kafka], Lab]) -> None:
    lab, runs = lab_on(own_kafka(extra=FORGETFUL)), Log()
    keeps = {"retention.ms": f"{RETENTION * 1000:.0f}", "segment.ms": "1000"}
    entry = Topic(
        lab.topic(), retry=Retry(lab.topic("retry", 2, keeps), delay=0.05), dead_letter=lab.topic("dead", 1)
    )
    assert entry.retry is not None and entry.retry.topic is not None
    later = entry.retry.topic

    def handler(m: Message[Any]) -> None:
        runs.add((m.value["number"], time.time() - m.value["due"]))

    limits = Limits(window=50, parking_interval=1.0, drain_timeout=10.0)
    month = datetime.now(UTC) + MONTH
    soon = datetime.now(UTC) + timedelta(seconds=3.5 * RETENTION)
    with Producer(lab.cluster({})) as producer:

        def send(number: int, at: datetime) -> None:
            job = {"number": number, "due": at.timestamp()}
            producer.send(later, job, key=b"%d" % number, headers={"own": b"%d" % number}, not_before=at)

        for number in range(FAR):
            send(number, month)
        for number in range(FAR, FAR + LATER):
            send(number, soon)
        producer.flush(30)
        first = lab.start(entry, handler, limits=limits)
        wait_until(lambda: first_offset(lab, later) >= (FAR + LATER) // 2, 60, "the first copies are gone")
        # Whoever comes next goes on with it, and what is due soon is not held up by what is not.
        first.stop()
        assert first.join(30)
        assert len(runs) == 0 and first.stats().parked > 0
        second = lab.start(entry, handler, limits=limits)
        send(-1, datetime.now(UTC) + timedelta(seconds=1))
        ((number, late),) = runs.wait(1)
        assert number == -1 and 0 <= late < 10
        runs.wait(1 + LATER, timeout=120)
        gone = first_offset(lab, later)
        wait_until(lambda: first_offset(lab, later) > gone + FAR, 60, "another retention period")
    assert sorted(number for number, _ in runs) == [-1, *range(FAR, FAR + LATER)]
    assert min(late for _, late in runs) >= 0
    assert second.health().ready and second.stats().handled == 1 + LATER
    alive = {json.loads(one.value or b"")["number"]: one for one in lab.read(later)}
    assert set(range(FAR)) <= set(alive)
    for number in range(FAR):
        copy = alive[number]
        assert json.loads(copy.value or b"") == {"number": number, "due": month.timestamp()}
        assert (copy.key, copy.header("own")) == (b"%d" % number, b"%d" % number)
    assert lab.read(str(entry.dead_letter)) == []


def first_offset(lab: Lab, topic: str) -> int:
    """Below it each partition has nothing left."""
    first: dict[int, int] = {}
    for one in lab.read(topic):
        first.setdefault(one.partition, one.offset)
    return min(first.values()) if len(first) == 2 else 0


def test_a_job_runs_when_it_is_due_and_not_before(lab: Lab) -> None:
    entry, runs = lab.entry(max_attempts=2), Log()
    assert entry.retry is not None and entry.retry.topic is not None

    def handler(m: Message[Any]) -> None:
        runs.add((m.value, m.attempt, time.time()))
        if m.value == "fails" and m.attempt == 1:
            raise ValueError

    due = {"now": 0.0, "half a second": 0.5, "fails": 0.3, "a second": 1.0}
    with Producer(lab.cluster({})) as producer:
        sent = time.time()
        for name, seconds in due.items():
            if name == "a second":
                at = datetime.fromtimestamp(sent + seconds, UTC)
                producer.send(entry.retry.topic, name, not_before=at)
            else:
                producer.send(entry.retry.topic, name, delay=seconds)
        lab.start(entry, handler)
        runs.wait(5)
    assert {(name, attempt) for name, attempt, _ in runs} == {
        *((name, 1) for name in due),
        ("fails", 2),
    }
    for name, _, at in runs:
        assert at >= sent + due[name]
    lab.caught_up(entry)


@pytest.mark.parametrize("far", [False, True])
def test_a_job_for_a_base_topic_waits_there(lab: Lab, far: bool) -> None:
    """Pause and wait: a base topic cannot park."""
    entry, runs = lab.entry(), Log()
    with Producer(lab.cluster({})) as producer:
        sent = time.time()
        producer.send(entry.name, "job", delay=MONTH if far else 0.5)
        lab.start(entry, lambda m: runs.add((m.value, time.time())))
        lab.send(entry, as_json("plain"))
        runs.wait(1 if far else 2)
    at = dict(runs)
    assert "plain" in at and ("job" in at) is not far
    if not far:
        assert at["job"] >= sent + 0.5
