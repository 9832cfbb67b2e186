"""Commits on their way to the broker, and what became of them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.group_offsets import positions_of, said_by
from retriable_kafka_client.core.protocol import Commit, Place

__all__ = ["Committer", "Outcome"]

# For the first try to read the group's positions, at least; each further one gets twice the time.
FIRST_SECONDS = 0.1
PAUSE_SECONDS = 0.01
AGAIN_SECONDS = 2.0  # until a commit that is not in, though the brokers answer, is sent once more
REFUSED_SECONDS = 5.0  # of such answers, until it counts as refused
ROUND_TRIPS = 3  # longer than so many, and an answer is late
# Seconds. A commit that has waited an outage out says nothing of how far away the brokers are.
MOST_ALLOWANCE = 30.0


class Outcome(NamedTuple):
    """What the broker said to a commit: an error code for each partition that was not committed."""

    commit: Commit
    codes: Mapping[Place, str]


class Committer:
    """Sends commits without waiting, and, where no answer can arrive, reads back whether one is in.

    Only the loop's thread calls it. A commit that waits for its answer is never used: with a broker that hangs it does not
    return for minutes, whatever the time-outs are.
    """

    def __init__(self, consumer: Any, hurried: Callable[[], bool]) -> None:
        self._consumer = consumer
        self._hurried = hurried  # whether to stop waiting at once
        self._unanswered: deque[tuple[Commit, float]] = deque()  # with the time when it was sent (monotonic)
        self._took = 0.0  # seconds until the last answer; 0: there was none yet
        self._since = 0.0  # monotonic; when the oldest of them was sent, or came to be the oldest

    def send(self, commit: Commit) -> Outcome | None:
        """Send it; the outcome if the client refuses it at once."""
        try:
            self._consumer.commit(offsets=positions_of(commit.progress), asynchronous=True)
        except KafkaException as error:
            return Outcome(commit, commit.failed(error_name(error)))
        now = time.monotonic()
        if not self._unanswered:
            self._since = now
        self._unanswered.append((commit, now))
        return None

    @property
    def waits(self) -> bool:
        """Whether a commit is without an answer."""
        return bool(self._unanswered)

    @property
    def allowance(self) -> float:
        """Seconds that are to be added to any wait for the group's coordinator, for as far away as it is."""
        return min(ROUND_TRIPS * self._took, MOST_ALLOWANCE)

    def unanswered_for(self, now: float) -> float:
        """For how many seconds a commit has been without an answer."""
        return now - self._since if self._unanswered else 0.0

    def answered(self, error: KafkaError | None, partitions: Sequence[Any] | None) -> Outcome | None:
        """Match the client's answer with what was sent; None for a commit that was read back."""
        given = partitions or ()
        positions = {(one.topic, one.partition, one.offset) for one in given}
        for sent in self._unanswered:
            commit, sent_at = sent
            if not positions or {(*one.place, one.position) for one in commit.progress} == positions:
                break
        else:
            return None
        self._unanswered.remove(sent)
        self._since = time.monotonic()
        self._took = self._since - sent_at
        codes = {Place(one.topic, one.partition): one.error.name() for one in given if one.error is not None}
        if error is not None and not codes:
            codes = commit.failed(error.name())
        return Outcome(commit, codes)

    def give_up(self) -> list[Outcome]:
        """The client is done with: of what is without an answer there will be none."""
        given_up = [Outcome(commit, commit.failed("_DESTROY")) for commit, _ in self._unanswered]
        self._unanswered.clear()
        return given_up

    def landed(self, commit: Commit, deadline: float) -> bool:
        """Send it and read back until it is in, is refused, or until ``deadline`` (monotonic). Blocks.

        The client throws away an answer that comes later than it was waited for: a try that was too short is followed by
        a longer one. The answer to a commit that was sent before the question is in by then, if there is any.
        """
        wanted = {one.place: (one.position, one.metadata) for one in commit.progress}
        asked = [TopicPartition(*place) for place in wanted]
        patience = max(FIRST_SECONDS, 2 * self._took)
        again_at = refused_at = None
        while True:
            now = time.monotonic()
            if again_at is None or now >= again_at:
                with suppress(KafkaException):
                    self._consumer.commit(offsets=positions_of(commit.progress), asynchronous=True)
                again_at = math.inf
            try:
                answers = self._consumer.committed(asked, max(FIRST_SECONDS, min(patience, deadline - now)))
            except KafkaException as error:
                if error_name(error) == "_TIMED_OUT":
                    patience *= 2
                elif refused_at is None and error_name(error).endswith("AUTHORIZATION_FAILED"):
                    refused_at = now + REFUSED_SECONDS + self.allowance
            else:
                if said_by(answers) == wanted:
                    self._took = time.monotonic() - now
                    return True
                if again_at == math.inf:
                    again_at = now + AGAIN_SECONDS + self.allowance
                if refused_at is None:
                    refused_at = now + REFUSED_SECONDS + self.allowance
            now = time.monotonic()
            if now >= min(deadline, refused_at or deadline) or self._hurried():
                return False
            time.sleep(PAUSE_SECONDS)
