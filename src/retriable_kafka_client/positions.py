"""Where partitions go on: what the group has committed for them, with the topic's id."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from retriable_kafka_client.client import error_name
from retriable_kafka_client.client_errors import ClientErrors
from retriable_kafka_client.core.protocol import Place, Restored
from retriable_kafka_client.topics import Directory

__all__ = ["Positions"]

COMMITTED_SECONDS = 0.1  # one try to read the group's positions


class Positions:
    """Asks for the positions of what was assigned, in short tries between the loop's rounds."""

    def __init__(self, errors: ClientErrors) -> None:
        self.pending: set[Place] = set()  # assigned, position not known yet
        self._errors = errors
        self._probe_at = 0.0

    def ask(
        self,
        consumer: Any,
        directory: Directory,
        assigned: Collection[Place],
        renewed: Collection[str],
        now: float,
    ) -> list[Restored]:
        """Ask once: for what is pending, or, while the brokers are in doubt, for one that shows whether they answer.

        ``renewed``: topics that were made anew; without a position, they are read from their beginning.
        """
        places = [place for place in self.pending if directory.facts(place.topic) is not None]
        probing = not places and self._errors.group_in_doubt and now >= self._probe_at
        if probing:
            self._probe_at = now + 1.0
            name = directory.any_name()
            places = list(assigned)[:1] or ([Place(name, 0)] if name is not None else [])
        if not places:
            return []
        try:
            answers = consumer.committed([TopicPartition(*place) for place in places], COMMITTED_SECONDS)
        except KafkaException as error:
            if error_name(error) != "_TIMED_OUT":
                self._errors.refused(None, error_name(error))
            return []
        self._errors.group_is_well()
        return [] if probing else self._read(answers, directory, renewed)

    def _read(
        self, answers: Collection[Any], directory: Directory, renewed: Collection[str]
    ) -> list[Restored]:
        found: list[Restored] = []
        for answer in answers:
            place = Place(answer.topic, answer.partition)
            facts = directory.facts(place.topic)
            if answer.error is not None or facts is None:
                continue  # for instance locked by an open transaction: asked again in the next round
            self.pending.discard(place)
            found.append(
                Restored(
                    place=place,
                    position=answer.offset if answer.offset >= 0 else None,
                    metadata=answer.metadata or "",
                    uid=facts.uid,
                    retention_ms=facts.retention_ms,
                    cluster=directory.cluster_id,
                    topic_id=facts.topic_id,
                    untold_uid=facts.untold_uid,
                    earliest=place.topic in renewed and answer.offset < 0,
                )
            )
        return found
