"""What 0.x programs do with the library's own headers: they schedule messages, and send chunks that they made."""

import asyncio
import json
import time
import uuid
from collections import Counter
from typing import Any

import pytest

from retriable_kafka_client.compat import BaseProducer
from tests.compat.old import caught_up, consumer_config, entry, producer, running
from tests.shell.lab import Lab, Log

# As 0.x programs write them out.
ATTEMPT = "retriable_kafka_attempt"
TIMESTAMP = "retriable_kafka_timestamp"
GROUP = "retriable_kafka_chunk_group"
INDEX = "retriable_kafka_chunk_id"
COUNT = "retriable_kafka_number_of_chunks"


def eight(number: float) -> bytes:
    return int(number).to_bytes(length=8, byteorder="big")


def send(how: str, sender: BaseProducer, message: Any, headers: dict[str, str | bytes]) -> None:
    if how == "sync":
        sender.send_sync(message, headers=headers)
    else:
        asyncio.run(sender.send(message, headers=headers))


@pytest.mark.parametrize(("how", "split"), [("sync", False), ("async", True)])
@pytest.mark.parametrize("where", ["base", "retry"])
def test_a_message_is_scheduled_by_its_headers(lab: Lab, where: str, how: str, split: bool) -> None:
    one, seen = entry(lab, retries=2), Log()

    def target(message: dict[str, Any]) -> None:
        seen.add((message["i"], time.time()))
        raise ValueError

    sender = producer(lab, one.base_topic if where == "base" else str(one.retry_topic), split_messages=split)
    due = int(time.time()) + 2
    send(how, sender, {"i": "later"}, {TIMESTAMP: eight(due), ATTEMPT: eight(1)})
    send(how, sender, {"i": "last"}, {ATTEMPT: eight(2)})
    sender.close()
    with running(consumer_config(lab, target, one)):
        seen.wait(3)
        caught_up(lab, one)
    assert Counter(i for i, _ in seen) == {"last": 1, "later": 2}  # the attempts that the headers leave
    assert all(at >= due for i, at in seen if i == "later")


@pytest.mark.parametrize(("how", "split"), [("sync", False), ("async", True)])
def test_chunks_made_by_hand_are_one_message(lab: Lab, how: str, split: bool) -> None:
    one, seen = entry(lab), Log()
    sender = producer(lab, one.base_topic, split_messages=split)
    sent = [{"i": i, "body": "x" * 3000} for i in range(5)]
    for message in sent:
        group, body = uuid.uuid4().bytes, json.dumps(message).encode()
        pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        for index, piece in enumerate(pieces):
            send(how, sender, piece, {GROUP: group, INDEX: eight(index), COUNT: eight(len(pieces))})
    sender.close()
    with running(consumer_config(lab, seen.add, one)):
        seen.wait(5)
        caught_up(lab, one)
    assert sorted(seen, key=lambda message: int(message["i"])) == sent


def test_a_large_message_that_is_split_has_chunk_headers_once(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    sender = producer(lab, one.base_topic, split_messages=True)
    message = {"body": "x" * 3_000_000}
    sender.send_sync(message, {GROUP: uuid.uuid4().bytes, INDEX: eight(0), COUNT: eight(2), "own": "1"})
    sender.close()
    with running(consumer_config(lab, seen.add, one)):
        seen.wait(1)
        caught_up(lab, one)
    assert list(seen) == [message]
