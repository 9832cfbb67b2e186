"""Messages a second of a no-op handler through each runner alone: no Kafka, no consumer.

``python benchmarks/executors.py [MESSAGES]``. Counts everything between ``push`` and ``take``: slicing, the way to the
worker and back, and a Message built for each run. Records are PlainRecords with 100-byte bodies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.message import JSON, Message, PlainRecord
from retriable_kafka_client.wire.headers import PLAIN
from retriable_kafka_client.workers.executor import AsyncExecutor, ProcessExecutor, make_runner
from retriable_kafka_client.workers.job import HandlerSpec

BODY = b'{"customer":"c-1234567","amount":12.5,"lines":[1,2,3,4,5],"note":"' + b"x" * 30 + b'"}'
PUSHED = 500  # at a time, as a poll gives them
IN_FLIGHT = 10_000


def nothing(message: Message[Any]) -> None:
    pass


def read(message: Message[Any]) -> None:
    message.value["amount"]


async def nothing_async(message: Message[Any]) -> None:
    pass


def entries(count: int) -> list[Entry]:
    assignment: Any = SimpleNamespace(uid="uid")
    return [
        Entry(
            assignment,
            offset,
            len(BODY),
            PlainRecord(BODY, b"key", None, "orders", 0, offset, (1, 0)),
            PLAIN,
            0,
        )
        for offset in range(count)
    ]


def measure(executor: int | Executor, handler: Callable[..., object], count: int) -> float:
    runner = make_runner(executor, HandlerSpec(handler=handler, deserializer=JSON, policies=(None,)))
    runner.start()
    began = 0.0
    for batch in (entries(1000), entries(count)):  # the first warms up: processes start, the pace is found
        pushed = ended = 0
        began = swept = time.perf_counter()
        while ended < len(batch):
            assert runner.failure is None, runner.failure
            while pushed < len(batch) and pushed - ended < IN_FLIGHT:
                runner.push(batch[pushed : pushed + PUSHED])
                pushed += PUSHED
            now = time.perf_counter()
            if now - swept > 0.015:
                runner.sweep(time.monotonic())
                swept = now
            runner.wait(0.015)
            finished = runner.take()
            assert not finished.failed
            ended += len(finished.done)
    took = time.perf_counter() - began
    runner.close(5.0)
    return count / took


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with ExitStack() as stack:
        spawned = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        kinds: list[tuple[str, int | Executor, Callable[..., object], int]] = [
            ("16 threads", 16, nothing, count),
            ("1 thread", 1, nothing, count),
            ("16 threads, value read", 16, read, count),
            ("ThreadPoolExecutor(16)", stack.enter_context(ThreadPoolExecutor(16)), nothing, count),
            ("ProcessExecutor(2)", stack.enter_context(ProcessExecutor(2)), nothing, count),
            ("ProcessExecutor(2), value read", stack.enter_context(ProcessExecutor(2)), read, count),
            ("ProcessPoolExecutor(2)", stack.enter_context(spawned), nothing, count),
            ("AsyncExecutor(1000)", stack.enter_context(AsyncExecutor()), nothing_async, count // 4),
        ]
        for name, executor, handler, messages in kinds:
            rate = measure(executor, handler, messages)
            print(f"{name:32} {rate:12,.0f} /s {1e6 / rate:8.2f} us each", flush=True)


if __name__ == "__main__":
    main()
