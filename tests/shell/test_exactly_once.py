"""Exactly once, by whole consumers on real Kafka: what a message causes becomes visible as one, or not at all."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from retriable_kafka_client import ConfigError, Limits, Message, Producer, Topic
from retriable_kafka_client import events as ev
from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire import headers as wire
from tests.shell.handlers import pass_on, pass_on_async, split_on, split_on_async
from tests.shell.lab import Lab, Log, as_json, nothing, settings_of
from tests.shell.test_outbox import KINDS, executor_of
from tests.support.records import Read, committed, read_all
from tests.support.waiting import WAIT, wait_until

ONCE: Mapping[str, Any] = {"guarantee": "exactly_once"}
PROTOCOLS = ["cooperative", "range", "consumer"]


def numbers(records: list[Read]) -> Counter[int]:
    return Counter(json.loads(one.value or b"")["i"] for one in records)


def everything(lab: Lab, topic: str) -> list[Read]:
    """Aborted records, too."""
    return read_all(lab.servers, topic, settings={"isolation.level": "read_uncommitted"})


def dead_letters(lab: Lab, topic: Topic, count: int) -> list[Read]:
    """Wait for so many; the end of the log says little, with markers and aborted records in it."""
    wait_until(lambda: len(lab.read(str(topic.dead_letter))) >= count, 60, f"{count} dead letters", every=0.1)
    return lab.read(str(topic.dead_letter))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_copies_and_progress_are_visible_once(real_lab: Lab, kind: str) -> None:
    lab = real_lab
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    assert entry.retry
    with ExitStack() as stack:
        handler: Callable[..., Any] = pass_on_async if kind == "AsyncExecutor" else pass_on
        consumer = lab.start(entry, partial(handler, out), executor=executor_of(kind, stack), **ONCE)
        # Every tenth fails once after it has sent, every 25th always.
        lab.fill(entry, [as_json({"i": i, "fails": 9 if i % 25 == 0 else i % 10 == 0}) for i in range(100)])
        wait_until(lambda: consumer.stats().handled == 96, 60)
        dead_letters(lab, entry, 4)
        lab.caught_up(entry)
        assert consumer.stats().published == 2 * 96
        consumer.stop()
        assert consumer.join(30)
    assert numbers(lab.read(out)) == {i: 2 for i in range(100) if i % 25}
    assert numbers(lab.read(str(entry.retry.topic))) == {i: 1 for i in range(100) if not (i % 25 and i % 10)}
    assert numbers(dead_letters(lab, entry, 4)) == dict.fromkeys(range(0, 100, 25), 1)
    ids = [record.header(wire.ID) for record in lab.read(out)]
    assert len(set(ids)) == len(ids)
    assert numbers(everything(lab, out)) == numbers(lab.read(out))  # nothing was aborted


def test_what_is_not_complete_yet_holds_up_nothing_behind_it(real_lab: Lab) -> None:
    """The map in the transaction says what is complete above the position; the next member does not run it again."""
    lab, runs, gate = real_lab, Log(), threading.Event()
    entry, out = lab.entry(partitions=1), lab.topic("out")

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add(i)
        message.send(out, {"i": i})
        if i == 0:
            gate.wait(WAIT)

    lab.fill(entry, [as_json({"i": i}) for i in range(50)])
    first = lab.start(entry, handler, limits=Limits(drain_timeout=0.5), **ONCE)
    wait_until(lambda: len(lab.read(out)) == 49, what="all but the one that waits")
    assert committed(lab.servers, lab.group, entry.name)[0].offset == 0
    first.stop()
    assert first.join(30)
    assert not lab.events.of(ev.CommitFailed)  # it ran on, and nothing else is left to be told
    gate.set()
    lab.start(entry, handler, **ONCE)
    lab.caught_up(entry)
    assert runs.counts() == {0: 2} | dict.fromkeys(range(1, 50), 1)
    assert numbers(lab.read(out)) == dict.fromkeys(range(50), 1)


@pytest.mark.parametrize("why", ["too large", "unknown topic"])
def test_a_refused_output_fails_its_message_and_nothing_else(real_lab: Lab, why: str) -> None:
    lab, runs = real_lab, Log()
    entry = lab.entry(max_attempts=2)
    out = lab.topic("out", 2, {"max.message.bytes": "20000"})

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add((i, message.attempt))
        message.send(out, {"i": i, "first": True})
        if i % 50:
            return
        if why == "too large":
            message.send(out, {"i": i, "body": "x" * 30_000})
        else:
            message.send(f"{out}-missing", {"i": i})

    consumer = lab.start(entry, handler, **ONCE)
    lab.fill(entry, [as_json({"i": i}) for i in range(200)])
    letters = dead_letters(lab, entry, 4)
    lab.caught_up(entry)
    assert numbers(letters) == dict.fromkeys(range(0, 200, 50), 1)
    assert numbers(lab.read(out)) == {i: 1 for i in range(200) if i % 50}
    assert runs.counts() == {(i, 1): 1 for i in range(200)} | {(i, 2): 1 for i in range(0, 200, 50)}
    assert consumer.stats().handled == 196
    aborted = lab.events.of(ev.TransactionAborted)
    assert all(one.refused for one in aborted)


def test_records_that_fit_alone_but_not_together(real_lab: Lab) -> None:
    """The client puts them into one batch, which is above what the topic takes."""
    lab = real_lab
    entry, out = lab.entry(), lab.topic("out", 1, {"max.message.bytes": "20000"})

    def handler(message: Message[Any]) -> None:
        for key in range(20):
            message.send(out, {"i": message.value["i"], "body": "x" * 5000}, key=str(key))

    lab.start(entry, handler, **ONCE)
    lab.fill(entry, [as_json({"i": i}) for i in range(20)])
    lab.caught_up(entry)
    assert numbers(lab.read(out)) == dict.fromkeys(range(20), 20)


@pytest.mark.parametrize("kind", KINDS)
def test_large_messages_go_in_chunks_within_the_transaction(real_lab: Lab, kind: str) -> None:
    """Those of the first attempt, which fails, are never seen."""
    lab = real_lab
    entry, out = lab.entry(max_attempts=2), lab.topic("out", 4, {"max.message.bytes": "100000"})
    body = bytes(range(256)) * 5_000
    with ExitStack() as stack:
        handler: Callable[..., Any] = split_on_async if kind == "AsyncExecutor" else split_on
        consumer = lab.start(entry, partial(handler, out), executor=executor_of(kind, stack), **ONCE)
        with Producer(lab.cluster(), split=True) as producer:
            producer.send(entry.name, body).result(30)
        wait_until(lambda: consumer.stats().handled == 1, 60)
        lab.caught_up(entry, timeout=60)
        consumer.stop()
        assert consumer.join(30)
    records = lab.read(out)
    chunks = [one for one in records if one.key == b"k"]
    assert [json.loads(one.value or b"") for one in records if one.key == b"s"] == [{"attempt": 2}]
    assert len(chunks) > 1 and len(records) == len(chunks) + 1
    ordered = sorted((wire.read_marks(one.headers).chunk.index, one.value or b"") for one in chunks)  # type: ignore[union-attr]
    assert b"".join(value for _, value in ordered) == body
    assert len(everything(lab, out)) == len(records)


def test_a_chain_is_exactly_once_from_end_to_end(real_lab: Lab) -> None:
    lab = real_lab
    first, second = lab.entry(max_attempts=2), lab.entry(max_attempts=2)
    out = lab.topic("out")

    def forward(to: str, message: Message[Any]) -> None:
        message.send(to, message.value)
        if message.value["i"] % 9 == 1 and message.attempt == 1:
            raise ValueError

    lab.start(first, partial(forward, second.name), group=f"{lab.group}-a", **ONCE)
    lab.start(second, partial(forward, out), group=f"{lab.group}-b", **ONCE)
    lab.fill(first, [as_json({"i": i}) for i in range(300)])
    wait_until(lambda: len(lab.read(out)) >= 300, 60, every=0.2)
    lab.caught_up(first, group=f"{lab.group}-a")
    lab.caught_up(second, group=f"{lab.group}-b")
    assert numbers(lab.read(out)) == dict.fromkeys(range(300), 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_come_and_go_and_every_effect_stands_once(real_lab: Lab, protocol: str) -> None:
    lab, runs = real_lab, Log()
    entry, out = lab.entry(max_attempts=2, partitions=4), lab.topic("out")
    total = 0

    def fill(count: int) -> None:
        nonlocal total
        total += lab.fill(entry, [as_json({"i": i}) for i in range(total, total + count)])

    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add((i, message.attempt))
        message.send(out, {"i": i})
        time.sleep(0.005)
        if i % 20 == 0 and message.attempt == 1:
            raise ValueError

    def member() -> Any:
        return lab.start(entry, handler, executor=2, settings=settings_of(protocol), **ONCE)

    def handles_some(consumer: Any) -> bool:
        if len(runs) > total - 200:  # there is always work when it is given its partitions
            fill(200)
        return bool(consumer.stats().handled > 50)

    fill(1500)
    stays = member()
    runs.wait(150)
    goes = member()
    wait_until(partial(handles_some, goes), 60)
    goes.stop()
    assert goes.join(60)
    member()
    lab.caught_up(entry, timeout=90)
    assert numbers(lab.read(out)) == dict.fromkeys(range(total), 1)
    expected = {(i, 1): 1 for i in range(total)} | {(i, 2): 1 for i in range(0, total, 20)}
    assert runs.counts() == expected
    assert not lab.events.of(ev.CommitFailed)
    assert stays.health().alive


def test_what_did_not_succeed_is_never_visible(real_lab: Lab) -> None:
    """Not of a failed attempt, not of one beyond its time, not of one whose partition was given away."""
    lab, gate, over = real_lab, threading.Event(), threading.Event()
    entry, out = lab.entry(retry=False, partitions=1), lab.topic("out")

    def handler(message: Message[Any]) -> None:
        message.send(out, message.value)
        match message.value["i"]:
            case 1:
                raise ValueError
            case 2:
                gate.wait(WAIT)
                message.send(out, message.value)
                over.set()

    consumer = lab.start(entry, handler, timeout=1.0, **ONCE)
    lab.fill(entry, [as_json({"i": i}) for i in range(4)])
    dead_letters(lab, entry, 2)
    gate.set()
    assert over.wait(WAIT)
    wait_until(lambda: consumer.stats().in_flight == 0)
    lab.caught_up(entry)
    consumer.stop()
    assert consumer.join(30)
    assert numbers(everything(lab, out)) == {0: 1, 3: 1}


def test_an_overrun_drain_shows_nothing(real_lab: Lab) -> None:
    lab, gate, over, begun = real_lab, threading.Event(), threading.Event(), threading.Event()
    entry, out = lab.entry(), lab.topic("out")

    def handler(message: Message[Any]) -> None:
        begun.set()
        gate.wait(WAIT)
        message.send(out, {"i": 0})
        over.set()

    consumer = lab.start(entry, handler, limits=Limits(drain_timeout=0.2), **ONCE)
    lab.fill(entry, [as_json({})])
    assert begun.wait(WAIT)
    consumer.stop()
    assert consumer.join(30)
    gate.set()
    assert over.wait(WAIT)
    assert everything(lab, out) == []


def test_idle_costs_no_transactions(real_lab: Lab) -> None:
    lab = real_lab
    entry, out = lab.entry(), lab.topic("out")
    consumer = lab.start(entry, partial(pass_on, out), **ONCE)
    lab.fill(entry, [as_json({"i": 0})])
    lab.caught_up(entry)
    before = len(lab.events.of(ev.Committed))
    consumer.pause()
    wait_until(lambda: consumer.stats().on_hold)
    threading.Event().wait(1.0)  # ten commit intervals
    assert len(lab.events.of(ev.Committed)) == before


def test_the_mock_cluster_has_no_transactions(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
) -> None:
    mock = mock_kafka({})
    with Lab(mock.bootstrap_servers, lambda topic, n, _: mock.create_topic(topic, n), "m", real=False) as lab:
        consumer = lab.consumer(lab.entry(), nothing, **ONCE)
        with pytest.raises(ConfigError, match=r"Consumer\.guarantee.*mock cluster"):
            consumer.run()
