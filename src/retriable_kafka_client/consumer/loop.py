"""The loop: the only thread that touches the Kafka consumer, the hand-off producer and the core.

Each round takes what workers and brokers have answered, tells the engine, performs its commands, and polls. It never waits
for a worker, for the answer to a commit, or for a flush; rebalance callbacks, which run inside a poll, are the one place
that waits, for the drain, and they go on serving workers and the producer meanwhile.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from retriable_kafka_client import events
from retriable_kafka_client.brokers.asking import Asker
from retriable_kafka_client.brokers.client import (
    admin_settings,
    consumer_settings,
    offsets_settings,
    open_client,
    poll_interval,
    producer_settings,
)
from retriable_kafka_client.brokers.derived_settings import committing_settings
from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.group_offsets import GroupOffsets
from retriable_kafka_client.brokers.leaving import close_member
from retriable_kafka_client.brokers.reachability import ask_brokers
from retriable_kafka_client.brokers.setting_values import is_eager, rebalance_protocol, session_seconds
from retriable_kafka_client.brokers.topic_limits import TopicLimits
from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.consumer import topic_checks as topics
from retriable_kafka_client.consumer.arrivals import arrivals
from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.consumer.chunk_rereader import ChunkRereader
from retriable_kafka_client.consumer.client_errors import BEFORE_ASSIGNMENT_SECONDS, ClientErrors
from retriable_kafka_client.consumer.committer import Committer
from retriable_kafka_client.consumer.connectivity import Connectivity
from retriable_kafka_client.consumer.group_history import GroupHistory
from retriable_kafka_client.consumer.handoff_producer import HandOffProducer
from retriable_kafka_client.consumer.idle_positions import IdlePositions
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.consumer.lag import Lags, ask_stable_ends
from retriable_kafka_client.consumer.log_bounds import Locator
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.positions import Positions
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.consumer.snapshot import (
    Figures,
    Snapshot,
    take_stats,
    why_not_ready,
    worth_knowing,
)
from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.consumer.topology import subscription
from retriable_kafka_client.consumer.transacting import Transacting
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine, EngineConfig
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.notices import timed_out
from retriable_kafka_client.core.partition import Phase
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.errors import ConfigError, ConsumerFailed, RetriableKafkaError
from retriable_kafka_client.stats import Stats
from retriable_kafka_client.transactions.transactor import Transactor
from retriable_kafka_client.workers.runner import Runner

__all__ = ["Control", "Loop", "LoopConfig"]

log = logging.getLogger("retriable_kafka_client")

BATCH = 1_000  # records polled at once, at most
POLL_SECONDS = 0.02  # a poll while something is under way: what an answer may have to wait
QUIET_SECONDS = 0.25  # a poll while nothing is: what a stop may have to wait
SERVE_SECONDS = 0.01  # a round while draining
LAST_COMMIT_SECONDS = (
    5.0  # for the last commit of a partition beyond a stop's drain, and the way to the brokers
)
CLOSE_SECONDS = 5.0
FAR_SECONDS = 1.0  # that the first look at the topics took
ROUND_TRIPS = 5  # as many times as the topics took, a transactional producer may take to begin
REBALANCE_SHARE = 0.7  # of max.poll.interval.ms that a drain within a rebalance may take
REVOKE_SHARE = 0.9  # and with the last commit
SILENCE_SECONDS = 10.0  # of a commit, until health says so
SNAPSHOT_SECONDS = 0.1
SILENCE_OF_TOPIC_SECONDS = 0.3  # in less, no topic is deleted and made anew

Places = Sequence[p.Place]


@dataclass(slots=True)
class Control:
    """What other threads ask of the loop; single flags, so that a signal handler can set them."""

    stop: bool = False
    stop_signalled: bool = False  # a signal has asked for it; the next one means hard
    hard: bool = False  # without drain
    hold: bool = False  # read and start nothing for the time being


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What the loop is made with."""

    engine: EngineConfig
    topics: tuple[str, ...]
    cluster: Cluster
    limits: Limits


