"""The hand-off producer: retry copies, dead letters, parked messages and what handlers send. Only the loop's thread
touches it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.brokers.client import open_client
from retriable_kafka_client.brokers.derived_settings import (
    copies_settings,
    single_record_settings,
    whole_queue_settings,
)
from retriable_kafka_client.brokers.error_codes import is_fatal, is_too_large, no_broker
from retriable_kafka_client.brokers.reachability import AskBrokers, BrokerReachability
from retriable_kafka_client.brokers.setting_values import queue_bytes
from retriable_kafka_client.core.protocol import (
    HandOff,
    HandOffAnswered,
    Publication,
    Published,
)
from retriable_kafka_client.sending.chunked_sends import BatchLimits, ChunkedSends, Parcel
from retriable_kafka_client.sending.parcels import LARGE, LARGEST_COPY, copy_parcel, output_parcel
from retriable_kafka_client.sending.splitting import UNKNOWN_LIMIT, fits

__all__ = ["HandOffProducer"]

BUDGET = 32 * 1024 * 1024  # bytes of large copies in the client, if its queue is not smaller than twice that


class _Outputs:
    """A publication until all of its outputs are settled."""

    __slots__ = ("code", "left", "publication")

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.left = len(publication.outputs)
        self.code: str | None = None  # of the first that was refused


class HandOffProducer:
    """Sends copies and publications, and collects what became of them.

    What is above its topic's limit goes in chunks and is answered as one. The client never times a copy out by itself (a
    time-out may mean "written"), so every answer is definite but one: after a fatal error of the client its unanswered
    copies are unknown, and are reported as refused; they may then stand twice.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        clock: Callable[[], float],
        limits: BatchLimits,
        ask: AskBrokers | None = None,
    ) -> None:
        """``ask`` asks the brokers with another client: one that does not find them any more is replaced."""
        self._settings = copies_settings(settings, LARGEST_COPY)
        self._clock = clock  # wall seconds; stamps dead letters
        self._limits = limits
        self._ask = ask
        self._reachability: dict[bool, BrokerReachability] = {}
        self._topic: str | None = None  # the last one that was written to
        self._producers: dict[bool, Producer] = {}  # by whether each copy goes in a request of its own
        self._backlog: deque[Parcel] = deque()  # the client's queue was full
        self._answers: list[HandOffAnswered | Published] = []
        self._broken: dict[bool, KafkaError] = {}  # producers that met a fatal error
        self._unanswered = 0  # copies and publications that the brokers have neither acknowledged nor refused
        queue = queue_bytes(self._settings)
        self._chunked = ChunkedSends(
            lambda: self._producer(single=True),
            limits,
            client_limit=LARGEST_COPY,
            budget=min(BUDGET, queue // 2),
        )

    def _producer(self, *, single: bool) -> Producer:
        if single not in self._producers:
            # What the single one holds is counted here: any one copy must fit, however small the queue.
            own = whole_queue_settings(single_record_settings(self._settings)) if single else self._settings
            self._producers[single] = open_client(Producer, own)
            if self._ask is not None:
                self._reachability[single] = BrokerReachability(self._ask)
        return self._producers[single]

    def send(self, handoff: HandOff) -> None:
        """Put the copy on its way; never blocks."""
        self._unanswered += 1
        # A broker that finds one record too large refuses the whole request, its neighbours with it: what was refused
        # goes alone.
        parcel = copy_parcel(handoff, self._clock(), partial(self._answered, handoff))
        self._go(parcel, alone=handoff.tries > 0)

    def publish(self, publication: Publication) -> None:
        """Put a handler's outputs on their way; never blocks."""
        self._unanswered += 1
        outputs = _Outputs(publication)
        if not publication.outputs:
            self._published(outputs)
        for output in publication.outputs:
            self._go(output_parcel(output, partial(self._output_settled, outputs)), alone=False)

    def poll(self) -> list[HandOffAnswered | Published]:
        """Serve the client without waiting, and return what has become certain since the last call."""
        if self._unanswered:
            for single, producer in list(self._producers.items()):
                try:
                    producer.poll(0)
                except KafkaException as error:  # a fatal one, such as no right to write anywhere
                    self._renew(single, error.args[0])
                    continue
                reach = self._reachability.get(single)
                if reach is not None and reach.should_replace(producer, self._topic, time.monotonic()):
                    self._renew(single, no_broker())
        while self._backlog and self._produce(self._backlog[0]):
            self._backlog.popleft()
        if self._chunked:
            self._chunked.advance()
        for single, reason in list(self._broken.items()):
            self._renew(single, reason)
        self._broken.clear()
        answers, self._answers = self._answers, []
        return answers

    def close(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for what is on its way, then drop the rest."""
        deadline = time.monotonic() + timeout
        while self._unanswered and self._producers and time.monotonic() < deadline:
            self.poll()
            for producer in list(self._producers.values()):
                with suppress(KafkaException):  # it met a fatal error
                    producer.flush(min(0.02, max(0.0, deadline - time.monotonic())))
        for producer in self._producers.values():
            with suppress(KafkaException):
                if producer.flush(0):
                    producer.purge()
                    producer.flush(0.5)

    def _renew(self, single: bool, reason: KafkaError) -> None:
        """A client that met a fatal error, or does not find the brokers, sends nothing any more: another takes its place."""
        producer = self._producers.pop(single, None)
        if producer is None:
            return
        answered = len(self._answers)
        with suppress(KafkaException):
            producer.purge()
            producer.flush(0.5)
        # Why it broke says more than that its copies were purged.
        self._answers[answered:] = [
            one if one.code is None else replace(one, code=reason.name()) for one in self._answers[answered:]
        ]

    def _go(self, parcel: Parcel, *, alone: bool) -> None:
        self._topic = parcel.topic
        size = 0 if parcel.source is None else parcel.source.size
        headers = [*parcel.headers, *parcel.whole] if parcel.whole else parcel.headers
        limit = self._limits.limit(parcel.topic) or UNKNOWN_LIMIT
        if alone or size > LARGE or not fits(size, limit, LARGEST_COPY, parcel.key, headers):
            self._apart(parcel)
        elif self._backlog or not self._produce(parcel):
            self._backlog.append(parcel)

    def _apart(self, parcel: Parcel) -> None:
        """Send it in a request of its own, or in several."""
        parcel.settle = partial(self._apart_settled, parcel.settle)
        self._chunked.add(parcel)
        self._chunked.advance()

    def _produce(self, parcel: Parcel) -> bool:
        """Whether the client took it among others, or refused it for good."""
        source = parcel.source
        try:
            self._producer(single=False).produce(
                parcel.topic,
                value=None if source is None else source.read(0, source.size),
                key=parcel.key,
                headers=[*parcel.headers, *parcel.whole] if parcel.whole else list(parcel.headers),
                on_delivery=partial(self._delivered, parcel),
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._delivered(parcel, error.args[0], None)
        return True

    def _delivered(self, parcel: Parcel, error: KafkaError | None, report: Any) -> None:
        if is_too_large(error):
            self._apart(parcel)  # it may have been its neighbours
            return
        if error is not None and is_fatal(error):
            self._broken[False] = error
        parcel.settle(error, report)

    def _apart_settled(
        self, settle: Callable[[KafkaError | None, Any], None], error: KafkaError | None, report: Any
    ) -> None:
        if error is not None and is_fatal(error):
            self._broken[True] = error
        settle(error, report)

    def _answered(self, handoff: HandOff, error: KafkaError | None, _report: object) -> None:
        self._unanswered -= 1
        self._answers.append(HandOffAnswered(handoff, None if error is None else error.name()))

    def _output_settled(self, outputs: _Outputs, error: KafkaError | None, _report: object) -> None:
        outputs.left -= 1
        if error is not None and outputs.code is None:
            outputs.code = error.name()
        if not outputs.left:
            self._published(outputs)

    def _published(self, outputs: _Outputs) -> None:
        self._unanswered -= 1
        self._answers.append(Published(outputs.publication, outputs.code))
