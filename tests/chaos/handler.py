"""The handler of a chaos run: notes each run, and does what the order says."""

import asyncio
import itertools
import multiprocessing
import os
import signal
import threading
import time
from typing import Any

from retriable_kafka_client import Message, Reject
from tests.chaos.orders import Kind, Order, order_of, stamp
from tests.support.evidence import EvidenceWriter

__all__ = ["FREEZE", "FROZEN_SECONDS", "AsyncHandler", "Filter", "Handler"]

FREEZE = threading.Event()
"""Set: the next coroutine blocks its event loop."""
FROZEN_SECONDS = 8.0

NUMBERS = itertools.count()  # of the runs of this process


class Handler:
    """For threads and processes."""

    def __init__(self, evidence: EvidenceWriter, member: int, seed: int) -> None:
        self.evidence = evidence
        self.member = member
        self.seed = seed

    def __call__(self, message: Message[Any]) -> None:
        order, number = self.begin(message)
        if order.work:
            time.sleep(order.work)
        self.end(message, order, number)

    def begin(self, message: Message[Any]) -> tuple[Order, int]:
        """Note that a run begins; send what it sends. A message that cannot be decoded ends here."""
        order, number, record = order_of(self.seed, message.value["id"]), next(NUMBERS), message.record
        self.evidence.write(
            "start",
            m=self.member,
            n=number,
            i=order.id,
            a=message.attempt,
            t=record.topic,
            p=record.partition,
            o=record.offset,
            s=stamp(message.body, message.key, message.headers),
        )
        for part in range(order.outputs):
            value = {"i": order.id, "part": part, "run": [self.member, os.getpid(), number]}
            message.send("out", value, key=message.key)
        return order, number

    def end(self, message: Message[Any], order: Order, number: int) -> None:
        """Note how the run ends, and end it so."""
        if order.kind is Kind.KILLER and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if order.kind is Kind.REJECTED:
            self.evidence.write("rejected", m=self.member, n=number)
            raise Reject("as the order wants it")
        if order.kind is Kind.KILLER or message.attempt <= order.fails:
            self.evidence.write("failed", m=self.member, n=number)
            raise RuntimeError("as the order wants it")
        self.evidence.write("done", m=self.member, n=number)


class AsyncHandler(Handler):
    """For coroutines."""

    async def __call__(self, message: Message[Any]) -> None:  # type: ignore[override]
        if FREEZE.is_set():
            FREEZE.clear()
            time.sleep(FROZEN_SECONDS)  # noqa: ASYNC251 - that is what it is for
        order, number = self.begin(message)
        if order.work:
            await asyncio.sleep(order.work)
        self.end(message, order, number)


class Filter:
    """Lets nothing pass that wants to be skipped, and notes that."""

    def __init__(self, evidence: EvidenceWriter) -> None:
        self.evidence = evidence

    def __call__(self, message: Message[Any]) -> bool:
        headers = dict(message.headers)
        if "skip" not in headers:
            return True
        self.evidence.write("skip", i=int(headers["n"] or b"-1"))
        return False
