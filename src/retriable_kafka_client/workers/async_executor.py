"""AsyncExecutor: an event loop, of its own thread or the application's, and the room on it that consumers share."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, Protocol

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.runtime.forks import Home
from retriable_kafka_client.wire.checks import MAX_INT32, integer

__all__ = ["AsyncExecutor", "EventLoopHost"]

P = ParamSpec("P")

logger = logging.getLogger("retriable_kafka_client.workers.coroutines")

_LOOK_SECONDS = 0.1  # how often to look whether an application's loop still runs


class Guest(Protocol):
    """A consumer's runner on the loop. Only the event loop's thread calls it."""

    def start_next(self) -> bool:
        """Start one message if there is one; whether there was."""

    def tasks(self) -> Iterable[asyncio.Task[None]]:
        """What it runs."""

    def lose(self, error: BaseException, cancelling: bool = False) -> None:
        """The loop ends; ``cancelling``: at once."""


class AsyncExecutor(Executor):
    """Runs ``async def`` handlers on an event loop of its own, in a daemon thread that starts with the first
    use, or on ``loop``, the application's.

    At most ``concurrency`` messages of all its consumers together run at once; ``submit`` does not count. A
    handler that blocks holds up the others, and nothing else on a loop of its own. ``loop`` runs already or starts later;
    it is never stopped or closed here, and must run until its consumers have ended: await ``Consumer.run_async`` on it.
    """

    def __init__(self, concurrency: int = 1000, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        if loop is not None:
            _check_loop(loop)
        self.concurrency = integer("AsyncExecutor.concurrency", concurrency, 1, MAX_INT32)
        self.host = EventLoopHost(concurrency, loop)
        """Internal: what its consumers' runners talk to."""

    def submit(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Call ``fn`` on the loop and await what it returns. Raises RuntimeError after shutdown."""
        future: Future[Any] = Future()

        async def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result: Any = fn(*args, **kwargs)
                future.set_result(await result if inspect.isawaitable(result) else result)
            except BaseException as error:  # noqa: BLE001 - it belongs to the future
                future.set_exception(error)

        self.host.call(lambda: self.host.adopt(call()))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the loop once what it runs has ended, cancelled first with ``cancel_futures``. See
        concurrent.futures. An application's loop goes on without us; on its own thread this never waits.
        """
        self.host.shutdown(wait=wait, cancel=cancel_futures)


def _check_loop(loop: object) -> None:
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise ConfigError("AsyncExecutor.loop", loop, "must be an event loop, or None for one of its own")


class EventLoopHost:
    """The event loop, its thread, and the room on it that consumers share."""

    def __init__(self, room: int, loop: asyncio.AbstractEventLoop | None) -> None:
        self.shared = loop is not None  # it is the application's
        self._lock = threading.Lock()  # covers the three below
        self._loop = loop
        self._thread: threading.Thread | None = None
        self._closed = False
        self._home = Home("AsyncExecutor")
        # Only the event loop's thread touches what follows.
        self._room = room
        self._guests: list[Guest] = []
        self._adopted: set[asyncio.Task[Any]] = set()
        self._ended = False
        self._over = threading.Event()  # nothing of ours is left on the loop

    def call(self, function: Callable[[], object]) -> None:
        """Have ``function`` called on the loop; starts the loop if it is ours. Raises RuntimeError after shutdown, and
        when the loop is closed; RetriableKafkaError in a child that was forked after the first use. Any thread.
        """
        self._home.settle()
        with self._lock:
            if self._closed:
                raise RuntimeError("the AsyncExecutor was shut down")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="rkc-event-loop", daemon=True
                )
                self._thread.start()
            self._loop.call_soon_threadsafe(function)

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """See AsyncExecutor. Any thread."""
        if self._home.lost:
            return
        with self._lock:
            first, self._closed = not self._closed, True
            loop, thread = self._loop, self._thread
        if loop is None:
            return
        if first:
            with suppress(RuntimeError):  # the application's is closed
                loop.call_soon_threadsafe(lambda: self.adopt(self._end(cancel)))
        if not wait or self.here():
            return
        if thread is not None:
            thread.join()
        else:
            while not self._over.wait(_LOOK_SECONDS) and loop.is_running():
                pass

    def here(self) -> bool:
        """Whether this is the loop's own thread."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def gone(self) -> bool:
        """Whether the application has closed its loop. Any thread."""
        loop = self._loop
        return self.shared and loop is not None and loop.is_closed()

    def current(self) -> asyncio.Task[Any] | None:
        """What runs on the loop, and does not wait. Any thread."""
        return asyncio.current_task(self._loop) if self._loop is not None else None

    # On the loop ------------------------------------------------------------------------------------------

    def adopt(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it, and hold it while it runs."""
        task = asyncio.get_running_loop().create_task(work)
        self._adopted.add(task)
        task.add_done_callback(self._adopted.discard)

    def join(self, guest: Guest) -> None:
        """Serve ``guest`` from now on."""
        self._guests.append(guest)

    def leave(self, guest: Guest) -> None:
        """Serve ``guest`` no more."""
        if guest in self._guests:
            self._guests.remove(guest)

    def feed(self) -> None:
        """Start messages while there is room, one of each consumer in turn."""
        while self._room > 0:
            started = 0
            for guest in self._guests:
                if self._room > 0 and guest.start_next():
                    self._room -= 1
                    started += 1
            if not started:
                return

    def freed(self) -> None:
        """One message ended."""
        self._room += 1
        self.feed()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._ended:
            try:
                loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - e.g. SystemExit in a task that a handler began
                logger.error(
                    "a task on the AsyncExecutor's loop raised %s; the loop goes on", type(error).__name__
                )
        try:
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _end(self, cancel: bool) -> None:
        for guest in self._guests:
            guest.lose(BrokenExecutor("the AsyncExecutor was shut down while a consumer used it"), cancel)
        me = asyncio.current_task()
        ours = [task for guest in self._guests for task in guest.tasks()]
        ours += [task for task in self._adopted if task is not me]
        if cancel:
            for task in ours:
                task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        self._over.set()
        if self.shared:
            return
        rest = [task for task in asyncio.all_tasks() if task is not me]
        for task in rest:  # what handlers left behind
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._ended = True
        asyncio.get_running_loop().stop()
