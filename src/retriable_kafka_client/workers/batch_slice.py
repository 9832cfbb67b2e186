"""Slices of plain records for the threads of this process."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.plain_batch import PlainBatch, Succeeded
from retriable_kafka_client.core.protocol import Finished, Outcome
from retriable_kafka_client.message import Message
from retriable_kafka_client.user_functions.contexts import base_context
from retriable_kafka_client.user_functions.results import refuse_unfinished
from retriable_kafka_client.wire.headers import PLAIN
from retriable_kafka_client.workers.job import (
    ENOUGH_BYTES,
    HandlerSpec,
    ended,
    failed,
    sent_bytes,
)
from retriable_kafka_client.workers.runner import Slice, SliceReport

__all__ = ["BatchSlice"]


class _Noted(NamedTuple):
    """A message that ended otherwise than by plain success."""

    number: int  # in the batch
    entry: Entry
    outcome: Outcome


class BatchSlice(Slice):
    """Part of a batch. Only what does not plainly succeed becomes an Entry.

    The worker claims records with ``list.pop()`` from the end, the loop takes back with ``list.pop(0)`` from the
    beginning, and each single call is atomic with and without a GIL: a record has exactly one taker. What the worker has
    claimed are the first ones, in order; ``_count`` of them have ended, and those that ended otherwise stand in ``_noted``
    before they are counted.
    """

    __slots__ = ("_batch", "_count", "_current", "_gathered", "_noted", "_pending", "_spec")

    def __init__(self, spec: HandlerSpec, batch: PlainBatch) -> None:
        super().__init__()
        self._spec = spec
        self._pending: list[Any] = list(
            reversed(batch.raws)
        )  # the next one last; let go of once it is claimed
        batch.raws = ()
        self._batch = batch
        self._count = 0
        self._current: Any = None
        self._noted: list[_Noted] = []
        self._gathered = 0  # of _count

    def run(self) -> SliceReport:
        """Work it off. In the worker thread."""
        cpu = time.thread_time()
        self.started = started = time.monotonic()
        spec, batch = self._spec, self._batch
        handler, deserializer, uid, route = spec.handler, spec.deserializer, batch.assignment.uid, batch.route
        claim, count, sent = self._pending.pop, 0, 0
        new_context = base_context(spec.context).copy
        while True:
            try:
                raw = claim()
            except IndexError:
                break
            self._current = raw
            message: Message[Any] = Message(raw, PLAIN, uid, deserializer)
            # As `job.run` does, without the call.
            try:
                result = new_context().run(handler, message)
                if result is not None:
                    refuse_unfinished(result)
            except BaseException as error:  # noqa: BLE001 - the worker outlives whatever a handler raises
                self._note(count, raw, failed(spec, message, route, error))
            else:
                message.ended = True
                if message.eventful:
                    outcome = ended(spec, message, route)
                    self._note(count, raw, outcome)
                    sent += sent_bytes(outcome)
            count += 1
            self._count = count
            if sent > ENOUGH_BYTES:
                break
        self._current = None
        return SliceReport(time.monotonic() - started, time.thread_time() - cpu)

    def _note(self, index: int, raw: Any, outcome: Outcome) -> None:
        self._noted.append(_Noted(index, self._entry(index, raw), outcome))

    def _entry(self, index: int, raw: Any) -> Entry:
        batch = self._batch
        return Entry(batch.assignment, batch.offsets[index], batch.sizes[index], raw, PLAIN, batch.route)

    def take_back(self) -> list[Entry]:
        """See Slice."""
        index = len(self._batch.offsets)
        taken = []
        while True:
            try:
                raw = self._pending.pop(0)
            except IndexError:
                break
            index -= 1
            taken.append(self._entry(index, raw))
        if taken:  # those at the end are of no concern any more
            self._batch = self._batch.part(0, index)
        return taken

    def gather(self, finished: Finished) -> int:
        """See Slice."""
        count, first = self._count, self._gathered
        while self._noted and self._noted[0].number < count:
            index, entry, outcome = self._noted.pop(0)
            self._succeed(finished, first, index)
            finished.note(entry, outcome)
            first = index + 1
        self._succeed(finished, first, count)
        self._gathered = count
        return count

    def _succeed(self, finished: Finished, first: int, stop: int) -> None:
        if first < stop:
            batch = self._batch
            size = sum(batch.sizes[first:stop])
            finished.succeeded.append(Succeeded(batch.assignment, batch.offsets[first:stop], size))

    def expire(self, now: float, timeout: float) -> Entry | None:  # noqa: ARG002
        """See Slice. Where runs have a time limit, there are no slices of this kind."""
        return None

    def pending(self) -> int:
        """See Slice."""
        return len(self._pending)

    def busy(self) -> tuple[Entry, ...]:
        """See Slice."""
        current, count = self._current, self._count
        return () if current is None or count >= len(self._batch.offsets) else (self._entry(count, current),)
