"""The library's own process pool: it survives its workers and knows which message each of them runs."""

from __future__ import annotations

import atexit
import pickle
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.protocol import Finished, Outcome
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.runtime.forks import Home, in_child
from retriable_kafka_client.runtime.native_queue import Empty, SimpleQueue
from retriable_kafka_client.wire.checks import integer
from retriable_kafka_client.workers import worker_main as child
from retriable_kafka_client.workers.job import HandlerSpec, check_sync, dump, item_of
from retriable_kafka_client.workers.runner import Slice, SliceRunner
from retriable_kafka_client.workers.worker_process import MAIN_GUARD, WorkerEnded, WorkerProcess

__all__ = ["Pool", "ProcessExecutor", "ProcessRunner"]

P = ParamSpec("P")
T = TypeVar("T")

_FUTILE = 3  # workers in a row that ended before they began anything: the next one would too
_IDLE_SECONDS = 1.0  # how often an idle worker is looked after


class ProcessExecutor(Executor):
    """Runs handlers in ``workers`` processes, started with the first use and replaced when they die.

    Unlike the stdlib's pool it is not broken by a worker's death: only the message that was running is in
    doubt. One executor may serve several consumers. ``initializer`` is called once in each new worker; when
    it raises, the executor is broken. Workers are spawned, never forked: handlers, deserializer and
    initializer must pickle, and the program's main module is imported in each worker.
    """

    def __init__(self, workers: int, *, initializer: Callable[[], object] | None = None) -> None:
        if initializer is not None and not callable(initializer):
            raise ConfigError(
                "ProcessExecutor.initializer", initializer, "must be a function without parameters"
            )
        self.workers = integer("ProcessExecutor.workers", workers, 1, 10_000)
        self.pool = Pool(workers, initializer)
        """Internal: what its consumers' runners talk to."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See concurrent.futures. A worker's death fails this one future with BrokenExecutor.

        Raises RuntimeError after shutdown, BrokenExecutor when no worker can be started, RetriableKafkaError in a child
        that was forked after the first use.
        """
        future: Future[T] = Future()
        self.pool.begin()
        self.pool.give(_CallJob(future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers once they have ended what they run. See concurrent.futures."""
        self.pool.shutdown(wait=wait, cancel=cancel_futures)


class Job(ABC):
    """Something for one worker to do. Its last call is ``run`` that returns, ``abandoned`` or ``refused``."""

    @abstractmethod
    def run(self, process: WorkerProcess) -> None:
        """Do it on the worker. Raises WorkerEnded. In the worker's keeper thread."""

    @abstractmethod
    def abandoned(self, ended: WorkerEnded) -> bool:
        """The worker ended in ``run``. Returns whether anything had been begun."""

    @abstractmethod
    def refused(self, error: BaseException) -> None:
        """The pool will never run it."""


class Pool:
    """Jobs, and one keeper thread for each worker process: it starts the process, hands it one job after
    another, and replaces it when it dies. Keepers share nothing but the queue, so a worker that is stuck
    holds up nobody else.
    """

    def __init__(self, workers: int, initializer: Callable[[], object] | None) -> None:
        self.workers = workers
        self._initializer = initializer
        self._lock = threading.Lock()  # covers the seven below
        self._keepers: list[threading.Thread] = []
        self._processes: set[WorkerProcess] = set()
        self._runners: list[ProcessRunner] = []
        self._failure: BaseException | None = None
        self._closed = False
        self._killed = False
        self._home = Home("ProcessExecutor")
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()

    def begin(self) -> None:
        """Start the keepers, and they the workers; does not wait for them. Raises ConfigError,
        BrokenExecutor.
        """
        if child.being_imported_by_worker():
            raise ConfigError("ProcessExecutor", self.workers, MAIN_GUARD)
        self._home.check()
        with self._lock:
            self._check()
            if not self._keepers:
                self._check_initializer()
                self._home.settle()
                _pools.add(self)
                for number in range(self.workers):
                    keeper = threading.Thread(target=self._keep, name=f"rkc-keeper-{number}", daemon=True)
                    self._keepers.append(keeper)
                    keeper.start()

    def join(self, runner: ProcessRunner) -> None:
        """Let ``runner`` fail when the pool breaks."""
        with self._lock:
            self._runners.append(runner)

    def leave(self, runner: ProcessRunner) -> None:
        """The opposite of ``join``."""
        with self._lock:
            if runner in self._runners:
                self._runners.remove(runner)

    def give(self, job: Job) -> None:
        """Queue a job. Raises BrokenExecutor, and RuntimeError after shutdown."""
        with self._lock:
            self._check()
            self._jobs.put(job)

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """See ProcessExecutor."""
        if self._home.lost:
            return  # the workers, and those who wait for them, are the parent's
        with self._lock:
            first, self._closed = not self._closed, True
            refused = self._drained() if cancel else []
            if first:
                for _ in self._keepers:
                    self._jobs.put(None)
        for job in refused:
            job.refused(RuntimeError("the ProcessExecutor was shut down"))
        if wait:
            for keeper in self._keepers:
                keeper.join()

    def kill(self) -> None:
        """End all workers at once and start none: the interpreter ends. In a forked child they are the parent's."""
        if self._home.lost:
            return
        with self._lock:
            self._closed = self._killed = True
            for process in self._processes:
                process.kill()

    def disown(self) -> None:
        """This is a forked child: the workers are the parent's."""
        for process in self._processes:
            process.disown()

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokenExecutor(str(self._failure)) from self._failure
        if self._closed:
            raise RuntimeError("the ProcessExecutor was shut down")

    def _check_initializer(self) -> None:
        try:
            pickle.dumps(self._initializer)
        except Exception as error:
            remedy = "must pickle: a function at a module's top level, or a partial of one"
            raise ConfigError("ProcessExecutor.initializer", self._initializer, remedy) from error

    def _drained(self) -> list[Job]:
        jobs: list[Job] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
            if job is not None:
                jobs.append(job)

    def _break(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
            refused, runners = self._drained(), self._runners.copy()
            for _ in self._keepers:
                self._jobs.put(None)
        for job in refused:
            job.refused(failure)
        for runner in runners:
            runner.fail(failure)

    # A keeper's thread ------------------------------------------------------------------------------------

    def _keep(self) -> None:
        futile = 0
        reason: WorkerEnded | None = None
        while futile < _FUTILE:
            try:
                with self._process() as process:
                    while (job := self._next(process)) is not None:
                        try:
                            job.run(process)
                        except WorkerEnded as ended:
                            if job.abandoned(ended):
                                futile = -1  # it was the job, not the start
                            raise
                        futile = 0
                        del job  # a keeper that waits keeps no payload alive
                    return
            except WorkerEnded as ended:
                reason = ended
                futile = _FUTILE if ended.hopeless else futile + 1
                if self._killed:
                    return
        self._break(BrokenExecutor(f"the ProcessExecutor cannot go on: {reason}"))

    @contextmanager
    def _process(self) -> Iterator[WorkerProcess]:
        """A worker that is ready; ended on leaving. Raises WorkerEnded."""
        try:
            process = WorkerProcess(self._initializer)
        except Exception as error:
            raise WorkerEnded(
                f"a worker process could not be started: {type(error).__name__}: {error}"
            ) from error
        with self._lock:
            self._processes.add(process)
            if self._killed:
                process.kill()
        try:
            process.await_ready()
            yield process
        finally:
            with self._lock:
                self._processes.discard(process)
            process.end()

    def _next(self, process: WorkerProcess) -> Job | None:
        while True:
            try:
                return self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                process.check()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _kill_workers() -> None:
    # Registered after multiprocessing's own exit function, so it runs before that one, which would wait for
    # them.
    for pool in list(_pools):
        pool.kill()


def _disown_workers() -> None:
    for pool in list(_pools):
        pool.disown()
    _pools.clear()


in_child(_disown_workers)


class _CallJob(Job):
    """One ``submit``."""

    def __init__(self, future: Future[Any], call: tuple[Any, ...]) -> None:
        self._future = future
        self._call = call

    def run(self, process: WorkerProcess) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            order = child.Call(pickle.dumps(self._call))
        except BaseException as error:  # noqa: BLE001 - whatever a foreign __reduce__ raises
            self._future.set_exception(error)
            return
        process.send(order)
        reply = process.receive()
        try:
            value = pickle.loads(reply.pickled)  # noqa: S301 - from our own worker
        except BaseException as error:  # noqa: BLE001 - whatever a foreign class raises
            self._future.set_exception(error)
            return
        if isinstance(reply, child.Raised):
            self._future.set_exception(value)
        else:
            self._future.set_result(value)

    def abandoned(self, ended: WorkerEnded) -> bool:
        self._future.set_exception(BrokenExecutor(str(ended)))
        return True

    def refused(self, error: BaseException) -> None:
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(error)


class _ProcessSlice(Slice, Job):
    """A slice that a worker process works off. See child.Board for how the two sides keep apart."""

    def __init__(self, runner: ProcessRunner, pickled_spec: bytes, entries: list[Entry]) -> None:
        super().__init__()
        self._runner = runner
        self._pickled_spec = pickled_spec
        self._guard = threading.Lock()  # covers all below; taken inside the runner's lock, never around it
        self._entries = entries  # what is taken back is cut off its end
        self._process: WorkerProcess | None = None  # the worker has it
        self._claimed = 0  # begun, and ended, when the worker was through with it
        self._done = 0
        self._gathered = 0
        self._outcomes: dict[int, Outcome] = {}  # received and not gathered; by index
        self._received = 0
        self._seen: int | None = None  # which message ran at the last look
        self._seen_at = 0.0  # when that was seen first
        self._killed = False  # with its worker, because its message ran for too long

    # Job, in the keeper's thread

    def run(self, process: WorkerProcess) -> None:
        with self._guard:
            self.started = time.monotonic()
            entries = self._entries.copy()
            process.begin(len(entries))
            self._process = process
        if not entries:  # all taken back while it was queued
            self._leave(process)
            self._runner.settle(self, seconds=0.0)
            return
        process.send(child.RunSlice(self._pickled_spec, [item_of(entry) for entry in entries]))
        reply = process.receive()
        while isinstance(reply, child.OutcomeSent):
            with self._guard:
                self._outcomes[reply.index] = reply.outcome
                self._received += 1
            reply = process.receive()
        self._leave(process)
        if isinstance(reply, child.Unloadable):
            self._runner.fail(
                ConfigError(
                    "Consumer.handler",
                    self._runner.spec.handler,
                    f"cannot be loaded in a worker process: {reply.error}",
                ),
                self,
            )
        else:
            self._runner.settle(self, seconds=reply.seconds)

    def abandoned(self, ended: WorkerEnded) -> bool:  # noqa: ARG002 - to the slice they are all the same
        with self._guard:
            process, started = self._process, self.started
            assert process is not None
            assert started is not None
        lost = self._leave(process)
        died, killed = ([], lost) if self._killed else (lost, [])
        self._runner.settle(self, seconds=time.monotonic() - started, died=died, killed=killed)
        return self._claimed > 0

    def refused(self, error: BaseException) -> None:
        self._runner.fail(error, self)

    def _leave(self, process: WorkerProcess) -> list[Entry]:
        """The worker is through with the slice, or gone: note how far it came; returns what is in doubt."""
        with self._guard:
            self._process = None
            self._claimed, self._done = process.claimed, process.done
            if self._done < self._claimed and self._done in self._outcomes:
                self._done += 1  # it died between saying so and counting it
            return self._entries[self._done : self._claimed]

    # Slice

    def take_back(self) -> list[Entry]:
        with self._guard:
            claimed = self._claimed if self._process is None else self._process.recall()
            if claimed is None:
                return []
            taken = self._entries[claimed:]
            del self._entries[claimed:]
        taken.reverse()
        return taken

    def gather(self, finished: Finished) -> int:
        with self._guard:
            done = self._done
            if self._process is not None:
                done = self._process.done
                if self._process.sent > self._received:
                    return self._gathered  # an outcome is still in the pipe: which one is not known
            for index in range(self._gathered, done):
                finished.note(self._entries[index], self._outcomes.pop(index, None))
            self._gathered = max(self._gathered, done)
            return self._gathered

    def expire(self, now: float, timeout: float) -> Entry | None:
        with self._guard:
            process = self._process  # while the guard is held it can be given nothing else to do
            if process is None or self._killed:
                return None
            done = process.done
            running = done if process.claimed > done else None
            if running != self._seen:
                self._seen, self._seen_at = running, now
            elif running is not None and now - self._seen_at >= timeout:
                # It may be through in this very moment; then it must not have begun the next one.
                claimed = process.recall()
                if claimed == running + 1 and process.done == running:
                    self._killed = True
                    process.kill()
        return None

    def pending(self) -> int:
        with self._guard:
            return len(self._entries) - (self._claimed if self._process is None else self._process.claimed)

    def busy(self) -> tuple[Entry, ...]:
        with self._guard:
            if self._process is None:
                return ()
            done = self._process.done
            return tuple(self._entries[done : self._process.claimed])


class ProcessRunner(SliceRunner):
    """Slices to a ProcessExecutor."""

    def __init__(self, executor: ProcessExecutor, spec: HandlerSpec) -> None:
        super().__init__(executor.workers, spec, shares_interpreter=False)
        self._pool = executor.pool
        self._pickled_spec = b""

    def start(self) -> None:
        """See Runner."""
        check_sync(self.spec.handler)
        self._pickled_spec = dump(self.spec)
        self._pool.begin()
        self._pool.join(self)

    def _cut(self, entries: list[Entry]) -> Slice:
        return _ProcessSlice(self, self._pickled_spec, entries)

    def _launch(self, part: Slice) -> None:
        assert isinstance(part, _ProcessSlice)
        self._pool.give(part)

    def _release(self) -> None:
        self._pool.leave(self)
