"""Reading what the group has committed, beside the consumer: however far away the brokers are, and whatever is locked.

The consumer's own client would do it on the loop's thread, and throws an answer away that comes too late. This one has a
client and a thread of its own, which are there only while something is asked, and a little longer. It joins no group.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from retriable_kafka_client.brokers.client import close_in_time, open_client
from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.reachability import LOST_SECONDS, MOST_LOST_SECONDS
from retriable_kafka_client.core.protocol import Place, Progress

__all__ = ["GroupOffsets", "Question", "positions_of", "said_by"]

IDLE_SECONDS = 10.0  # with nothing to ask, and as many round trips more, until the client and the thread end
PATIENCE_SECONDS = 0.5  # with one question, at least; else by how long the brokers take
ROUND_TRIPS = 3  # longer than so many, and it waits for something else than the way
AGAIN_SECONDS = 0.25  # until something that was refused, or is locked, is asked for again
LONGEST_SECONDS = 60.0  # the same, doubled each time, for what is refused for want of a right
NOWHERE = 2_147_483_647  # a partition that there is not: its answer waits for no transaction


class Question:
    """What is committed for one partition. The reader's thread writes ``answer`` and ``code``, the asker the rest."""

    __slots__ = ("answer", "code", "pause", "place", "withdrawn")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.answer: tuple[int, str] | None = None  # position (negative: none) and metadata
        self.code: str | None = None  # why there is no answer yet, where the brokers say so
        self.pause = AGAIN_SECONDS  # until it is asked again if it is refused
        self.withdrawn = False  # nobody waits for it any more


