"""What a consumer is made with, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from retriable_kafka_client.brokers.confluent_serde import AnyDeserializer, adapted
from retriable_kafka_client.config import Cluster, Limits, Topic
from retriable_kafka_client.consumer.topology import check_former_groups, check_ordering, check_topics
from retriable_kafka_client.core.engine_config import Ordering
from retriable_kafka_client.errors import ConfigError, seconds
from retriable_kafka_client.events import Event
from retriable_kafka_client.message import Message
from retriable_kafka_client.workers.executor import check_executor
from retriable_kafka_client.workers.job import check_sync

__all__ = ["ConsumerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """The arguments of ``Consumer``, as the parts of a run need them. ``check`` makes it."""

    cluster: Cluster
    group_id: str
    topics: tuple[Topic, ...]
    handler: Callable[[Message[Any]], object]
    executor: Executor | int
    exactly_once: bool
    ordering: Ordering
    filter: Callable[[Message[Any]], bool] | None
    deserializer: Callable[[bytes, Message[Any]], Any]
    timeout: float | None  # seconds
    commit_interval: float  # seconds
    limits: Limits
    error_text: bool
    former_groups: tuple[str, ...]
    listeners: tuple[Callable[[Event], object], ...]

    @classmethod
    def check(
        cls,
        *,
        cluster: Cluster,
        group_id: str,
        topics: Sequence[Topic],
        handler: Callable[[Message[Any]], object],
        executor: int | Executor,
        guarantee: str,
        ordering: Ordering,
        filter: Callable[[Message[Any]], bool] | None,
        deserializer: AnyDeserializer,
        timeout: float | timedelta | None,
        commit_interval: float | timedelta,
        limits: Limits,
        error_text: bool,
        former_groups: Collection[str],
        on_event: object,
    ) -> ConsumerOptions:
        """Raises ConfigError for the first value that is not allowed."""
        _instance("cluster", cluster, Cluster)
        _instance("limits", limits, Limits)
        _instance("error_text", error_text, bool)
        _instance("group_id", group_id, str)
        if not group_id:
            raise ConfigError("Consumer.group_id", group_id, "must be a text that is not empty")
        _callable("handler", handler)
        _plain_function("deserializer", deserializer)
        _plain_function("filter", filter, optional=True)
        listeners = _listeners(on_event)
        if guarantee not in ("at_least_once", "exactly_once"):
            raise ConfigError("Consumer.guarantee", guarantee, "must be 'at_least_once' or 'exactly_once'")
        former = check_former_groups(former_groups, group_id)
        checked = check_topics(topics)
        check_ordering(ordering, checked)
        return cls(
            cluster=cluster,
            group_id=group_id,
            topics=checked,
            handler=handler,
            executor=check_executor(executor, handler),
            exactly_once=guarantee == "exactly_once",
            ordering=ordering,
            filter=filter,
            deserializer=adapted(deserializer),
            timeout=None if timeout is None else seconds("Consumer.timeout", timeout, positive=True),
            commit_interval=seconds("Consumer.commit_interval", commit_interval, positive=True),
            limits=limits,
            error_text=error_text,
            former_groups=former,
            listeners=listeners,
        )


def _instance(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"Consumer.{name}", value, f"must be a {kind.__name__}")


def _callable(name: str, value: object, *, optional: bool = False) -> None:
    if not callable(value) and not (optional and value is None):
        raise ConfigError(f"Consumer.{name}", value, "must be callable")


def _plain_function(name: str, value: object, *, optional: bool = False) -> None:
    _callable(name, value, optional=optional)
    if callable(value):
        remedy = "must be a plain function: nobody awaits what it returns"
        check_sync(value, field=f"Consumer.{name}", remedy=remedy)


def _listeners(given: object) -> tuple[Callable[[Event], object], ...]:
    if given is None or callable(given):
        _plain_function("on_event", given, optional=True)
        return () if given is None else (given,)
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ConfigError("Consumer.on_event", given, "must be a function, or a list of functions")
    for index, one in enumerate(given):
        _plain_function(f"on_event[{index}]", one)
    return tuple(given)
