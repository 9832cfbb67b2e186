"""What consumers cost whose topics are quiet, beside plain confluent clients: processor time, and the time to a handler.

    python benchmarks/quiet.py [--partitions 1000 2000] [--consumers 60] [--topics 1000] [--seconds 10]

Partitions and consumers are on the mock cluster, in a process of its own. Each measurement runs in a fresh process and
counts the processor time of that process alone. ``--topics`` needs a real Kafka (KAFKA_BOOTSTRAP_SERVERS, else one is
started) and counts the requests about topics that the consumer makes in a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from confluent_kafka import Consumer as Client
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from retriable_kafka_client import DISCARD, Cluster, Consumer, Message, Topic
from retriable_kafka_client.testing import MockKafka
from tests.support.kafka import KafkaCluster
from tests.support.names import unique

ROUNDS = 20  # messages whose way is timed
BEGINNING = 180.0  # seconds that the beginning may take
SETTLING = 5.0


class Cost(NamedTuple):
    """What one process used."""

    share: float  # of one core
    threads: int
    latencies: list[float]


def serve(partitions: int, told: Any, over: Any) -> None:
    with MockKafka({"quiet": partitions}) as mock:
        told.put(mock.bootstrap_servers)
        over.wait()


@contextmanager
def mock_beside(partitions: int) -> Iterator[str]:
    """A mock cluster in a process of its own."""
    context = multiprocessing.get_context("spawn")
    told, over = context.Queue(), context.Event()
    process = context.Process(target=serve, args=(partitions, told, over))
    process.start()
    try:
        yield told.get(timeout=30)
    finally:
        over.set()
        process.join(10)
        process.kill()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BEGINNING
    while not what():
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.05)


def watch(servers: str, partitions: int, seconds: float, ran: list[float]) -> Cost:
    """Use nothing for a while, then send some messages, one by one."""
    time.sleep(SETTLING)
    used, began = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    share = (time.process_time() - used) / (time.perf_counter() - began)
    threads = len(os.listdir("/proc/self/task"))
    producer, latencies = Producer({"bootstrap.servers": servers, "linger.ms": 0}), []
    for number in range(ROUNDS + 1):
        sent = time.perf_counter()
        producer.produce("quiet", b"1", partition=number % partitions)
        producer.flush()
        wait_for(lambda: len(ran) > number)  # noqa: B023
        if number:  # the first one opens connections
            latencies.append(ran[-1] - sent)
    return Cost(share, threads, latencies)


def settings(group: str, servers: str) -> dict[str, Any]:
    return {"bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest"}


def ours(servers: str, partitions: int, count: int, seconds: float) -> Cost:
    ran: list[float] = []

    def handler(_message: Message[Any]) -> None:
        ran.append(time.perf_counter())

    consumers = [
        Consumer(
            Cluster(servers),
            group_id=f"group-{number}",
            topics=[Topic("quiet", dead_letter=DISCARD)],
            handler=handler,
            executor=4,
        )
        for number in range(count)
    ]
    for consumer in consumers:
        consumer.start()
    wait_for(lambda: all(one.health().ready and one.stats().partitions for one in consumers))
    cost = watch(servers, partitions, seconds, ran)
    for consumer in consumers:
        consumer.stop()
    for consumer in consumers:
        consumer.join()
    return cost


def plain(servers: str, partitions: int, count: int, seconds: float) -> Cost:
    ran: list[float] = []
    over = threading.Event()
    assigned: list[Any] = []
    clients = [Client(settings(f"group-{number}", servers)) for number in range(count)]

    def poll(client: Client) -> None:
        client.subscribe(["quiet"], on_assign=lambda _client, given: assigned.extend(given))
        while not over.is_set():
            if client.poll(0.25) is not None:
                ran.append(time.perf_counter())
        client.close()

    threads = [threading.Thread(target=poll, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(assigned) == partitions * count)
    cost = watch(servers, partitions, seconds, ran)
    over.set()
    for thread in threads:
        thread.join()
    return cost


def aside(measure: Callable[..., Cost], *given: Any) -> Cost:
    """Measure in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, given)


def compare(what: str, partitions: int, count: int, seconds: float) -> None:
    with mock_beside(partitions) as servers:
        costs = {
            "plain": aside(plain, servers, partitions, count, seconds),
            "ours": aside(ours, servers, partitions, count, seconds),
        }
    for name, cost in costs.items():
        line = f"{what}, {name}: {cost.share:.1%} of a core, {cost.threads} threads"
        if count == 1:
            milliseconds = sorted(1000 * one for one in cost.latencies)
            line += (
                f", to a handler {statistics.median(milliseconds):.1f} ms (at most {milliseconds[-1]:.0f})"
            )
        print(line, flush=True)


def requests(servers: str, count: int) -> None:
    """How many requests about topics go to the brokers in a minute, with so many topics."""
    asked: list[float] = []

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            asked.append(time.monotonic())
            return call(*args, **options)

        return counting

    admin = AdminClient({"bootstrap.servers": servers})
    names = [unique(f"quiet-{number}") for number in range(count)]
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result(BEGINNING)
    for call in ("describe_topics", "describe_configs", "list_topics"):
        setattr(AdminClient, call, counted(getattr(AdminClient, call)))
    consumer = Consumer(
        Cluster(servers, settings={"group.protocol": "consumer"}),
        group_id=unique("quiet"),
        topics=[Topic(name, dead_letter=DISCARD) for name in names],
        handler=print,
    )
    try:
        with consumer:
            wait_for(lambda: consumer.health().ready and len(consumer.stats().partitions) == count)
            beginning = len(asked)
            time.sleep(SETTLING)
            used, began, before = time.process_time(), time.monotonic(), len(asked)
            time.sleep(60)
            share = (time.process_time() - used) / (time.monotonic() - began)
            print(
                f"{count} topics: {beginning} requests about topics at the start, {len(asked) - before} in a minute, "
                f"{share:.1%} of a core"
            )
    finally:
        for future in admin.delete_topics(names).values():
            future.result(BEGINNING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="*", default=[1000, 2000])
    parser.add_argument("--consumers", type=int, default=60, help="0: leave it out")
    parser.add_argument("--topics", type=int, default=1000, help="0: leave it out")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    for partitions in options.partitions:
        compare(f"{partitions} quiet partitions", partitions, 1, options.seconds)
    if options.consumers:
        compare(f"{options.consumers} idle consumers", 2, options.consumers, options.seconds)
    if options.topics:
        given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if given:
            requests(given, options.topics)
        else:
            with KafkaCluster(for_speed=True) as kafka:
                requests(kafka.bootstrap_servers, options.topics)


if __name__ == "__main__":
    main()
