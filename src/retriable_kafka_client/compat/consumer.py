"""BaseConsumer: a Consumer that calls a 0.x program's target with what each body decodes to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from confluent_kafka import Message as KafkaMessage

from retriable_kafka_client import Consumer
from retriable_kafka_client.compat.config import ConsumerConfig, ConsumeTopicConfig
from retriable_kafka_client.compat.connection import check_connection, cluster_of, group_of
from retriable_kafka_client.compat.errors import DuplicateTopic, refused
from retriable_kafka_client.compat.report import Reporter
from retriable_kafka_client.compat.signals import draining
from retriable_kafka_client.config import DISCARD, Limits, Retry, Topic
from retriable_kafka_client.errors import ConfigError, NotReachable, Reject
from retriable_kafka_client.message import STDLIB_JSON, Message
from retriable_kafka_client.user_functions.interrupts import is_from_signal
from retriable_kafka_client.user_functions.results import refuse_unfinished

__all__ = ["BaseConsumer"]

log = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0  # between tries to start while a topic is missing or no broker answers
LOOK_SECONDS = 0.1  # until a stop in between is noticed


class BaseConsumer:
    """Runs ``config.target`` for every message of ``config.topics``, at most ``max_concurrency`` at once.

    ``executor`` is a ThreadPoolExecutor, a ProcessPoolExecutor or another one; it is not shut down here.
    """

    def __init__(self, config: ConsumerConfig, executor: Executor, max_concurrency: int = 16) -> None:
        self._config = config
        self._executor = executor
        self._max_concurrency = max_concurrency
        self._stopped = False
        self._running: Consumer | None = None
        _check_twice(config.topics)

    def run(self) -> None:
        """Consume until stopped; blocks. Raises what made it fail; waits for brokers and topics that are not there yet.

        In the main thread SIGTERM and SIGINT stop it, unless the program handles them itself; after SIGINT it raises
        KeyboardInterrupt.
        """
        last = ""
        with draining(self.stop):
            while not self._stopped:
                try:
                    self._run_once()
                except (NotReachable, ConfigError) as error:
                    if isinstance(error, ConfigError) and error.field != "topic":
                        raise
                    if str(error) != last:
                        last = str(error)
                        log.error("group %s cannot start, and tries again: %s", self._config.group_id, last)
                    self._wait()
                else:
                    return

    def _run_once(self) -> None:
        with refused():
            consumer = self._make()
            self._running = consumer
            try:
                if not self._stopped:
                    consumer.run(signals=False)
            finally:
                self._running = None

    def _wait(self) -> None:
        # No event: `stop` may be called by a signal handler that interrupts this very wait.
        end = time.monotonic() + AGAIN_SECONDS
        while not self._stopped and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)

    def _make(self) -> Consumer:
        config = self._config
        group = group_of(config, config.group_id)
        consumer = Consumer(
            cluster_of(config),
            group_id=group,
            topics=[_topic(one) for one in config.topics],
            handler=_Target(config.target),
            executor=self._executor,
            deserializer=STDLIB_JSON,
            limits=Limits(
                in_flight=self._max_concurrency,
                buffer_bytes=config.buffer_bytes,
                drain_timeout=max(0.0, config.cancel_future_wait_time),
                chunk_wait=config.max_chunk_reassembly_wait_time,
            ),
            on_event=Reporter(group, config.topics),
        )
        if config.filter_function is not None:
            consumer.raw_filter = _Filter(group, config.filter_function)
        return consumer

    def connection_healthcheck(self) -> bool:
        """Whether the brokers are there and let us in, and a running consumer has not failed. Asks the brokers;
        blocks at most 5 seconds.
        """
        running = self._running
        return (running is None or running.health().alive) and check_connection(self._config)

    def stop(self) -> None:
        """Ask it to drain, commit and leave, for good. From any thread or signal handler; returns at once."""
        self._stopped = True
        running = self._running
        if running is not None:
            running.stop()


class _Target:
    """A 0.x target as a handler; it pickles where the target does.

    It wraps the target, as functools.wraps has it, so that the consumer looks at the target itself: one whose call would
    return before its body runs is refused.
    """

    def __init__(self, target: Callable[[Any], Any]) -> None:
        self.__wrapped__ = target

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __call__(self, message: Message[Any]) -> Any:
        if message.body is None:
            raise Reject("a null body: targets are called with what a JSON body says")
        return self.__wrapped__(message.value)


class _Filter:
    """A 0.x filter, and a line for what it raises."""

    def __init__(self, group: str, keep: Callable[[KafkaMessage], bool]) -> None:
        self._group = group
        self._keep = keep

    def __call__(self, raw: KafkaMessage) -> bool:
        try:
            answer = self._keep(raw)
            refuse_unfinished(answer, "the filter")
            return bool(answer)
        except BaseException as error:
            if is_from_signal(error):
                raise
            log.error(
                "group %s: the filter raised %s; the record of topic %s, partition %s, offset %s is passed over",
                self._group,
                type(error).__qualname__,
                raw.topic(),
                raw.partition(),
                raw.offset(),
            )
            return False


def _topic(config: ConsumeTopicConfig) -> Topic:
    retry = None
    if config.retry_topic is not None:
        retry = Retry(
            config.retry_topic,
            max_attempts=max(0, config.retries) + 1,
            delay=max(0.0, config.fallback_delay),
        )
    return Topic(config.base_topic, retry=retry, dead_letter=config.dead_letter_topic or DISCARD)


def _check_twice(topics: list[ConsumeTopicConfig]) -> None:
    for field in ("base_topic", "retry_topic"):
        names = [name for one in topics if (name := getattr(one, field)) is not None]
        for name in names:
            if names.count(name) > 1:
                raise DuplicateTopic(
                    f"ConsumeTopicConfig.{field}", name, "stands in two entries; give each topic once"
                )
