"""Whether topics can be written to, asked before a transaction begins.

A transaction waits for all of its records. One for a topic that is not there would hold up the others until it times out,
and a topic that must not be written to breaks the whole transaction without a word about which one it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
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

ASK_SECONDS = 5.0
GOOD_SECONDS = 30.0  # how long a yes counts
BAD_SECONDS = 1.0
NEW_SECONDS = 0.5  # a topic that was made just now is not known to every broker
STEP_SECONDS = 0.1


class Writable:
    """Remembers the answers for a while. One thread calls it; it blocks while it asks."""

    def __init__(self, admin: Callable[[], AdminClient], clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._known: dict[str, tuple[float, str | None]] = {}  # until when, and the code of a no

    def refusals(self, topics: Collection[str]) -> dict[str, str]:
        """Those that cannot be written to, with the code. Where nobody answers, the transaction shall find out."""
        now = self._clock()
        unknown = [topic for topic in topics if self._known.get(topic, (0.0, None))[0] <= now]
        deadline = now + NEW_SECONDS
        while unknown:
            again = []
            for topic, code in self._ask(unknown).items():
                if code == "UNKNOWN_TOPIC_OR_PART" and self._clock() < deadline:
                    again.append(topic)
                    continue
                until = self._clock() + (GOOD_SECONDS if code is None else BAD_SECONDS)
                self._known[topic] = (until, code)
            unknown = again
            if unknown:
                time.sleep(STEP_SECONDS)
        found = {topic: self._known.get(topic, (0.0, None))[1] for topic in topics}
        return {topic: code for topic, code in found.items() if code is not None}

    def forget(self, topics: Collection[str]) -> None:
        """Ask for these again."""
        for topic in topics:
            self._known.pop(topic, None)

    def _ask(self, topics: Collection[str]) -> dict[str, str | None]:
        try:
            questions = self._admin().describe_topics(
                TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=ASK_SECONDS
            )
        except KafkaException:
            return dict.fromkeys(topics)
        return {topic: _code(question) for topic, question in questions.items()}


def _code(question: Any) -> str | None:
    try:
        operations = question.result(ASK_SECONDS + 1.0).authorized_operations
    except KafkaException as error:
        code: KafkaError = error.args[0]
        return str(code.name()) if code.name() in TOPIC_CODES else None
    except TimeoutError:
        return None
    if operations and AclOperation.WRITE not in operations and AclOperation.ALL not in operations:
        return "TOPIC_AUTHORIZATION_FAILED"
    return None
