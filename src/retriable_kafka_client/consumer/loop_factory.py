"""From a consumer's options to the loop that runs it."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import Message as KafkaMessage

from retriable_kafka_client.brokers.client import poll_interval
from retriable_kafka_client.brokers.client_settings import reset_rule
from retriable_kafka_client.config import Topic
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.consumer.loop import Loop
from retriable_kafka_client.consumer.loop_config import Control, LoopConfig
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.options import ConsumerOptions
from retriable_kafka_client.core.engine_config import EngineConfig, Route
from retriable_kafka_client.core.retry import Policy
from retriable_kafka_client.workers.executor import make_runner, shares_interpreter
from retriable_kafka_client.workers.job import HandlerSpec

__all__ = ["make_loop"]


def make_loop(
    options: ConsumerOptions, control: Control, raw_filter: Callable[[KafkaMessage], bool] | None
) -> Loop:
    """Make it; starts nothing. ``raw_filter`` sees each record as the client gives it, before anything else."""
    routes = tuple(_route(topic) for topic in options.topics)
    policies = tuple(route.policy for route in routes)
    spec = HandlerSpec(
        handler=options.handler,
        deserializer=options.deserializer,
        policies=policies,
        error_text=options.error_text,
        timeout=options.timeout,
        group=options.group_id,
    )
    engine = EngineConfig(
        group=options.group_id,
        routes=routes,
        in_flight=options.limits.in_flight,
        window=options.limits.window,
        buffer_bytes=options.limits.buffer_bytes,
        message_bytes=options.limits.largest_message,
        chunk_wait=options.limits.chunk_wait,
        commit_interval=options.commit_interval,
        parking_interval=options.limits.parking_interval,
        ordering=options.ordering,
        exactly_once=options.exactly_once,
        reset=reset_rule(options.cluster.settings),
        solo=shares_interpreter(options.executor),
        solo_patience=poll_interval(options.cluster),
    )
    intake = Intake(
        engine.routing,
        group=options.group_id,
        message_bytes=options.limits.largest_message,
        deserializer=options.deserializer,
        keep=options.filter,
        error_text=options.error_text,
        keyed=options.ordering == "key",
        raw_filter=raw_filter,
        policies=policies,
        former_groups=options.former_groups,
    )
    config = LoopConfig(
        engine=engine,
        topics=tuple(sorted({name for route in routes for name in (route.topic, route.retry_topic) if name})),
        cluster=options.cluster,
        limits=options.limits,
    )
    return Loop(
        config,
        intake,
        make_runner(options.executor, spec),
        Notifier(options.listeners, group=options.group_id, error_text=options.error_text),
        control,
    )


def _route(topic: Topic) -> Route:
    retry = topic.retry
    return Route(
        topic=topic.name,
        retry_topic=retry.topic if retry is not None else None,
        dead_letter=topic.dead_letter if isinstance(topic.dead_letter, str) else None,
        policy=None
        if retry is None
        else Policy(max_attempts=retry.max_attempts, delay=retry.delay, give_up_on=retry.give_up_on),
        formerly=topic.formerly,
    )
