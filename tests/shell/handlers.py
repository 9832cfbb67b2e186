"""Handlers that a worker process can import; what they did stands in a file of evidence."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from retriable_kafka_client import Message, Reject
from tests.support.evidence import EvidenceWriter

__all__ = [
    "RaisesOddly",
    "in_its_time",
    "obey",
    "obey_async",
    "pass_on",
    "pass_on_async",
    "slow_or_quick",
    "split_on",
    "split_on_async",
]


class RaisesOddly(Exception):
    """It cannot be unpickled: its constructor wants more than `args` holds."""

    def __init__(self, *, detail: str) -> None:
        self.detail = detail
        super().__init__("odd")


def obey(evidence: EvidenceWriter, message: Message[Any]) -> None:
    """Note the run, then do what the payload says: `{"i": 1, "do": "fail-twice"}`."""
    order = message.value
    evidence.write("ran", i=order["i"], attempt=message.attempt, id=message.id, topic=message.topic)
    match order.get("do"):
        case "fail-twice":
            if message.attempt <= 2:
                raise RaisesOddly(detail="secret")
        case "fail":
            raise ValueError("secret")
        case "reject":
            raise Reject("not wanted")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "os-exit":
            os._exit(3)
        case "sleep":
            time.sleep(order["for"])
    evidence.write("done", i=order["i"], attempt=message.attempt)


async def obey_async(evidence: EvidenceWriter, message: Message[Any]) -> None:
    """Like `obey`."""
    obey(evidence, message)


def slow_or_quick(evidence: EvidenceWriter, gate: str, message: Message[Any]) -> None:
    """Note the run; the message `{"i": 0}` then waits for the file `gate`."""
    i = message.value["i"]
    evidence.write("ran", i=i, attempt=message.attempt)
    while i == 0 and not Path(gate).exists():  # a file, because the test is in another process
        time.sleep(0.01)
    evidence.write("done", i=i, attempt=message.attempt)


def in_its_time(evidence: EvidenceWriter, message: Message[Any]) -> None:
    """Note when the run of `[lane, number]` begins and how it ends: each tenth fails in its first attempt."""
    lane, n = message.value
    evidence.write("begin", lane=lane, n=n, partition=message.partition)
    if n % 10 == 4 and message.attempt == 1:
        evidence.write("failed", lane=lane, n=n)
        raise ValueError
    evidence.write("done", lane=lane, n=n)


def pass_on(topic: str, message: Message[Any]) -> None:
    """Send two records to `topic`; then fail, as often as the message says."""
    i = message.value["i"]
    for key in ("first", "second"):
        message.send(topic, {"i": i}, key=key)
    if message.attempt <= message.value.get("fails", 0):
        raise ValueError("secret")


async def pass_on_async(topic: str, message: Message[Any]) -> None:
    """Like `pass_on`."""
    pass_on(topic, message)


def split_on(out: str, message: Message[Any]) -> None:
    """Send the body on in chunks, and which attempt that was; fail in the first one."""
    message.send(out, message.body, key="k", split=True)
    message.send(out, {"attempt": message.attempt}, key="s")
    if message.attempt == 1:
        raise ValueError


async def split_on_async(out: str, message: Message[Any]) -> None:
    """Like `split_on`."""
    split_on(out, message)
