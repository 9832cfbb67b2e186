"""The program that sends a chaos run's messages: `python -m tests.chaos.load TASK`, TASK as JSON, until SIGTERM.

Before messages are sent, and when they are acknowledged or nobody knows, a line says so.
"""

import functools
import logging
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import asdict, dataclass

import msgspec
from confluent_kafka import Producer as Client

from retriable_kafka_client import Cluster, Delivery, DeliveryError, Producer, QueueFull
from tests.chaos.orders import SPLIT_ABOVE, Kind, Order, body_of, headers_of, key_of, order_of, stamp
from tests.shell.chunk_records import Split
from tests.support.evidence import EvidenceWriter

__all__ = ["Task"]

STEP = 0.05  # seconds between portions
FLUSH = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be sent."""

    servers: str
    username: str
    password: str
    seed: int
    rate: float  # messages a second
    sent: str  # the file of evidence

    def to_json(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()


class Load:
    """Sends orders, and notes what became of them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.evidence = EvidenceWriter(task.sent)
        self.answers: deque[tuple[int, int, int, str]] = deque()
        """Id, partition, offset, and what went wrong; appended by any thread."""
        cluster = Cluster(
            task.servers,
            username=task.username,
            password=task.password,
            security_protocol="SASL_PLAINTEXT",
            settings={"debug": "eos"},  # what it takes for a duplicate, should a record be lost
        )
        self.producer = Producer(cluster, split=True, chunk_bytes=SPLIT_ABOVE)
        self.plain = Client({**cluster.connection(), "enable.idempotence": True, "max.in.flight": 1})
        """For what the library would never send."""

    def send(self, first: int, count: int) -> None:
        """Send that many orders from that number on."""
        orders = [order_of(self.task.seed, number) for number in range(first, first + count)]
        bodies = [body_of(self.task.seed, order) for order in orders]
        stamps = [
            stamp(body, key_of(order), headers_of(order)) for order, body in zip(orders, bodies, strict=True)
        ]
        self.evidence.write("sent", first=first, stamps=stamps)
        for order, body in zip(orders, bodies, strict=True):
            if order.kind is Kind.PARTIAL:
                self._partial(order, body)
            else:
                self._whole(order, body)
        self.note()

    def _whole(self, order: Order, body: bytes) -> None:
        delay = order.delay or None
        try:
            future = self.producer.send(
                order.topic, body, key=key_of(order), headers=headers_of(order), delay=delay
            )
        except QueueFull:
            self.answers.append((order.id, -1, -1, "QueueFull"))
            return
        future.add_done_callback(functools.partial(self._answered, order.id))

    def _answered(self, number: int, future: Future[Delivery]) -> None:
        error = future.exception()
        if error is None:
            delivery = future.result()
            self.answers.append((number, delivery.partition, delivery.offset, ""))
        else:
            code = error.code if isinstance(error, DeliveryError) else type(error).__name__
            self.answers.append((number, -1, -1, code))

    def _partial(self, order: Order, body: bytes) -> None:
        """All of its chunks but the last."""
        message = Split(body, -(-len(body) // 3), key_of(order), tuple(headers_of(order)))
        partition = order.id % 2
        for index in range(message.count - 1):
            chunk, key, headers = message.chunk(index)

            def answered(error: object, _: object, last: bool = index == message.count - 2) -> None:
                if last or error is not None:
                    self.answers.append((order.id, -1, -1, "" if error is None else str(error)))

            self.plain.produce(
                order.topic, chunk, key, partition=partition, headers=list(headers), on_delivery=answered
            )

    def note(self) -> None:
        """Write down the answers that have come."""
        self.plain.poll(0)
        acked: list[tuple[int, int, int]] = []
        unknown: list[tuple[int, str]] = []
        while self.answers:
            number, partition, offset, code = self.answers.popleft()
            if code:
                unknown.append((number, code))
            else:
                acked.append((number, partition, offset))
        if acked or unknown:
            self.evidence.write("answers", acked=acked, unknown=unknown)

    def close(self) -> None:
        """Wait for all answers."""
        self.producer.flush(FLUSH)
        self.plain.flush(10.0)
        self.producer.close()
        self.note()


def main(task: Task) -> None:
    """Send until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    load = Load(task)
    began, sent = time.monotonic(), 0
    while not over.wait(STEP):
        due = int((time.monotonic() - began) * task.rate) - sent
        # What was missed while the queue was full is not made up for at once.
        load.send(sent, min(due, int(task.rate)))
        sent += min(due, int(task.rate))
    load.close()
    load.evidence.write("over", sent=sent)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")
    main(Task(**msgspec.json.decode(sys.argv[1])))
