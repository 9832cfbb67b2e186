"""Consumer: a function run for every message of some topics."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import Message as KafkaMessage

from retriable_kafka_client.brokers.confluent_serde import AnyDeserializer
from retriable_kafka_client.brokers.setting_values import static_member
from retriable_kafka_client.config import Cluster, Limits, Topic
from retriable_kafka_client.consumer.loop import Loop
from retriable_kafka_client.consumer.loop_config import Control
from retriable_kafka_client.consumer.loop_factory import make_loop
from retriable_kafka_client.consumer.options import ConsumerOptions
from retriable_kafka_client.consumer.static_members import Claim, claim, release
from retriable_kafka_client.core.engine_config import Ordering
from retriable_kafka_client.errors import ConfigError, ConsumerFailed, RetriableKafkaError, seconds
from retriable_kafka_client.events import Event
from retriable_kafka_client.health import Health
from retriable_kafka_client.message import JSON, Message
from retriable_kafka_client.runtime.forks import Home, used_before_fork
from retriable_kafka_client.runtime.interpreter_exit import consumer_ended, consumer_runs
from retriable_kafka_client.runtime.stop_signals import interrupted, interrupted_too
from retriable_kafka_client.stats import Stats
from retriable_kafka_client.workers.executor import refuse_patched_pool

__all__ = ["Consumer", "run_consumers"]

log = logging.getLogger("retriable_kafka_client")

LOOK_SECONDS = 0.02  # between two looks whether it is ready
STALLED_SECONDS = 60.0  # a loop that has not come round for so long is not alive


class Consumer:
    """Runs ``handler`` for every message of ``topics``, as a member of the group ``group_id``.

    The constructor checks its values (ConfigError) and starts nothing. A consumer runs once: make a new one to run again.

    - ``handler(message)``: an exception is a failed attempt, a return value is ignored. With AsyncExecutor it is an
      ``async def``.
    - ``executor``: a number of threads (the consumer's own), or a concurrent.futures.Executor, which may be shared and is
      never shut down here.
    - ``guarantee``: "exactly_once" makes what handlers send, copies and progress visible in one Kafka transaction. Effects
      outside Kafka are not in it: there ``message.id`` is the idempotency key.
    - ``ordering``: "key" starts the messages of a key one after the other, in their order in the partition, and one that
      has to wait (for its next attempt, or for its time) holds up the later ones of its key alone; without a key there is
      no order. "partition" does so with whole partitions. Failures are then retried in place: ``Retry(topic=None)``.
    - ``filter(message)``: runs on the loop's thread and must be quick; False completes the message unhandled; whatever it
      raises dead-letters the message, unless the deserializer could not decode now.
    - ``deserializer(body, message)``: runs in the worker when ``message.value`` is first read. One of confluent-kafka, such
      as its AvroDeserializer, is given the SerializationContext that it expects.
    - ``timeout``: seconds that one run of the handler may take; then it has failed, with a TimeoutError. A coroutine is
      cancelled and a ProcessExecutor's worker killed. A thread, and what runs in a standard process pool or a cluster,
      cannot be ended: it keeps its place until it returns, and nothing that comes of it counts. Such a pool does not say
      when a handler begins, so starting a process and importing its modules counts too.
    - ``commit_interval``: seconds between commits.
    - ``error_text``: put exception texts into dead letters, events and the log (a few lines); they may hold payload.
    - ``former_groups``: names that this group had before: copies that they left in the retry topics are run. Stop their
      members first. Copies of any other group are passed over.
    - ``on_event``: a function, or several, called with each event (module ``events``), each on a thread of its own.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        group_id: str,
        topics: Sequence[Topic],
        handler: Callable[[Message[Any]], object],
        executor: int | Executor = 16,
        guarantee: Literal["at_least_once", "exactly_once"] = "at_least_once",
        ordering: Ordering = "unordered",
        filter: Callable[[Message[Any]], bool] | None = None,
        deserializer: AnyDeserializer = JSON,
        timeout: float | timedelta | None = None,
        commit_interval: float | timedelta = 1.0,
        limits: Limits = Limits(),  # noqa: B008 - it is immutable
        error_text: bool = False,
        former_groups: Collection[str] = (),
        on_event: Callable[[Event], object] | Sequence[Callable[[Event], object]] | None = None,
    ) -> None:
        self._options = options = ConsumerOptions.check(
            cluster=cluster,
            group_id=group_id,
            topics=topics,
            handler=handler,
            executor=executor,
            guarantee=guarantee,
            ordering=ordering,
            filter=filter,
            deserializer=deserializer,
            timeout=timeout,
            commit_interval=commit_interval,
            limits=limits,
            error_text=error_text,
            former_groups=former_groups,
            on_event=on_event,
        )
        self.group_id = options.group_id
        self.topics = options.topics
        # For `compat`, which sets it: sees each record as the client gives it, before anything else.
        self.raw_filter: Callable[[KafkaMessage], bool] | None = None
        self._control = Control()
        self._home = Home("Consumer")
        self._lock = threading.Lock()  # covers _loop and _thread
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._claim: Claim | None = None  # as a static member
        self._when_done: Callable[[], object] | None = None  # run_async waits

    def __repr__(self) -> str:
        names = ", ".join(topic.name for topic in self.topics)
        return f"<Consumer group {self.group_id!r} of {names}>"

    # Running -----------------------------------------------------------------------------------------------------------

    def run(self, *, signals: bool = True) -> None:
        """Consume until stopped; blocks. Raises what made it fail.

        In the main thread SIGINT and SIGTERM drain and stop, a second one stops without draining; ``signals=False`` leaves
        signals alone. Brokers that cannot be reached, or refuse us, before the first assignment: ConsumerFailed within
        30 s. RuntimeError if it ran before.
        """
        self._prepare()
        with interrupted([self]) if signals else _nothing():
            self._work()
        self._raise_failure()

    async def run_async(self, *, signals: bool = True) -> None:
        """Like ``run``, without blocking the event loop.

        In the main thread's loop SIGINT and SIGTERM drain and stop, a second one stops without draining. A handler that the
        program has for them, as a web server has, is called besides. ``signals=False`` leaves signals alone.

        Cancelling it stops and drains, within ``Limits.drain_timeout`` and a few seconds; it ends when that is over,
        however often it is cancelled. This loop goes on meanwhile, so it may be the one that an AsyncExecutor was given.
        """
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def end() -> None:
            with suppress(RuntimeError):  # the loop was closed before we ended
                loop.call_soon_threadsafe(ended.set_result, None)

        self._prepare()
        self._when_done = end
        cancelled: asyncio.CancelledError | None = None
        with interrupted_too(self) if signals else _nothing():
            self._start_thread()
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.stop()
        if cancelled is not None:
            raise cancelled
        self._raise_failure()

    def start(self) -> None:
        """Run in a thread. Returns at once; ``join`` raises what made it fail. RuntimeError if it ran before.

        Signals are left alone, so SIGTERM ends the process as it does any other: without a drain, in the middle of
        handlers; as process 1 of a container it is not even heard. A program that starts its consumers this way handles
        SIGTERM itself and calls ``stop`` and ``join``; or it uses ``run``, ``run_consumers`` or ``run_async``. When the main
        thread returns, the consumer drains and stops within ``Limits.drain_timeout`` and a few seconds.
        """
        self._prepare()
        self._start_thread()

    def stop(self) -> None:
        """Ask it to drain, commit and leave. From any thread, handler or signal handler, any number of times; returns at
        once.
        """
        self._control.stop = True

    def join(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the end, at most for ``timeout`` (seconds or timedelta); whether it has ended. Raises what made it fail.

        Not from a handler: the consumer waits for that. True for one that never started and was asked to stop.
        """
        wait = None if timeout is None else seconds("Consumer.join.timeout", timeout)
        self._home.check()
        with self._lock:
            started = self._loop is not None or self._done.is_set()
        if not started and self._control.stop:
            return True
        if not self._done.wait(wait):
            return False
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._raise_failure()
        return True

    def wait_ready(self, timeout: float | timedelta = 30.0) -> None:
        """Wait until ``health().ready``, at most for ``timeout``; it may also be started meanwhile. From any thread but the
        consumer's own (a filter is called there).

        Raises what ended the consumer, ConsumerFailed if it was stopped, or TimeoutError with the reasons against it.
        """
        deadline = time.monotonic() + seconds("Consumer.wait_ready.timeout", timeout)
        while not self._is_ready(deadline):
            self._done.wait(LOOK_SECONDS)

    async def wait_ready_async(self, timeout: float | timedelta = 30.0) -> None:  # noqa: ASYNC109 - as `wait_ready`
        """As ``wait_ready``, without blocking the event loop."""
        deadline = time.monotonic() + seconds("Consumer.wait_ready_async.timeout", timeout)
        while not self._is_ready(deadline):  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(LOOK_SECONDS)

    def __enter__(self) -> Self:
        """Start it, in a thread: see ``start``, also for signals. It need not be ready yet: see ``wait_ready``."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, wait for the end, and raise what made it fail, unless the block itself failed."""
        if self._home.lost:
            return  # a forked child that leaves the block: it runs in the parent
        self.stop()
        try:
            self.join()
        except Exception:
            if error is None:
                raise

    def pause(self) -> None:
        """Read and begin nothing more until ``resume``. From any thread, any number of times; returns at once.

        What runs goes on, as do copies and commits; messages that are with a pool but have not begun come back, as far as
        the pool gives them back. The partitions stay ours, health stays ready, and ``stats().on_hold`` says True. Before
        the consumer runs: it will begin paused.
        """
        self._control.hold = True

    def resume(self) -> None:
        """Undo ``pause``. From any thread, any number of times; returns at once."""
        self._control.hold = False

    # Looking -----------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Counts and what is held now, at most about 0.1 s old. From any thread; asks no broker.

        RetriableKafkaError in a child that was forked after the start: the counts are the parent's.
        """
        self._home.check()
        loop = self._loop
        return Stats() if loop is None else loop.snapshot.stats

    def health(self) -> Health:
        """How it is, by the loop's last snapshot. From any thread; asks no broker."""
        loop = self._loop
        if self._home.lost:
            return Health(alive=False, ready=False, reasons=(str(used_before_fork("Consumer")),))
        if self._failure is not None:
            return Health(alive=False, ready=False, reasons=(f"failed: {_described(self._failure)}",))
        if self._done.is_set():
            return Health(alive=False, ready=False, reasons=("stopped",))
        if loop is None:
            return Health(alive=True, ready=False, reasons=("not started",))
        snapshot = loop.snapshot
        age = time.monotonic() - snapshot.at
        if age > STALLED_SECONDS:
            return Health(alive=False, ready=False, reasons=(f"the loop has not come round for {age:.0f} s",))
        reasons = snapshot.reasons + (("stopping",) if self._control.stop else ())
        return Health(alive=True, ready=not reasons, reasons=reasons + snapshot.remarks)

    # Inside ------------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make everything that must exist before the first Kafka client of the process. A failure is the consumer's."""
        refuse_patched_pool(self._options.executor)
        self._home.settle()
        with self._lock:
            if self._loop is not None or self._done.is_set():
                raise RuntimeError("a Consumer runs once; make a new one to run again")
            try:
                cluster = self._options.cluster
                instance = static_member(cluster.settings)
                self._claim = claim(cluster.bootstrap_servers, self.group_id, instance)
                loop = make_loop(self._options, self._control, self.raw_filter)
                if not self._control.stop:
                    loop.prepare()
            except BaseException as error:
                release(self._claim)
                self._failure = error
                self._done.set()
                raise
            self._loop = loop

    def _start_thread(self) -> None:
        # A daemon, which the interpreter stops and waits for in its own way: see runtime/interpreter_exit.py.
        self._thread = threading.Thread(target=self._work_alone, name=f"rkc-{self.group_id}", daemon=True)
        self._thread.start()

    def _work_alone(self) -> None:
        """Run in a thread of our own: a failure is logged too, since nobody may ask for it."""
        self._work(alone=True)

    def _work(self, *, alone: bool = False) -> None:
        assert self._loop is not None
        consumer_runs(self)
        try:
            if not self._control.stop or self._loop.prepared:
                self._loop.run()
        except BaseException as error:  # noqa: BLE001 - raised by join and run, shown by health
            self._failure = error
            if alone:
                log.error("group %s: the consumer has ended by itself: %s", self.group_id, _described(error))
        finally:
            release(self._claim)
            consumer_ended(self)
            self._done.set()
            if self._when_done is not None:
                self._when_done()

    def _is_ready(self, deadline: float) -> bool:
        """Whether it is. Raises what ended it, and TimeoutError after ``deadline``."""
        self._home.check()
        over = time.monotonic() >= deadline  # before the look, so that there is one after it
        ended = self._done.is_set() or (self._loop is None and self._control.stop)
        health = self.health()
        if ended:
            self._raise_failure()
            raise ConsumerFailed(f"group {self.group_id}: the consumer was stopped")
        if over and not health.ready:
            raise TimeoutError(f"group {self.group_id} is not ready: {'; '.join(health.reasons)}")
        return health.ready

    def _interrupt(self) -> None:
        """A signal asks for its end; the second one without a drain."""
        self._leave(hard=self._control.stop_signalled)
        self._control.stop_signalled = True

    def _leave(self, *, hard: bool) -> None:
        """Stop; ``hard``: without a drain."""
        self._control.hard |= hard
        self.stop()

    @property
    def _drain_seconds(self) -> float:
        return self._options.limits.drain_timeout

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def run_consumers(*consumers: Consumer, signals: bool = True) -> None:
    """Run several consumers in this process, each in a thread of its own, until all have ended; blocks.

    The first failure stops the others and is raised once they have ended. Signals as in ``Consumer.run``.
    """
    if not consumers or not all(isinstance(consumer, Consumer) for consumer in consumers):
        raise ConfigError(
            "run_consumers.consumers", consumers, "give at least one Consumer, and nothing else"
        )
    _prepare_all(consumers)
    with interrupted(consumers) if signals else _nothing():
        for consumer in consumers:
            consumer._start_thread()
        remaining = list(consumers)
        while remaining:
            for consumer in list(remaining):
                if consumer._done.wait(0.05):
                    remaining.remove(consumer)
                    if consumer._failure is not None:
                        for other in remaining:
                            other.stop()
    for consumer in consumers:
        consumer.join()


def _prepare_all(consumers: Sequence[Consumer]) -> None:
    """All pools before the first client: a pool may fork. Where one consumer fails, the others end."""
    prepared: list[Consumer] = []
    try:
        for consumer in consumers:
            consumer._prepare()
            prepared.append(consumer)
    except BaseException:
        for consumer in prepared:
            consumer.stop()
            consumer._start_thread()
        raise


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _described(failure: BaseException) -> str:
    """Name the failure; with its text where that holds no payload."""
    return str(failure) if isinstance(failure, RetriableKafkaError) else type(failure).__name__
