"""Between a consumer's loop and the pool that runs its messages: slices out, what ended back."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.protocol import Finished, Outcome
from retriable_kafka_client.wire.outbox import size_of
from retriable_kafka_client.workers.job import HandlerSpec, timed_out
from retriable_kafka_client.workers.pace import Pace

__all__ = ["UNTAKEN_BYTES", "Runner", "Running", "Slice", "SliceReport", "SliceRunner"]

ALONE = attrgetter("alone")
UNTAKEN_BYTES = 4_000_000  # sent by handlers, and not taken by the loop yet: above it nothing starts
OVERDUE_SECONDS = 0.010  # a slice older than this gives back what it has not started


@dataclass(frozen=True, slots=True)
class SliceReport:
    """What a worker says of a slice."""

    seconds: float
    cpu: float  # of this interpreter, so none for another process
    ran: int = 0  # messages; only of a slice that crossed to a process
    # By index in the slice, all but plain successes; only of a slice that crossed to a process.
    outcomes: tuple[tuple[int, Outcome], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a runner holds, at about one instant.

    ``busy``: what has started and not ended, perhaps with a few that ended just now. A process pool of the standard library,
    or a cluster, does not say what it has started: there it is all of each slice that was sent.
    """

    queued: int  # pushed and not started: ``withdraw`` can give them back
    busy: tuple[Entry, ...]


class Runner(Protocol):
    """Runs messages for one consumer. All methods but ``running`` are for the consumer's loop thread alone.

    An entry that was pushed comes back exactly once, from ``take`` or from ``withdraw``, unless ``failure``
    is set or the runner is closed: then what has not come back is not handled.
    """

    slots: int  # how many messages can run at once
    failure: BaseException | None  # the pool broke: nothing is started any more, and nobody will repair it

    def start(self) -> None:
        """Check and pickle the handler, start the pool. Before the first Kafka client exists: a pool may fork
        here.

        Raises ConfigError for a handler that this executor cannot run, and BrokenExecutor or RuntimeError for
        a pool that is broken or shut down. Does not wait for worker processes.
        """

    def push(self, entries: Sequence[Entry], *, urgent: bool = False) -> None:
        """Hand over ready entries; they start in this order, ``urgent`` ones before the others. Never blocks or raises."""

    def push_batch(self, batch: PlainBatch) -> None:
        """Hand over a batch; what succeeded of it may come back as ``succeeded``, everything else as entries."""

    def withdraw(self, which: Callable[[Entry], bool]) -> list[Entry]:
        """Give back what has not started and ``which`` is true of. Never waits for a worker."""

    def hold(self, on: bool) -> None:
        """Start nothing more (``on``), or go on. What runs is not touched. Never waits for a worker."""

    def sweep(self, now: float) -> None:
        """Called every 10 to 20 ms with ``time.monotonic()``: take back what waits behind a slow message, gather what ended
        before it, and end or report what runs for too long.
        """

    def take(self) -> Finished:
        """Everything that ended since the last call. Nobody changes it any more."""

    def wait(self, timeout: float) -> None:
        """Block until there may be something to take, the pool failed, or ``ring``, at most ``timeout`` seconds."""

    def ring(self) -> None:
        """End a ``wait``, or the next one. From any thread."""

    def running(self) -> Running:
        """What is held now. From any thread."""

    def close(self, timeout: float) -> None:
        """Start nothing more, cancel coroutines, wait at most ``timeout`` seconds for what runs, let go of
        the pool.

        A pool that the consumer made is closed, a given one is not. What ended can still be taken.
        """


class Slice(ABC):
    """A run of entries that a pool works off in order. Its runner's lock covers every method."""

    __slots__ = ("overdue", "started")

    def __init__(self) -> None:
        self.started: float | None = None  # monotonic; None: no worker has begun it
        self.overdue = False  # it no longer counts against the width

    @abstractmethod
    def take_back(self) -> list[Entry]:
        """Remove and return what has not started, the last first. Never waits for a worker."""

    @abstractmethod
    def gather(self, finished: Finished) -> int:
        """Move what ended since the last call into ``finished``; returns how many have ended in all."""

    @abstractmethod
    def expire(self, now: float, timeout: float) -> Entry | None:
        """Look for a message that has run for longer than ``timeout`` seconds. Each sweep calls it.

        ``now``: ``time.monotonic()``. Where the message can be ended, it is, and comes back as failed. Otherwise it is
        returned and runs on; ``gather`` puts it into ``released`` once it has ended.
        """

    @abstractmethod
    def pending(self) -> int:
        """How many have not started."""

    @abstractmethod
    def busy(self) -> tuple[Entry, ...]:
        """Started and not ended."""


