"""Handlers that a worker process can import, and that say what they did in a file."""

import asyncio
import contextvars
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from retriable_kafka_client.errors import Reject, RetryAfter
from retriable_kafka_client.message import Message

__all__ = [
    "begin_started",
    "decode_and_leak",
    "do_as_told",
    "do_as_told_async",
    "fail_to_initialize",
    "generator",
    "initialize",
    "late",
    "leak",
    "leak_async",
    "lines",
    "nothing",
    "nothing_async",
    "read_and_leak",
    "read_and_leak_async",
    "read_nothing",
    "returns_coroutine",
    "returns_coroutine_async",
    "say",
    "send_as_told",
    "send_as_told_async",
    "started",
    "take_half_a_second",
]


def say(path: str, line: str) -> None:
    """Append a line with one write, so that lines of several processes do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[str]:
    """What was said so far."""
    return path.read_text().splitlines() if path.exists() else []


def nothing(message: Message[Any]) -> None:
    """Succeed."""


async def nothing_async(message: Message[Any]) -> None:
    """Succeed."""


def returns_coroutine(message: Message[Any]) -> Any:
    """Look like a plain function."""
    return nothing_async(message)


leaked: contextvars.ContextVar[int] = contextvars.ContextVar("leaked", default=-1)
started: contextvars.ContextVar[str] = contextvars.ContextVar("started", default="nothing")


def leak(said: str, message: Message[Any]) -> None:
    """Say what the context holds, and leave something in it."""
    say(said, f"{leaked.get()} {started.get()}")
    leaked.set(message.offset)


async def leak_async(said: str, message: Message[Any]) -> None:
    """Likewise, across an await."""
    leak(said, message)
    await asyncio.sleep(0)
    assert leaked.get() == message.offset


def decode_and_leak(body: bytes, message: Message[Any]) -> int:
    """Say what the context holds, and leave something in it."""
    before = leaked.get()
    leaked.set(1_000 + message.offset)
    return before


def read_and_leak(said: str, message: Message[Any]) -> None:
    """Say what the deserializer saw, and what it left."""
    leaked.set(message.offset)
    say(said, f"{message.value == message.offset} {leaked.get() == message.offset}")


async def read_and_leak_async(said: str, message: Message[Any]) -> None:
    """Likewise."""
    read_and_leak(said, message)


def begin_started() -> None:
    """An initializer of a pool's threads or processes."""
    started.set("the pool")


def generator(message: Message[Any]) -> Any:
    """Never run."""
    yield message


async def returns_coroutine_async(message: Message[Any]) -> Any:
    """Forget to await."""
    return nothing_async(message)


def read_nothing(message: Message[Any]) -> None:
    """Swallow whatever reading the value raises."""
    try:
        message.value  # noqa: B018 - the read is what matters
    except Exception:  # noqa: BLE001 - as a careless handler would
        return


def do_as_told(said: str, gate: str, message: Message[Any]) -> None:
    """Do what the payload says: {"do": …}; say first which message, and in which process."""
    order = message.value["do"]
    say(said, f"{order} {message.offset} {os.getpid()}")
    _obey(order, gate)


async def do_as_told_async(said: str, gate: str, message: Message[Any]) -> None:
    """Like do_as_told."""
    order = message.value["do"]
    say(said, f"{order} {message.offset} {os.getpid()}")
    if order == "block":
        _hold(gate)  # what an async handler must not do
    if order == "cancel":
        raise asyncio.CancelledError
    if order == "await-generator-exit":
        await asyncio.gather(_leave(), asyncio.sleep(0))
    if order == "task-generator-exit":
        await asyncio.get_running_loop().create_task(_leave())
    if order == "close-me":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.get_coro().close)
        await asyncio.Event().wait()
    if order == "stubborn":
        await _wait_stubbornly(gate)
    elif order == "hold":
        await asyncio.to_thread(_hold, gate)
    else:
        _obey(order, gate)


def send_as_told(said: str, gate: str, message: Message[Any]) -> None:
    """Send as many records as the payload says, then do what it says."""
    _send(message)
    do_as_told(said, gate, message)


async def send_as_told_async(said: str, gate: str, message: Message[Any]) -> None:
    """Like send_as_told."""
    _send(message)
    await do_as_told_async(said, gate, message)


def late(said: str, gate: str, message: Message[Any]) -> None:
    """Wait, then send something or raise, as the payload says."""
    _hold(gate)
    if message.value["do"] == "raise":
        raise ValueError("late")
    message.send("out", {"of": message.offset})


def take_half_a_second(message: Message[Any]) -> None:
    """Every tenth message does, the others take next to nothing."""
    if message.offset % 10 == 0:
        time.sleep(0.5)


async def _leave() -> None:
    raise GeneratorExit


def _send(message: Message[Any]) -> None:
    told = message.value
    for number in range(told.get("send", 0)):
        message.send(f"out-{number}", {"of": message.offset}, key=f"k{number}", headers={"n": str(number)})
    if "bytes" in told:
        message.send("large", bytes([message.offset % 256]) * told["bytes"], split=True)


async def _wait_stubbornly(gate: str) -> None:
    while not Path(gate).exists():  # noqa: ASYNC240 - a file, because the test may be in another process
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue  # as nobody should


def _hold(gate: str) -> None:
    while not Path(gate).exists():  # a file, because the test is in another process
        time.sleep(0.01)


def _obey(order: str, gate: str) -> None:
    match order:
        case "hold" | "stubborn":
            _hold(gate)
        case "orphan":  # die, and leave a process behind that holds all pipes open
            if os.fork() == 0:
                _hold(gate)
            os._exit(17)
        case "fail":
            raise ValueError("secret payload")
        case "reject":
            raise Reject("not wanted")
        case "retry-after":
            raise RetryAfter(7.0)
        case "interrupt":
            raise KeyboardInterrupt
        case "exit":
            raise SystemExit(3)
        case "generator-exit":
            raise GeneratorExit
        case "os-exit":
            os._exit(17)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)


def initialize(said: str) -> None:
    """An initializer."""
    say(said, f"initialized {os.getpid()}")


def fail_to_initialize() -> None:
    """An initializer that raises."""
    raise LookupError("secret")
