"""The program of a chaos run's consumer processes: `python -m tests.chaos.worker ROLE`, ROLE as JSON."""

import logging
import signal
import sys
import threading
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from retriable_kafka_client import (
    AsyncExecutor,
    Cluster,
    Consumer,
    Limits,
    ProcessExecutor,
    Retry,
    Topic,
    events,
)
from tests.chaos.handler import FREEZE, AsyncHandler, Filter, Handler
from tests.chaos.orders import MAX_ATTEMPTS, RETRY_DELAYS
from tests.support.evidence import EvidenceWriter

__all__ = ["EXECUTORS", "GROUP", "Role"]

EXECUTORS = ("threads", "processes", "coroutines", "threads")
"""What the four members run their handlers on."""
GROUP = "chaos"
LOOK = 0.5  # seconds between looks at health
TOLD = (
    events.AssignmentStarted,
    events.AssignmentEnded,
    events.Committed,
    events.CommitFailed,
    events.DrainOverrun,
    events.WorkerDied,
    events.MessageParked,
    events.OffsetMapIgnored,
    events.TopicReset,
    events.TransactionAborted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a consumer process is."""

    member: int
    executor: str  # one of EXECUTORS
    guarantee: str
    servers: str
    username: str
    password: str
    seed: int
    runs: str  # the file of evidence for handlers …
    told: str  # … and the one for everything else

    def to_json(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()


def executor_of(role: Role) -> int | Executor:
    match role.executor:
        case "processes":
            return ProcessExecutor(2)
        case "coroutines":
            return AsyncExecutor(50)
        case _:
            return 8


def make_consumer(role: Role, told: EvidenceWriter) -> Consumer:
    """The consumer of that role. Times are short, so that much happens in a short run."""
    runs = EvidenceWriter(role.runs)
    make = AsyncHandler if role.executor == "coroutines" else Handler
    retry = Retry("retries", max_attempts=MAX_ATTEMPTS, delay=RETRY_DELAYS)
    in_place = Retry(None, max_attempts=MAX_ATTEMPTS, delay=RETRY_DELAYS)

    def tell(event: events.Event) -> None:
        if isinstance(event, TOLD):
            told.write(type(event).__name__, m=role.member, **asdict(event))

    return Consumer(
        Cluster(
            role.servers,
            username=role.username,
            password=role.password,
            security_protocol="SASL_PLAINTEXT",
            settings={"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
        ),
        group_id=GROUP,
        topics=[
            Topic("orders", retry=retry, dead_letter="dead"),
            Topic("bills", retry=retry, dead_letter="dead"),
            Topic("local", retry=in_place, dead_letter="dead"),
        ],
        handler=make(runs, role.member, role.seed),
        executor=executor_of(role),
        guarantee=role.guarantee,  # type: ignore[arg-type]
        filter=Filter(runs),
        limits=Limits(buffer_bytes=16 << 20, message_bytes=4 << 20, drain_timeout=10.0, chunk_wait=30.0),
        on_event=tell,
    )


def watch(consumer: Consumer, told: EvidenceWriter, member: int, over: threading.Event) -> None:
    """Note each change of the consumer's health."""
    before = None
    while not over.wait(LOOK):
        health = consumer.health()
        if health != before:
            told.write("health", m=member, ready=health.ready, reasons=list(health.reasons))
            before = health


def main(told_role: dict[str, Any]) -> None:
    """Consume until SIGTERM; SIGUSR1 freezes the event loop for a while, where there is one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    role = Role(**told_role)
    told = EvidenceWriter(role.told)
    signal.signal(signal.SIGUSR1, lambda *_: FREEZE.set())
    consumer = make_consumer(role, told)
    over = threading.Event()
    watching = threading.Thread(target=watch, args=(consumer, told, role.member, over), daemon=True)
    watching.start()
    try:
        consumer.run()
    finally:
        over.set()
        watching.join(10.0)
        stats = consumer.stats()
        told.write(
            "exit",
            m=role.member,
            handled=stats.handled,
            failed=stats.failed,
            retried=stats.retried,
            restored=stats.restored,
            refused=stats.refused,
            recalled=stats.recalled,
            lost_events=stats.lost_events,
        )


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1]))
