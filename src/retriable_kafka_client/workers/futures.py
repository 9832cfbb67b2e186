"""Slices for any ``concurrent.futures.Executor``: threads of this interpreter, stdlib process pools,
clusters.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.message import Message
from retriable_kafka_client.workers.job import (
    HandlerSpec,
    Item,
    check_sync,
    dump,
    failed,
    item_of,
    load,
    message_of,
    refuse_awaitable,
    run,
)
from retriable_kafka_client.workers.runner import Harvest, Slice, SliceRunner

__all__ = ["FuturesRunner"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Report:
    """What a worker says of a slice."""

    seconds: float
    cpu: float  # of this interpreter, so none for another process
    failures: tuple[
        tuple[int, Failure], ...
    ] = ()  # by index in the slice; only of a slice that crossed to a process


class _LocalSlice(Slice):
    """A slice that works in this process, and turns into a ``_RemoteSlice`` when a pool pickles it.

    A worker claims with ``list.pop()`` from the end, the loop takes back with ``list.pop(0)`` from the
    beginning, and each single call is atomic with and without a GIL: an entry has exactly one taker, and no
    lock is needed for each message. The same holds for ``append`` here and ``del list[:n]`` there on the
    lists of what ended.
    """

    __slots__ = (
        "_current",
        "_done",
        "_ended",
        "_failed",
        "_pending",
        "_pickled",
        "_sent",
        "_spec",
    )

    def __init__(self, spec: HandlerSpec, pickled: Callable[[], bytes], entries: list[Entry]) -> None:
        super().__init__()
        entries.reverse()
        self._spec = spec
        self._pickled = pickled
        self._pending = entries  # the next one last
        self._current: Entry | None = None
        self._done: list[Entry] = []
        self._failed: list[tuple[Entry, Failure]] = []
        self._ended = 0  # gathered so far
        self._sent: list[Entry] | None = None  # what was pickled, in order; None: nothing

    def run(self) -> _Report:
        """Work the slice off. In the worker thread."""
        cpu = time.thread_time()
        self.started = started = time.monotonic()
        spec = self._spec
        handler, deserializer = spec.handler, spec.deserializer
        claim, done = self._pending.pop, self._done.append
        while True:
            try:
                entry = claim()
            except IndexError:
                break
            self._current = entry
            message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, deserializer)
            # As `run` does, without the call.
            try:
                result = handler(message)
                if result is not None:
                    refuse_awaitable(result)
                if message.decode_error is not None:
                    raise message.decode_error
            except BaseException as error:  # noqa: BLE001 - the worker outlives whatever a handler raises
                self._failed.append((entry, failed(spec, message, entry.route, error)))
            else:
                done(entry)
        self._current = None
        return _Report(time.monotonic() - started, time.thread_time() - cpu)

    def __reduce__(self) -> tuple[Any, ...]:
        """Claim everything and become plain. More than once with the same result: clusters try several
        picklers.
        """
        pickled = self._pickled()
        if self._sent is None:
            self._sent = self._claim_all()
        return _RemoteSlice, (pickled, [item_of(entry) for entry in self._sent])

    def _claim_all(self) -> list[Entry]:
        claimed = []
        while True:
            try:
                claimed.append(self._pending.pop())
            except IndexError:
                return claimed

    def settle(self, report: _Report) -> None:
        """Note what a worker process reported."""
        if self._sent is not None:
            sent, self._sent = self._sent, None
            failures = dict(report.failures)
            self._done = [entry for index, entry in enumerate(sent) if index not in failures]
            self._failed = [(sent[index], failure) for index, failure in failures.items()]

    def take_back(self) -> list[Entry]:
        taken = []
        while True:
            try:
                taken.append(self._pending.pop(0))
            except IndexError:
                return taken

    def gather(self, harvest: Harvest) -> int:
        for source, target in ((self._done, harvest.done), (self._failed, harvest.failed)):
            count = len(source)
            if count:
                target.extend(source[:count])  # type: ignore[arg-type]
                del source[:count]
                self._ended += count
        return self._ended

    def pending(self) -> int:
        return len(self._pending)

    def busy(self) -> tuple[Entry, ...]:
        current, sent = self._current, self._sent
        if sent is not None:
            return tuple(sent)
        return () if current is None else (current,)


class _RemoteSlice:
    """A slice in another process."""

    def __init__(self, pickled_spec: bytes, items: list[Item]) -> None:
        self._pickled_spec = pickled_spec
        self._items = items

    def run(self) -> _Report:
        started = time.monotonic()
        spec = load(self._pickled_spec)
        failures = []
        for index, item in enumerate(self._items):
            failure = run(spec, message_of(item, spec), item[3])
            if failure is not None:
                failures.append((index, failure))
        return _Report(time.monotonic() - started, 0.0, tuple(failures))


def _work(part: _LocalSlice | _RemoteSlice) -> _Report:
    return part.run()


def _nothing() -> None:
    pass


class FuturesRunner(SliceRunner):
    """Slices to an executor, one future for each.

    Where the executor runs them shows when it pickles one, so it need not be known. ``owned``: closed with
    the runner.
    """

    def __init__(self, executor: Executor, spec: HandlerSpec, slots: int, *, owned: bool = False) -> None:
        processes = isinstance(executor, ProcessPoolExecutor)
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        super().__init__(slots, shares_interpreter=gil and not processes)
        self._executor = executor
        self._spec = spec
        self._owned = owned
        self._processes = processes
        self._pickled = functools.cache(partial(dump, spec))

    def start(self) -> None:
        """See Runner."""
        check_sync(self._spec.handler)
        if not self._processes:
            return
        self._pickled()
        context = getattr(self._executor, "_mp_context", None)  # there is no public way to ask
        if context is not None and context.get_start_method() == "fork":
            logger.warning(
                "the process pool forks its workers: threads of this process do not live on in them, and a lock"
                " that one holds stays locked for ever; pass mp_context=multiprocessing.get_context('spawn'), or"
                " use a ProcessExecutor"
            )
            # A forking pool forks all its workers at its first submit: now, before a Kafka client has
            # threads.
            self._executor.submit(_nothing)

    def _cut(self, entries: list[Entry]) -> Slice:
        return _LocalSlice(self._spec, self._pickled, entries)

    def _launch(self, part: Slice) -> None:
        assert isinstance(part, _LocalSlice)
        self._executor.submit(_work, part).add_done_callback(partial(self._ended, part))

    def _ended(self, part: _LocalSlice, future: Future[_Report]) -> None:
        if future.cancelled():
            self.fail(RuntimeError("the executor was shut down while the consumer used it"), part)
            return
        error = future.exception()
        if error is not None:
            self.fail(error, part)
            return
        report = future.result()
        part.settle(report)
        self.settle(part, seconds=report.seconds, cpu=report.cpu)

    def _release(self) -> None:
        if self._owned:
            self._executor.shutdown(wait=False)
