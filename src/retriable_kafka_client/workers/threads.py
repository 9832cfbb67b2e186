"""A pool of daemon threads: one that ignores the drain must not keep the interpreter from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, ParamSpec, TypeVar

from retriable_kafka_client.runtime.native_queue import Empty, SimpleQueue

__all__ = ["DaemonThreads"]

P = ParamSpec("P")
T = TypeVar("T")


class _Job(NamedTuple):
    """One ``submit``."""

    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class DaemonThreads(Executor):
    """Like ThreadPoolExecutor, whose threads are joined when the interpreter ends, but with daemon threads.

    Threads are started as they are needed, at most ``workers``.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._lock = threading.Lock()  # covers _threads and _closed
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._spare = threading.Semaphore(0)  # threads that wait for a job

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See concurrent.futures. Raises RuntimeError after shutdown."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread pool is closed")
            self._jobs.put(_Job(future, fn, args, kwargs))
            if not self._spare.acquire(blocking=False) and len(self._threads) < self.workers:
                name = f"rkc-worker-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # Python 3.12 starts none any more once the main thread has returned
                    if not self._threads:
                        raise
                else:
                    self._threads.append(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See concurrent.futures."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._cancel_queued()
            for _ in self._threads:
                self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel_queued(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None:
                job.future.cancel()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, fn, args, kwargs = job
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - it belongs to the future
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del job, future, fn, args, kwargs  # a thread that waits keeps nothing alive
            self._spare.release()
