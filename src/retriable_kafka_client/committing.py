"""Commits on their way to the broker, and what became of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from retriable_kafka_client.client import error_name
from retriable_kafka_client.core.protocol import Commit, Place, Progress

__all__ = ["Committer", "Outcome", "positions_of", "said_by"]

ASK_SECONDS = 0.1  # one try to read the group's positions
PAUSE_SECONDS = 0.01


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
        self._unanswered: deque[Commit] = deque()
        self._since = 0.0  # monotonic; when the oldest of them was sent, or came to be the oldest

    def send(self, commit: Commit) -> Outcome | None:
        """Send it; the outcome if the client refuses it at once."""
        try:
            self._consumer.commit(offsets=positions_of(commit.progress), asynchronous=True)
        except KafkaException as error:
            return Outcome(commit, commit.failed(error_name(error)))
        if not self._unanswered:
            self._since = time.monotonic()
        self._unanswered.append(commit)
        return None

    def unanswered_for(self, now: float) -> float:
        """For how many seconds a commit has been without an answer."""
        return now - self._since if self._unanswered else 0.0

    def answered(self, error: KafkaError | None, partitions: Sequence[Any] | None) -> Outcome | None:
        """Match the client's answer with what was sent; None for a commit that was read back."""
        given = partitions or ()
        positions = {(one.topic, one.partition, one.offset) for one in given}
        for commit in self._unanswered:
            if not positions or {(*one.place, one.position) for one in commit.progress} == positions:
                break
        else:
            return None
        self._unanswered.remove(commit)
        self._since = time.monotonic()
        codes = {Place(one.topic, one.partition): one.error.name() for one in given if one.error is not None}
        if error is not None and not codes:
            codes = commit.failed(error.name())
        return Outcome(commit, codes)

    def give_up(self) -> list[Outcome]:
        """The client is done with: of what is without an answer there will be none."""
        given_up = [Outcome(commit, commit.failed("_DESTROY")) for commit in self._unanswered]
        self._unanswered.clear()
        return given_up

    def landed(self, commit: Commit, deadline: float) -> bool:
        """Send it and read back until it is in, or until ``deadline`` (monotonic). Blocks."""
        try:
            self._consumer.commit(offsets=positions_of(commit.progress), asynchronous=True)
        except KafkaException:
            return False
        wanted = {one.place: (one.position, one.metadata) for one in commit.progress}
        asked = [TopicPartition(*place) for place in wanted]
        while True:
            try:
                answers = self._consumer.committed(asked, ASK_SECONDS)
            except KafkaException:
                answers = []
            if said_by(answers) == wanted:
                return True
            if time.monotonic() >= deadline or self._hurried():
                return False
            time.sleep(PAUSE_SECONDS)


def positions_of(progress: Iterable[Progress]) -> list[TopicPartition]:
    """The progress as the client takes it."""
    return [TopicPartition(*one.place, one.position, one.metadata) for one in progress]


def said_by(answers: Iterable[Any]) -> dict[Place, tuple[int, str]]:
    """Positions and metadata, by partition, from what the client says is committed."""
    return {Place(one.topic, one.partition): (one.offset, one.metadata or "") for one in answers}
