"""A consumer's messages on an AsyncExecutor: a task for each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.protocol import Finished, Outcome
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.message import Message
from retriable_kafka_client.wire.outbox import Output, size_of
from retriable_kafka_client.workers.async_executor import AsyncExecutor
from retriable_kafka_client.workers.job import (
    HandlerSpec,
    check_async,
    failed,
    run_async,
    sent_bytes,
    timed_out,
)
from retriable_kafka_client.workers.runner import UNTAKEN_BYTES, Running

__all__ = ["AsyncRunner"]

T = TypeVar("T")

_OBEY_SECONDS = 0.5  # for a handler that was cancelled to end, until it counts as one that does not
_DOUBT_SECONDS = 0.5  # in which an application's loop that cancelled a handler may turn out to end


class _Run:
    """One run of a handler."""

    __slots__ = ("concluded", "entry", "expired", "overdue", "started", "unsettled")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.started: float | None = None  # monotonic; None: not begun, or of no interest
        # Whoever pops it says what came of the message: the event loop when the run ends, or the consumer's thread when
        # that takes too long.
        self.unsettled = [None]
        self.concluded = False  # what came of it is on its way; the event loop's
        # Only the consumer's thread changes these.
        self.expired = False  # it is to be cancelled, and has failed whatever comes of it
        self.overdue = False  # it went on, and was reported


class AsyncRunner:
    """A consumer's messages on an AsyncExecutor. See Runner.

    No lock: each list and deque has one side that adds and one that takes, by single atomic calls.
    """

    _NOTHING = Finished()

    def __init__(self, executor: AsyncExecutor, spec: HandlerSpec) -> None:
        self.slots = executor.concurrency
        self.failure: BaseException | None = None
        self._host = executor.host
        self._spec = spec
        self._context = spec.context or copy_context()
        self._ready: deque[Entry] = deque()  # the consumer's thread adds, the event loop takes
        self._urgent: deque[Entry] = deque()  # the same, but goes first
        self._poked = False  # a feed is scheduled that has not looked at _ready yet
        self._held = False
        self._sent_bytes = 0  # of all that was sent; only the event loop changes it
        self._taken_bytes = 0  # of that, what was taken; only the consumer's thread changes it
        self._closed = False
        self._dropping = False  # what fails from now on fails because we cancelled it
        self._tasks: dict[
            asyncio.Task[None], _Run
        ] = {}  # in the order of their starts; only the event loop changes it
        self._done: list[Entry] = []
        self._sent: list[tuple[Entry, tuple[Output, ...]]] = []
        self._failed: list[tuple[Entry, Failure]] = []
        self._overdue: list[tuple[Entry, Failure]] = []  # only the consumer's thread touches it
        self._released: list[Entry] = []
        self._bell = threading.Event()  # there may be something to take
        self._ended = threading.Event()  # closed, and no task is left

    def start(self) -> None:
        """See Runner."""
        check_async(self._spec.handler)
        self._host.call(lambda: self._host.join(self))

    def push(self, entries: Sequence[Entry], *, urgent: bool = False) -> None:
        """See Runner."""
        (self._urgent if urgent else self._ready).extend(entries)
        self._poke()

    def push_batch(self, batch: PlainBatch) -> None:
        """See Runner."""
        self.push(batch.entries())

    def withdraw(self, which: Callable[[Entry], bool]) -> list[Entry]:
        """See Runner."""
        given = _withdraw(self._urgent, which) + _withdraw(self._ready, which)
        self._poke()
        return given

    def hold(self, on: bool) -> None:
        """See Runner."""
        self._held = on
        self._poke()

    def sweep(self, now: float) -> None:
        """See Runner. No message waits behind another one; a loop that a handler blocks is seen here too."""
        if self._host.gone() and self.failure is None:
            self.lose(BrokenExecutor("the AsyncExecutor's event loop was closed while a consumer used it"))
        timeout = self._spec.timeout
        if timeout is None or self.failure is not None:
            return
        for task, run in self._tasks.copy().items():
            if run.overdue:
                continue
            if run.started is None or now - run.started < timeout:
                break
            if not run.expired:
                run.expired = True
                with suppress(RuntimeError):  # shut down or closed: the next sweep knows
                    self._host.call(partial(self._expire, task))
            elif now - run.started >= timeout + _OBEY_SECONDS:
                self._give_up(run)

    def _give_up(self, run: _Run) -> None:
        try:
            run.unsettled.pop()
        except IndexError:  # it has just ended
            return
        run.overdue = True
        self._overdue.append((run.entry, timed_out(self._spec, run.entry)))
        self._bell.set()

    def take(self) -> Finished:
        """See Runner."""
        if not self._bell.is_set():
            return self._NOTHING
        self._bell.clear()
        sent = _taken(self._sent)
        if sent:
            self._taken_bytes += sum(size_of(outputs) for _, outputs in sent)
            self._poke()  # it may have been too much
        return Finished(
            done=_taken(self._done),
            sent=sent,
            failed=_taken(self._failed),
            # Before what was released, in which it may stand too.
            overdue=_taken(self._overdue),
            released=_taken(self._released),
        )

    def wait(self, timeout: float) -> None:
        """See Runner."""
        self._bell.wait(timeout)

    def ring(self) -> None:
        """See Runner."""
        self._bell.set()

    def running(self) -> Running:
        """See Runner."""
        tasks, now = self._tasks.copy(), self._host.current()
        busy = [run.entry for task, run in tasks.items() if task is not now]
        if now in tasks:
            busy.insert(0, tasks[now].entry)
        return Running(queued=len(self._urgent) + len(self._ready), busy=tuple(busy))

    def close(self, timeout: float) -> None:
        """See Runner. On the loop's own thread it does not wait: what runs could not end meanwhile."""
        self._closed = True
        self._urgent.clear()
        self._ready.clear()
        if self._host.here():
            self._cancel()
            return
        try:
            self._host.call(self._cancel)
        except RuntimeError:
            return
        self._ended.wait(timeout)

    # On the event loop ------------------------------------------------------------------------------------

    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs."""
        return list(self._tasks)

    def lose(self, error: BaseException, cancelling: bool = False) -> None:
        """The loop ends; ``cancelling``: at once."""
        self.failure = error
        self._dropping = self._dropping or cancelling
        self._bell.set()

    def start_next(self) -> bool:
        """Start one message if there is one."""
        if self.failure is not None or self._closed or self._held:
            return False
        if self._sent_bytes - self._taken_bytes > UNTAKEN_BYTES:
            return False
        try:
            entry = (self._urgent or self._ready).popleft()
        except IndexError:  # nothing, or the consumer's thread has just taken it back
            return False
        run = _Run(entry)
        # A task takes a copy of the context it is made in. Not `context=`, which not every loop's task factory takes.
        context = self._context.copy()
        task = context.run(asyncio.get_running_loop().create_task, self._one(run))
        self._tasks[task] = run
        task.add_done_callback(self._end)
        return True

    async def _one(self, run: _Run) -> None:
        spec, entry = self._spec, run.entry
        message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, spec.deserializer)
        if spec.timeout is not None:
            run.started = time.monotonic()
        try:
            outcome = await run_async(spec, message, entry.route)
        except GeneratorExit as error:
            # One that the handler awaits is not raised there: it closes the coroutines from within.
            if not self._host.here():
                raise  # the loop is gone, and throws its coroutines away
            outcome = failed(spec, message, entry.route, error)
        self._conclude(run, timed_out(spec, entry) if run.expired else outcome, asyncio.current_task())

    def _settle(self, run: _Run, outcome: Outcome) -> None:
        try:
            run.unsettled.pop()
        except IndexError:  # it has failed long ago
            self._released.append(run.entry)
        else:
            if outcome is None:
                self._done.append(run.entry)
            elif not isinstance(outcome, Failure):
                self._sent_bytes += sent_bytes(outcome)
                self._sent.append((run.entry, outcome))
            elif not self._dropping:
                self._failed.append((run.entry, outcome))
        if not self._bell.is_set():
            self._bell.set()

    def _expire(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            task.cancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        if not run.concluded:
            self._conclude_cut_short(run, task)
        if self._closed and not self._tasks:
            self._ended.set()
        self._host.freed()

    def _conclude_cut_short(self, run: _Run, task: asyncio.Task[None]) -> None:
        """The task ended without its own last lines, as one that was cancelled before its first."""
        error = None if task.cancelled() else task.exception()
        spec, entry = self._spec, run.entry
        message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, spec.deserializer)
        with suppress(BaseException):  # a signal's: the loop ends
            outcome = failed(spec, message, entry.route, error or asyncio.CancelledError())
            self._conclude(run, timed_out(spec, entry) if run.expired else outcome, task)

    def _conclude(self, run: _Run, outcome: Outcome, task: asyncio.Task[Any] | None) -> None:
        run.concluded = True
        cancelled = task is not None and task.cancelling() > 0
        if self._host.shared and isinstance(outcome, Failure) and cancelled and not run.expired:
            # asyncio.run() cancels everything before it closes its loop: then it is no failure of the handler's.
            asyncio.get_running_loop().call_later(_DOUBT_SECONDS, self._settle, run, outcome)
        else:
            self._settle(run, outcome)

    def _feed(self) -> None:
        self._poked = False
        self._host.feed()

    def _cancel(self) -> None:
        self._dropping = True
        self._host.leave(self)
        if not self._tasks:
            self._ended.set()
        for task in self.tasks():
            task.cancel()

    # On the consumer's thread -----------------------------------------------------------------------------

    def _poke(self) -> None:
        if self._poked or self._closed or not (self._urgent or self._ready):
            return
        self._poked = True
        try:
            self._host.call(self._feed)
        except RuntimeError as error:
            self.lose(BrokenExecutor(str(error)))  # no more than that we were shut down, or the loop closed


def _taken(source: list[T]) -> list[T]:
    taken = source.copy()
    del source[: len(taken)]
    return taken


def _withdraw(queue: deque[Entry], which: Callable[[Entry], bool]) -> list[Entry]:
    given: list[Entry] = []
    kept: list[Entry] = []
    while queue:
        try:
            entry = queue.pop()
        except IndexError:  # the event loop was quicker
            break
        (given if which(entry) else kept).append(entry)
    queue.extendleft(kept)  # after whatever the loop took meanwhile, and in their order
    given.reverse()
    return given
