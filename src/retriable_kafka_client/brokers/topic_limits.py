"""How large a batch each topic takes: asked once for each, in the background, and again after a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from retriable_kafka_client.brokers.client import is_mock

__all__ = ["TopicLimits"]

_AGAIN = 60.0  # seconds until a topic whose limit is not known is asked for again; doubled each time, up to
_LONGEST = 960.0


class TopicLimits:
    """``limit`` may be called from any thread; the rest only from one. ``mock`` says whether it is a mock cluster, which
    would leave the question unanswered; with None that is asked first, which blocks for up to a second.
    """

    def __init__(
        self,
        admin: Callable[[], AdminClient],
        clock: Callable[[], float] = time.monotonic,
        *,
        mock: bool | None = None,
    ) -> None:
        self._admin = admin  # asked for with each question
        self._clock = clock
        self._mock = mock
        self._limits: dict[str, int | None] = {}
        self._asked_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}  # of topics whose limit is not known
        self._questions: dict[str, tuple[AdminClient, Future[Any]]] = {}  # and who asks

    def limit(self, topic: str) -> int | None:
        """Bytes of the largest batch that the topic takes; None: not known, or not yet."""
        return self._limits.get(topic)

    def learn(self, topic: str, size: int) -> None:
        """Somebody else has asked."""
        self._limits[topic] = size

    def pending(self, topic: str) -> bool:
        """Whether an answer is still to come, at the latest when the client's requests time out. Asks, if nobody has."""
        asked = self._questions.get(topic)
        if asked is None:
            if self._limits.get(topic) is not None:
                return False
            asked_at = self._asked_at.get(topic)
            if asked_at is not None and self._clock() < asked_at + self._pauses.get(topic, _AGAIN):
                return False
            asked = self._ask(topic)
        elif not asked[1].done() and asked[0] is not self._admin():
            # Another client was called for because this one's question may have gone to a broker that hangs.
            asked = self._ask(topic)
        if asked is None:
            return False
        question = asked[1]
        if not question.done():
            return True
        del self._questions[topic]
        self._answered(topic, question)
        if self._limits[topic] is None:
            self._pauses[topic] = min(2 * self._pauses.get(topic, _AGAIN / 2), _LONGEST)
        else:
            self._pauses.pop(topic, None)
        return False

    @property
    def waits_since(self) -> float | None:
        """When the oldest question was asked that has no answer; None: all have one. Any thread may read it."""
        open_ = [topic for topic, (_, answer) in list(self._questions.items()) if not answer.done()]
        times = (self._asked_at.get(topic) for topic in open_)
        return min((at for at in times if at is not None), default=None)

    def expire(self, topic: str) -> None:
        """The topic has refused what it should have taken: ask again."""
        if topic not in self._questions:
            self._asked_at.pop(topic, None)
            self._ask(topic)

    def _ask(self, topic: str) -> tuple[AdminClient, Future[Any]] | None:
        self._questions.pop(topic, None)
        self._asked_at[topic] = self._clock()
        try:
            admin = self._admin()
            if self._mock is None:
                self._mock = is_mock(str(admin.list_topics(timeout=1.0).cluster_id))
            if self._mock:
                return None
            resource = ConfigResource(ResourceType.TOPIC, topic)
            question: Future[Any] = admin.describe_configs([resource])[resource]
        except KafkaException:
            return None  # nobody answers at present
        self._questions[topic] = admin, question
        question.add_done_callback(partial(self._came, topic))
        return admin, question

    def _came(self, topic: str, question: Future[Any]) -> None:
        """On a thread of the client's."""
        asked = self._questions.get(topic)
        if asked is not None and asked[1] is question:
            self._answered(topic, question)

    def _answered(self, topic: str, question: Future[Any]) -> None:
        self._limits[topic] = _limit_of(question)


def _limit_of(question: Future[Any]) -> int | None:
    try:
        return int(question.result()["max.message.bytes"].value)
    except (KafkaException, KeyError, TypeError, ValueError):
        return None
