"""Links to brokers that can be slow, stuck or cut: a TCP proxy before each."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

__all__ = ["Link", "Links"]

T = TypeVar("T")
PIECE = 1 << 16  # bytes that pass at once


class Link:
    """One proxy. Made by `Links`; any thread may call it."""

    def __init__(self, links: "Links") -> None:
        self._links = links
        self._target = 0
        self._delay = 0.0
        self._cut = False
        self._flow = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        """Where it listens, on 127.0.0.1."""

    def lead_to(self, port: int) -> None:
        """What connects from now on goes to that port of 127.0.0.1."""
        self._target = port

    def slow(self, seconds: float) -> None:
        """Each piece takes so long in each direction."""
        self._delay = seconds

    def stuck(self) -> None:
        """Connections stay and nothing passes."""
        self._links.call(self._stop_flow())

    def cut(self) -> None:
        """Connections break, and new ones are refused."""
        self._links.call(self._close_all())

    def heal(self) -> None:
        """All is as it was."""
        self._links.call(self._let_flow())

    async def _stop_flow(self) -> None:
        self._flow.clear()

    async def _close_all(self) -> None:
        self._cut = True
        for writer in list(self._open):
            writer.transport.abort()

    async def _let_flow(self) -> None:
        self._cut, self._delay = False, 0.0
        self._flow.set()

    async def start(self) -> None:
        """Listen. On the links' loop."""
        self._flow.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Listen no more, and break what is connected. On the links' loop."""
        if self._server is not None:
            self._server.close()
        await self._close_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                self._open.add(far_writer)
                try:
                    await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
                finally:
                    self._open.discard(far_writer)
                    far_writer.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flow.wait()
                writer.write(piece)
                await writer.drain()
        # A half that has ended ends the other one.
        writer.transport.abort()


class Links:
    """Proxies on one event loop in a thread of its own; gone when the `with` block ends."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links = [Link(self) for _ in range(count)]

    def __enter__(self) -> Self:
        self._thread.start()
        for link in self._links:
            self.call(link.start())
        return self

    def __exit__(self, *failure: object) -> None:
        for link in self._links:
            self.call(link.end())
        self.call(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __getitem__(self, number: int) -> Link:
        """The link to a broker, by its id: 1, 2, …"""
        return self._links[number - 1]

    @property
    def ports(self) -> list[int]:
        return [link.port for link in self._links]

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(30.0)

    async def _settle(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
