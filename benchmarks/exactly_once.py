"""Exactly once against at least once: the same records, in the same run, by turns.

    python benchmarks/exactly_once.py [--records 50000] [--rounds 3]

With one output of 100 bytes for each record, and without outputs; on four threads, timed from the first run to the
moment when all is committed. Then how many transactions follow one another in a second while handlers of a millisecond have
something to send.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from retriable_kafka_client import Cluster, Consumer, Message, Retry, Topic
from retriable_kafka_client.events import Committed, Event
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.names import unique
from tests.support.records import produce_many

BODY = b'{"customer":"c-1017","amount":129.95,"note":"' + b"x" * 45 + b'"}'
PARTITIONS = 4

Guarantee = Literal["at_least_once", "exactly_once"]


class Commits:
    """Counts commits of all progress, and notes when all of it was committed."""

    def __init__(self, records: int) -> None:
        self.instants: set[float] = set()
        self.done = threading.Event()
        self._positions: dict[int, int] = {}
        self._records = records

    def __call__(self, event: Event) -> None:
        if isinstance(event, Committed):
            self.instants.add(time.perf_counter())
            self._positions[event.partition] = event.position
            if sum(self._positions.values()) >= self._records:
                self.done.set()


def topics_of(kafka: Kafka) -> Topic:
    name = unique("exactly-once")
    for one in (name, f"{name}-retry", f"{name}-dead", f"{name}-out"):
        kafka.create_topic(one, partitions=PARTITIONS)
    return Topic(name, retry=Retry(f"{name}-retry"), dead_letter=f"{name}-dead")


def rate(kafka: Kafka, topic: Topic, records: int, guarantee: Guarantee, *, sends: bool) -> float:
    """Messages a second."""
    commits = Commits(records)
    began: list[float] = []
    out = f"{topic.name}-out"

    def handler(message: Message[object]) -> None:
        if not began:
            began.append(time.perf_counter())
        if sends:
            message.send(out, BODY)

    consumer = Consumer(
        Cluster(kafka.bootstrap_servers),
        group_id=unique("rate"),
        topics=[Topic(topic.name, dead_letter=str(topic.dead_letter))],
        handler=handler,
        executor=4,
        guarantee=guarantee,
        commit_interval=0.1,
        on_event=commits,
    )
    with consumer:
        assert commits.done.wait(300), consumer.stats()
        return records / (time.perf_counter() - began[0])


def transactions(kafka: Kafka, seconds: float) -> float:
    """Transactions a second while handlers always have something to send, a little at a time."""
    topic = topics_of(kafka)
    records = int(seconds * 2000)
    produce_many(kafka.bootstrap_servers, topic.name, [BODY] * records)
    out, commits = f"{topic.name}-out", Commits(records)

    def handler(message: Message[object]) -> None:
        time.sleep(0.001)
        message.send(out, BODY)

    consumer = Consumer(
        Cluster(kafka.bootstrap_servers),
        group_id=unique("transactions"),
        topics=[Topic(topic.name, dead_letter=str(topic.dead_letter))],
        handler=handler,
        executor=4,
        guarantee="exactly_once",
        on_event=commits,
    )
    with consumer:
        commits.done.wait(60 + 10 * seconds)
    instants = sorted(commits.instants)
    # The partitions of one transaction are told one after the other, at once.
    begun = [after for before, after in pairwise(instants) if after - before > 0.0005]
    return len(begun) / (instants[-1] - instants[0])


def measure(kafka: Kafka, records: int, rounds: int) -> None:
    topic = topics_of(kafka)
    produce_many(kafka.bootstrap_servers, topic.name, [BODY] * records)
    for sends in (True, False):
        ratios = []
        for number in range(rounds):
            least = rate(kafka, topic, records, "at_least_once", sends=sends)
            once = rate(kafka, topic, records, "exactly_once", sends=sends)
            ratios.append(once / least)
            kind = "one output each" if sends else "no outputs"
            print(
                f"{kind}, round {number + 1}: at least once {least:10,.0f}/s   exactly once {once:10,.0f}/s   "
                f"ratio {once / least:.2f}",
                flush=True,
            )
        print(f"ratio: median {statistics.median(ratios):.2f}")
    print(f"transactions: {transactions(kafka, 3.0):,.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if servers:
        measure(Kafka(servers), options.records, options.rounds)
        return
    with KafkaCluster(for_speed=True) as kafka:
        measure(kafka, options.records, options.rounds)


if __name__ == "__main__":
    main()
