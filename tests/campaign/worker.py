"""The program of a campaign's consumer processes: `python -m tests.campaign.worker PLAN`, PLAN as JSON.

The payload says what the handler does: `{"i": 7, "s": 0.01, "fail": 1, "due": 1700000000.5}`: id, seconds of work,
how many attempts fail, and when it is due (noted, not used).
"""

import itertools
import logging
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from retriable_kafka_client import DISCARD, Cluster, Consumer, Limits, Message, Retry, Topic
from retriable_kafka_client.events import AssignmentEnded, AssignmentStarted, CommitFailed, Event
from tests.support.evidence import EvidenceWriter

__all__ = ["Plan", "payload"]

LOOK = 0.2  # seconds between looks at health and counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a consumer process is to do."""

    servers: str
    group: str
    topic: str
    evidence: str
    protocol: str = "cooperative-sticky"  # or "range", or "consumer"
    retry: str | None = None
    retry_delay: float = 1.0
    threads: int = 16
    window: int = 10_000
    buffer_bytes: int = 64 << 20
    drain_timeout: float = 30.0
    quick: bool = False  # the handler does no work
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()


def payload(i: int, *, work: float = 0.0, fail: int = 0, due: float = 0.0, filler: int = 0) -> bytes:
    """A message's body; `filler` bytes make it longer."""
    return msgspec.json.encode({"i": i, "s": work, "fail": fail, "due": due, "x": "x" * filler})


def settings_of(plan: Plan) -> dict[str, Any]:
    if plan.protocol == "consumer":
        return {"group.protocol": "consumer", **plan.settings}
    return {
        "partition.assignment.strategy": plan.protocol,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        **plan.settings,
    }


def tell(evidence: EvidenceWriter, event: Event) -> None:
    """Note what the judge and the tests look at; the rest would flood the file."""
    if isinstance(event, (AssignmentStarted, AssignmentEnded, CommitFailed)):
        evidence.write(type(event).__name__, **asdict(event))


def note_stats(consumer: Consumer, evidence: EvidenceWriter, event: str) -> None:
    """Note the consumer's counts as an event of that kind."""
    stats = consumer.stats()
    evidence.write(
        event,
        handled=stats.handled,
        arrived=stats.arrived,
        restored=stats.restored,
        parked=stats.parked,
        retried=stats.retried,
        refused=stats.refused,
        lost_events=stats.lost_events,
        buffered_bytes=stats.buffered_bytes,
    )


def watch(consumer: Consumer, evidence: EvidenceWriter, over: threading.Event) -> None:
    """Note each change of the consumer's health, and how far it is."""
    before = None
    while not over.wait(LOOK):
        note_stats(consumer, evidence, "stats")
        health = consumer.health()
        if health != before:
            evidence.write("health", alive=health.alive, ready=health.ready, reasons=list(health.reasons))
            before = health


def main() -> None:
    """Consume as planned until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    plan = Plan(**msgspec.json.decode(sys.argv[1]))
    evidence = EvidenceWriter(plan.evidence)
    numbers = itertools.count()

    def handle(message: Message[Any]) -> None:
        order, record, n = message.value, message.record, next(numbers)
        evidence.write(
            "start",
            n=n,
            i=order["i"],
            a=message.attempt,
            t=record.topic,
            p=record.partition,
            o=record.offset,
            due=order["due"],
        )
        if order["s"] and not plan.quick:
            time.sleep(order["s"])
        if message.attempt <= order["fail"]:
            evidence.write("failed", n=n)
            raise RuntimeError("as the payload wants it")
        evidence.write("done", n=n)

    retry = None if plan.retry is None else Retry(plan.retry, delay=plan.retry_delay, max_attempts=20)
    consumer = Consumer(
        Cluster(plan.servers, settings=settings_of(plan)),
        group_id=plan.group,
        topics=[Topic(plan.topic, retry=retry, dead_letter=DISCARD)],
        handler=handle,
        executor=plan.threads,
        limits=Limits(
            window=plan.window,
            buffer_bytes=plan.buffer_bytes,
            message_bytes=min(plan.buffer_bytes, 1 << 20),
            drain_timeout=plan.drain_timeout,
        ),
        on_event=lambda event: tell(evidence, event),
    )
    over = threading.Event()
    watching = threading.Thread(target=watch, args=(consumer, evidence, over))
    watching.start()
    try:
        consumer.run()
    finally:
        over.set()
        watching.join()
        note_stats(consumer, evidence, "exit")


if __name__ == "__main__":
    main()
