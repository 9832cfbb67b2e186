"""Slices for any ``concurrent.futures.Executor``: threads of this interpreter, stdlib process pools,
clusters.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.protocol import Finished, Outcome
from retriable_kafka_client.message import Message
from retriable_kafka_client.user_functions.contexts import base_context
from retriable_kafka_client.user_functions.results import refuse_unfinished
from retriable_kafka_client.workers.batch_slice import BatchSlice
from retriable_kafka_client.workers.job import (
    ENOUGH_BYTES,
    HandlerSpec,
    Item,
    check_sync,
    dump,
    ended,
    failed,
    item_of,
    load,
    run_item,
    sent_bytes,
)
from retriable_kafka_client.workers.runner import Slice, SliceReport, SliceRunner
from retriable_kafka_client.workers.threads import DaemonThreads

__all__ = ["FuturesRunner"]

logger = logging.getLogger(__name__)


class _LocalSlice(Slice):
    """A slice that works in this process, and turns into a ``_RemoteSlice`` when a pool pickles it.

    A worker claims with ``list.pop()`` from the end, the loop takes back with ``list.pop(0)`` from the
    beginning, and each single call is atomic with and without a GIL: an entry has exactly one taker, and no
    lock is needed for each message. The same holds for ``append`` here and ``del list[:n]`` there on the
    lists of what ended.
    """

    __slots__ = (
        "_crossed",
        "_current",
        "_done",
        "_ended",
        "_last_done",
        "_last_noted",
        "_late",
        "_noted",
        "_pending",
        "_pickled",
        "_seen",
        "_seen_at",
        "_spec",
        "begun",
    )

    def __init__(self, spec: HandlerSpec, pickled: Callable[[], bytes], entries: list[Entry]) -> None:
        super().__init__()
        entries.reverse()
        self._spec = spec
        self._pickled = pickled
        self._pending = entries  # the next one last
        self._current: Entry | None = None
        self._done: list[Entry] = []
        self._noted: list[tuple[Entry, Outcome]] = []  # what ended otherwise
        self._ended = 0  # gathered so far
        self._crossed: list[Entry] | None = None  # what was pickled, in order; None: nothing
        # Whether the pool has begun what was pickled, as far as it says.
        self.begun: Callable[[], bool] = bool
        # For `expire` and what it found: the runner's lock covers them.
        self._seen: Entry | None = None  # what ran at the last look
        self._seen_at = 0.0  # when that was seen first
        self._late: list[Entry] = []  # reported as overdue, and not released
        # The last ones gathered of either list. Until the worker takes the next one, what it ended last is `_current`.
        self._last_done: Entry | None = None
        self._last_noted: Entry | None = None

    def run(self) -> SliceReport:
        """Work the slice off. In the worker thread."""
        cpu = time.thread_time()
        self.started = started = time.monotonic()
        spec = self._spec
        handler, deserializer, sent = spec.handler, spec.deserializer, 0
        claim, done, noted = self._pending.pop, self._done.append, self._noted.append
        new_context = base_context(spec.context).copy
        while True:
            try:
                entry = claim()
            except IndexError:
                break
            self._current = entry
            message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, deserializer)
            # As `run` does, without the call.
            try:
                result = new_context().run(handler, message)
                if result is not None:
                    refuse_unfinished(result)
            except BaseException as error:  # noqa: BLE001 - the worker outlives whatever a handler raises
                noted((entry, failed(spec, message, entry.route, error)))
            else:
                message.ended = True
                if message.eventful:
                    outcome = ended(spec, message, entry.route)
                    noted((entry, outcome))
                    sent += sent_bytes(outcome)
                    if sent > ENOUGH_BYTES:
                        break
                else:
                    done(entry)
        self._current = None
        return SliceReport(time.monotonic() - started, time.thread_time() - cpu)

    def __reduce__(self) -> tuple[Any, ...]:
        """Claim everything and become plain. More than once with the same result: clusters try several
        picklers. With a timeout it is one message: which of several runs, a pool does not say.
        """
        pickled = self._pickled()
        if self._crossed is None:
            self._crossed = self._claim(len(self._pending) if self._spec.timeout is None else 1)
        return _RemoteSlice, (pickled, [item_of(entry) for entry in self._crossed])

    def _claim(self, most: int) -> list[Entry]:
        claimed: list[Entry] = []
        while len(claimed) < most:
            try:
                claimed.append(self._pending.pop())
            except IndexError:
                break
        return claimed

    def settle(self, report: SliceReport) -> None:
        """Note what a worker process reported."""
        if self._crossed is not None:
            crossed, self._crossed = self._crossed, None
            outcomes = dict(report.outcomes)
            self._pending.extend(reversed(crossed[report.ran :]))  # for take_back
            del crossed[report.ran :]
            self._done = [entry for index, entry in enumerate(crossed) if index not in outcomes]
            self._noted = [(crossed[index], outcome) for index, outcome in outcomes.items()]

    def take_back(self) -> list[Entry]:
        taken = []
        while True:
            try:
                taken.append(self._pending.pop(0))
            except IndexError:
                return taken

    def gather(self, finished: Finished) -> int:
        done, noted = self._done, self._noted
        count = len(done)
        if count:
            self._last_done = done[count - 1]
        if count and not self._late:
            finished.done.extend(done[:count])
            del done[:count]
            self._ended += count
        elif count:
            self._sort(finished, [(entry, None) for entry in done[:count]])
            del done[:count]
        count = len(noted)
        if count:
            self._last_noted, _ = noted[count - 1]
            self._sort(finished, noted[:count])
            del noted[:count]
        return self._ended

    def _sort(self, finished: Finished, ended: list[tuple[Entry, Outcome]]) -> None:
        for entry, outcome in ended:
            if entry in self._late:
                self._late.remove(entry)
                finished.released.append(entry)
            else:
                finished.note(entry, outcome)
        self._ended += len(ended)

    def expire(self, now: float, timeout: float) -> Entry | None:
        crossed = self._crossed
        if crossed is None:
            current = self._current
        else:
            current = crossed[0] if crossed and self.begun() else None
        if current is not self._seen:
            self._seen, self._seen_at = current, now
        elif current is None or now - self._seen_at < timeout or current in self._late:
            return None
        elif current is not self._last_done and current is not self._last_noted:
            self._late.append(current)
            return current
        return None

    def pending(self) -> int:
        return len(self._pending)

    def busy(self) -> tuple[Entry, ...]:
        current, crossed = self._current, self._crossed
        if crossed is not None:
            return tuple(crossed)
        return () if current is None else (current,)


class _RemoteSlice:
    """A slice in another process."""

    def __init__(self, pickled_spec: bytes, items: list[Item]) -> None:
        self._pickled_spec = pickled_spec
        self._items = items

    def run(self) -> SliceReport:
        started = time.monotonic()
        spec = load(self._pickled_spec)
        outcomes = []
        ran = sent = 0
        for index, item in enumerate(self._items):
            outcome = run_item(item, spec)
            ran += 1
            if outcome is not None:
                outcomes.append((index, outcome))
                sent += sent_bytes(outcome)
                if sent > ENOUGH_BYTES:
                    break
        return SliceReport(time.monotonic() - started, 0.0, ran, tuple(outcomes))


def _work(part: _LocalSlice | BatchSlice | _RemoteSlice) -> SliceReport:
    return part.run()


def _nothing() -> None:
    pass


def _always() -> bool:
    return True


class FuturesRunner(SliceRunner):
    """Slices to an executor, one future for each.

    Where the executor runs them shows when it pickles one, so it need not be known. ``owned``: closed with
    the runner.
    """

    def __init__(self, executor: Executor, spec: HandlerSpec, slots: int, *, owned: bool = False) -> None:
        processes = isinstance(executor, ProcessPoolExecutor)
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        super().__init__(slots, spec, shares_interpreter=gil and not processes)
        self._executor = executor
        self._owned = owned
        self._processes = processes
        self._pickled = functools.cache(partial(dump, spec))
        # Others may send a slice elsewhere, and a time limit asks what runs.
        local = isinstance(executor, (DaemonThreads, ThreadPoolExecutor))
        self._takes_batches = local and spec.timeout is None
        # Other executors, clusters among them, need not say when they begin something.
        self._says = isinstance(executor, (ProcessPoolExecutor, ThreadPoolExecutor))

    def start(self) -> None:
        """See Runner."""
        check_sync(self.spec.handler)
        if not self._processes:
            return
        self._crossing()
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
        return _LocalSlice(self.spec, self._crossing, entries)

    def _cut_batch(self, batch: PlainBatch) -> Slice:
        return BatchSlice(self.spec, batch) if self._takes_batches else super()._cut_batch(batch)

    def _launch(self, part: Slice) -> None:
        assert isinstance(part, (_LocalSlice, BatchSlice))
        future = self._executor.submit(_work, part)
        if self.spec.timeout is not None and isinstance(part, _LocalSlice):
            part.begun = future.running if self._says else _always
        future.add_done_callback(partial(self._ended, part))

    def _crossing(self) -> bytes:
        self._single = self.spec.timeout is not None
        return self._pickled()

    def _ended(self, part: _LocalSlice | BatchSlice, future: Future[SliceReport]) -> None:
        if isinstance(part, _LocalSlice):
            part.begun = bool  # the future and the slice are not to keep each other
        if future.cancelled():
            self.fail(BrokenExecutor("the executor was shut down while the consumer used it"), part)
            return
        error = future.exception()
        if error is not None:
            self.fail(error, part)
            return
        report = future.result()
        if isinstance(part, _LocalSlice):
            part.settle(report)
        self.settle(part, seconds=report.seconds, cpu=report.cpu)

    def _release(self) -> None:
        if self._owned:
            self._executor.shutdown(wait=False)
