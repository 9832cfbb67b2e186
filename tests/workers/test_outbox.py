"""What handlers send comes back with their success, whatever runs them, and with nothing else."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.errors import RetriableKafkaError
from retriable_kafka_client.events import REASON_UNDECODABLE
from retriable_kafka_client.message import Message
from retriable_kafka_client.wire.headers import Marks
from retriable_kafka_client.wire.outbox import OUTPUT_BYTES
from retriable_kafka_client.workers.executor import AsyncExecutor, ProcessExecutor
from retriable_kafka_client.workers.job import HandlerSpec
from tests.support.waiting import WAIT, wait_until
from tests.workers import handlers
from tests.workers.driving import Driven, InBatches, entry, spec

KINDS = ["int", "InBatches", "ThreadPoolExecutor", "ProcessExecutor", "ProcessPoolExecutor", "AsyncExecutor"]


@pytest.fixture(scope="module")
def executors() -> Iterator[dict[str, int | Executor]]:
    with ExitStack() as stack:
        yield {
            "int": 2,
            "InBatches": InBatches(2),
            "ThreadPoolExecutor": stack.enter_context(ThreadPoolExecutor(2)),
            "ProcessExecutor": stack.enter_context(ProcessExecutor(2)),
            "ProcessPoolExecutor": stack.enter_context(
                ProcessPoolExecutor(2, mp_context=get_context("spawn"))
            ),
            "AsyncExecutor": stack.enter_context(AsyncExecutor(10)),
        }


@pytest.fixture
def handled(tmp_path: Path) -> Callable[[str], HandlerSpec]:
    def make(kind: str) -> HandlerSpec:
        function = handlers.send_as_told_async if kind == "AsyncExecutor" else handlers.send_as_told
        return spec(partial(function, str(tmp_path / "said"), ""), group="billing")

    return make


def told(offset: int, failed: int = 0, **orders: Any) -> Entry:
    made = entry(offset, json.dumps({"do": "ok", **orders}).encode(), marks=Marks(failed=failed))
    if failed:
        made = entry(offset, made.raw.value(), marks=Marks(failed=failed, id=f"uid-0-{offset}"))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_sends_comes_back_with_its_success(
    executors: dict[str, int | Executor], handled: Callable[[str], HandlerSpec], kind: str
) -> None:
    driven = Driven(executors[kind], handled(kind))
    driven.push(
        [told(0), told(1, send=3), told(2, send=1, do="fail"), told(3, send=1, do="reject"), told(4, send=1)]
    )
    driven.until_ended(5)
    assert sorted(one.offset for one in driven.done) == [0]
    assert sorted(one.offset for one, _ in driven.failed) == [2, 3]
    outputs = driven.outputs_of(1)
    assert [(one.topic, one.body, one.key, one.headers) for one in outputs] == [
        (f"out-{number}", b'{"of":1}', f"k{number}".encode(), (("n", str(number).encode()),))
        for number in range(3)
    ]
    assert len({one.id for one in [*outputs, *driven.outputs_of(4)]}) == 4
    assert not any(one.split or one.not_before_ms for one in outputs)
    driven.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_sends_under_the_same_ids(
    executors: dict[str, int | Executor], handled: Callable[[str], HandlerSpec], kind: str
) -> None:
    driven = Driven(executors[kind], handled(kind))
    driven.push([told(7, send=2)])
    driven.until_ended(1)
    first = [one.id for one in driven.outputs_of(7)]
    driven.sent.clear()
    driven.push([told(7, failed=1, send=2)])
    driven.until_ended(1)
    assert [one.id for one in driven.outputs_of(7)] == first
    driven.close()


@pytest.mark.parametrize("kind", KINDS)
def test_much_is_sent_by_many(
    executors: dict[str, int | Executor], handled: Callable[[str], HandlerSpec], kind: str
) -> None:
    driven = Driven(executors[kind], handled(kind))
    driven.push([told(number, bytes=3_000_000) for number in range(30)])  # far more than a pipe holds
    driven.until_ended(30)
    for number in range(30):
        (output,) = driven.outputs_of(number)
        assert output.body == bytes([number]) * 3_000_000
        assert output.split
        assert output.size == 3_000_000 + OUTPUT_BYTES
    driven.close()


def test_a_worker_that_dies_publishes_nothing_of_its_message(handled: Callable[[str], HandlerSpec]) -> None:
    with ProcessExecutor(1) as executor:
        driven = Driven(executor, handled("ProcessExecutor"))
        driven.push([told(0, send=2), told(1, send=2, do="kill"), told(2, send=1)])
        driven.until_ended(3)
        assert [one.offset for one in driven.died] == [1]
        assert sorted(one.offset for one, _ in driven.sent) == [0, 2]
        driven.close()


def test_an_undecodable_payload_publishes_nothing() -> None:
    def careless(message: Message[Any]) -> None:
        message.send("out", {})
        handlers.read_nothing(message)

    driven = Driven(1, spec(careless))
    driven.push([entry(0, b"{")])
    driven.until_ended(1)
    assert driven.failure_of(0).reason == REASON_UNDECODABLE
    driven.close()


def test_what_cannot_be_sent_fails_the_attempt() -> None:
    def handler(message: Message[Any]) -> None:
        message.send("out", object())  # JSON knows nothing of it

    driven = Driven(1, spec(handler))
    driven.push([entry(0)])
    driven.until_ended(1)
    assert driven.failure_of(0).error == "TypeError"
    driven.close()


def test_nothing_can_be_sent_once_the_handler_has_returned() -> None:
    kept: list[Message[Any]] = []
    driven = Driven(1, spec(kept.append))
    driven.push([entry(0)])
    driven.until_ended(1)
    with pytest.raises(RetriableKafkaError, match="only while its handler runs"):
        kept[0].send("out", {})
    driven.close()


def test_nor_from_a_task_or_thread_that_a_handler_left_behind() -> None:
    errors: list[BaseException] = []
    returned = threading.Event()

    def later(message: Message[Any]) -> None:
        assert returned.wait(WAIT)
        try:
            message.send("out", {})
        except RetriableKafkaError as error:
            errors.append(error)

    async def handler(message: Message[Any]) -> None:
        message.send("out", {"in": "time"})
        threading.Thread(target=later, args=(message,)).start()
        await asyncio.sleep(0)

    with AsyncExecutor() as executor:
        driven = Driven(executor, spec(handler))
        driven.push([entry(0)])
        driven.until_ended(1)
        returned.set()
        wait_until(lambda: errors)
        assert len(driven.outputs_of(0)) == 1
        driven.close()
