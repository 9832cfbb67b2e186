"""BaseConsumer: what its target is called with, what follows failures, and what it says of them."""

import itertools
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import confluent_kafka
import pytest

from retriable_kafka_client.compat import BaseConsumer, ConsumerThread, ConsumeTopicConfig
from retriable_kafka_client.wire import headers as wire
from tests.compat.old import caught_up, consumer_config, entry, producer, running
from tests.shell.lab import Lab, Log
from tests.support.kafka import Kafka
from tests.support.names import unique
from tests.support.waiting import WAIT, wait_until


def lines(caplog: pytest.LogCaptureFixture, least: int, naming: str) -> list[str]:
    """The compat lines of that level or above that name something."""
    found = [one for one in caplog.records if one.levelno >= least and "compat" in one.name]
    return [one.getMessage() for one in found if naming in one.getMessage()]


def test_the_target_is_called_with_what_json_says(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    values = [{"a": "ä"}, [1, 2], "text", 7, None, 10**30]
    bodies = [json.dumps(value).encode() for value in values]
    lab.fill(one.base_topic, [*bodies, b'{"n": NaN}'])
    with running(consumer_config(lab, seen.add, one)) as (_, raised):
        seen.wait(7)
        caught_up(lab, one)
    assert sorted(map(repr, seen)) == sorted(map(repr, [*values, {"n": float("nan")}]))
    assert not list(raised)


@pytest.mark.parametrize("body", [b"", None, b"not json", b"\xff", b'{"half":'])
def test_what_is_no_json_is_given_up_at_once_with_a_line(
    lab: Lab, body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """0.x ended, without a line, for what is not UTF-8."""
    one, seen = entry(lab), Log()
    lab.send(one.base_topic, body)
    lab.send(one.base_topic, b'{"next": 1}')
    with running(consumer_config(lab, seen.add, one)) as (_, raised):
        seen.wait(1)
        caught_up(lab, one)
    assert list(seen) == [{"next": 1}] and not list(raised)
    (line,) = lines(caplog, logging.WARNING, one.base_topic)
    assert "half" not in line and "not json" not in line


def test_failures_are_retried_after_a_constant_delay_and_then_given_up(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    one, starts = entry(lab, retries=3, fallback_delay=0.4), Log()

    def target(message: dict[str, Any]) -> None:
        starts.add((message["i"], time.monotonic()))
        if message["i"] == 1 or len([i for i, _ in starts if i == 2]) < 3:
            raise ValueError("with payload")

    lab.fill(one.base_topic, [b'{"i": 1}', b'{"i": 2}'])
    with running(consumer_config(lab, target, one)):
        starts.wait(4 + 3)
        caught_up(lab, one)
    for i, runs in ((1, 4), (2, 3)):
        times = [at for who, at in starts if who == i]
        assert len(times) == runs
        assert all(late - early >= 0.399 for early, late in itertools.pairwise(times))
    (line,) = lines(caplog, logging.ERROR, one.base_topic)
    assert one.retry_topic is not None and one.retry_topic in line
    assert re.search(r"partition \d", line) and re.search(r"offset \d", line) and "runs: 4" in line
    assert line.endswith("1 so far") and "ValueError" in line
    assert "with payload" not in caplog.text
    assert len(lines(caplog, logging.WARNING, one.base_topic)) == 1


def test_given_up_messages_are_counted(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    one = ConsumeTopicConfig(lab.topic("base"))
    lab.fill(one.base_topic, [b'"no dict"'] * 5)
    with running(consumer_config(lab, lambda message: message["i"], one)):
        caught_up(lab, one)
        wait_until(lambda: len(lines(caplog, logging.ERROR, one.base_topic)) == 5)
    counts = [int(line.split()[-3]) for line in lines(caplog, logging.ERROR, one.base_topic)]
    assert counts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (-3, 1), (1, 2)])
def test_retries_count_the_runs_after_the_first(lab: Lab, retries: int, runs: int) -> None:
    one, seen = entry(lab, retries, fallback_delay=-1.0), Log()

    def target(message: dict[str, Any]) -> None:
        seen.add(message)
        raise RuntimeError

    lab.send(one.base_topic, b"{}")
    with running(consumer_config(lab, target, one)):
        seen.wait(runs)
        caught_up(lab, one)
    assert len(seen) == runs


def test_with_a_dead_letter_topic_nothing_is_dropped(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    one = entry(lab, 1, dead_letter_topic=lab.topic("dead", 1))
    assert one.dead_letter_topic is not None
    producer(lab, one.base_topic).send_sync({"i": 1}, {"own": "header"})
    with running(consumer_config(lab, lambda message: message["no such key"], one)):
        wait_until(lambda: len(lab.read(str(one.dead_letter_topic))) == 1)
        caught_up(lab, one)
        wait_until(lambda: lines(caplog, logging.ERROR, one.base_topic))
    (dead,) = lab.read(one.dead_letter_topic)
    assert dead.value == b'{"i": 1}' and dead.header("own") == b"header"
    assert dead.header(wire.DEAD_REASON) == b"exhausted"
    (line,) = lines(caplog, logging.ERROR, one.base_topic)
    assert one.dead_letter_topic in line


def test_a_filter_sees_every_raw_record(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    one, ran, seen = entry(lab), Log(), Log()

    def keep(raw: confluent_kafka.Message) -> bool:
        assert isinstance(raw, confluent_kafka.Message)
        body, headers = raw.value(), dict(raw.headers() or [])
        seen.add((raw.topic(), body, headers.get("h")))
        if body == b'"raises"':
            raise KeyError("with payload")
        return body != b'"no"' and headers.get("h") != b"no"

    def target(message: Any) -> None:
        ran.add(message)
        if message == "fails" and len([one for one in ran if one == "fails"]) == 1:
            raise ValueError

    for body, headers in (
        (b'"no"', []),
        (b'"fails"', []),
        (b'"raises"', []),
        (b'"headed"', [("h", b"no")]),
        (b"1", []),
    ):
        lab.send(one.base_topic, body, headers=headers)
    with running(consumer_config(lab, target, one, filter_function=keep)):
        ran.wait(3)
        caught_up(lab, one)
    assert sorted(map(str, ran)) == ["1", "fails", "fails"]
    assert seen.counts()[one.retry_topic, b'"fails"', None] == 1
    assert len(seen) == 6
    (line,) = lines(caplog, logging.ERROR, one.base_topic)
    assert "KeyError" in line and "payload" not in line and "offset" in line


def test_the_config_is_read_when_it_runs(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    config = consumer_config(lab, print, ConsumeTopicConfig("not yet known"))
    config.kafka_hosts = ["127.0.0.1:1"]
    pool = ThreadPoolExecutor(2)
    thread = ConsumerThread(BaseConsumer(config, pool))
    config.target, config.filter_function = seen.add, lambda raw: raw.value() != b"1"
    config.topics[0].base_topic, config.kafka_hosts = one.base_topic, [lab.servers]
    lab.fill(one.base_topic, [b"1", b"2"])
    thread.start()
    seen.wait(1)
    caught_up(lab, one.base_topic)
    thread.stop()
    assert not thread.is_alive() and list(seen) == [2]
    assert pool.submit(int).result() == 0, "the executor is not shut down"
    pool.shutdown()


def test_a_group_in_the_settings_wins(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    lab.send(one.base_topic, b"1")
    config = consumer_config(lab, seen.add, one, settings={"group.id": lab.group})
    config.group_id = unique("another")
    with running(config):
        seen.wait(1)
        caught_up(lab, one)


def test_max_concurrency_is_reached_and_not_passed(lab: Lab) -> None:
    one = entry(lab, retries=1)
    together, most, lock = threading.Barrier(16, timeout=WAIT), [0, 0], threading.Lock()

    def target(message: dict[str, Any]) -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
        try:
            if message["wait"]:
                together.wait()
            else:
                raise ValueError
        finally:
            with lock:
                most[0] -= 1

    bodies = [b'{"wait": false}'] * 30 + [b'{"wait": true}'] * 64
    lab.fill(one.base_topic, bodies)
    with ThreadPoolExecutor(40) as pool, running(consumer_config(lab, target, one), pool, 16):
        caught_up(lab, one)
    assert most == [0, 16]


def test_health_tells_whether_the_brokers_answer(lab: Lab) -> None:
    one = entry(lab)
    config = consumer_config(lab, print, one)
    with running(config) as (consumer, _):
        assert consumer.connection_healthcheck() is True
    assert consumer.connection_healthcheck() is True
    config.kafka_hosts = ["127.0.0.1:1"]
    assert consumer.connection_healthcheck() is False


def test_it_waits_for_a_topic_that_is_not_there(
    kafka: Kafka, real_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """0.x waited; a Consumer ends with the command that makes the topic."""
    lab, seen = real_lab, Log()
    later = ConsumeTopicConfig(unique("later"), lab.topic("retry"))
    with running(consumer_config(lab, seen.add, later)) as (_, raised):
        wait_until(lambda: lines(caplog, logging.ERROR, later.base_topic), what="it says what is missing")
        kafka.create_topic(later.base_topic, 1)
        lab.send(later.base_topic, b'{"i": 1}')
        seen.wait(1)
    assert list(seen) == [{"i": 1}] and not list(raised)
    assert len(lines(caplog, logging.ERROR, later.base_topic)) == 1


def test_it_waits_for_brokers_and_stops_at_once_all_the_same() -> None:
    config = consumer_config(
        Lab("127.0.0.1:1", lambda *_: None, "x", real=False), print, ConsumeTopicConfig("t")
    )
    with running(config) as (consumer, raised):
        assert consumer.connection_healthcheck() is False
    assert not list(raised)


def test_a_stop_drains_what_runs_and_leaves_nothing_handled_uncommitted(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    gate, begun = threading.Event(), threading.Semaphore(0)

    def target(message: int) -> None:
        begun.release()
        gate.wait(WAIT)
        seen.add(message)

    lab.fill(one.base_topic, [b"%d" % i for i in range(50)])
    consumer = BaseConsumer(consumer_config(lab, target, one), ThreadPoolExecutor(4), 8)
    thread = ConsumerThread(consumer)
    thread.start()
    for _ in range(4):
        assert begun.acquire(timeout=WAIT)
    consumer.stop()
    gate.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    first = sorted(seen)
    with running(consumer_config(lab, seen.add, one)):
        caught_up(lab, one)
    assert len(first) >= 4 and sorted(seen) == list(range(50))


def test_a_pattern_finds_its_topics_and_copies_go_back_to_their_retry_topic(real_lab: Lab) -> None:
    lab, seen = real_lab, Log()
    prefix = unique("pattern")
    lab.test = prefix
    bases = [lab.topic("base-one"), lab.topic("base-two")]
    retry = lab.topic("retry-one")
    one = ConsumeTopicConfig(f"^{prefix}-base-.*", f"^{prefix}-retry-.*", 2, 0.05)

    def target(message: dict[str, Any]) -> None:
        seen.add(message["i"])
        if message["i"] == "again" and seen.counts()["again"] == 1:
            raise ValueError

    for name in bases:
        lab.send(name, json.dumps({"i": name}).encode())
    # A retry copy of 0.x.
    lab.send(retry, b'{"i": "again"}', headers=[(wire.ATTEMPT, bytes(7) + b"\1")])
    with running(consumer_config(lab, target, one)):
        seen.wait(4)
        caught_up(lab, *bases, retry)
    assert seen.counts() == {bases[0]: 1, bases[1]: 1, "again": 2}
    assert len(lab.read(retry)) == 2


def test_a_failure_without_a_retry_topic_by_name_is_exhausted_with_an_error(
    real_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab = real_lab
    one = ConsumeTopicConfig(lab.topic("base"), "^" + lab.topic("retry"), 5, 0.05)
    lab.send(one.base_topic, b"{}")
    with running(consumer_config(lab, lambda message: message["i"], one)):
        caught_up(lab, one.base_topic)
        wait_until(lambda: lines(caplog, logging.ERROR, one.base_topic))
    assert lab.read(str(one.retry_topic)[1:]) == []
