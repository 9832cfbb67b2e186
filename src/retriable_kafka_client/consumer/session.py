"""One client's life as a member of the group: it polls, and the engine handles what comes, until a stop or a new client."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from retriable_kafka_client import events
from retriable_kafka_client.brokers.client import consumer_settings, open_client, poll_interval
from retriable_kafka_client.brokers.derived_settings import committing_settings
from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.leaving import close_member
from retriable_kafka_client.brokers.setting_values import is_eager, rebalance_protocol, session_seconds
from retriable_kafka_client.consumer.answers import Answers
from retriable_kafka_client.consumer.arrivals import arrivals
from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.consumer.callbacks import Callbacks
from retriable_kafka_client.consumer.committer import Committer
from retriable_kafka_client.consumer.engine_driver import EngineDriver
from retriable_kafka_client.consumer.rebalance import Rebalance, RevokeTimes
from retriable_kafka_client.consumer.run_parts import RunParts
from retriable_kafka_client.consumer.topology import subscription
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.errors import ConsumerFailed

__all__ = ["Session"]

log = logging.getLogger("retriable_kafka_client")

BATCH = 1_000  # records polled at once, at most
POLL_SECONDS = 0.02  # a poll while something is under way: what an answer may have to wait
QUIET_SECONDS = 0.25  # a poll while nothing is: what a stop may have to wait
LAST_COMMIT_SECONDS = 5.0  # for the last commit beyond a stop's drain, and the way to the brokers
CLOSE_SECONDS = 5.0


class Session:
    """Owns the client: nobody else touches it, but for the parts that it is given to here. The loop's thread only.

    Making one opens the client (ConfigError: it cannot be made); ``live`` joins the group, and leaves it at the end.
    """

    def __init__(self, run: RunParts) -> None:
        config, group = run.config, run.config.engine.group
        self._run = run
        self._replace = False  # the client does not find back to the brokers, or to the group
        self._callbacks = Callbacks()
        settings = consumer_settings(
            config.cluster, config.limits, group, on_error=self._callbacks.guarded(run.errors.client)
        )
        self._settings = committing_settings(settings, self._callbacks.guarded(self._on_commit))
        interval = poll_interval(config.cluster)
        run.stalls.begin(interval, time.monotonic())
        run.connectivity.begin(self._settings)
        run.topics.client_opened()
        self._client: Any = open_client(KafkaConsumer, self._settings)
        self._assigner = Assigner(
            self._client, eager=is_eager(self._settings), to_end=config.engine.reset == "latest"
        )
        self._committer = Committer(self._client, lambda: run.control.hard)
        self._driver = EngineDriver(run, self._client, self._assigner, self._committer)
        self._answers = Answers(run, self._driver, self._callbacks, self._committer)
        times = RevokeTimes.within(
            poll_interval=interval,
            drain_timeout=config.limits.drain_timeout,
            session=session_seconds(self._settings),
        )
        self._rebalance = Rebalance(run, self._driver, self._answers, self._assigner, self._committer, times)

    @property
    def _over(self) -> bool:
        """Whether another client must take this one's place."""
        return self._replace or self._run.topics.outdated

    # Joining and leaving -----------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Be a member of the group until a stop, or until another client must take this one's place. Raises what ends the
        run.
        """
        run, rebalance, assigner = self._run, self._rebalance, self._assigner
        failed = True
        try:
            self._client.subscribe(
                subscription(run.config.topics, rebalance_protocol(self._settings)),
                on_assign=self._callbacks.of_rebalance(rebalance.on_assign, assigner.accept),
                on_revoke=self._callbacks.of_rebalance(rebalance.on_revoke, assigner.give_up),
                on_lost=self._callbacks.of_rebalance(rebalance.on_lost, assigner.give_up),
            )
            while not run.control.stop and not self._over:
                self._round()
            failed = False
        finally:
            self._leave(0.0 if failed else run.config.limits.drain_timeout)
        if not run.control.stop:
            self._callbacks.raise_failure()  # of a callback while it left: the next client knows nothing of it

    def handle(self, event: p.EngineEvent) -> None:
        """Hand the engine what was answered after the end."""
        self._driver.handle(event)

    def _leave(self, drain: float) -> None:
        """Drain for so many seconds, commit, leave the group. Bounded, whatever the brokers and the handlers do."""
        engine, rebalance = self._run.engine, self._rebalance
        deadline = time.monotonic() + drain
        try:
            self._driver.handle(p.Revoking(tuple(engine.assignments)) if self._over else p.Stopping())
            partitions = [TopicPartition(*place) for place in engine.assignments]
            if partitions:
                self._client.pause(partitions)
            # A rebalance may come meanwhile, and change which assignments there are.
            rebalance.drain(
                lambda: engine.drained(engine.assignments), deadline, lambda: self._client.poll(0)
            )
            last = time.monotonic() + LAST_COMMIT_SECONDS + self._committer.allowance
            rebalance.commit(tuple(engine.assignments), max(deadline, last))
        finally:
            rebalance.end(tuple(engine.assignments), "stopped")
            for outcome in self._committer.give_up():
                # The engine outlives the client, and waits for it.
                self._driver.handle(p.CommitAnswered(*outcome))
            self._close()

    def _close(self) -> None:
        """Leave the group, or leave the client that does so to itself after a while."""
        self._run.connectivity.end()
        self._callbacks.close()
        if not close_member(self._client, self._settings, CLOSE_SECONDS + self._committer.allowance):
            log.error(
                "group %s: the client did not leave the group in time; others have its partitions once its session is over",
                self._run.config.engine.group,
            )

    # A round -----------------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        run, handle_all, assigner = self._run, self._driver.handle_all, self._assigner
        self._answers.take()
        self._restore()
        handle_all(run.locator.poll(time.monotonic()))
        handle_all(run.topics.refresh(run.errors.take_topics(), time.monotonic()))
        self._look_around(time.monotonic())
        if self._over:
            return  # what this client would still read, and where it stands, is of the log that is gone
        self._begin()
        assignments = run.engine.assignments
        if not self._poll():
            handle_all(run.idle.passed(assigner, assignments, self._driver.now()))
        handle_all(run.idle.ends(assigner, run.engine.busy, self._driver.now()))
        handle_all(run.lags.look(assigner, assignments, self._driver.now()))
        self._reread()

    def _restore(self) -> None:
        """Hand the engine the positions that have been answered."""
        run = self._run
        answers = run.positions.ask(
            self._client, run.topics.directory, run.engine.assignments, run.topics.renewed, time.monotonic()
        )
        for restored in answers:
            if restored.earliest:
                topic, partition = restored.place
                run.notifier.publish(events.TopicReset(topic=topic, partition=partition, position=None))
            new = restored.position is None and run.history.is_new(restored.place)
            self._driver.handle(replace(restored, earliest=True) if new else restored)

    def _begin(self) -> None:
        """Have the client fetch from the positions that the engine chose."""
        run = self._run
        starts = self._assigner.take_wanted()
        live = [run.topics.start(start) for start in starts if start.place in run.engine.assignments]
        if live:
            self._assigner.start(live, run.engine.assignments)

    def _look_around(self, now: float) -> None:
        """How we stand with the group and the brokers, and whether a client must be replaced. ``now``: monotonic."""
        run, asker = self._run, self._run.asker
        read = next((place.topic for place in run.engine.assignments), None)
        topic = read if read is not None else run.topics.directory.any_name()
        run.connectivity.look(self._client)
        run.errors.look(now)
        self._replace |= run.connectivity.should_replace(self._client, topic, now)
        is_useless = run.connectivity.should_replace_admin(asker.client, topic, now)
        if is_useless:
            asker.replace()
        waits = [run.topics.directory.waits_since, run.locator.waits_since, run.topic_limits.waits_since]
        if run.transacting is not None:
            waits.append(run.transacting.asks_since)
        since = min((at for at in waits if at is not None), default=None)
        if asker.look(now, since) is not None or is_useless:
            run.topics.replace_admin(asker.client)
            run.locator.replace_admin()

    # Records -----------------------------------------------------------------------------------------------------------

    def _poll(self) -> bool:
        """Poll once; whether any record came."""
        run, client = self._run, self._client
        most = run.engine.poll_budget(BATCH)
        try:
            batch = client.consume(most, 0)
            if not batch and self._waits_for_workers():
                run.work.wait(POLL_SECONDS)
                batch = client.consume(most, 0)
            elif not batch:
                first = client.poll(self._rest())
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
        for arrived in arrivals(run.errors.sift(batch)):
            run.topics.arrived(arrived, now)
            one = run.engine.assignments.get(arrived.place)
            run.lags.arrived(self._assigner, one, arrived.offsets)
            self._driver.handle(arrived)
            run.errors.moved(arrived.place)
        return True

    def _rest(self) -> float:
        """How long a poll may wait for records, in seconds. No other thread can end it, so nothing else may be due then."""
        run = self._run
        waits = self._assigner.has_wanted or len(run.positions) or run.locator.held_up
        beginning = waits or not run.errors.assigned
        rest = 0.0 if beginning else run.engine.rest(self._driver.now(), QUIET_SECONDS)
        return rest if rest > 0.0 else POLL_SECONDS

    def _waits_for_workers(self) -> bool:
        """Whether to wait for a worker, or for a transaction, and not for a record."""
        run, engine = self._run, self._run.engine
        if run.transacting is not None and run.transacting.busy:
            return True
        if run.config.engine.solo and self._committer.waits and (engine.in_flight or engine.is_solo):
            # A commit's answer comes inside a poll, by a callback that wants the GIL. While a handler keeps it there, a
            # poll that waits for records would go on, and the client would not see that nobody polls.
            return True
        return bool(engine.in_flight) and engine.held_up

    def _reread(self) -> None:
        """Go on with what is read again."""
        most = self._run.engine.reread_budget(BATCH)
        if most:
            self._driver.handle_all(self._run.rereader.poll(most))

    # Commits -----------------------------------------------------------------------------------------------------------

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[Any] | None) -> None:
        """The answer to an asynchronous commit; inside a poll."""
        outcome = self._committer.answered(error, partitions)
        if outcome is None:
            return
        self._driver.handle(p.CommitAnswered(*outcome))
        errors = self._run.errors
        if len(outcome.codes) < len(outcome.commit.progress):
            errors.group_is_well()
        for place, code in outcome.codes.items():
            if "UNKNOWN_TOPIC" in code:
                self._run.topics.directory.suspect(place.topic)
            if code.endswith("AUTHORIZATION_FAILED"):
                errors.refused(f"topic {place.topic}" if code.startswith("TOPIC") else None, code)
