"""The hand-off producer: retry copies, dead letters, parked messages and what handlers send. Only the loop's thread
touches it.
"""

from __future__ import annotations

import time
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
from retriable_kafka_client.brokers.error_codes import is_fatal, no_broker
from retriable_kafka_client.brokers.reachability import AskBrokers, BrokerReachability
from retriable_kafka_client.brokers.setting_values import queue_bytes
from retriable_kafka_client.core.protocol import (
    HandOff,
    HandOffAnswered,
    Publication,
    Published,
)
from retriable_kafka_client.sending.batching import LARGEST_COPY, Batching, BatchLimits, batching_of
from retriable_kafka_client.sending.mixed_sends import MixedSends
from retriable_kafka_client.sending.parcels import Parcel, copy_parcel, output_parcel

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
        self._reachability: dict[Batching, BrokerReachability] = {}
        self._topic: str | None = None  # the last one that was written to
        self._producers: dict[Batching, Producer] = {}
        self._answers: list[HandOffAnswered | Published] = []
        self._broken: dict[Batching, KafkaError] = {}  # producers that met a fatal error
        self._unanswered = 0  # copies and publications that the brokers have neither acknowledged nor refused
        queue = queue_bytes(self._settings)
        self._sends = MixedSends(
            self._producer, limits, budget=min(BUDGET, queue // 2), retry_alone=True, failed=self._failed
        )

    def _producer(self, batching: Batching) -> Producer:
        if batching not in self._producers:
            settings = self._settings
            if batching is Batching.ALONE:
                # What it holds is counted here: any one copy must fit, however small the queue.
                settings = whole_queue_settings(single_record_settings(settings))
            self._producers[batching] = open_client(Producer, settings)
            if self._ask is not None:
                self._reachability[batching] = BrokerReachability(self._ask)
        return self._producers[batching]

    def send(self, handoff: HandOff) -> None:
        """Put the copy on its way; never blocks."""
        self._unanswered += 1
        parcel = copy_parcel(handoff, self._clock(), partial(self._answered, handoff))
        self._send(parcel, refused_before=handoff.tries > 0)

    def publish(self, publication: Publication) -> None:
        """Put a handler's outputs on their way; never blocks."""
        self._unanswered += 1
        outputs = _Outputs(publication)
        if not publication.outputs:
            self._published(outputs)
        for output in publication.outputs:
            self._send(output_parcel(output, partial(self._output_settled, outputs)))

    def poll(self) -> list[HandOffAnswered | Published]:
        """Serve the client without waiting, and return what has become certain since the last call."""
        if self._unanswered:
            for batching, producer in list(self._producers.items()):
                try:
                    producer.poll(0)
                except KafkaException as error:  # a fatal one, such as no right to write anywhere
                    self._renew(batching, error.args[0])
                    continue
                reach = self._reachability.get(batching)
                if reach is not None and reach.should_replace(producer, self._topic, time.monotonic()):
                    self._renew(batching, no_broker())
        self._sends.advance()
        for batching, reason in list(self._broken.items()):
            self._renew(batching, reason)
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

    def _renew(self, batching: Batching, reason: KafkaError) -> None:
        """A client that met a fatal error, or does not find the brokers, sends nothing any more: another takes its place."""
        producer = self._producers.pop(batching, None)
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

    def _send(self, parcel: Parcel, *, refused_before: bool = False) -> None:
        self._topic = parcel.topic
        # It may have been refused for a neighbour's sake.
        alone = refused_before or batching_of(parcel, self._limits.limit(parcel.topic)) is Batching.ALONE
        self._sends.send(parcel, Batching.ALONE if alone else Batching.SHARED)

    def _failed(self, batching: Batching, error: KafkaError) -> None:
        if is_fatal(error):
            self._broken[batching] = error

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