class Loop:
    """One run of a consumer. ``run`` blocks; ``snapshot`` may be read by any thread."""

    def __init__(
        self, config: LoopConfig, intake: Intake, runner: Runner, notifier: Notifier, control: Control
    ) -> None:
        self.snapshot = Snapshot(at=time.monotonic(), stats=Stats(), reasons=("starting",))
        self.prepared = False
        self._config = config
        self._runner = runner
        self._notifier = notifier
        self._control = control
        self._intake = intake
        self._engine = Engine(config.engine, intake.read, intake)
        self._problems = Problems(config.engine.group)
        self._errors = ClientErrors(
            self._problems,
            group=config.engine.group,
            topics=config.topics,
            servers=config.cluster.bootstrap_servers,
            begin_anew=self._begin_anew,
        )
        self._offsets = GroupOffsets(offsets_settings(config.cluster, config.limits, config.engine.group))
        self._positions = Positions(self._errors, self._offsets)
        self._history = GroupHistory()
        self._locator = Locator(lambda: self._asker.client)
        self._idle_looks = IdlePositions(lambda places: ask_stable_ends(self._asker.client, places))
        self._figures = Figures()
        self._lags = Lags(
            notifier.publish,
            lambda places: ask_stable_ends(self._asker.client, places),
        )
        self._starts: list[p.Start] = []
        # Positions that are gone, with auto.offset.reset=error: what would begin up to them begins at the beginning.
        self._anew: dict[p.Place, int] = {}
        self._renewed: set[str] = set()  # topics that were made anew while we ran
        self._epochs: dict[p.Place, int | None] = {}  # of the leaders, when a record came last
        self._heard_at: dict[str, float] = {}  # when a topic's records came last (monotonic)
        self._was_in_doubt = False  # whether the brokers could be used
        self._unrun: list[
            tuple[Entry, Failure | None]
        ] = []  # what the filter said of what was to be run; None: to drop it
        self._late: set[Entry] = set()  # failed for their time limit, and their handlers still run
        self._publishing = 0  # bytes of what handlers sent that no broker has answered for
        self._checked_in = 0.0  # seconds
        self._reopen = False  # a new client is called for
        self._rebalance_drain = self._revoke_time = self._session = (
            0.0  # seconds, as the client's settings have it
        )
        self._closing: threading.Event  # of the present client
        self._settings: dict[str, Any]  # likewise
        self._callback_failure: BaseException | None = None
        self._stalls = Stalls(runner)
        self._consumer: Any = None
        self._assigner: Assigner
        self._committer: Committer
        self._asker: Asker
        self._topic_limits: TopicLimits
        ask = partial(ask_brokers, admin_settings(config.cluster))
        self._standing = Connectivity(config.engine.group, ask, self._errors, self._problems)
        self._ask = ask
        self._handoff_producer: HandOffProducer
        self._transacting: Transacting | None = None  # exactly once: instead of the sender and of commits
        self._rereader: ChunkRereader
        self._directory: topics.TopicDirectory

    # The run -----------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the executor. Before the first Kafka client of the process has threads: a pool may fork here."""
        self._runner.start()
        self.prepared = True

    def run(self) -> None:
        """Consume until stopped. Raises ConfigError and ConsumerFailed; nothing of it is left running afterwards."""
        self._notifier.start()
        try:
            directory = self._check_topics()
            if directory is not None:
                self._directory = directory
                # Patterns that match nothing yet bring no assignment, and nothing to wait for.
                self._errors.assigned = not self._config.engine.routing.has_names and not directory.matched
                self._consume()
        except BaseException as error:
            ended = events.ConsumerEnded(topic="", partition=-1, error=type(error).__qualname__)
            self._notifier.publish(ended)
            raise
        finally:
            self._offsets.close()
            self._runner.close(0.0 if self._control.hard else 1.0)
            self._publish(force=True)
            self._notifier.close(5.0)

    def _check_topics(self) -> topics.TopicDirectory | None:
        complaints: list[str] = []
        settings = admin_settings(
            self._config.cluster,
            on_error=lambda error: complaints.append(f"{error.name()}: {error.str()}"),
        )
        self._asker = Asker(lambda: open_client(AdminClient, settings))
        began = time.monotonic()
        directory = topics.check(
            self._asker,
            self._config.engine.routes,
            bootstrap_servers=self._config.cluster.bootstrap_servers,
            timeout=BEFORE_ASSIGNMENT_SECONDS,
            stopped=lambda: self._control.stop,
            refused_by=lambda: next((c for c in reversed(complaints) if "ALL_BROKERS_DOWN" not in c), None),
        )
        self._checked_in = time.monotonic() - began
        return directory

    def _consume(self) -> None:
        config = self._config
        self._go_ahead()
        self._topic_limits = limits = TopicLimits(lambda: self._asker.client, mock=self._directory.is_mock)
        for name, size in self._directory.batch_bytes().items():
            limits.learn(name, size)
        self._handoff_producer = HandOffProducer(
            producer_settings(config.cluster, config.limits, hand_off=True), time.time, limits, self._ask
        )
        self._rereader = ChunkRereader(consumer_settings(config.cluster, config.limits, config.engine.group))
        try:
            if config.engine.exactly_once:
                self._begin_transactions(limits)
            if config.engine.reset != "earliest":
                self._look_back()
            while not self._control.stop:
                self._reopen = False
                self._member()
        finally:
            self._rereader.close()
            self._handoff_producer.close(0.0 if self._control.hard else 1.0)
            if self._transacting is not None:
                answer = self._transacting.close(0.0 if self._control.hard else CLOSE_SECONDS)
                if answer is not None:
                    self._tell(answer)

    def _look_back(self) -> None:
        """What the group had read before, while it still is what was before."""
        config, directory = self._config, self._directory
        retries = config.engine.routing.is_retry_topic
        read = {name: directory.partitions.get(name, 0) for name in directory.matched if not retries(name)}
        self._history.ask(self._offsets, read, lambda: self._control.stop)

    def _go_ahead(self) -> None:
        """Where the brokers are far away, let who will ask for positions find them before there is something to ask."""
        name = self._directory.any_name()
        if self._checked_in > FAR_SECONDS and name is not None:
            self._offsets.ask([p.Place(name, 0)])

    def _begin_transactions(self, limits: TopicLimits) -> None:
        config = self._config
        if self._directory.is_mock:
            raise ConfigError(
                "Consumer.guarantee",
                "exactly_once",
                "the mock cluster has no transactions; use a real Kafka, or 'at_least_once' here",
            )
        transactor = Transactor(
            config.cluster,
            config.engine.group,
            offsets=self._offsets,
            limits=limits,
            admin=lambda: self._asker.client,
            wake=self._runner.ring,
        )
        self._transacting = Transacting(transactor, self._problems, self._errors, self._outflow)
        # The brokers are there: what they have taken to say so is the way to them.
        transactor.begin(
            BEFORE_ASSIGNMENT_SECONDS + ROUND_TRIPS * self._checked_in, lambda: self._control.stop, self._ask
        )

    def _member(self) -> None:
        """Be a member of the group with one client, until stopped or until a new client is called for."""
        config = self._config
        self._closing = threading.Event()
        settings = consumer_settings(
            config.cluster, config.limits, config.engine.group, on_error=self._guarded(self._errors.client)
        )
        settings = committing_settings(settings, self._guarded(self._committed))
        self._settings = settings
        # Whoever drains for longer in a rebalance is put out of the group.
        most = poll_interval(config.cluster)
        self._stalls.begin(most, time.monotonic())
        self._rebalance_drain = min(config.limits.drain_timeout, most * REBALANCE_SHARE)
        self._revoke_time = most * REVOKE_SHARE
        # A coordinator that is silent for longer has put us out, and takes no commit any more.
        self._session = session_seconds(settings)
        self._standing.begin(settings)
        self._consumer = open_client(KafkaConsumer, settings)
        self._assigner = Assigner(
            self._consumer,
            eager=is_eager(settings),
            to_end=config.engine.reset == "latest",
        )
        self._committer = Committer(self._consumer, lambda: self._control.hard)
        failed = True
        try:
            self._consumer.subscribe(
                subscription(config.topics, rebalance_protocol(settings)),
                on_assign=self._rebalanced(self._on_assign, self._assigner.accept),
                on_revoke=self._rebalanced(self._on_revoke, self._assigner.give_up),
                on_lost=self._rebalanced(self._on_lost, self._assigner.give_up),
            )
            while not self._control.stop and not self._reopen:
                self._round()
            failed = False
        finally:
            self._leave(0.0 if failed else config.limits.drain_timeout)

    def _round(self) -> None:
        self._serve()
        self._restore()
        for located in self._locator.poll(time.monotonic()):
            self._tell(located)
        self._refresh_topics()
        self._look_around(time.monotonic())
        if self._reopen:
            return  # what this client would still read, and where it stands, is of the log that is gone
        self._start()
        assignments = self._engine.assignments
        if not self._poll():
            for idle in self._idle_looks.passed(self._assigner, assignments, self._now()):
                self._tell(idle)
        for idle in self._idle_looks.ends(self._assigner, self._engine.busy, self._now()):
            self._tell(idle)
        for passed in self._lags.look(self._assigner, assignments, self._now()):
            self._tell(passed)
        self._reread()

    def _look_around(self, now: float) -> None:
        """How we stand with the group and the brokers, and whether a client must be replaced."""
        read = next((place.topic for place in self._engine.assignments), None)
        topic = read if read is not None else self._directory.any_name()
        self._standing.look(self._consumer)
        self._errors.look(now)
        self._reopen |= self._standing.should_replace(self._consumer, topic, now)
        asker = self._asker
        vain = self._standing.should_replace_admin(asker.client, topic, now)
        if vain:
            asker.replace()
        waits = [self._directory.waits_since, self._locator.waits_since, self._topic_limits.waits_since]
        if self._transacting is not None:
            waits.append(self._transacting.asks_since)
        since = min((at for at in waits if at is not None), default=None)
        if asker.look(now, since) is not None or vain:
            self._directory.replace_admin(asker.client)
            self._locator.replace_admin()

    def _serve(self) -> None:
        """Take what workers and brokers have answered, and what time has brought. Also inside rebalance callbacks."""
        if self._callback_failure is not None:
            raise self._callback_failure
        runner = self._runner
        now = time.monotonic()
        stood = self._stalls.turn(now)
        runner.sweep(now)
        finished = runner.take()
        if stood:
            self._stalls.took(finished)
        if finished:
            self._finished(finished)
        if self._unrun:
            self._tell_unrun()
        if runner.failure is not None:
            raise ConsumerFailed(
                f"the executor broke and runs nothing any more: {_told(runner.failure)}"
            ) from runner.failure
        for answer in self._handoff_producer.poll():
            self._tell(answer)
            if isinstance(answer, p.Published):
                self._outflow(-answer.publication.size)
        self._take_transacted()
        if self._control.hold != self._engine.on_hold:
            self._tell(p.Hold(self._control.hold))
        self._tell(p.Tick())
        silence = self._committer.unanswered_for(time.monotonic())
        self._problems.mark(
            "commit",
            "the group's coordinator does not answer a commit",
            holds=silence > SILENCE_SECONDS + self._committer.allowance,
        )
        self._publish()

    def _take_transacted(self) -> None:
        answer = None if self._transacting is None else self._transacting.take()
        if answer is not None:
            self._tell(answer)

    def _finished(self, finished: p.Finished) -> None:
        self._late.update(entry for entry, _ in finished.overdue)
        if self._transacting is not None:
            self._transacting.sent(finished.sent)
        for running, failed in ((False, finished.failed), (True, finished.overdue)):
            for entry, failure in failed:
                if failure.timed_out:
                    self._notifier.publish(timed_out(entry, running=running))
        self._tell(replace(finished, chance=random.random()))
        self._late.difference_update(finished.released)

    def _outflow(self, change: int) -> None:
        """So many bytes more of what handlers sent are under way. Brokers that do not take them hold up handlers."""
        most, before = self._config.limits.buffer_bytes, self._publishing
        self._publishing += change
        if before <= most < self._publishing:
            self._runner.hold(True)
        elif self._publishing <= most < before:
            self._runner.hold(False)

    def _leave(self, drain: float) -> None:
        """Drain, commit, leave the group. Bounded, whatever the brokers and the handlers do."""
        deadline = time.monotonic() + drain
        places = tuple(self._engine.assignments)
        try:
            self._tell(p.Revoking(places) if self._reopen else p.Stopping())
            self._pause_all()
            while not self._drained() and time.monotonic() < deadline and not self._control.hard:
                self._serve()
                self._consumer.poll(0)
                self._runner.wait(SERVE_SECONDS)
            more = LAST_COMMIT_SECONDS + self._committer.allowance
            places = tuple(self._engine.assignments)
            self._last_transaction(places, max(deadline, time.monotonic() + more))
            self._last_commit(places, max(deadline, time.monotonic() + more))
        finally:
            self._end(tuple(self._engine.assignments), "stopped")
            for outcome in self._committer.give_up():
                self._tell(p.CommitAnswered(*outcome))  # the engine outlives the client, and waits for it
            self._close()

    def _close(self) -> None:
        """Leave the group, or leave the client that does so to itself after a while."""
        self._standing.end()
        self._closing.set()
        if not close_member(self._consumer, self._settings, CLOSE_SECONDS + self._committer.allowance):
            log.error(
                "group %s: the client did not leave the group in time; others have its partitions once its session is over",
                self._config.engine.group,
            )

    def _drained(self) -> bool:
        return self._engine.drained(self._engine.assignments)

    def _pause_all(self) -> None:
        places = [TopicPartition(*place) for place in self._engine.assignments]
        if places:
            self._consumer.pause(places)

    # Events and commands -----------------------------------------------------------------------------------------------

    def _tell(self, event: p.EngineEvent) -> None:
        for command in self._engine.handle(event, self._now()):
            self._perform(command)

    def _now(self) -> p.Now:
        return p.Now(time.time(), time.monotonic())

    def _perform(self, command: p.Command) -> None:
        match command:
            case p.Run():
                self._runner.push(self._sifted(command.entries), urgent=command.urgent)
            case p.RunBatch():
                self._runner.push_batch(command.batch)
            case p.Notify():
                self._note(command.event)
            case p.Produce():
                self._handoff_producer.send(command.handoff)
            case p.Publish():
                self._handoff_producer.publish(command.publication)
                self._outflow(command.publication.size)
            case p.Transact():
                assert self._transacting is not None
                self._transacting.perform(command, self._consumer)
            case p.Commit():
                self._commit(command)
            case p.Pause():
                self._assigner.pause(command.place)
            case p.Resume():
                self._assigner.resume(command.place)
            case p.Withdraw():
                self._tell(p.Withdrawn(self._runner.withdraw(lambda entry: not entry.assignment.hands_out)))
            case p.FetchCommitted():
                self._positions.want(command.places)
            case p.Start():
                self._starts.append(command)
            case p.Locate():
                self._locator.want(command)
            case p.Recall() | p.CancelRecall():
                self._rereader.perform(command)

    def _note(self, event: events.Event) -> None:
        match event:
            case events.TopicReset():
                self._directory.suspect(event.topic)  # its log goes back
            case events.HandOffRefused():
                self._directory.suspect(event.target)
        self._notifier.publish(event)

    def _sifted(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Ask the filter again about what it could not look into before; returns what is to be run."""
        if not self._intake.filters or not any(entry.unsifted for entry in entries):
            return entries
        run: list[Entry] = []
        for entry in entries:
            sifted = self._intake.sift(entry) if entry.unsifted else None
            if sifted is None:
                entry.unsifted = False
                run.append(entry)
            else:
                # Told in the next round: it may make the engine hand out the next one, and so on without end.
                self._unrun.append((entry, sifted if isinstance(sifted, Failure) else None))
                self._runner.ring()
        return run

    def _tell_unrun(self) -> None:
        unrun, self._unrun = self._unrun, []
        self._tell(
            p.Finished(
                failed=[(entry, failure) for entry, failure in unrun if failure is not None],
                filtered=[entry for entry, failure in unrun if failure is None],
            )
        )

    # Records -----------------------------------------------------------------------------------------------------------

    def _poll(self) -> bool:
        """Poll once; whether any record came."""
        consumer = self._consumer
        most = self._engine.appetite(BATCH)
        try:
            batch = consumer.consume(most, 0)
            if not batch and self._waits_for_workers():
                self._runner.wait(POLL_SECONDS)
                batch = consumer.consume(most, 0)
            elif not batch:
                first = consumer.poll(self._rest())
                if first is not None:
                    batch = [first]
        except KafkaException as error:
            # The records that were on their way to us are lost, and the gap would look like compaction: nothing behind
            # it may be committed. Whoever starts next reads them.
            raise ConsumerFailed(
                f"polling failed, and its records must be read anew: {error_name(error)}"
            ) from error
        if not batch:
            return False
        now = time.monotonic()
        for arrived in arrivals(self._errors.sift(batch)):
            self._watch(arrived, now)
            one = self._engine.assignments.get(arrived.place)
            self._lags.arrived(self._assigner, one, arrived.offsets)
            if self._anew:
                self._anew.pop(arrived.place, None)
            self._tell(arrived)
            self._errors.moved(arrived.place)
        return True

    def _rest(self) -> float:
        """How long a poll may wait for records. No other thread can end it, so nothing else may be due meanwhile."""
        waits = self._starts or len(self._positions) or self._locator.held_up
        beginning = waits or not self._errors.assigned
        rest = 0.0 if beginning else self._engine.rest(self._now(), QUIET_SECONDS)
        return rest if rest > 0.0 else POLL_SECONDS

    def _waits_for_workers(self) -> bool:
        """Whether to wait for a worker, or for a transaction, and not for a record."""
        engine = self._engine
        if self._transacting is not None and self._transacting.busy:
            return True
        if self._config.engine.solo and self._committer.waits and (engine.in_flight or engine.is_solo):
            # A commit's answer is told inside a poll, by a callback that wants the GIL. While a handler keeps it there, a
            # poll that waits for records would go on, and the client would not see that nobody polls.
            return True
        return bool(engine.in_flight) and engine.held_up

    def _reread(self) -> None:
        """Go on with what is read again."""
        most = self._engine.recall_appetite(BATCH)
        for event in self._rereader.poll(most) if most else ():
            self._tell(event)

    # Positions ---------------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        answers = self._positions.ask(
            self._consumer, self._directory, self._engine.assignments, self._renewed, time.monotonic()
        )
        for restored in answers:
            if restored.earliest:
                topic, partition = restored.place
                self._notifier.publish(events.TopicReset(topic=topic, partition=partition, position=None))
            new = restored.position is None and self._is_new(restored.place)
            self._tell(replace(restored, earliest=True) if new else restored)

    def _begin_anew(self, topic: str, partition: int) -> bool:
        """The records at the position of a partition are gone: in a retry topic it goes on at the beginning, whatever
        ``auto.offset.reset`` says. False: that is to decide.
        """
        if not self._config.engine.routing.is_retry_topic(topic):
            return False
        place = p.Place(topic, partition)
        one = self._engine.assignments.get(place)
        if one is not None and one.tracker is not None:
            self._anew[place] = one.tracker.next_offset
            self._reopen = True  # a client moves no partition that it consumes: see Assigner
        return True

    def _is_gone(self, start: p.Start) -> bool:
        return start.offset is not None and start.offset <= self._anew.get(start.place, -1)

    def _is_new(self, place: p.Place) -> bool:
        """Whether it was added to what the group reads: all that it holds was sent to that."""
        if self._history.had_read(place.topic):
            return True
        count = self._directory.partitions.get(place.topic)
        return place.partition >= count if count is not None else place.topic not in self._config.topics

    def _start(self) -> None:
        if self._starts and not self._reopen:
            starts, self._starts = self._starts, []
            live = [
                replace(start, earliest=start.earliest or self._is_gone(start))
                for start in starts
                if start.place in self._engine.assignments
            ]
            if live:
                self._assigner.start(live, self._engine.assignments)

    def _refresh_topics(self) -> None:
        troubled = self._problems.topics()
        self._note_signs()
        changed = self._directory.refresh(
            lambda: {place.topic for place in self._engine.assignments}, time.monotonic(), troubled=troubled
        )
        for name in changed:
            self._renewed.add(name)
            facts = self._directory.facts(name)
            assert facts is not None
            for place, one in list(self._engine.assignments.items()):
                if place.topic == name and one.uid and one.phase is not Phase.DRAINING:
                    self._reopen = True  # a client moves no partition that it consumes: see Assigner
                    self._tell(p.TopicChanged(place=place, uid=facts.uid, retention_ms=facts.retention_ms))
        missing, given = self._directory.missing, self._config.topics
        for name in missing.intersection(given).difference(troubled):
            self._problems.note(f"topic {name}", f"topic {name} does not exist")
        for name in troubled:
            left = name in missing and name not in given  # that only a pattern names may go as it came
            if left or self._directory.readable_since(name, self._problems.noted_at(f"topic {name}")):
                self._problems.clear(f"topic {name}")

    def _note_signs(self) -> None:
        """What points to a topic that was made anew: the client's complaints, and an outage that has ended."""
        for name in self._errors.take_topics():
            self._directory.suspect(name)
        in_doubt = self._problems.known("brokers")
        if self._was_in_doubt and not in_doubt:
            self._directory.suspect_all()
        self._was_in_doubt = in_doubt

    def _watch(self, arrived: p.Arrived, now: float) -> None:
        """Records may be of a topic that was made anew: after a silence, or where the leader has another epoch."""
        topic = arrived.place.topic
        epoch = arrived.raws[0].leader_epoch()
        if self._epochs.setdefault(arrived.place, epoch) != epoch:
            self._epochs[arrived.place] = epoch
            self._directory.suspect(topic)
        if now > self._heard_at.get(topic, now) + SILENCE_OF_TOPIC_SECONDS:
            self._directory.suspect(topic)
        self._heard_at[topic] = now

    # Commits -----------------------------------------------------------------------------------------------------------

    def _commit(self, commit: p.Commit) -> None:
        outcome = self._committer.send(commit)
        if outcome is not None:
            self._tell(p.CommitAnswered(*outcome))

    def _committed(self, error: KafkaError | None, partitions: Sequence[Any] | None) -> None:
        """The answer to an asynchronous commit; inside a poll."""
        outcome = self._committer.answered(error, partitions)
        if outcome is None:
            return
        self._tell(p.CommitAnswered(*outcome))
        if len(outcome.codes) < len(outcome.commit.progress):
            self._errors.group_is_well()
        for place, code in outcome.codes.items():
            if "UNKNOWN_TOPIC" in code:
                self._directory.suspect(place.topic)
            if code.endswith("AUTHORIZATION_FAILED"):
                self._errors.refused(f"topic {place.topic}" if code.startswith("TOPIC") else None, code)

    def _last_commit(self, places: Sequence[p.Place], deadline: float) -> None:
        """Commit and see that it is in, by ``deadline``. Inside a callback no answer to a commit can arrive."""
        commit = p.Commit(self._engine.last_progress(places))
        if commit.progress:
            landed = self._committer.landed(commit, deadline)
            self._tell(p.CommitAnswered(commit, {} if landed else commit.failed("_TIMED_OUT")))

    def _last_transaction(self, places: Places, deadline: float) -> None:
        """Take the answer to a transaction that is still in flight when the drain is over, before these are given away."""
        transacting = self._transacting
        if transacting is None:
            return
        while transacting.busy and not self._control.hard:
            self._take_transacted()
            if time.monotonic() >= deadline:
                break
            self._runner.wait(SERVE_SECONDS)
        left = self._engine.uncommitted(places)
        if left:
            transacting.leave_behind(self._config.engine.group, left)

    # Rebalances: inside a poll, on this thread -------------------------------------------------------------------------

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """A callback that raises would make the client throw away the records of its poll: keep it for after."""
        closing = self._closing

        def call(*args: Any) -> None:
            if closing.is_set():
                return  # everything has ended
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001
                self._callback_failure = error

        return call

    def _rebalanced(
        self, act: Callable[[Places], None], settle: Callable[[Places], None]
    ) -> Callable[..., None]:
        """A callback of rebalances; once we leave, ``settle`` gives the client the answer that it waits for."""
        closing, act = self._closing, self._guarded(act)

        def call(_client: Any, partitions: Sequence[Any]) -> None:
            places = [p.Place(one.topic, one.partition) for one in partitions]
            if closing.is_set():  # maybe on the thread that closes the client
                with suppress(KafkaException, RuntimeError):
                    settle(places)
            else:
                act(places)

        return call

    def _on_assign(self, places: Places) -> None:
        self._standing.belong()
        self._assigner.accept(places)
        self._directory.expire(place.topic for place in places)
        self._tell(p.Assigned(places))

    def _on_revoke(self, places: Places) -> None:
        began = time.monotonic()
        deadline = began + (0.0 if self._control.hard else self._rebalance_drain)
        try:
            self._tell(p.Revoking(places))
            while not self._engine.drained(places) and time.monotonic() < deadline and not self._control.hard:
                self._serve()
                self._runner.wait(SERVE_SECONDS)
            last = min(time.monotonic() + self._session, began + self._revoke_time)
            self._last_transaction(places, last)
            self._last_commit(places, last)
            self._stalls.waited(time.monotonic())
        finally:
            self._end(places, "revoked")
            self._forget_starts(places)
            self._assigner.give_up(places)

    def _on_lost(self, places: Places) -> None:
        self._standing.lost()
        now = time.monotonic()
        if self._stalls.turn(now):
            finished = self._runner.take()
            self._stalls.took(finished)
            self._finished(finished)
        suspects, stood = self._stalls.suspects(places, now) if self._config.engine.solo else ((), 0.0)
        self._end(places, "lost", suspects, stood)
        self._forget_starts(places)
        self._assigner.give_up(places)

    def _forget_starts(self, places: Sequence[p.Place]) -> None:
        """They go to others, who find out for themselves where to begin."""
        for place in places:
            self._anew.pop(place, None)

    def _end(
        self,
        places: Sequence[p.Place],
        reason: str,
        suspects: Sequence[p.Suspect] = (),
        stood: float = 0.0,
    ) -> None:
        self._positions.drop(places)
        self._locator.drop(places)
        for place in places:
            self._epochs.pop(place, None)
        self._starts = [start for start in self._starts if start.place not in places]
        self._errors.taken(places)
        self._tell(p.Ended(places, reason, suspects, stood))
        if self._transacting is not None:
            self._transacting.ended()

    # What others see ---------------------------------------------------------------------------------------------------

    def _publish(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if now < self.snapshot.at + SNAPSHOT_SECONDS and not force:
            return
        engine = self._engine
        self._notifier.accepted(frozenset(engine.refusals))
        # An entry whose partition was given away since counts as overrun already.
        late = sum(entry.assignment.phase is not Phase.ENDED for entry in self._late)
        reasons = why_not_ready(
            engine,
            problems=self._problems.reasons(),
            assigned=self._errors.assigned,
            pending=len(self._positions) + self._locator.held_up,
            overdue=late,
            slots=self._runner.slots,
        )
        self.snapshot = Snapshot(
            at=now,
            stats=take_stats(
                engine,
                self._lags,
                self._figures,
                lost_events=self._notifier.lost,
                overdue=late,
                now=now,
            ),
            reasons=reasons,
            remarks=(*self._lags.remarks(now), *worth_knowing(engine, now)),
        )


def _told(failure: BaseException) -> str:
    """Name the failure, with its text where that is known to hold no payload."""
    name = type(failure).__name__
    return f"{name}: {failure}" if isinstance(failure, (RetriableKafkaError, BrokenExecutor)) else name
