"""Whether a client still finds the brokers and its group, and when it should be replaced.

librdkafka 2.13 to 2.16 can lose all brokers for good (its issue 5301): a connection breaks while an answer about the cluster
is being read, and at that moment the client knows of no broker. A single broker that comes back after a pause names none for
an instant. No setting helps. Other connections of the client may go on, so that it may even keep its place in the group.

The remedy is a new client. It takes the old one's place only after another client has reached the brokers: while nobody
reaches them, a new client would be no better.

All times are ``time.monotonic()``, in seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.client import open_client
from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.setting_values import request_seconds
from retriable_kafka_client.errors import NotReachable

__all__ = [
    "LOST_SECONDS",
    "MOST_LOST_SECONDS",
    "PATIENCE_SECONDS",
    "REACH_SECONDS",
    "AskBrokers",
    "BrokerReachability",
    "GroupReachability",
    "ask_brokers",
]

# A client may be out of its group for so long, from the loss. A rebalance with a whole drain mostly takes less.
PATIENCE_SECONDS = 60.0
# A client may have no broker for so long, from when another one reached them. Its pauses between two tries are shorter.
REACH_SECONDS = 20.0
# A client that holds nothing is replaced after so long without an answer, whether others are answered or not.
LOST_SECONDS = 30.0
# The same where it was replaced again and again, and doubled each time. No request takes longer.
MOST_LOST_SECONDS = 240.0
AGAIN_SECONDS = 10.0  # between two questions to the brokers
LOOK_SECONDS = 3.0  # between two looks whether a client has a broker
SLOW = 3  # a client may take so many times as long as another one took to reach the brokers

AskBrokers = Callable[[], Future[Any]]


class GroupReachability:
    """How long a consumer has been out of its group. One thread calls it; nothing blocks or raises.

    ``ask`` asks the brokers with another client.
    """

    def __init__(self, ask: AskBrokers) -> None:
        self._ask = ask
        self._since: float | None = None  # monotonic; None: we are in the group, or were not yet
        self._question: Future[Any] | None = None
        self._asked_at = 0.0  # monotonic

    def begin(self, now: float) -> None:
        """Our partitions were lost."""
        if self._since is None:
            self._since = now

    def end(self) -> None:
        """The group has given us an assignment, if only an empty one."""
        self._since = self._question = None

    def should_replace(self, now: float) -> bool:
        """Whether the client should be replaced by now. After a True the next client has its whole time again."""
        if self._since is None or now < self._since + PATIENCE_SECONDS:
            return False
        if self._question is None:
            self._question, self._asked_at = self._ask(), now
        if not self._question.done():
            return False
        question, self._question = self._question, None
        took = now - self._asked_at
        if question.exception() is not None or now < self._since + PATIENCE_SECONDS + SLOW * took:
            return False
        self._since = now
        return True


class BrokerReachability:
    """Whether one client has any broker to talk to. One thread calls it; nothing blocks or raises.

    ``ask`` asks the brokers with another client.
    """

    def __init__(self, ask: AskBrokers) -> None:
        self._ask = ask
        self._question: Future[Any] | None = None
        self.had_at = 0.0  # when a look found one; monotonic, as all times here
        self._look_at = 0.0
        self._ask_at: float | None = None  # None: it has a broker, as far as we know
        self._asked_at = 0.0
        self._took = 0.0  # seconds, until that was answered last
        self._reached_at: float | None = None  # when another client reached them, and it did not

    def should_replace(self, client: Any, topic: str | None, now: float) -> bool:
        """Whether the client should be replaced by now. Every few seconds it is made to ask for ``topic`` (None: for all
        topics), which shows whether it has a broker.
        """
        if now > self._look_at + 2 * LOOK_SECONDS:
            self._start_over()  # nobody has looked for long
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if _has_broker(client, topic):
                self.had_at = now
                self._start_over()
            elif self._ask_at is None:
                self._ask_at = now + LOOK_SECONDS
        if self._ask_at is None:
            return False
        if self._reached_at is None:
            self._ask_another(self._ask_at, now)
            return False
        if now < self._reached_at + REACH_SECONDS + SLOW * self._took:
            return False
        self._start_over()
        return True

    def _ask_another(self, ask_at: float, now: float) -> None:
        if self._question is None:
            if now >= ask_at:
                self._question, self._asked_at = self._ask(), now
                self._ask_at = now + AGAIN_SECONDS
        elif self._question.done():
            question, self._question = self._question, None
            if question.exception() is None:
                self._reached_at, self._took = now, now - self._asked_at

    def _start_over(self) -> None:
        self._question = self._ask_at = self._reached_at = None


def _has_broker(client: Any, topic: str | None) -> bool:
    """Whether the client has a broker. Does not wait for the answer: without a broker the client says so at once."""
    try:
        if topic is None:
            client.list_topics(timeout=0)
        else:
            client.list_topics(topic, timeout=0)
    except KafkaException as error:
        return error_name(error) != "_TRANSPORT"
    return True


def ask_brokers(settings: Mapping[str, Any]) -> Future[None]:
    """AskBrokers with a client of its own, on a thread; the future has an exception if there was no answer."""
    answer: Future[None] = Future()
    timeout = request_seconds(settings)

    def ask() -> None:
        try:
            if not open_client(AdminClient, settings).list_topics(timeout=timeout).brokers:
                raise NotReachable("the cluster has no brokers at present")
            answer.set_result(None)
        except Exception as error:  # noqa: BLE001
            answer.set_exception(error)

    threading.Thread(target=ask, name="rkc-ask", daemon=True).start()
    return answer
