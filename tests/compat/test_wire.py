"""Records of 0.x and of this library, read by the other: built from WIRE.md, and by the published 0.7.0 itself."""

import json
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client.compat import ConsumeTopicConfig
from retriable_kafka_client.wire import headers as wire
from tests.compat.old import consumer_config, entry, producer, running
from tests.compat.programs import events, start
from tests.shell.lab import Lab, Log, number
from tests.support.records import group_lag
from tests.support.waiting import wait_until

Headers = list[tuple[str, bytes | None]]


def eight(value: int) -> bytes:
    return value.to_bytes(8, "big")


def chunk_of_0x(index: int, count: int, group: bytes) -> Headers:
    return [
        (wire.CHUNK_GROUP, group),
        (wire.CHUNK_COUNT, eight(count)),
        (wire.CHUNK_INDEX, eight(index)),
    ]


def retry_headers_of_0x(failed: int, due: int) -> Headers:
    return [(wire.ATTEMPT, eight(failed)), (wire.TIMESTAMP, eight(due))]


def send_as_0x(lab: Lab, topic: str, body: bytes, parts: int = 1, headers: Headers | None = None) -> None:
    """As a splitting producer of 0.x does: the group id in the key, the chunk headers also on a single one."""
    group = uuid.uuid4().bytes
    size = -(-len(body) // parts)
    for index in range(parts):
        piece = body[index * size : (index + 1) * size]
        lab.send(
            topic,
            piece,
            key=group,
            headers=[*(headers or []), *chunk_of_0x(index, parts, group)],
            partition=0,
        )


def test_a_message_marked_as_the_only_chunk_is_an_ordinary_one(lab: Lab) -> None:
    one, seen = entry(lab), Log()
    send_as_0x(lab, one.base_topic, b'{"i": 1}')
    with running(consumer_config(lab, seen.add, one)):
        seen.wait(1)
    assert list(seen) == [{"i": 1}]


def test_a_retry_copy_of_0x_runs_when_due_and_keeps_its_count(lab: Lab) -> None:
    one, seen = entry(lab, retries=3), Log()
    due = int(time.time()) + 2

    def target(message: dict[str, Any]) -> None:
        seen.add((message["i"], time.time()))
        raise ValueError

    send_as_0x(lab, str(one.retry_topic), b'{"i": 1}', headers=retry_headers_of_0x(2, due))
    with running(consumer_config(lab, target, one)):
        seen.wait(2)  # the third and the fourth of four runs
        wait_until(lambda: group_lag(lab.servers, lab.group, str(one.retry_topic)) == 0)
    assert len(seen) == 2 and seen.items[0][1] >= due


def test_our_retry_copy_says_to_0x_what_it_reads(lab: Lab) -> None:
    one, seen = entry(lab, retries=1, fallback_delay=1.25), Log()

    def target(message: dict[str, Any]) -> None:
        seen.add(time.time())
        raise ValueError

    send_as_0x(lab, one.base_topic, b'{"i": 1}')
    with running(consumer_config(lab, target, one)):
        seen.wait(1)
        wait_until(lambda: lab.read(str(one.retry_topic)))
    (copy,) = lab.read(str(one.retry_topic))
    assert copy.value == b'{"i": 1}'
    assert number(copy.header(wire.ATTEMPT)) == 1
    assert number(copy.header(wire.TIMESTAMP)) >= seen.items[0] + 1.25, "0.x must not run it early"


# With the published 0.7.0 ---------------------------------------------------------------------------------------------

SETTINGS = {"fetch.wait.max.ms": 20, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def told(lab: Lab, one: ConsumeTopicConfig, **more: Any) -> dict[str, Any]:
    topic: dict[str, Any] = {"base": one.base_topic, "retry": one.retry_topic, "retries": one.retries}
    topic["delay"] = one.fallback_delay
    return {"servers": lab.servers, "group": lab.group, "settings": SETTINGS, "topics": [topic], **more}


@pytest.mark.parametrize("split", [False, True])
def test_what_we_send_0_7_0_handles(
    real_lab: Lab, tmp_path: Path, published_python: Path, split: bool
) -> None:
    lab = real_lab
    one = entry(lab)
    sizes = [10, 900_000, 2_500_000, 5_000_000] if split else [10, 900_000]
    sender = producer(lab, one.base_topic, split_messages=split)
    for i, size in enumerate(sizes):
        sender.send_sync({"i": i, "body": "x" * size})
    sender.close()
    with start(tmp_path, "published", published=published_python, role="consume", **told(lab, one)) as member:
        wait_until(lambda: len(events(tmp_path, "done")) == len(sizes), 60)
        member.terminate()
        assert member.wait(60) == 0, member.log.read_text()
    assert {one["i"]: one["size"] for one in events(tmp_path, "ran")} == dict(enumerate(sizes))


@pytest.mark.parametrize("split", [False, True])
def test_what_0_7_0_sends_we_handle(
    real_lab: Lab, tmp_path: Path, published_python: Path, split: bool
) -> None:
    lab = real_lab
    one, seen = entry(lab), Log()
    more: dict[str, Any] = {"large_each": 2, "large": 2_500_000} if split else {}
    given = told(lab, one, role="produce", to=[one.base_topic], count=6, split=split, **more)
    with start(tmp_path, "published", published=published_python, **given) as sender:
        assert sender.wait(60) == 0, sender.log.read_text()
    with running(consumer_config(lab, seen.add, one)):
        seen.wait(6)
    sizes = {one["i"]: one["size"] for one in events(tmp_path, "sent")}
    assert {one["i"]: len(one["body"]) for one in seen} == sizes
    assert (max(sizes.values()) > 2_000_000) == split


@pytest.mark.parametrize("large", [False, True])
def test_a_message_retries_through_members_of_both(
    real_lab: Lab, tmp_path: Path, published_python: Path, large: bool
) -> None:
    """It fails with 0.7.0, then here, then with 0.7.0, and succeeds here: one count of attempts for both."""
    lab = real_lab
    one = ConsumeTopicConfig(lab.topic("base", 1), lab.topic("retry", 1), 3, 5.0)  # time to stop a member
    retry = str(one.retry_topic)
    body = json.dumps({"i": 1, "fail": 1.0, "body": "x" * (2_500_000 if large else 10)}).encode()
    send_as_0x(lab, one.base_topic, body, 3 if large else 1)
    copies, succeeded = 0, Log()
    for run in range(4):
        if run == 3:
            with running(consumer_config(lab, succeeded.add, one, settings={"group.protocol": "classic"})):
                succeeded.wait(1)
            break
        published = published_python if run in (0, 2) else None
        with start(tmp_path, f"run-{run}", published=published, role="consume", **told(lab, one)) as member:
            wait_until(lambda count=copies: len(lab.read(retry)) > count, 60)  # type: ignore[misc]
            member.terminate()
            assert member.wait(60) == 0, member.log.read_text()
        now = lab.read(retry)
        assert {number(copy.header(wire.ATTEMPT)) for copy in now[copies:]} == {run + 1}
        copies = len(now)
    assert len(events(tmp_path, "ran")) == 3
    assert [json.dumps(message).encode() for message in succeeded] == [body]
    assert Counter(number(copy.header(wire.ATTEMPT)) for copy in lab.read(retry)).keys() == {1, 2, 3}
