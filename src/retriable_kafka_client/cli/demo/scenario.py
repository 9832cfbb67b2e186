"""What the demo does: which orders there are, what happens to each, and who counts."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from retriable_kafka_client import Cluster, Delivery, Producer, Retry, Topic
from retriable_kafka_client.message import Message

__all__ = ["DELAYS", "DemoTopics", "Feed", "OrderPlan", "Shop"]

DELAYS = (0.5, 1.0, 2.0)  # seconds after the first, second, third failure
AHEAD = 20_000  # orders that may be on their way: the embedded broker keeps 5 MiB of a partition


@dataclass(frozen=True, slots=True)
class DemoTopics:
    """The topics and the group."""

    orders: str = "orders"
    retry: str = "orders-retry"
    dead_letters: str = "orders-dead-letters"
    group: str = "rkc-demo"

    def topic(self) -> Topic:
        """The entry of the consumer."""
        retry = Retry(self.retry, max_attempts=len(DELAYS) + 1, delay=DELAYS)
        return Topic(self.orders, retry=retry, dead_letter=self.dead_letters)


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """Orders 1 to ``orders``: which of them are out of the ordinary, and what must come of it."""

    orders: int
    delay: float = 6.0  # seconds until the scheduled order may run

    @property
    def scheduled(self) -> int:
        return self.orders

    @property
    def poison(self) -> int:
        """The order that fails whenever it is tried."""
        return self.orders // 2 + (1 if self.fails_twice(self.orders // 2) else 0)

    def fails_twice(self, order: int) -> bool:
        """Whether the bank does not answer the first two times."""
        return order % 50 == 7 and order != self.scheduled

    @property
    def failing(self) -> int:
        """How many orders fail twice."""
        return sum(map(self.fails_twice, range(1, self.orders + 1)))

    @property
    def failures(self) -> int:
        """How many runs must fail in all."""
        return 2 * self.failing + len(DELAYS) + 1


class Shop:
    """The handler, and its own count of what it did, to hold against the consumer's. Thread-safe."""

    def __init__(self, plan: OrderPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._times: Counter[int] = Counter()  # by order: runs that succeeded
        self.runs = 0
        self.scheduled_ran: float | None = None  # wall clock

    def handle(self, message: Message[Any]) -> None:
        """Charge the customer, which takes the bank some milliseconds."""
        order = message.value["order"]
        if order == self._plan.scheduled:
            self.scheduled_ran = time.time()
        with self._lock:
            self.runs += 1
        time.sleep(random.uniform(0.002, 0.01))
        if order == self._plan.poison:
            raise ValueError("the amount is negative")
        if self._plan.fails_twice(order) and message.attempt <= 2:
            raise ConnectionError("the bank does not answer")
        with self._lock:
            self._times[order] += 1

    @property
    def different(self) -> int:
        """How many orders were handled at least once."""
        return len(self._times)

    @property
    def handled(self) -> int:
        """How many runs succeeded."""
        return sum(self._times.values())


class Feed(threading.Thread):
    """Sends the orders, and counts what the brokers have acknowledged."""

    def __init__(self, cluster: Cluster, names: DemoTopics, plan: OrderPlan) -> None:
        super().__init__(name="rkc-demo-feed", daemon=True)
        self._cluster = cluster
        self._names = names
        self._plan = plan
        self._lock = threading.Lock()
        self._room = threading.Semaphore(AHEAD)
        self._reported = 0
        self._over = threading.Event()
        self.sent = 0  # acknowledged
        self.scheduled_for = 0.0  # wall clock
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Producer(self._cluster) as producer:
                for order in self._numbers():
                    scheduled = order == self._plan.scheduled
                    value = {"order": order, "customer": order % 97, "amount": order % 500 / 4}
                    if scheduled:
                        self.scheduled_for = time.time() + self._plan.delay
                    future = producer.send(
                        self._names.retry if scheduled else self._names.orders,
                        value,
                        key=f"customer-{order % 97}",
                        delay=self._plan.delay if scheduled else None,
                    )
                    future.add_done_callback(self._answered)
        except Exception as error:  # noqa: BLE001 - raised by whoever watches the demo
            self.failure = error

    def _numbers(self) -> Iterator[int]:
        """The scheduled order first, and no order so early that the brokers might drop it unread."""
        yield self._plan.scheduled
        for order in range(1, self._plan.orders):
            self._room.acquire()
            if self._over.is_set():
                return
            yield order

    def _answered(self, future: Future[Delivery]) -> None:
        error = future.exception()
        if error is not None:
            self.failure = error
            return
        with self._lock:
            self.sent += 1

    def completed(self, count: int) -> None:
        """``count`` orders need nothing any more: as many others may be sent. One thread only."""
        if count > self._reported:
            self._room.release(count - self._reported)
            self._reported = count

    def end(self) -> None:
        """Send nothing more, and wait for the end."""
        self._over.set()
        self._room.release()
        if self.is_alive():
            self.join()
