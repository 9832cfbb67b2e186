"""A no-op handler on threads against the raw client: the same records, in the same run, by turns.

    python benchmarks/throughput.py [--records 400000] [--rounds 5]

Raw: ``consume(500)`` with error, topic, partition, offset and value of each record. Ours: a Consumer with its defaults and a
handler that reads nothing. Both are timed from the first record to the last. Absolute figures say little on a shared
machine; the ratio of one round's neighbours says something.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import confluent_kafka as ck

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from retriable_kafka_client import Cluster, Consumer, Message, Retry, Topic
from tests.support.kafka import Kafka, KafkaCluster
from tests.support.names import unique
from tests.support.records import produce_many

BODY = b'{"customer":"c-1017","amount":129.95,"note":"' + b"x" * 45 + b'"}'


def raw_rate(servers: str, topic: str, records: int) -> float:
    consumer = ck.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": unique("raw"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,  # as ours: the default holds a stream down to a tenth
        }
    )
    consumer.subscribe([topic])
    began: float | None = None
    count = 0
    while count < records:
        for record in consumer.consume(500, 1.0):
            if began is None:
                began = time.perf_counter()
            assert record.error() is None
            record.topic(), record.partition(), record.offset(), record.value()
            count += 1
    assert began is not None
    rate = records / (time.perf_counter() - began)
    consumer.close()
    return rate


def our_rate(servers: str, topic: str, records: int) -> float:
    began: list[float] = []
    ended = threading.Event()
    last = records - 1
    number = itertools.count()

    def handler(_message: Message[object]) -> None:
        count = next(number)
        if count == 0:
            began.append(time.perf_counter())
        elif count == last:
            ended.set()

    consumer = Consumer(
        Cluster(servers),
        group_id=unique("ours"),
        topics=[Topic(topic, retry=Retry(f"{topic}-retry"), dead_letter=f"{topic}-dead")],
        handler=handler,
    )
    with consumer:
        assert ended.wait(300), consumer.stats()
        return records / (time.perf_counter() - began[0])


def measure(kafka: Kafka, records: int, rounds: int) -> None:
    topic = unique("throughput")
    for name in (topic, f"{topic}-retry", f"{topic}-dead"):
        kafka.create_topic(name, partitions=4)
    produce_many(kafka.bootstrap_servers, topic, [BODY] * records)
    ratios = []
    for number in range(rounds):
        raw = raw_rate(kafka.bootstrap_servers, topic, records)
        ours = our_rate(kafka.bootstrap_servers, topic, records)
        ratios.append(ours / raw)
        print(
            f"round {number + 1}: raw {raw:11,.0f}/s   ours {ours:11,.0f}/s   ratio {ours / raw:.2f}",
            flush=True,
        )
    print(f"ratio: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}, most {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if servers:
        measure(Kafka(servers), options.records, options.rounds)
        return
    with KafkaCluster(for_speed=True) as kafka:
        measure(kafka, options.records, options.rounds)


if __name__ == "__main__":
    main()
