"""Consumers in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from retriable_kafka_client.compat.config import ConsumerConfig
from retriable_kafka_client.compat.consumer import BaseConsumer
from retriable_kafka_client.compat.errors import refused
from retriable_kafka_client.compat.signals import draining
from retriable_kafka_client.runtime.monkey_patching import refuse_patched

__all__ = ["ConsumerThread", "consume_topics"]

LOOK_SECONDS = 0.1  # until the end of a thread is noticed; a wait that signal handlers can interrupt


class ConsumerThread(threading.Thread):
    """Runs ``consumer`` in a thread of its own."""

    def __init__(self, consumer: BaseConsumer) -> None:
        super().__init__()
        self.consumer = consumer

    def run(self) -> None:
        """Consume until stopped. What the consumer raises goes to threading.excepthook."""
        self.consumer.run()

    def stop(self) -> None:
        """Stop the consumer and wait until it has drained and left."""
        self.consumer.stop()
        if self.ident is not None and threading.current_thread() is not self:
            self.join()


class _Watched(ConsumerThread):
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the thread
            self.failure = error


def consume_topics(topics: Iterable[ConsumerConfig], max_workers: int) -> None:
    """Run a consumer for each config, all on one pool of ``max_workers`` processes; blocks.

    The first consumer that fails stops the others, and its error is raised. Signals as in ``BaseConsumer.run``.
    """
    with refused():
        refuse_patched()
    with ProcessPoolExecutor(max_workers) as pool:
        threads = [_Watched(BaseConsumer(config, pool, max(16, max_workers))) for config in topics]
        pool.submit(int).result()  # a pool that forks does so now: before there are threads and Kafka clients
        _run(threads)


def _run(threads: Sequence[_Watched]) -> None:
    def stop() -> None:
        for thread in threads:
            thread.consumer.stop()

    with draining(stop):
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                if any(thread.failure is not None for thread in threads):
                    stop()
                time.sleep(LOOK_SECONDS)
        finally:
            stop()
            for thread in threads:
                thread.stop()
    for thread in threads:
        if thread.failure is not None:
            raise thread.failure
