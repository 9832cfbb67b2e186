"""What one run of a consumer is made of: the parts that outlive a client."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from retriable_kafka_client.brokers.asking import Asker
from retriable_kafka_client.brokers.client import consumer_settings, producer_settings
from retriable_kafka_client.brokers.group_offsets import GroupOffsets
from retriable_kafka_client.brokers.reachability import AskBrokers
from retriable_kafka_client.brokers.topic_limits import TopicLimits
from retriable_kafka_client.consumer.chunk_rereader import ChunkRereader
from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.connectivity import Connectivity
from retriable_kafka_client.consumer.group_history import GroupHistory
from retriable_kafka_client.consumer.handoff_producer import HandOffProducer
from retriable_kafka_client.consumer.idle_positions import IdlePositions
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.consumer.lag import Lags, ask_stable_ends
from retriable_kafka_client.consumer.log_bounds import Locator
from retriable_kafka_client.consumer.loop_config import Control, LoopConfig
from retriable_kafka_client.consumer.membership import Membership
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.positions import Positions
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.consumer.snapshot import Snapshot, SnapshotPublisher
from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.consumer.topic_checks import TopicDirectory
from retriable_kafka_client.consumer.topic_watch import TopicWatch
from retriable_kafka_client.consumer.transacting import Transacting
from retriable_kafka_client.consumer.work import Outflow, Work
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.transactions.transactor import Transactor
from retriable_kafka_client.workers.runner import Runner

__all__ = ["RunParts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """Each part has its own state and changes it through its own methods; all but ``control`` and ``notifier``, which other
    threads use too, are for the loop's thread alone.
    """

    config: LoopConfig
    control: Control
    notifier: Notifier
    engine: Engine
    work: Work
    outflow: Outflow
    stalls: Stalls
    handoffs: HandOffProducer
    transacting: Transacting | None  # exactly once: instead of the hand-off producer and of commits
    positions: Positions
    history: GroupHistory
    locator: Locator
    idle: IdlePositions
    lags: Lags
    topics: TopicWatch
    topic_limits: TopicLimits
    rereader: ChunkRereader
    asker: Asker
    connectivity: Connectivity
    errors: ClientErrors
    problems: Problems
    snapshots: SnapshotPublisher

    @classmethod
    def make(
        cls,
        config: LoopConfig,
        *,
        control: Control,
        notifier: Notifier,
        engine: Engine,
        intake: Intake,
        runner: Runner,
        offsets: GroupOffsets,
        ask_brokers: AskBrokers,
        asker: Asker,
        directory: TopicDirectory,
        show: Callable[[Snapshot], None],
    ) -> RunParts:
        """Make what is not there yet. Starts nothing, blocks never; ``show`` is given each snapshot."""
        group = config.engine.group
        settings = consumer_settings(config.cluster, config.limits, group)
        problems = Problems(group)
        topics = TopicWatch(directory, engine, config.engine.routing, config.topics, problems)
        errors = ClientErrors(
            problems,
            group=group,
            topics=config.topics,
            servers=config.cluster.bootstrap_servers,
            # Patterns that match nothing yet bring no assignment, and nothing to wait for.
            assigned=not config.engine.routing.has_names and not directory.matched,
            position_gone=topics.position_gone,
        )
        topic_limits = TopicLimits(lambda: asker.client, mock=directory.is_mock)
        for name, size in directory.batch_bytes().items():
            topic_limits.learn(name, size)
        outflow = Outflow(runner, config.limits.buffer_bytes)
        transacting: Transacting | None = None
        if config.engine.exactly_once:
            transactor = Transactor(
                config.cluster,
                group,
                offsets=offsets,
                limits=topic_limits,
                admin=lambda: asker.client,
                wake=runner.ring,
            )
            transacting = Transacting(transactor, problems, errors, outflow.add)
        stalls = Stalls(runner)
        work = Work(runner, intake, stalls, transacting, notifier.publish)
        positions = Positions(errors, offsets)
        locator = Locator(lambda: asker.client)
        lags = Lags(notifier.publish, lambda places: ask_stable_ends(asker.client, places))
        return cls(
            config=config,
            control=control,
            notifier=notifier,
            engine=engine,
            work=work,
            outflow=outflow,
            stalls=stalls,
            handoffs=HandOffProducer(
                producer_settings(config.cluster, config.limits, hand_off=True),
                time.time,
                topic_limits,
                ask_brokers,
            ),
            transacting=transacting,
            positions=positions,
            history=GroupHistory(directory.partitions, config.topics),
            locator=locator,
            idle=IdlePositions(lambda places: ask_stable_ends(asker.client, places)),
            lags=lags,
            topics=topics,
            topic_limits=topic_limits,
            rereader=ChunkRereader(settings),
            asker=asker,
            connectivity=Connectivity(Membership(group, settings), ask_brokers, errors, problems),
            errors=errors,
            problems=problems,
            snapshots=SnapshotPublisher(
                show,
                engine=engine,
                work=work,
                notifier=notifier,
                problems=problems,
                errors=errors,
                positions=positions,
                locator=locator,
                lags=lags,
            ),
        )
