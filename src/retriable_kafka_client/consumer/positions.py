"""Where partitions go on: what the group has committed for them, with the topic's id."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.group_offsets import GroupOffsets, Question
from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.topic_checks import TopicDirectory
from retriable_kafka_client.core.protocol import Place, Restored

__all__ = ["Positions"]

QUICK_SECONDS = 0.1  # the loop waits no longer for an answer; what takes longer is asked beside it
NEAR_SECONDS = 0.03  # brokers that answer so soon are asked by the loop itself


class Positions:
    """Asks for the positions of what was assigned. The loop's thread only.

    The loop's own client is asked once, which answers at once where the brokers are near. What it does not answer in time is
    asked of ``offsets``, whose answers count for the assignment for which they were asked, and for no later one.
    """

    def __init__(self, errors: ClientErrors, offsets: GroupOffsets) -> None:
        # Assigned, and the position is not known yet; None: not asked yet.
        self._pending: dict[Place, Question | None] = {}
        self._errors = errors
        self._offsets = offsets
        self._near = True  # the brokers answer quickly, as far as we know
        self._probe_at = 0.0  # monotonic; when the next probe may be sent
        self._probe: list[Question] = []  # a question that is only to show whether the coordinator answers

    def __len__(self) -> int:
        """How many are not known yet."""
        return len(self._pending)

    def want(self, places: Iterable[Place]) -> None:
        """These were assigned."""
        for place in places:
            self._withdraw(place)
            self._pending[place] = None

    def drop(self, places: Iterable[Place]) -> None:
        """These are ours no longer: an answer that is under way counts for nothing."""
        for place in places:
            self._withdraw(place)

    def _withdraw(self, place: Place) -> None:
        question = self._pending.pop(place, None)
        if question is not None:
            question.withdrawn = True

    def ask(
        self,
        consumer: Any,
        directory: TopicDirectory,
        assigned: Collection[Place],
        renewed: Collection[str],
        now: float,
    ) -> list[Restored]:
        """Ask for what is pending, or, while the brokers are in doubt, whether they answer; returns what has come.

        ``renewed``: topics that were made anew; without a position, they are read from their beginning.
        """
        if self._offsets.failure is not None:
            raise self._offsets.failure
        if not self._pending:
            self._look_for_brokers(consumer, directory, assigned, now)
            return []
        found: dict[Place, tuple[int, str]] = {}
        new: list[Place] = []
        for place, question in self._pending.items():
            if directory.facts(place.topic) is None:
                if question is not None and question.answer is not None:
                    # The topic may have been made anew since: asked again once it is known.
                    self._pending[place] = None
            elif question is None:
                new.append(place)
            elif question.answer is not None:
                found[place] = question.answer
            elif question.code is not None:
                what = f"topic {place.topic}" if question.code.startswith("TOPIC") else None
                self._errors.refused(what, question.code)
                question.code = None
        if new:
            quick = self._ask_quickly(consumer, new)
            found.update(quick)
            for asked in self._offsets.ask(place for place in new if place not in quick):
                self._pending[asked.place] = asked
        if found:
            self._errors.group_is_well()
        return [self._restored(place, found[place], directory, renewed) for place in found]

    def _ask_quickly(self, consumer: Any, places: Collection[Place]) -> dict[Place, tuple[int, str]]:
        """What the loop's own client answers within 0.1 s."""
        measured = self._offsets.round_trip
        if measured is not None:
            self._near = measured < NEAR_SECONDS
        if not self._near:
            return {}
        try:
            answers = consumer.committed([TopicPartition(*place) for place in places], QUICK_SECONDS)
        except KafkaException as error:
            if error_name(error) == "_TIMED_OUT":
                self._near = False
            else:
                self._errors.refused(None, error_name(error))
            return {}
        return {
            Place(one.topic, one.partition): (one.offset, one.metadata or "")
            for one in answers
            if one.error is None
        }

    def _look_for_brokers(
        self, consumer: Any, directory: TopicDirectory, assigned: Collection[Place], now: float
    ) -> None:
        answered = any(question.answer is not None for question in self._probe)
        if answered or not self._errors.group_in_doubt:
            for question in self._probe:
                question.withdrawn = True
            self._probe = []
        if answered:
            self._errors.group_is_well()
        elif not self._errors.group_in_doubt:
            return
        elif now >= self._probe_at:
            self._probe_at = now + 1.0
            name = directory.any_name()
            places = list(assigned)[:1] or ([Place(name, 0)] if name is not None else [])
            if not places:
                return
            if self._ask_quickly(consumer, places):
                self._errors.group_is_well()
            elif not self._probe:
                self._probe = self._offsets.ask(places)

    def _restored(
        self, place: Place, answer: tuple[int, str], directory: TopicDirectory, renewed: Collection[str]
    ) -> Restored:
        facts = directory.facts(place.topic)
        assert facts is not None
        position, metadata = answer
        del self._pending[place]
        return Restored(
            place=place,
            position=position if position >= 0 else None,
            metadata=metadata,
            uid=facts.uid,
            retention_ms=facts.retention_ms,
            cluster=directory.cluster_id,
            topic_id=facts.topic_id,
            fallback_uid=facts.fallback_uid,
            earliest=place.topic in renewed and position < 0,
        )