class GroupOffsets:
    """What the group has committed. ``ask`` never blocks, and may be called from any thread. An answer is never older than
    its question. Raises nothing: what ended its thread is in ``failure``.

    One partition that is locked by an open transaction makes the client repeat the whole question: what does not come in
    time is asked for in halves, so that the others get their answers. What is in time is measured: a question that nothing
    can lock shows how far away the brokers are.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.round_trip: float | None = None  # seconds; None: not measured yet
        self.failure: BaseException | None = None  # nothing is asked any more
        self._settings = settings
        self._lock = threading.Condition()
        self._new: list[Question] = []
        self._runs = False
        self._closed = False
        self._lost_after = LOST_SECONDS
        self._later: list[
            tuple[float, Question]
        ] = []  # refused, and when they are asked again (monotonic); the thread's

    def ask(self, places: Iterable[Place]) -> list[Question]:
        """One question for each; they are asked from now on until they are answered or withdrawn."""
        questions = [Question(place) for place in places]
        with self._lock:
            if self._closed or not questions:
                return questions
            self._new += questions
            self._lock.notify()
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="rkc-offsets", daemon=True).start()
        return questions

    def close(self) -> None:
        """Ask nothing more. Does not wait."""
        with self._lock:
            self._closed = True
            self._lock.notify()

    # The thread --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        client: Any = None
        groups: deque[list[Question]] = deque()
        try:
            while self._take(groups):
                group = [one for one in groups.popleft() if not one.withdrawn]
                if not group:
                    continue
                if client is None:
                    client = open_client(Consumer, self._settings)
                    self.round_trip = None
                if self.round_trip is not None or self._measure(client, group):
                    self._ask(client, group, groups)
                else:
                    close_in_time(client, 0.0)
                    client = None
                    groups.append(group)
        except BaseException as error:  # noqa: BLE001 - the askers raise it
            self.failure = error
        finally:
            if client is not None:
                close_in_time(client, 0.0)

    def _take(self, groups: deque[list[Question]]) -> bool:
        """Take in what is new, first of all, and what is due again. Waits; False: for long there is nothing to do."""
        with self._lock:
            while not self._closed:
                if self._new:
                    groups.appendleft(self._new)
                    self._new = []
                now = time.monotonic()
                later = [(at, one) for at, one in self._later if not one.withdrawn]
                self._later = [(at, one) for at, one in later if at > now]
                if len(self._later) < len(later):
                    groups.append([one for at, one in later if at <= now])
                if groups:
                    return True
                idle = IDLE_SECONDS * (1.0 + (self.round_trip or 0.0))
                wait = min((at - now for at, _ in self._later), default=idle)
                if not self._lock.wait_for(lambda: self._closed or self._new, wait) and not self._later:
                    break
            self._runs = False  # whoever asks from now on starts another thread
            return False

    def _measure(self, client: Any, group: Sequence[Question]) -> bool:
        """Find out how far away the brokers are; False: there was no answer for so long that the client may be lost."""
        nowhere = [TopicPartition(group[0].place.topic, NOWHERE)]
        deadline = time.monotonic() + self._lost_after
        found = False  # the first answer has found the way, too
        pause = AGAIN_SECONDS
        while not self._closed and time.monotonic() < deadline:
            began = time.monotonic()
            try:
                client.committed(nowhere, max(0.1, deadline - began))
            except KafkaException as error:
                self._refuse(group, error, pause)
                pause = min(2 * pause, LONGEST_SECONDS)
                continue
            if found or time.monotonic() < began + PATIENCE_SECONDS / ROUND_TRIPS:
                self.round_trip = time.monotonic() - began
                self._lost_after = LOST_SECONDS
                return True
            found, deadline = True, time.monotonic() + self._lost_after
        self._lost_after = min(2 * self._lost_after, MOST_LOST_SECONDS)  # it may only be slow
        return False

    def _ask(self, client: Any, group: list[Question], groups: deque[list[Question]]) -> None:
        assert self.round_trip is not None
        patience = max(PATIENCE_SECONDS, ROUND_TRIPS * self.round_trip)
        asked = {one.place: one for one in group if not one.withdrawn}
        again = [one for one in group if asked.get(one.place) is not one]  # two that ask for one partition
        try:
            answers = client.committed([TopicPartition(*place) for place in asked], patience)
        except KafkaException as error:
            self._refuse(group, error, AGAIN_SECONDS)
            if error_name(error) == "_TIMED_OUT":
                self.round_trip = None
                if self._measure(client, group) and self._is_locked(patience) and len(group) > 1:
                    half = len(group) // 2
                    groups.extendleft((group[half:], group[:half]))
                    return
            if error_name(error).endswith("AUTHORIZATION_FAILED"):
                self._put_off(group)
            else:
                groups.append(group)
            return
        for answer in answers:
            question = asked[Place(answer.topic, answer.partition)]
            if answer.error is None:
                question.answer = answer.offset, answer.metadata or ""
            elif str(answer.error.name()).endswith("AUTHORIZATION_FAILED"):
                question.code = str(answer.error.name())
                self._put_off([question])
            else:
                again.append(question)
        if again:
            groups.append(again)
            self._pause(AGAIN_SECONDS)

    def _is_locked(self, patience: float) -> bool:
        return self.round_trip is not None and ROUND_TRIPS * self.round_trip <= patience

    def _put_off(self, refused: Iterable[Question]) -> None:
        """Ask these again later, and ever more rarely: rights come back by somebody's doing alone."""
        for question in refused:
            self._later.append((time.monotonic() + question.pause, question))
            question.pause = min(2 * question.pause, LONGEST_SECONDS)

    def _refuse(self, group: Iterable[Question], error: KafkaException, pause: float) -> None:
        code = error_name(error)
        if code != "_TIMED_OUT":
            for question in group:
                question.code = code
            self._pause(pause)

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._closed or self._new, seconds)


def positions_of(progress: Iterable[Progress]) -> list[TopicPartition]:
    """The progress as the client takes it."""
    return [TopicPartition(*one.place, one.position, one.metadata) for one in progress]


def said_by(answers: Iterable[Any]) -> dict[Place, tuple[int, str]]:
    """Positions and metadata, by partition, from what the client says is committed."""
    return {Place(one.topic, one.partition): (one.offset, one.metadata or "") for one in answers}
