"""The loop: one run of a consumer, on the one thread that touches the Kafka consumer, the hand-off producer and the core.

It checks the topics, makes the parts of the run, and lets one session follow another: each has a client of its own. The loop
never waits for a worker, for the answer to a commit, or for a flush; rebalance callbacks, which run inside a poll, are the
one place that waits, for the drain, and they go on serving workers and the producer meanwhile.
"""

from __future__ import annotations

import time
from functools import partial

from confluent_kafka.admin import AdminClient

from retriable_kafka_client import events
from retriable_kafka_client.brokers.asking import Asker
from retriable_kafka_client.brokers.client import (
    admin_settings,
    offsets_settings,
    open_client,
)
from retriable_kafka_client.brokers.group_offsets import GroupOffsets
from retriable_kafka_client.brokers.reachability import ask_brokers
from retriable_kafka_client.consumer import topic_checks
from retriable_kafka_client.consumer.client_errors import BEFORE_ASSIGNMENT_SECONDS
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.consumer.loop_config import Control, LoopConfig
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.run_parts import RunParts
from retriable_kafka_client.consumer.session import Session
from retriable_kafka_client.consumer.snapshot import Snapshot
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.protocol import Place
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.stats import Stats
from retriable_kafka_client.workers.runner import Runner

__all__ = ["Loop"]

CLOSE_SECONDS = 5.0  # for the transaction under way, at the end
FAR_SECONDS = 1.0  # that the first look at the topics took
ROUND_TRIPS = 5  # as many times as the topics took, a transactional producer may take to begin


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
        self._offsets = GroupOffsets(offsets_settings(config.cluster, config.limits, config.engine.group))
        self._complaints: list[str] = []  # of the clients that ask; the last ones say why nothing is answered
        self._ask_brokers = partial(ask_brokers, admin_settings(config.cluster))

    def prepare(self) -> None:
        """Start the executor. Before the first Kafka client of the process has threads: a pool may fork here."""
        self._runner.start()
        self.prepared = True

    def run(self) -> None:
        """Consume until stopped. Raises ConfigError and ConsumerFailed; nothing of it is left running afterwards."""
        self._notifier.start()
        try:
            asker = self._make_asker()
            began = time.monotonic()
            directory = self._check_topics(asker)
            if directory is not None:
                self._consume(asker, directory, time.monotonic() - began)
        except BaseException as error:
            ended = events.ConsumerEnded(topic="", partition=-1, error=type(error).__qualname__)
            self._notifier.publish(ended)
            raise
        finally:
            self._offsets.close()
            self._runner.close(0.0 if self._control.hard else 1.0)
            self._notifier.close(5.0)

    def _stopped(self) -> bool:
        return self._control.stop

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def _make_asker(self) -> Asker:
        settings = admin_settings(
            self._config.cluster,
            on_error=lambda error: self._complaints.append(f"{error.name()}: {error.str()}"),
        )
        return Asker(lambda: open_client(AdminClient, settings))

    def _check_topics(self, asker: Asker) -> topic_checks.TopicDirectory | None:
        """Blocks until all is known; None: it was stopped."""
        return topic_checks.check(
            asker,
            self._config.engine.routes,
            bootstrap_servers=self._config.cluster.bootstrap_servers,
            timeout=BEFORE_ASSIGNMENT_SECONDS,
            stopped=self._stopped,
            refused_by=lambda: next(
                (one for one in reversed(self._complaints) if "ALL_BROKERS_DOWN" not in one), None
            ),
        )

    def _consume(self, asker: Asker, directory: topic_checks.TopicDirectory, took: float) -> None:
        """``took``: seconds that the check of the topics took, as a measure for how far away the brokers are."""
        config, control = self._config, self._control
        if config.engine.exactly_once and directory.is_mock:
            raise ConfigError(
                "Consumer.guarantee",
                "exactly_once",
                "the mock cluster has no transactions; use a real Kafka, or 'at_least_once' here",
            )
        name = directory.any_name()
        if took > FAR_SECONDS and name is not None:
            # Let who will ask for positions find the brokers before there is something to ask.
            self._offsets.ask([Place(name, 0)])
        run = RunParts.make(
            config,
            control=control,
            notifier=self._notifier,
            engine=self._engine,
            intake=self._intake,
            runner=self._runner,
            offsets=self._offsets,
            ask_brokers=self._ask_brokers,
            asker=asker,
            directory=directory,
            show=self._show,
        )
        session: Session | None = None
        try:
            if run.transacting is not None:
                # The brokers are there: what they have taken to say so is the way to them.
                patience = BEFORE_ASSIGNMENT_SECONDS + ROUND_TRIPS * took
                run.transacting.begin(patience, self._stopped, self._ask_brokers)
            if config.engine.reset != "earliest":
                retries = config.engine.routing.is_retry_topic
                read = [name for name in directory.matched if not retries(name)]
                run.history.ask(self._offsets, read, self._stopped)
            while not control.stop:
                session = Session(run)
                session.live()
        finally:
            try:
                self._end(run, session)
            finally:
                run.snapshots.publish(time.monotonic(), force=True)

    def _end(self, run: RunParts, session: Session | None) -> None:
        """Close what is left of the run."""
        hard = self._control.hard
        run.rereader.close()
        run.handoffs.close(0.0 if hard else 1.0)
        if run.transacting is not None:
            answer = run.transacting.close(0.0 if hard else CLOSE_SECONDS)
            if answer is not None and session is not None:
                session.handle(answer)