class SliceRunner(ABC):
    """Cuts slices off a ready queue and keeps at most ``slots`` of them with a pool.

    Subclasses hand a slice to their pool and call ``settle`` when the pool is through with it. There is one
    lock for each runner, taken a few times for each slice and never while a handler runs.
    """

    _NOTHING = Finished()

    def __init__(self, slots: int, spec: HandlerSpec, *, shares_interpreter: bool) -> None:
        self.slots = slots
        self.failure: BaseException | None = None
        self.spec = spec
        self._lock = threading.Lock()
        self._ready: deque[Entry] = deque()
        self._urgent: deque[Entry] = deque()  # goes first
        self._batches: deque[PlainBatch] = deque()  # takes turns with `_ready`
        self._batch_next = False
        self._taken_back = (
            0  # how many at the front of `_ready` were given out before: they go before any batch
        )
        self._out: dict[Slice, None] = {}  # with the pool; in the order of their launch
        self._overdue = 0  # of _out
        self._finished = Finished()
        self._pace = Pace(slots, shares_interpreter=shares_interpreter)
        # One thread launches at a time: slices keep their order, and an inline executor does not recurse.
        self._pumping = False
        self._single = False  # one message a slice: the pool does not say which of several runs
        self._held = False
        self._untaken = 0  # bytes of what was sent, in _finished
        self._closed = False
        self._bell = threading.Event()  # there may be something to take
        self._idle = threading.Event()  # nothing is with the pool
        self._idle.set()

    # For subclasses and their pools -----------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """See Runner."""

    @abstractmethod
    def _cut(self, entries: list[Entry]) -> Slice:
        """Make a slice. The lock is held."""

    def _cut_batch(self, batch: PlainBatch) -> Slice:
        """Make a slice of a batch. The lock is held."""
        return self._cut(batch.entries())

    @abstractmethod
    def _launch(self, part: Slice) -> None:
        """Give a slice to the pool. What this raises becomes the runner's failure. The lock is not held."""

    def _release(self) -> None:  # noqa: B027 - most pools are not ours to close
        """Let go of the pool."""

    def settle(
        self,
        part: Slice,
        *,
        seconds: float,
        cpu: float = 0.0,
        died: Sequence[Entry] = (),
        killed: Sequence[Entry] = (),
    ) -> None:
        """The pool is through with ``part`` (any thread): gather the outcomes, launch the next slice. ``died`` and
        ``killed`` took their worker along: of themselves, or because they were ended for their timeout.
        """
        with self._lock:
            self._forget(part)
            ended = self._gather(part)
            self._finished.died.extend(died)
            self._finished.failed.extend((entry, timed_out(self.spec, entry)) for entry in killed)
            self._take_back(part)
            self._pace.note(ended, seconds)
            self._pace.note_cpu(cpu, time.monotonic())
        self._bell.set()
        self._pump()

    def fail(self, error: BaseException, part: Slice | None = None) -> None:
        """The pool broke (any thread). What has not ended never will; the first reason stays."""
        with self._lock:
            if part is not None:
                self._forget(part)
                self._gather(part)
                self._take_back(part)
            if self.failure is None:
                self.failure = error
        self._bell.set()

    def _gather(self, part: Slice) -> int:
        sent = self._finished.sent
        before = len(sent)
        ended = part.gather(self._finished)
        if len(sent) > before:
            self._untaken += sum(size_of(outputs) for _, outputs in sent[before:])
        return ended

    def _forget(self, part: Slice) -> None:
        if part in self._out:
            del self._out[part]
            self._overdue -= part.overdue
            if not self._out:
                self._idle.set()

    def _pump(self) -> None:
        """Launch slices until the pool has enough."""
        with self._lock:
            if self._pumping:
                return  # whoever pumps looks once more before it stops
            self._pumping = True
        while True:
            with self._lock:
                part = self._next()
                if part is None:
                    self._pumping = False
                    return
                self._out[part] = None
                self._idle.clear()
            try:
                self._launch(part)
            except Exception as error:  # noqa: BLE001 - a broken pool ends the consumer, not this thread
                self.fail(error, part)

    def _next(self) -> Slice | None:
        out = len(self._out)
        ready, batches = self._urgent or self._ready, self._batches
        if self._closed or self._held or self.failure is not None or out >= self.slots:
            return None
        if not ready and not batches:
            return None
        if self._untaken > UNTAKEN_BYTES:
            return None
        if out - self._overdue >= self._pace.width:
            return None
        turn = self._batch_next and not self._taken_back and ready is self._ready
        self._batch_next = bool(batches) and (not ready or turn)
        if self._batch_next:
            self._batch_next = False
            return self._cut_batch(self._next_of(batches))
        self._batch_next = True
        count = 1 if self._single or ready[0].alone else self._pace.length(len(ready))
        entries = [ready.popleft() for _ in range(count)]
        if count > 1 and True in map(ALONE, entries):
            first = next(index for index, entry in enumerate(entries) if entry.alone)
            ready.extendleft(reversed(entries[first:]))
            del entries[first:]
        if ready is self._ready:
            self._taken_back = max(0, self._taken_back - len(entries))
        return self._cut(entries)

    def _take_back(self, part: Slice) -> None:
        taken = part.take_back()
        self._ready.extendleft(taken)
        self._taken_back += len(taken)

    def _next_of(self, batches: deque[PlainBatch]) -> PlainBatch:
        batch = batches.popleft()
        count = 1 if self._single else self._pace.length(len(batch) + sum(map(len, batches)))
        if count >= len(batch):
            return batch
        batches.appendleft(batch.part(count, len(batch)))
        return batch.part(0, count)

    # Runner -----------------------------------------------------------------------------------------------

    def push(self, entries: Sequence[Entry], *, urgent: bool = False) -> None:
        """See Runner."""
        with self._lock:
            (self._urgent if urgent else self._ready).extend(entries)
        self._pump()

    def push_batch(self, batch: PlainBatch) -> None:
        """See Runner."""
        with self._lock:
            self._batches.append(batch)
        self._pump()

    def withdraw(self, which: Callable[[Entry], bool]) -> list[Entry]:
        """See Runner."""
        with self._lock:
            while self._batches:
                self._ready.extend(self._batches.popleft().entries())
            for part in reversed(self._out):
                self._take_back(part)
            given = [entry for entry in (*self._urgent, *self._ready) if which(entry)]
            if given:
                self._urgent = deque(entry for entry in self._urgent if not which(entry))
                self._ready = deque(entry for entry in self._ready if not which(entry))
            self._taken_back = 0  # nothing is left that they would have to go before
        self._pump()
        return given

    def hold(self, on: bool) -> None:
        """See Runner."""
        with self._lock:
            self._held = on
            if on:
                for part in reversed(self._out):
                    self._take_back(part)
        self._pump()

    def sweep(self, now: float) -> None:
        """See Runner."""
        timeout = self.spec.timeout
        with self._lock:
            finished = self._finished
            for part in reversed(self._out):
                ended = self._gather(part)
                if part.started is not None and now - part.started > OVERDUE_SECONDS:
                    if not part.overdue:
                        # Once: a stuck message must not keep the others' slices short for ever.
                        self._pace.note(ended + 1, now - part.started)
                        self._overdue += 1
                        part.overdue = True
                    self._take_back(part)
                late = None if timeout is None else part.expire(now, timeout)
                if late is not None:
                    self._take_back(part)  # also where the timeout is very short
                    finished.overdue.append((late, timed_out(self.spec, late)))
            if finished:
                self._bell.set()
        self._pump()

    def take(self) -> Finished:
        """See Runner."""
        if not self._bell.is_set():
            return self._NOTHING
        with self._lock:
            self._bell.clear()
            finished, self._finished = self._finished, Finished()
            full, self._untaken = self._untaken > UNTAKEN_BYTES, 0
        if full:
            self._pump()
        return finished

    def wait(self, timeout: float) -> None:
        """See Runner."""
        self._bell.wait(timeout)

    def ring(self) -> None:
        """See Runner."""
        self._bell.set()

    def running(self) -> Running:
        """See Runner."""
        with self._lock:
            queued = len(self._urgent) + len(self._ready) + sum(map(len, self._batches))
            busy: list[Entry] = []
            for part in self._out:
                queued += part.pending()
                busy.extend(part.busy())
        return Running(queued=queued, busy=tuple(busy))

    def close(self, timeout: float) -> None:
        """See Runner."""
        with self._lock:
            self._closed = True
            for part in self._out:
                part.take_back()
            self._urgent.clear()
            self._ready.clear()
            self._batches.clear()
        self._idle.wait(timeout)
        self._release()
