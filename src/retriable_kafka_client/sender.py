"""The hand-off producer: retry copies, dead letters and parked messages. Only the loop's thread touches it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Producer

from retriable_kafka_client.client import open_client
from retriable_kafka_client.core.protocol import HandOff, HandOffKind
from retriable_kafka_client.message import Message
from retriable_kafka_client.wire import Marks, dead_headers, own_headers, write_marks

__all__ = ["Answer", "Sender"]

MAX_ATTEMPTS = 2**31 - 1  # what the header holds
LARGEST_COPY = 1_000_000_000  # bytes; the most that the client takes


class Answer(NamedTuple):
    """What became of a copy: ``code`` None when the broker has it, else why it certainly has not."""

    handoff: HandOff
    code: str | None


class Sender:
    """Sends copies and collects what became of them.

    The client never times a copy out by itself (a time-out may mean "written"), so every answer is definite but one: after
    a fatal error of the client its unanswered copies are unknown, and are reported as refused; they may then stand twice.
    """

    def __init__(self, settings: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self._settings = {
            **settings,
            "topic.metadata.propagation.max.ms": 3000,
            # A copy is a little larger than its record, which may have been as large as its sender's client let it be:
            # what is too large is for the broker to say.
            "message.max.bytes": LARGEST_COPY,
        }
        self._clock = clock  # wall seconds; stamps dead letters
        self._producers: dict[bool, Producer] = {}  # by whether each copy goes in a request of its own
        self._backlog: deque[HandOff] = deque()  # the client's queue was full
        self._answers: list[Answer] = []
        self._broken: dict[bool, KafkaError] = {}  # producers that met a fatal error
        self._unanswered = 0

    def _producer(self, *, single: bool) -> Producer:
        if single not in self._producers:
            settings = self._settings | ({"batch.num.messages": 1, "linger.ms": 0} if single else {})
            self._producers[single] = open_client(Producer, settings)
        return self._producers[single]

    @property
    def unanswered(self) -> int:
        """Copies of which it is not known yet whether the broker has them."""
        return self._unanswered + len(self._backlog)

    def send(self, handoff: HandOff) -> None:
        """Put the copy on its way; never blocks."""
        if self._backlog or not self._produce(handoff):
            self._backlog.append(handoff)

    def poll(self) -> list[Answer]:
        """Serve the client without waiting, and return what has become certain since the last call."""
        if self._unanswered:
            for single, producer in list(self._producers.items()):
                try:
                    producer.poll(0)
                except KafkaException as error:  # a fatal one, such as no right to write anywhere
                    self._renew(single, error.args[0])
        while self._backlog and self._produce(self._backlog[0]):
            self._backlog.popleft()
        for single, reason in self._broken.items():
            self._renew(single, reason)
        self._broken.clear()
        answers, self._answers = self._answers, []
        return answers

    def close(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for what is on its way, then drop the rest."""
        for producer in self._producers.values():
            with suppress(KafkaException):  # it met a fatal error
                if producer.flush(timeout):
                    producer.purge()
                    producer.flush(0.5)

    def _renew(self, single: bool, reason: KafkaError) -> None:
        """A client that met a fatal error sends nothing any more: another one takes its place."""
        producer = self._producers.pop(single, None)
        if producer is None:
            return
        answered = len(self._answers)
        with suppress(KafkaException):
            producer.purge()
            producer.flush(0.5)
        # Why it broke says more than that its copies were purged.
        self._answers[answered:] = [Answer(one.handoff, reason.name()) for one in self._answers[answered:]]

    def _produce(self, handoff: HandOff) -> bool:
        """Whether the client took it, or refused it for good."""
        raw = handoff.entry.raw
        # A broker that finds one record too large refuses the whole request, its neighbours with it: what was refused
        # goes alone.
        producer = self._producer(single=handoff.tries > 0)
        try:
            producer.produce(
                handoff.target,
                value=raw.value(),
                key=_key(handoff),
                headers=self._headers(handoff),
                on_delivery=partial(self._delivered, handoff),
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._answered(handoff, error.args[0])
            return True
        self._unanswered += 1
        return True

    def _headers(self, handoff: HandOff) -> list[tuple[str, str | bytes | None]]:
        raw, marks, failure = handoff.entry.raw, handoff.marks, handoff.failure
        if marks.origin_timestamp_ms is None:
            kind, timestamp_ms = raw.timestamp()
            if kind != TIMESTAMP_NOT_AVAILABLE and timestamp_ms >= 0:
                marks = replace(marks, origin_timestamp_ms=timestamp_ms)
        headers: list[tuple[str, str | bytes | None]] = list(own_headers(raw.headers()))
        if handoff.kind is HandOffKind.DEAD_LETTER:
            assert failure is not None
            headers += dead_headers(
                marks,
                reason=failure.reason,
                error=failure.error,
                error_text=failure.text,
                attempts=min(handoff.attempts, MAX_ATTEMPTS),
                time_ms=int(self._clock() * 1000),
            )
            chunk = handoff.entry.marks.chunk
            if chunk is not None and chunk.count > 1:
                headers += write_marks(Marks(chunk=chunk))  # it is one of several still
        else:
            headers += write_marks(marks)
        return headers

    def _delivered(self, handoff: HandOff, error: KafkaError | None, _message: object) -> None:
        self._unanswered -= 1
        if error is None:
            self._answers.append(Answer(handoff, None))
        else:
            self._answered(handoff, error)

    def _answered(self, handoff: HandOff, error: KafkaError) -> None:
        self._answers.append(Answer(handoff, error.name()))
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._broken[handoff.tries > 0] = error


def _key(handoff: HandOff) -> bytes | None:
    entry = handoff.entry
    if entry.marks.chunk is not None and entry.marks.chunk.count > 1:
        return cast("bytes | None", entry.raw.key())
    return Message(entry.raw, entry.marks, "", _undecoded).key


def _undecoded(body: bytes, _message: Message[Any]) -> bytes:
    return body
