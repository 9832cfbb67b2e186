"""Whether the group has us, where no assignment says so.

With ``group.protocol=consumer`` a member for which no partition is left is told nothing at all. And in no protocol does the
client say that the group has no coordinator. So the brokers are asked, in the background, while we wait to be assigned.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException

from retriable_kafka_client.client import error_name
from retriable_kafka_client.errors import NotReachable

__all__ = ["Membership"]

ASK_SECONDS = 5.0  # for an answer
AGAIN_SECONDS = 3.0  # between two questions
GIVE_UP_SECONDS = 20.0  # without a coordinator: a question more may pass until it is noticed

# What is said of a group that nobody coordinates, by a broker or by the client that looks for one.
_NOBODY = frozenset({"COORDINATOR_NOT_AVAILABLE", "_TIMED_OUT", "_WAIT_COORD"})


class Membership:
    """One thread calls it; nothing blocks.

    ``silent``: the protocol does not tell of an empty assignment.
    """

    def __init__(self, group: str, *, silent: bool) -> None:
        self._group = group
        self._silent = silent
        self._ask_at: float | None = None  # monotonic, as all times here; None: we wait for nothing
        self._question: Future[Any] | None = None
        self._nobody_since: float | None = None

    @property
    def waits(self) -> bool:
        """Whether there is something to find out."""
        return self._ask_at is not None

    def begin(self, now: float) -> None:
        """We wait for an assignment."""
        self._ask_at, self._question, self._nobody_since = now + AGAIN_SECONDS, None, None

    def end(self) -> None:
        """There is one, or nobody waits for it any more."""
        self._ask_at = self._question = None

    def is_known(self, admin: Any, member_id: str, now: float) -> bool:
        """Whether the brokers now count us among the group's members. NotReachable: for long it has had no coordinator."""
        if self._ask_at is None:
            return False
        if self._question is None:
            if now >= self._ask_at:
                asked = admin.describe_consumer_groups([self._group], request_timeout=ASK_SECONDS)
                self._question = asked[self._group]
            return False
        if not self._question.done():
            return False
        question, self._question, self._ask_at = self._question, None, now + AGAIN_SECONDS
        try:
            members = question.result().members
        except KafkaException as error:
            self._missed(error_name(error), now)
            return False
        self._nobody_since = None
        return self._silent and any(one.member_id == member_id for one in members)

    def _missed(self, code: str, now: float) -> None:
        if code not in _NOBODY:
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = now - ASK_SECONDS
        elif now >= self._nobody_since + GIVE_UP_SECONDS:
            raise NotReachable(
                f"group {self._group} has no coordinator: {code}; look whether the brokers could make the topic"
                " __consumer_offsets (offsets.topic.replication.factor is at most the number of brokers)"
            )
