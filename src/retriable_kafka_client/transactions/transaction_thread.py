"""The thread that makes transactions, whose calls block. All that one holds is committed, or nothing of it is."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.derived_settings import single_record_settings
from retriable_kafka_client.brokers.error_codes import is_fatal
from retriable_kafka_client.brokers.group_offsets import GroupOffsets, positions_of
from retriable_kafka_client.brokers.setting_values import transaction_seconds
from retriable_kafka_client.brokers.writable import Writable
from retriable_kafka_client.core.exactly_once import has_landed
from retriable_kafka_client.core.protocol import Place, Transact, Transacted
from retriable_kafka_client.runtime.native_queue import Empty, SimpleQueue
from retriable_kafka_client.sending.batching import Batching, BatchLimits
from retriable_kafka_client.transactions.transaction_records import TransactionRecords
from retriable_kafka_client.transactions.transactional_producer import TransactionalProducer, reason_of

__all__ = ["Found", "Job", "Means", "TransactionThread", "is_refusal"]

log = logging.getLogger("retriable_kafka_client")

OPEN_SECONDS = 5.0  # one try to initialise a producer
PAUSE_SECONDS = 0.25  # until the next
FILL_SHARE = 0.8  # of the transaction's time-out, for all that comes before its commit
LOOK_SECONDS = 0.02  # between looks for an answer
ABORT_SHARE = 0.3  # for its abort; then another producer takes over, which aborts it, too
ROUND_TRIPS = 10  # twice as many as a transaction takes
IDLE_SECONDS = 0.2  # between looks at the clients' reports


@dataclass(frozen=True, slots=True)
class Job:
    """One transaction to be made."""

    transact: Transact
    member: Any  # the group's metadata, as of when it was given


@dataclass(frozen=True, slots=True)
class Found:
    """What the group has committed, of a Transact of which it is not known whether it landed."""

    transact: Transact
    stands: Mapping[Place, bool]  # by partition: whether the position is what the Transact says
    code: str  # why it is not known

    def judged(self) -> Transacted:
        """The answer. The loop's thread: it knows which partitions are ours."""
        landed = has_landed(self.transact, self.stands)
        return Transacted(transact=self.transact, landed=landed, code=None if landed else self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a thread of transactions works with."""

    group: str
    id: str
    settings: Mapping[str, Any]
    # The settings for transactions that may take so many seconds.
    longer: Callable[[float], Mapping[str, Any]]
    offsets: GroupOffsets
    limits: BatchLimits
    admin: Callable[[], AdminClient]
    wake: Callable[[], None]  # ends the loop's wait; from any thread
    clock: Callable[[], float]  # wall seconds; stamps dead letters


class TransactionThread:
    """One thread, and what it alone touches: everything but what follows.

    The loop calls the methods without an underscore, and reads the attributes and properties without one, which the thread
    alone writes. The queue, the deque and the events between the two are safe for both.
    ``in_doubt``: what another thread has left, and nobody knows whether it landed.
    """

    def __init__(self, means: Means, in_doubt: Transact | None = None) -> None:
        self.ready = threading.Event()  # the first producer is initialised
        self.refused: KafkaError | None = None  # why a producer could not be initialised, until one is
        self.problem: str | None = None  # why no transaction can begin at present
        self.failure: BaseException | None = None  # what ended the thread
        self.moved_at = time.monotonic()  # when it came back from a call last
        self._thread = threading.Thread(target=self._run, name="rkc-transactions", daemon=True)
        self._closing = threading.Event()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._answers: deque[Transacted | Found] = deque()
        self._in_doubt = in_doubt
        self._group, self._id, self._means = means.group, means.id, means
        self._producers: dict[Batching, TransactionalProducer] = {}
        self._settings = means.settings
        self._writable = Writable(means.admin)

    # For the loop ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; ``ready`` is set once transactions are possible."""
        self._thread.start()

    def give(self, job: Job) -> None:
        """Let it make a transaction; ``wake`` is called once it has answered."""
        self._jobs.put(job)

    @property
    def has_answered(self) -> bool:
        """Whether ``take_answer`` has something."""
        return bool(self._answers)

    def take_answer(self) -> Transacted | Found | None:
        """The answer to what was given; None: there is none yet."""
        return self._answers.popleft() if self._answers else None

    def stop(self) -> None:
        """Begin nothing more. Never waits."""
        self._closing.set()
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for its end; it is left alone then."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def seconds(self) -> float:
        """The time-out of a transaction."""
        return transaction_seconds(self._settings)

    @property
    def asks_since(self) -> float | None:
        """When it asked about topics, while there is no answer (``time.monotonic()``)."""
        return self._writable.waits_since

    # The thread --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open(Batching.SHARED)
            self.ready.set()
            if self._in_doubt is not None:
                self._open(Batching.ALONE)  # it may have been in either
                self._answer(self._find_out(self._in_doubt, "_TIMED_OUT"))
            while not self._closing.is_set():
                try:
                    job = self._jobs.get(timeout=IDLE_SECONDS)
                except Empty:
                    self._tend()
                    continue
                if job is not None:
                    self._answer(self._perform(job))
        except BaseException as error:  # noqa: BLE001 - the loop raises it
            self.failure = error
            self._means.wake()
        finally:
            for producer in self._producers.values():
                producer.discard()

    def _use(self, settings: Mapping[str, Any]) -> None:
        """New producers are made with these."""
        self._settings = settings
        for batching, producer in self._producers.items():
            producer.use(self._settings_for(batching))

    def _settings_for(self, batching: Batching) -> Mapping[str, Any]:
        if batching is Batching.SHARED:
            return self._settings
        return single_record_settings(self._settings, f"{self._id}-large")

    def _take_time(self) -> None:
        """Where the brokers are so far away that a transaction would not be through in time, let it have more time."""
        wanted = ROUND_TRIPS * (self._means.offsets.round_trip or 0.0)
        if wanted > self.seconds:
            longer = self._means.longer(wanted)
            if transaction_seconds(longer) != self.seconds:
                self._use(longer)

    def _move(self) -> None:
        self.moved_at = time.monotonic()

    def _answer(self, answer: Transacted | Found | None) -> None:
        if answer is not None:
            self._answers.append(answer)
            self._means.wake()
            self._tend()

    def _tend(self) -> None:
        """Serve the clients, and end what a discarded producer has left open: it would hide later records from readers."""
        for batching, producer in list(self._producers.items()):
            producer.serve()
            if producer.wants_opening and not self._closing.is_set():
                self._open(batching)

    def _open(self, batching: Batching) -> Producer | None:
        """Initialise until it succeeds; None when closing."""
        if batching not in self._producers:
            self._producers[batching] = TransactionalProducer(self._settings_for(batching))
        while not self._closing.is_set():
            self._move()
            try:
                producer = self._producers[batching].open(OPEN_SECONDS)
            except KafkaException as error:
                reason = self.refused = reason_of(error)
                if is_refusal(reason):
                    self.problem = f"the brokers refuse transactional id {self._id!r}: {reason.name()}"
                time.sleep(PAUSE_SECONDS)
            else:
                self.problem = self.refused = None
                # If another thread has taken over meanwhile, this one has fenced that one's producer, and not the other
                # way round: nothing may be done with it.
                return None if self._closing.is_set() else producer
        return None

    def _perform(self, job: Job) -> Transacted | Found | None:
        transact = job.transact
        records = TransactionRecords(transact, self._means.limits, self._means.clock())
        asked_again = False
        while not self._closing.is_set():
            self._move()
            unwritable = self._writable.refusals(records.topics)
            if unwritable:
                return Transacted(transact=transact, landed=False, refused=records.bound_for(unwritable))
            while not records.is_ready() and not self._closing.is_set():
                self._move()
                time.sleep(0.01)
            batching = records.batching
            self._take_time()
            client = self._open(batching)
            if client is None:
                return None
            problem = self._fill(client, job, records)
            if problem is None:
                return self._commit(batching, transact)
            producer = self._producers[batching]
            producer.abort(time.monotonic() + self.seconds * ABORT_SHARE)
            if records.is_broken:
                # The client goes on with the number after a refused record's, and the broker refuses that as a gap.
                producer.discard()
            refused = records.refused()
            if refused:
                self._writable.forget(records.topics)
                return Transacted(transact=transact, landed=False, refused=refused)
            if records.make_smaller():
                continue
            if problem.name() == "TOPIC_AUTHORIZATION_FAILED" and not asked_again:
                self._writable.forget(records.topics)
                asked_again = True
                continue
            return Transacted(transact=transact, landed=False, code=str(problem.name()))
        return None

    def _fill(self, client: Producer, job: Job, records: TransactionRecords) -> KafkaError | None:
        """Put all of it into a transaction, up to its commit; the error if that failed."""
        deadline = time.monotonic() + self.seconds * FILL_SHARE
        try:
            client.begin_transaction()
            problem = records.send(client, deadline)
            if problem is not None and problem.name() not in ("_PURGE_QUEUE", "_PURGE_INFLIGHT"):
                return problem
            # Where the client has purged its queue, this call says why.
            self._move()
            self._send_offsets(client, job, deadline)
        except KafkaException as error:
            return reason_of(error)
        return problem

    def _send_offsets(self, client: Producer, job: Job, deadline: float) -> None:
        positions = positions_of(job.transact.progress)
        while True:
            left = deadline - time.monotonic()
            try:
                client.send_offsets_to_transaction(positions, job.member, max(0.1, left))
                return
            except KafkaException as error:
                if not error.args[0].retriable() or left <= 0:
                    raise

    def _commit(self, batching: Batching, transact: Transact) -> Transacted | Found | None:
        producer = self._producers[batching]
        self._move()
        try:
            producer.commit(time.monotonic() + self.seconds)
        except KafkaException as error:
            code = str(reason_of(error).name())
        else:
            return Transacted(transact=transact, landed=True)
        # Whatever the error says: the request to commit may have reached the brokers, or may reach them yet.
        log.warning(
            "group %s: it is not known whether a transaction came through (%s); asking", self._group, code
        )
        producer.discard()
        if self._open(batching) is None:
            return None
        return self._find_out(transact, code)

    def _find_out(self, transact: Transact, code: str) -> Found | None:
        """Read what the group has committed, now that nothing is open. None when closing."""
        wanted = {one.place: (one.position, one.metadata) for one in transact.progress if one.news}
        questions = self._means.offsets.ask(wanted)
        while any(question.answer is None for question in questions):
            if self._closing.is_set():
                for question in questions:
                    question.withdrawn = True
                return None
            if self._means.offsets.failure is not None:
                raise self._means.offsets.failure
            self._move()
            time.sleep(LOOK_SECONDS)
        return Found(transact, {one.place: one.answer == wanted[one.place] for one in questions}, code)


def is_refusal(error: KafkaError) -> bool:
    """Whether the brokers will not let this transactional id in, however often they are asked."""
    return str(error.name()).endswith("AUTHORIZATION_FAILED") or is_fatal(error)
