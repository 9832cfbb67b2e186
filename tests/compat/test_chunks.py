"""Messages larger than their topic's limit, through the 0.x interface."""

import json
import logging
import random
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest

from retriable_kafka_client.compat import ConsumeTopicConfig
from retriable_kafka_client.wire import headers as wire
from tests.compat.old import caught_up, consumer_config, entry, producer, running
from tests.shell.lab import Lab, Log


def chunk(lab: Lab, topic: str, group: bytes, index: int, count: int, body: bytes) -> None:
    """As 0.x writes one."""
    numbers = ((wire.CHUNK_INDEX, index), (wire.CHUNK_COUNT, count))
    headers = [(wire.CHUNK_GROUP, group), *((name, number.to_bytes(8, "big")) for name, number in numbers)]
    lab.send(topic, body, key=group, headers=headers, partition=0)


def test_large_messages_go_through_small_topics_with_failures(real_lab: Lab) -> None:
    lab = real_lab
    small = {"max.message.bytes": "50000"}
    one = ConsumeTopicConfig(lab.topic("base", 2, small), lab.topic("retry", 2, small), 5, 0.05)
    seen, lock, failed = Log(), threading.Lock(), set()

    def target(message: dict[str, Any]) -> None:
        with lock:
            if message["i"] % 2 and message["i"] not in failed:
                failed.add(message["i"])
                raise ValueError
        seen.add(message)

    sender = producer(lab, one.base_topic, split_messages=True)
    sent = [{"i": i, "body": random.randbytes(i * 20_000).hex()} for i in range(12)]
    for message in sent:
        sender.send_sync(message)
    sender.send_sync([b'{"i": 12, ', b'"body": "', b"x" * 200_000, b'"}'])
    sender.close()
    with running(consumer_config(lab, target, one)):
        seen.wait(13)
        caught_up(lab, one.base_topic, one.retry_topic)
    got = sorted(seen, key=lambda message: int(message["i"]))
    assert got[:12] == sent and got[12]["body"] == "x" * 200_000
    assert len(failed) == 6


def test_without_splitting_a_large_message_is_refused(real_lab: Lab) -> None:
    one = entry(real_lab)
    with pytest.raises(RuntimeError, match="MSG_SIZE_TOO_LARGE"):
        producer(real_lab, one.base_topic).send_sync({"body": "x" * 2_000_000})


def test_a_late_chunk_is_waited_for(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    body = json.dumps({"i": 1, "body": "x" * 100}).encode()
    group = uuid.uuid4().bytes
    chunk(lab, one.base_topic, group, 0, 3, body[:50])
    chunk(lab, one.base_topic, group, 2, 3, body[90:])
    lab.send(one.base_topic, b'{"i": 2}', partition=0)
    with running(consumer_config(lab, seen.add, one, max_chunk_reassembly_wait_time=timedelta(seconds=60))):
        seen.wait(1)
        chunk(lab, one.base_topic, group, 1, 3, body[50:90])
        seen.wait(2)
        caught_up(lab, one.base_topic)
    assert list(seen) == [{"i": 2}, json.loads(body)]


def test_a_lost_chunk_is_one_warning_and_holds_nothing_up(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    one, seen = entry(lab), Log()
    for index in (0, 2):
        chunk(lab, one.base_topic, uuid.UUID(int=1).bytes, index, 3, b'{"half')
    lab.send(one.base_topic, b'{"i": 2}', partition=0)
    with running(consumer_config(lab, seen.add, one, max_chunk_reassembly_wait_time=timedelta(seconds=1))):
        seen.wait(1)
        caught_up(lab, one.base_topic)
    assert list(seen) == [{"i": 2}]
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    # The mock cluster does not tell topics' settings, which is a line of its own.
    texts = [record.getMessage() for record in warned if not record.name.endswith(".topics")]
    (line,) = [text for text in texts if one.base_topic in text]
    assert "incomplete" in line and "half" not in line


def test_an_unfinished_message_is_whole_for_the_next_member(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    body = json.dumps({"i": 1, "body": "x" * 100}).encode()
    group = uuid.uuid4().bytes
    chunk(lab, one.base_topic, group, 0, 2, body[:50])
    lab.send(one.base_topic, b'{"i": 2}', partition=0)
    config = consumer_config(lab, seen.add, one)
    with running(config):
        seen.wait(1)
    with running(config):
        chunk(lab, one.base_topic, group, 1, 2, body[50:])
        seen.wait(2)
        caught_up(lab, one.base_topic)
    assert list(seen) == [{"i": 2}, json.loads(body)], "and what was done is not done again"
