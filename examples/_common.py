"""What the examples share: a broker to run on, and waiting until everything is done."""

import argparse
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from retriable_kafka_client import Cluster, Consumer
from retriable_kafka_client.testing import MockKafka

PARTITIONS = 4
PATIENCE = 60.0  # seconds


def servers() -> str | None:
    """The cluster that was named on the command line, if any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="default: a broker in this process")
    named: str | None = parser.parse_args().bootstrap_servers
    return named


@contextmanager
def kafka(*topics: str) -> Iterator[tuple[Cluster, list[str]]]:
    """A cluster with these topics, and their names on it: the embedded broker, or the one of --bootstrap-servers.

    On a real cluster the names get an ending of their own, and the topics are deleted afterwards.
    """
    given = servers()
    if given is None:
        # The embedded broker cannot tell its topics' settings, of which the library would warn.
        logging.getLogger("retriable_kafka_client.topics").setLevel(logging.ERROR)
        with MockKafka(dict.fromkeys(topics, PARTITIONS)) as broker:
            yield Cluster(broker.bootstrap_servers), list(topics)
        return
    names = [f"{topic}-{secrets.token_hex(4)}" for topic in topics]
    admin = AdminClient({"bootstrap.servers": given})
    for made in admin.create_topics([NewTopic(name, PARTITIONS) for name in names]).values():
        made.result(30)
    try:
        yield Cluster(given), names
    finally:
        for gone in admin.delete_topics(names).values():
            gone.result(30)


def done(consumer: Consumer, messages: int) -> bool:
    """Whether each of so many messages was handled, is a dead letter or was dropped."""
    stats = consumer.stats()
    return stats.handled + stats.dead_lettered + stats.dropped >= messages


def wait_until_done(consumer: Consumer, messages: int) -> None:
    """Wait for that, or for the consumer's end; a minute at most. Raises what the consumer failed of."""
    deadline = time.monotonic() + PATIENCE
    while not done(consumer, messages) and not consumer.join(timeout=0.05):
        if time.monotonic() > deadline:
            return


def report(consumer: Consumer, messages: int) -> None:
    """Print what the consumer has done; ends the program if that is not all of it."""
    stats = consumer.stats()
    print(
        f"group {consumer.group_id}: {stats.handled} handled, {stats.failed} failed runs, {stats.retried} retried, "
        f"{stats.dead_lettered} dead-lettered, {stats.dropped} dropped"
    )
    if not done(consumer, messages):
        raise SystemExit(f"not all of the {messages} messages; {consumer.health()}")
