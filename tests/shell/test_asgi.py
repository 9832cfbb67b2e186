"""Consumers inside asyncio programs: a starlette application, task groups, and how they end there."""

import asyncio
import threading
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from retriable_kafka_client import AsyncExecutor, Consumer, Message, Topic
from tests.shell.lab import Lab, Log, as_json
from tests.support.waiting import WAIT, wait_until


class Application:
    """A web application whose requests and messages share one loop, one lock and one dictionary."""

    def __init__(self, lab: Lab, entry: Topic) -> None:
        self.lab = lab
        self.entry = entry
        self.totals: dict[str, int] = {}
        self.lock: asyncio.Lock
        self.loops: set[Any] = set()
        self.holding = threading.Event()
        self.let_go = threading.Event()
        self.finished = Log()
        self.consumer: Consumer
        self.app = Starlette(routes=[Route("/totals", self.show)], lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self.lock = asyncio.Lock()
        self.consumer = self.lab.consumer(
            self.entry, self.handle, executor=AsyncExecutor(50, loop=asyncio.get_running_loop())
        )
        running = asyncio.create_task(self.consumer.run_async())
        yield
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def handle(self, message: Message[Any]) -> None:
        async with self.lock:  # bound to the application's loop: another one would raise
            customer = message.value["customer"]
            count = self.totals.get(customer, 0)
            await asyncio.sleep(0)
            self.totals[customer] = count + 1
        self.loops.add(asyncio.get_running_loop())
        if customer == "last":
            self.holding.set()
            await asyncio.to_thread(self.let_go.wait, WAIT)
            self.finished.add(message.offset)

    async def show(self, _request: Request) -> JSONResponse:
        self.loops.add(asyncio.get_running_loop())
        async with self.lock:
            return JSONResponse(self.totals)


def test_messages_and_requests_share_the_applications_loop(lab: Lab) -> None:
    entry = lab.entry()
    application = Application(lab, entry)
    server = uvicorn.Server(uvicorn.Config(application.app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started and server.servers)
        port = server.servers[0].sockets[0].getsockname()[1]

        def totals() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/totals", timeout=WAIT) as answer:
                return answer.read()

        lab.fill(entry, [as_json({"customer": str(i % 2)}) for i in range(200)])
        wait_until(lambda: totals() == b'{"0":100,"1":100}' or totals() == b'{"1":100,"0":100}')
        assert len(application.loops) == 1
        lab.fill(entry, [as_json({"customer": "last"})])
        assert application.holding.wait(WAIT)
    finally:
        server.should_exit = True
    # The lifespan's end drains: the consumer waits for the handler, which goes on on the same loop.
    wait_until(lambda: "stopping" in application.consumer.health().reasons)
    assert thread.is_alive()
    application.let_go.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert len(application.finished) == 1
    assert not application.consumer.health().alive
    lab.caught_up(entry)


class Held:
    """A coroutine handler that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ended = 0

    async def __call__(self, message: Message[Any]) -> None:
        self.begun.set()
        await self.let_go.wait()
        self.ended += 1


def test_however_often_it_is_cancelled_it_drains(lab: Lab) -> None:
    entry = lab.entry()
    lab.fill(entry, [as_json({})])

    async def main() -> Consumer:
        held = Held()
        consumer = lab.consumer(entry, held, executor=AsyncExecutor(loop=asyncio.get_running_loop()))
        running = asyncio.create_task(consumer.run_async())
        await asyncio.wait_for(held.begun.wait(), WAIT)
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0.05)
        assert not running.done()
        held.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, WAIT)
        assert held.ended == 1
        return consumer

    consumer = asyncio.run(main())
    assert consumer.join(0)
    assert consumer.stats().handled == 1
    lab.caught_up(entry)


def test_a_cancelled_task_group_of_anyio_drains_too(lab: Lab) -> None:
    """Its cancellation comes again and again, until the task has ended."""
    entry = lab.entry()
    lab.fill(entry, [as_json({})])

    async def main() -> Consumer:
        held = Held()
        consumer = lab.consumer(entry, held, executor=AsyncExecutor(loop=asyncio.get_running_loop()))
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.run_async)
            await asyncio.wait_for(held.begun.wait(), WAIT)
            asyncio.get_running_loop().call_later(0.2, held.let_go.set)
            group.cancel_scope.cancel()
        assert held.ended == 1
        return consumer

    assert asyncio.run(main()).join(0)


def test_what_makes_it_fail_is_raised(lab: Lab) -> None:
    entry = lab.entry()

    async def main() -> None:
        executor = AsyncExecutor(loop=asyncio.get_running_loop())
        consumer = lab.consumer(entry, Held(), executor=executor)
        running = asyncio.create_task(consumer.run_async())
        while not consumer.health().ready:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.02)
        executor.shutdown(wait=False)
        with pytest.raises(Exception, match="AsyncExecutor was shut down"):
            await asyncio.wait_for(running, WAIT)

    asyncio.run(main())
