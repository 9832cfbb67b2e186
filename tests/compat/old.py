"""Configs of the 0.x kind for a lab's topics, and consumers in threads that end with the test."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from retriable_kafka_client.compat import (
    BaseConsumer,
    BaseProducer,
    ConsumerConfig,
    ConsumeTopicConfig,
    ProducerConfig,
)
from tests.shell.lab import Lab, Log
from tests.support.records import group_lag
from tests.support.waiting import WAIT, wait_until

__all__ = ["caught_up", "connection", "consumer_config", "entry", "producer", "running"]


def connection(lab: Lab, **settings: Any) -> dict[str, Any]:
    """The keyword arguments that every config has."""
    return {
        "kafka_hosts": lab.servers.split(","),
        "username": "not-asked-for",
        "password": "secret-word",
        "additional_settings": {"security.protocol": "PLAINTEXT", **settings},
    }


def producer(lab: Lab, *topics: str, settings: dict[str, Any] | None = None, **options: Any) -> BaseProducer:
    """A BaseProducer that waits 0.05 s, 0.1 s, … before it tries again."""
    options = {"fallback_base": 0.025, **options}
    return BaseProducer(ProducerConfig(topics=list(topics), **options, **connection(lab, **(settings or {}))))


def entry(lab: Lab, retries: int = 2, **options: Any) -> ConsumeTopicConfig:
    """A base and a retry topic that are there."""
    options = {"fallback_delay": 0.05, **options}
    return ConsumeTopicConfig(lab.topic("base"), lab.topic("retry"), retries, **options)


def consumer_config(
    lab: Lab,
    target: Callable[[Any], Any],
    *topics: ConsumeTopicConfig,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> ConsumerConfig:
    """A ConsumerConfig of the lab's group."""
    return ConsumerConfig(
        lab.group, target, list(topics), **options, **connection(lab, **{**lab.quick, **(settings or {})})
    )


def caught_up(lab: Lab, *topics: str | ConsumeTopicConfig | None, timeout: float = WAIT) -> None:
    """Wait until the lab's group has no lag on these topics, or on both topics of an entry."""
    names: list[str | None] = []
    for one in topics:
        names += [one.base_topic, one.retry_topic] if isinstance(one, ConsumeTopicConfig) else [one]

    def without_lag(name: str) -> bool:
        return group_lag(lab.servers, lab.group, name) == 0

    for name in names:
        if name is not None:
            wait_until(partial(without_lag, name), timeout, f"no lag on {name}")


@contextmanager
def running(
    config: ConsumerConfig, executor: Executor | None = None, max_concurrency: int = 16
) -> Iterator[tuple[BaseConsumer, Log]]:
    """Run a consumer in a thread while the block runs; what it raised is in the Log."""
    raised = Log()
    pool = executor or ThreadPoolExecutor(8)
    consumer = BaseConsumer(config, pool, max_concurrency)

    def run() -> None:
        try:
            consumer.run()
        except Exception as error:  # noqa: BLE001 - told to the test
            raised.add(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield consumer, raised
    finally:
        consumer.stop()
        thread.join(60)
        assert not thread.is_alive(), "the consumer did not stop"
        if executor is None:
            pool.shutdown()
