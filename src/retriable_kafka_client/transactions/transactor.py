"""Transactions: everything that one holds, committed as one. One thread of its own does it, since its calls block.

The loop gives it one Transact at a time and takes one answer. Every answer is certain: where it is not known whether a
commit came through, a new producer ends what the old one left, and then the group's offsets tell. Only the end of the
consumer does not wait for that: ``give_up`` then says that nobody knows.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.client import transaction_settings
from retriable_kafka_client.brokers.derived_settings import single_record_settings
from retriable_kafka_client.brokers.error_codes import is_fatal
from retriable_kafka_client.brokers.group_offsets import GroupOffsets, positions_of
from retriable_kafka_client.brokers.reachability import AskBrokers
from retriable_kafka_client.brokers.setting_values import transaction_seconds
from retriable_kafka_client.brokers.writable import Writable
from retriable_kafka_client.config import Cluster
from retriable_kafka_client.core.exactly_once import has_landed
from retriable_kafka_client.core.protocol import Place, Transact, Transacted
from retriable_kafka_client.errors import ConsumerFailed, NotReachable
from retriable_kafka_client.runtime.native_queue import Empty, SimpleQueue
from retriable_kafka_client.sending.batching import Batching, BatchLimits
from retriable_kafka_client.transactions.transaction_records import TransactionRecords
from retriable_kafka_client.transactions.transactional_producer import TransactionalProducer, reason_of

__all__ = ["Transactor"]

log = logging.getLogger("retriable_kafka_client")

OPEN_SECONDS = 5.0  # one try to initialise a producer
PAUSE_SECONDS = 0.25  # until the next
ASK_SHARE = 0.3  # of the time for that, until another client is asked whether any broker answers
SHARE = 0.8  # of the transaction's time-out, for all that comes before its commit
LOOK_SECONDS = 0.02  # between looks for an answer
ABORT_SHARE = 0.3  # for its abort; then another producer takes over, which aborts it, too
ROUND_TRIPS = 10  # twice as many as a transaction takes
STUCK_SECONDS = (
    40.0  # until a call that does not come back is given up: longer than all time-outs of one transaction
)
IDLE_SECONDS = 0.2  # between looks at the clients' reports


@dataclass(frozen=True, slots=True)
class _Job:
    transact: Transact
    member: Any  # the group's metadata, as of when it was given


@dataclass(frozen=True, slots=True)
class _Found:
    """What the group has committed, of a Transact of which it is not known whether it landed."""

    transact: Transact
    stands: Mapping[Place, bool]  # by partition: whether the position is what the Transact says
    code: str  # why it is not known

    def judged(self) -> Transacted:
        """The answer. The loop's thread: it knows which partitions are ours."""
        landed = has_landed(self.transact, self.stands)
        return Transacted(transact=self.transact, landed=landed, code=None if landed else self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Means:
    """What a thread of transactions works with."""

    group: str
    id: str
    settings: Mapping[str, Any]
    longer: Callable[[float], Mapping[str, Any]]  # settings for transactions that may take so many seconds
    offsets: GroupOffsets
    limits: BatchLimits
    admin: Callable[[], AdminClient]
    wake: Callable[[], None]
    clock: Callable[[], float]


class Transactor:
    """``begin`` starts its thread; ``send`` and ``poll`` are the loop's and never block."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        *,
        offsets: GroupOffsets,
        limits: BatchLimits,
        admin: Callable[[], AdminClient],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        name = f"{group}-{secrets.token_hex(8)}"
        self._means = _Means(
            group=group,
            id=name,
            settings=transaction_settings(cluster, name),
            longer=lambda seconds: transaction_settings(cluster, name, seconds=seconds),
            offsets=offsets,
            limits=limits,
            admin=admin,
            wake=wake,
            clock=clock,
        )
        self._servers = cluster.bootstrap_servers
        self._worker = _Worker(self._means)
        self._in_flight: Transact | None = None
        self._since: float | None = None  # monotonic; when the Transact in flight was given

    @property
    def trouble(self) -> str | None:
        """Why no transaction can begin at present."""
        return self._worker.trouble

    def begin(self, timeout: float, stopped: Callable[[], bool], ask: AskBrokers) -> None:
        """Start, and wait until transactions are possible. Raises ConsumerFailed: they are refused, or no broker answers for
        ``timeout`` seconds. ``ask`` asks the brokers with another client: the coordinator alone may hang.
        """
        worker = self._worker
        worker.thread.start()
        began = heard_at = ask_at = time.monotonic()
        question: Future[Any] | None = None
        told = False
        while not worker.ready.wait(0.05) and not stopped():
            self._raise()
            refused = worker.refused
            if refused is not None and _is_refusal(refused):
                raise ConsumerFailed(
                    f"the brokers refuse transactional id {self._means.id!r}: {refused.name()}"
                )
            now = time.monotonic()
            if question is None and now >= ask_at + timeout * ASK_SHARE:
                question, ask_at = ask(), now
            elif question is not None and question.done():
                heard_at = now if question.exception() is None else heard_at
                question = None
            silent = f"no transaction coordinator of {self._servers} answers"
            code = "_TIMED_OUT" if refused is None else refused.name()
            if now >= heard_at + timeout:
                raise NotReachable(f"{silent}: {code}")
            if now >= began + timeout and not told:
                told = True
                log.error(
                    "group %s: %s, and other brokers do: %s; it keeps trying. Look whether the brokers that have the"
                    " partitions of the topic __transaction_state are up, and whether they could make it"
                    " (transaction.state.log.replication.factor is at most their number)",
                    self._means.group,
                    silent,
                    code,
                )
        self._raise()

    @property
    def asks_since(self) -> float | None:
        """When its thread asked about topics, while there is no answer (monotonic)."""
        return self._worker.writable.waits_since

    @property
    def busy(self) -> bool:
        """Whether a Transact is in flight."""
        return self._since is not None

    def unanswered_for(self, now: float) -> float:
        """For how many seconds the Transact in flight has been so."""
        return now - self._since if self._since is not None else 0.0

    def send(self, transact: Transact, member: Any) -> None:
        """Commit it; ``member`` is the consumer's fresh group metadata."""
        self._in_flight = transact
        self._since = self._worker.moved_at = time.monotonic()
        self._worker.jobs.put(_Job(transact, member))

    def poll(self) -> Transacted | None:
        """What has become of the Transact in flight; None while that is not known."""
        self._raise()
        if self._worker.answers:
            return self.give_up()
        if self._in_flight is not None and time.monotonic() >= self._worker.moved_at + self._patience:
            self._replace(self._in_flight)
        return None

    @property
    def _patience(self) -> float:
        more = self._worker.seconds - transaction_seconds(self._means.settings)
        return STUCK_SECONDS + 2 * more

    def _replace(self, transact: Transact) -> None:
        """The thread is held up by a call that does not come back: another one finds out how far it has come.

        Both have the same transactional ids, so whatever the first one does from now on is refused by the brokers.
        """
        log.warning(
            "group %s: the client does not come back from a transaction; another one takes its place",
            self._means.group,
        )
        self._worker.closing.set()
        self._worker = _Worker(self._means, in_doubt=transact)
        self._worker.thread.start()

    def close(self, timeout: float) -> None:
        """Begin nothing more, and wait at most ``timeout`` seconds for what is under way; the rest is left alone."""
        worker = self._worker
        worker.closing.set()
        worker.jobs.put(None)
        if worker.thread.is_alive():
            worker.thread.join(timeout)

    def give_up(self) -> Transacted | None:
        """After ``close``: the answer to the Transact in flight, if there is one; where none came, one that says so."""
        transact, self._in_flight, self._since = self._in_flight, None, None
        if transact is None:
            return None
        if self._worker.answers:
            answer = self._worker.answers.popleft()
            return answer.judged() if isinstance(answer, _Found) else answer
        return Transacted(transact=transact, landed=False, code="_DESTROY")

    def _raise(self) -> None:
        if self._worker.failure is not None:
            raise self._worker.failure


class _Worker:
    """The thread, and what it alone touches. ``in_doubt``: what another one has left, and nobody knows whether it landed."""

    def __init__(self, means: _Means, in_doubt: Transact | None = None) -> None:
        self.trouble: str | None = None
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.answers: deque[Transacted | _Found] = deque()
        self.closing = threading.Event()
        self.moved_at = time.monotonic()  # when it came back from a call last
        self.ready = threading.Event()
        self.refused: KafkaError | None = None  # why the first producer could not be initialised
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="rkc-transactions", daemon=True)
        self._in_doubt = in_doubt
        self._group, self._id, self._means = means.group, means.id, means
        self._producers: dict[Batching, TransactionalProducer] = {}
        self._offsets = means.offsets
        self._settings = means.settings
        self._use(means.settings)
        self._limits = means.limits
        self.writable = Writable(means.admin)
        self._wake = means.wake
        self._clock = means.clock

    def _run(self) -> None:
        try:
            self._open(Batching.SHARED)
            self.ready.set()
            if self._in_doubt is not None:
                self._open(Batching.ALONE)  # it may have been in either
                self._answer(self._find_out(self._in_doubt, "_TIMED_OUT"))
            while not self.closing.is_set():
                try:
                    job = self.jobs.get(timeout=IDLE_SECONDS)
                except Empty:
                    self._tend()
                    continue
                if job is not None:
                    self._answer(self._perform(job))
        except BaseException as error:  # noqa: BLE001 - the loop raises it
            self.failure = error
            self._wake()
        finally:
            for producer in self._producers.values():
                producer.discard()

    @property
    def seconds(self) -> float:
        """The time-out of a transaction."""
        return transaction_seconds(self._settings)

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
        wanted = ROUND_TRIPS * (self._offsets.round_trip or 0.0)
        if wanted > self.seconds:
            longer = self._means.longer(wanted)
            if transaction_seconds(longer) != self.seconds:
                self._use(longer)

    def _move(self) -> None:
        self.moved_at = time.monotonic()

    def _answer(self, answer: Transacted | _Found | None) -> None:
        if answer is not None:
            self.answers.append(answer)
            self._wake()
            self._tend()

    def _tend(self) -> None:
        """Serve the clients, and end what a discarded producer has left open: it would hide later records from readers."""
        for batching, producer in list(self._producers.items()):
            producer.serve()
            if producer.wants_opening and not self.closing.is_set():
                self._open(batching)

    def _open(self, batching: Batching) -> Producer | None:
        """Initialise until it succeeds; None when closing."""
        if batching not in self._producers:
            self._producers[batching] = TransactionalProducer(self._settings_for(batching))
        while not self.closing.is_set():
            self._move()
            try:
                producer = self._producers[batching].open(OPEN_SECONDS)
            except KafkaException as error:
                reason = self.refused = reason_of(error)
                if _is_refusal(reason):
                    self.trouble = f"the brokers refuse transactional id {self._id!r}: {reason.name()}"
                time.sleep(PAUSE_SECONDS)
            else:
                self.trouble = self.refused = None
                # If another thread has taken over meanwhile, this one has fenced that one's producer, and not the other
                # way round: nothing may be done with it.
                return None if self.closing.is_set() else producer
        return None

    def _perform(self, job: _Job) -> Transacted | _Found | None:
        transact = job.transact
        records = TransactionRecords(transact, self._limits, self._clock())
        asked_again = False
        while not self.closing.is_set():
            self._move()
            unwritable = self.writable.refusals(records.topics)
            if unwritable:
                return Transacted(transact=transact, landed=False, refused=records.bound_for(unwritable))
            while not records.is_ready() and not self.closing.is_set():
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
                self.writable.forget(records.topics)
                return Transacted(transact=transact, landed=False, refused=refused)
            if records.make_smaller():
                continue
            if problem.name() == "TOPIC_AUTHORIZATION_FAILED" and not asked_again:
                self.writable.forget(records.topics)
                asked_again = True
                continue
            return Transacted(transact=transact, landed=False, code=str(problem.name()))
        return None

    def _fill(self, client: Producer, job: _Job, records: TransactionRecords) -> KafkaError | None:
        """Put all of it into a transaction, up to its commit; the error if that failed."""
        deadline = time.monotonic() + self.seconds * SHARE
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

    def _send_offsets(self, client: Producer, job: _Job, deadline: float) -> None:
        positions = positions_of(job.transact.progress)
        while True:
            left = deadline - time.monotonic()
            try:
                client.send_offsets_to_transaction(positions, job.member, max(0.1, left))
                return
            except KafkaException as error:
                if not error.args[0].retriable() or left <= 0:
                    raise

    def _commit(self, batching: Batching, transact: Transact) -> Transacted | _Found | None:
        producer = self._producers[batching]
        self._move()
        try:
            producer.commit(time.monotonic() + self.seconds)
        except KafkaException as error:
            code = str(reason_of(error).name())
        else:
            return Transacted(transact=transact, landed=True)
        # Whatever it says: the brokers may have been told to commit, and may yet be.
        log.warning(
            "group %s: it is not known whether a transaction came through (%s); asking", self._group, code
        )
        producer.discard()
        if self._open(batching) is None:
            return None
        return self._find_out(transact, code)

    def _find_out(self, transact: Transact, code: str) -> _Found | None:
        """Read what the group has committed, now that nothing is open. None when closing."""
        wanted = {one.place: (one.position, one.metadata) for one in transact.progress if one.news}
        questions = self._offsets.ask(wanted)
        while any(question.answer is None for question in questions):
            if self.closing.is_set():
                for question in questions:
                    question.withdrawn = True
                return None
            if self._offsets.failure is not None:
                raise self._offsets.failure
            self._move()
            time.sleep(LOOK_SECONDS)
        return _Found(transact, {one.place: one.answer == wanted[one.place] for one in questions}, code)


def _is_refusal(error: KafkaError) -> bool:
    return str(error.name()).endswith("AUTHORIZATION_FAILED") or is_fatal(error)
