"""Whether topics can be written to, asked before a transaction begins.

A transaction waits for all of its records. One for a topic that is not there would hold up the others until it times out,
and a topic that must not be written to breaks the whole transaction without a word about which one it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

__all__ = ["TOPIC_CODES", "Writable"]

TOPIC_CODES = frozenset(
    (
        "_UNKNOWN_TOPIC",
        "UNKNOWN_TOPIC_OR_PART",
        "TOPIC_AUTHORIZATION_FAILED",
        "TOPIC_EXCEPTION",
        "INVALID_TOPIC",
    )
)
"""Refusals that hold for every record of the topic."""

WAIT_SECONDS = 5.0  # for an answer; a later one counts, too, and meanwhile the transaction finds out
GOOD_SECONDS = 30.0  # how long a yes counts
BAD_SECONDS = 1.0  # a no; doubled each time that it is said again, up to
LONGEST_SECONDS = 60.0  # where we have no right, and
MISSING_SECONDS = 10.0  # where there is no such topic
NEW_SECONDS = 0.5  # a topic that was made just now is not known to every broker
STEP_SECONDS = 0.1


class Writable:
    """Remembers the answers for a while. One thread calls it, and it blocks while it asks: some seconds at most.

    ``clock`` is ``time.monotonic`` but in tests. Raises nothing: what cannot be asked counts as writable.
    """

    def __init__(self, admin: Callable[[], AdminClient], clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._known: dict[str, tuple[float, str | None]] = {}  # until when, and the code of a no
        # Under way: who asks, and since when.
        self._questions: dict[str, tuple[AdminClient, Future[Any], float]] = {}
        self._pauses: dict[str, float] = {}  # how long the last no counted

    def refusals(self, topics: Collection[str]) -> dict[str, str]:
        """Those that cannot be written to, with the code. Where no broker answers, the transaction finds out."""
        now = self._clock()
        unknown = [topic for topic in topics if self._known.get(topic, (0.0, None))[0] <= now]
        deadline = now + NEW_SECONDS
        while unknown:
            again = []
            for topic, code in self._ask(unknown).items():
                if code == "UNKNOWN_TOPIC_OR_PART" and self._clock() < deadline:
                    again.append(topic)
                    continue
                self._known[topic] = (self._clock() + self._counts_for(topic, code), code)
            unknown = again
            if unknown:
                time.sleep(STEP_SECONDS)
        found = {topic: self._known.get(topic, (0.0, None))[1] for topic in topics}
        return {topic: code for topic, code in found.items() if code is not None}

    def forget(self, topics: Collection[str]) -> None:
        """Ask for these again."""
        for topic in topics:
            self._known.pop(topic, None)
            self._questions.pop(topic, None)

    @property
    def waits_since(self) -> float | None:
        """When the oldest question was asked that has no answer; None: all have one. Any thread may read it."""
        return min(
            (at for _, answer, at in list(self._questions.values()) if not answer.done()), default=None
        )

    def _counts_for(self, topic: str, code: str | None) -> float:
        """For how many seconds the answer counts."""
        if code is None:
            if topic in self._questions:
                return BAD_SECONDS  # there is none yet
            self._pauses.pop(topic, None)
            return GOOD_SECONDS
        most = LONGEST_SECONDS if code.endswith("AUTHORIZATION_FAILED") else MISSING_SECONDS
        pause = min(2 * self._pauses.get(topic, BAD_SECONDS / 2), most)
        self._pauses[topic] = pause
        return pause

    def _ask(self, topics: Collection[str]) -> dict[str, str | None]:
        try:
            admin = self._admin()
            # Another client was called for because this one's question may have gone to a broker that hangs.
            new = [topic for topic in topics if self._questions.get(topic, (None,))[0] is not admin]
            if new:
                asked = admin.describe_topics(TopicCollection(new), include_authorized_operations=True)
                self._questions |= {topic: (admin, future, self._clock()) for topic, future in asked.items()}
        except KafkaException:
            return dict.fromkeys(topics)
        wait([self._questions[topic][1] for topic in topics], WAIT_SECONDS)
        done = [topic for topic in topics if self._questions[topic][1].done()]
        return dict.fromkeys(topics) | {topic: _code(self._questions.pop(topic)[1]) for topic in done}


def _code(question: Future[Any]) -> str | None:
    try:
        operations = question.result().authorized_operations
    except KafkaException as error:
        code: KafkaError = error.args[0]
        return str(code.name()) if code.name() in TOPIC_CODES else None
    if operations and AclOperation.WRITE not in operations and AclOperation.ALL not in operations:
        return "TOPIC_AUTHORIZATION_FAILED"
    return None
