"""Notices a client that must be replaced, because it does not find back to the brokers or into its group by itself.

librdkafka 2.13 to 2.16, once a connection breaks while an answer about the cluster is being read, never looks for brokers
again when it knows of none; and a single broker that is let in again after a pause tells for an instant of none. No setting
mends that (its issue 5301), and other connections may go on meanwhile, so that the group is not even lost. A new client is
the remedy. Before one takes the old one's place, another must have reached the brokers: while nobody does, it would be no
better.
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
    "Absence",
    "Ask",
    "Reach",
    "ask_brokers",
]

PATIENCE_SECONDS = (
    60.0  # out of the group, from the loss: longer than a rebalance with a whole drain mostly takes
)
REACH_SECONDS = (
    20.0  # since others reach the brokers: longer than the client pauses between two tries to connect
)
LOST_SECONDS = 30.0  # of vain tries with a client that holds nothing: it is replaced, whoever answers
MOST_LOST_SECONDS = 240.0  # of them, however often it was replaced in vain: longer than any request takes
AGAIN_SECONDS = 10.0  # between two questions to the brokers
LOOK_SECONDS = 3.0  # between two looks whether a client has a broker
SLOW = 3  # so many times as long as another client took to reach them, this one may take

Ask = Callable[[], Future[Any]]


class Absence:
    """How long we have been out of the group. One thread calls it; nothing blocks.

    ``ask`` asks the brokers with another client.
    """

    def __init__(self, ask: Ask) -> None:
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

    def is_vain(self, now: float) -> bool:
        """Whether the client should be replaced; once for each time that it was given to find back."""
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


class Reach:
    """Whether one client has any broker to talk to. One thread calls it; nothing blocks."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._question: Future[Any] | None = None
        self.had_at = 0.0  # when a look found one; monotonic, as all times here
        self._look_at = 0.0
        self._ask_at: float | None = None  # None: it has a broker, as far as we know
        self._asked_at = 0.0
        self._took = 0.0  # seconds, until that was answered last
        self._reached_at: float | None = None  # when another client reached them, and it did not

    def is_vain(self, client: Any, topic: str | None, now: float) -> bool:
        """Whether the client should be replaced. Now and then it is made to ask for ``topic`` (None: for all)."""
        if now > self._look_at + 2 * LOOK_SECONDS:
            self._well()  # nobody has looked for long
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if _has_broker(client, topic):
                self.had_at = now
                self._well()
            elif self._ask_at is None:
                self._ask_at = now + LOOK_SECONDS
        if self._ask_at is None:
            return False
        if self._reached_at is None:
            self._find_out(self._ask_at, now)
            return False
        if now < self._reached_at + REACH_SECONDS + SLOW * self._took:
            return False
        self._well()
        return True

    def _find_out(self, ask_at: float, now: float) -> None:
        if self._question is None:
            if now >= ask_at:
                self._question, self._asked_at = self._ask(), now
                self._ask_at = now + AGAIN_SECONDS
        elif self._question.done():
            question, self._question = self._question, None
            if question.exception() is None:
                self._reached_at, self._took = now, now - self._asked_at

    def _well(self) -> None:
        self._question = self._ask_at = self._reached_at = None


def _has_broker(client: Any, topic: str | None) -> bool:
    """Without waiting: a client that has a broker sends it the question, and the time for the answer is over at once."""
    try:
        if topic is None:
            client.list_topics(timeout=0)
        else:
            client.list_topics(topic, timeout=0)
    except KafkaException as error:
        return error_name(error) != "_TRANSPORT"
    return True


def ask_brokers(settings: Mapping[str, Any]) -> Future[None]:
    """Ask with a client of its own, on a thread; the future has an exception if there was no answer."""
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
