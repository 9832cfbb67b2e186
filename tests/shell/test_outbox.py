"""What handlers send, published by whole consumers on the mock cluster and on real Kafka."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client import AsyncExecutor, Limits, Message, ProcessExecutor
from retriable_kafka_client import events as ev
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire import headers as wire
from tests.shell.handlers import pass_on, pass_on_async
from tests.shell.lab import Lab, Log, as_json, number
from tests.support.records import Read
from tests.support.waiting import WAIT, wait_until

KINDS = ["int", "ThreadPoolExecutor", "ProcessExecutor", "ProcessPoolExecutor", "AsyncExecutor"]


def executor_of(kind: str, stack: ExitStack) -> Any:
    match kind:
        case "int":
            return 4
        case "ThreadPoolExecutor":
            return stack.enter_context(ThreadPoolExecutor(4))
        case "ProcessExecutor":
            return stack.enter_context(ProcessExecutor(2))
        case "ProcessPoolExecutor":
            return stack.enter_context(ProcessPoolExecutor(2, mp_context=get_context("spawn")))
        case _:
            return stack.enter_context(AsyncExecutor(20))


def values(records: list[Read]) -> Counter[int]:
    return Counter(json.loads(one.value or b"")["i"] for one in records)


def wait_for(lab: Lab, topic: str, count: int) -> list[Read]:
    wait_until(lambda: len(lab.read(topic)) >= count, what=f"{count} records", every=0.1)
    return lab.read(topic)


@pytest.mark.parametrize("kind", KINDS)
def test_what_succeeds_is_published_once_and_what_fails_is_not(lab: Lab, kind: str) -> None:
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    with ExitStack() as stack:
        handler: Callable[..., Any] = pass_on_async if kind == "AsyncExecutor" else pass_on
        executor = executor_of(kind, stack)
        consumer = lab.start(entry, partial(handler, out), executor=executor)
        # Every tenth fails once after it has sent, every 25th always.
        lab.fill(entry, [as_json({"i": i, "fails": 9 if i % 25 == 0 else i % 10 == 0}) for i in range(100)])
        lab.dead(entry, 4, timeout=60)
        lab.caught_up(entry)
        wait_until(lambda: consumer.stats().handled == 96)
        assert consumer.stats().published == 2 * 96
        consumer.stop()
        assert consumer.join(30)
    records = lab.read(out)
    assert values(records) == {i: 2 for i in range(100) if i % 25}
    assert {record.key for record in records} == {b"first", b"second"}
    ids = [record.header(wire.ID) for record in records]
    assert len(set(ids)) == len(ids)


def test_groups_send_under_ids_of_their_own(lab: Lab) -> None:
    entry, out = lab.entry(), lab.topic("out")
    lab.fill(entry, [as_json({"i": 1})])
    for group in ("a", "b"):
        lab.start(entry, partial(pass_on, out), group=f"{lab.group}-{group}")
    records = wait_for(lab, out, 4)
    assert len({record.header(wire.ID) for record in records}) == 4


def test_a_record_carries_what_was_given(lab: Lab) -> None:
    entry, out = lab.entry(), lab.topic("out", 4)
    due = datetime.now(UTC) + timedelta(hours=1)

    def handler(message: Message[Any]) -> None:
        message.send(out, b"\x00raw", key="k", headers={"a": "1", "b": None}, not_before=due)
        message.send(out, None, key="gone")

    lab.start(entry, handler)
    lab.send(entry, b"{}")
    first, second = sorted(wait_for(lab, out, 2), key=lambda one: one.key == b"gone")
    assert (first.value, first.key) == (b"\x00raw", b"k")
    assert wire.own_headers(first.headers) == (("a", b"1"), ("b", None))
    assert wire.read_marks(first.headers).not_before_ms == -(-due.timestamp() * 1000 // 1)
    assert (second.value, second.key) == (None, b"gone")


def test_a_job_for_later_is_run_when_it_is_due(lab: Lab) -> None:
    entry, ran = lab.entry(), Log()
    assert entry.retry
    retry_topic = str(entry.retry.topic)

    def handler(message: Message[Any]) -> None:
        ran.add((message.value["i"], time.time()))
        if message.value["i"] == 0:
            message.send(retry_topic, {"i": 1}, delay=1.5)

    lab.start(entry, handler)
    lab.fill(entry, [as_json({"i": 0})])
    (_, first), (i, second) = ran.wait(2)
    assert i == 1
    assert second - first >= 1.5


def test_a_refused_output_is_a_failed_attempt(real_lab: Lab) -> None:
    """The mock cluster makes a topic when it is asked for one."""
    lab = real_lab
    entry, out, missing = lab.entry(max_attempts=2), lab.topic("out"), f"{lab.topic('x')}-missing"

    def handler(message: Message[Any]) -> None:
        message.send(out, {"i": message.attempt})
        message.send(missing, {})

    consumer = lab.start(entry, handler)
    lab.fill(entry, [as_json({"i": 0})])
    (letter,) = lab.dead(entry, timeout=60)
    assert letter.header(wire.DEAD_ERROR) == b"retriable_kafka_client.errors.DeliveryError"
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 2
    assert (consumer.stats().handled, consumer.stats().failed) == (0, 2)
    records = lab.read(out)
    assert values(records) == {1: 1, 2: 1}  # acknowledged ones stay, and who reads them can tell
    assert len({record.header(wire.ID) for record in records}) == 1


def test_what_is_sent_after_the_time_limit_is_dropped(lab: Lab) -> None:
    entry, out, gate, over = lab.entry(retry=False), lab.topic("out"), threading.Event(), threading.Event()

    def handler(message: Message[Any]) -> None:
        message.send(out, {"i": 0})
        gate.wait(WAIT)
        message.send(out, {"i": 1})
        over.set()

    consumer = lab.start(entry, handler, timeout=0.3)
    lab.fill(entry, [as_json({})])
    lab.dead(entry)
    gate.set()
    assert over.wait(WAIT)
    wait_until(lambda: consumer.stats().in_flight == 0)
    consumer.stop()
    assert consumer.join(30)
    assert lab.read(out) == []


def test_what_a_partition_that_was_given_away_sends_is_dropped(lab: Lab) -> None:
    entry, out, gate, over = lab.entry(), lab.topic("out"), threading.Event(), threading.Event()
    begun = threading.Event()

    def handler(message: Message[Any]) -> None:
        begun.set()
        gate.wait(WAIT)
        message.send(out, {"i": 0})
        over.set()

    consumer = lab.start(entry, handler, limits=Limits(drain_timeout=0.2))
    lab.fill(entry, [as_json({})])
    assert begun.wait(WAIT)
    consumer.stop()
    assert consumer.join(30)
    gate.set()
    assert over.wait(WAIT)
    assert lab.read(out) == []
    assert lab.events.of(ev.DrainOverrun)


def test_a_filter_cannot_send(lab: Lab) -> None:
    entry, out = lab.entry(), lab.topic("out")

    def keep(message: Message[Any]) -> bool:
        message.send(out, {})
        return True

    lab.start(entry, partial(pass_on, out), filter=keep)
    lab.fill(entry, [as_json({"i": 0})])
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_REASON) == b"filter-failed"
    assert lab.read(out) == []


def test_a_large_value_goes_out_in_chunks(lab: Lab, tmp_path: Path) -> None:
    entry = lab.entry()
    out = lab.topic("out", 4, {"max.message.bytes": "100000"} if lab.real else None)
    body = bytes(range(256)) * 10_000
    file = tmp_path / "large"
    file.write_bytes(body)

    async def handler(message: Message[Any]) -> None:
        with file.open("rb") as opened:
            message.send(out, opened, key="k", headers={"a": b"1"}, split=True)
        await asyncio.sleep(0)

    with AsyncExecutor() as executor:
        consumer = lab.start(entry, handler, executor=executor)
        lab.fill(entry, [as_json({})])
        wait_until(lambda: consumer.stats().handled == 1)
        consumer.stop()
        assert consumer.join(30)
    records = lab.read(out)
    assert len(records) > 1
    chunks = sorted((wire.read_marks(one.headers).chunk.index, one) for one in records)  # type: ignore[union-attr]
    assert b"".join(one.value or b"" for _, one in chunks) == body
    assert {(one.partition, one.key, wire.own_headers(one.headers)) for one in records} == {
        (records[0].partition, b"k", (("a", b"1"),))
    }


def test_brokers_that_take_nothing_hold_up_handlers_and_not_memory(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
) -> None:
    mock, ran = mock_kafka({}), Log()
    with Lab(
        mock.bootstrap_servers, lambda topic, n, _: mock.create_topic(topic, n), "held-up", real=False
    ) as lab:
        entry, out, gate = lab.entry(), lab.topic("out"), threading.Event()

        def handler(message: Message[Any]) -> None:
            assert gate.wait(WAIT)
            ran.add(message.value["i"])
            message.send(out, b"x" * 500_000)

        consumer = lab.start(entry, handler, limits=Limits(buffer_bytes=4_000_000, message_bytes=1_000_000))
        lab.fill(entry, [as_json({"i": i}) for i in range(200)])
        wait_until(lambda: consumer.stats().in_flight == 200)
        mock.down()
        gate.set()
        ran.wait(8)
        wait_until(lambda: consumer.stats().buffered_bytes >= 4_000_000)
        seen = -1
        while seen != len(ran):  # until no further one begins
            seen = len(ran)
            threading.Event().wait(0.5)
        # What the buffer takes, and twice what the runner keeps until the loop has taken it (4 MB, and one for each thread):
        # once when the loop takes it and finds that it is too much, once while it finds that.
        assert seen <= 8 + 2 * (8 + 4)
        mock.up()
        wait_until(lambda: consumer.stats().handled == 200)
        assert ran.counts() == dict.fromkeys(range(200), 1)
