"""What a consumer of a 0.x program logs of the messages that it could not handle."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from retriable_kafka_client import events
from retriable_kafka_client.compat.config import ConsumeTopicConfig

__all__ = ["Reporter"]

log = logging.getLogger("retriable_kafka_client.compat")

# Single chunks of a message that will never be whole. The library warns once, of the message.
_CHUNKS = frozenset((events.REASON_INCOMPLETE, events.REASON_ORPHAN, events.REASON_CORRUPT))


class Reporter:
    """Takes a consumer's events and logs one line for each message that is given up. On the thread of ``on_event``."""

    def __init__(self, group: str, topics: Iterable[ConsumeTopicConfig]) -> None:
        self._group = group
        self._base = {one.retry_topic: one.base_topic for one in topics if one.retry_topic}
        self._given_up = 0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.MessageRetried():
                log.info(
                    "group %s: run %d of a message of topic %s failed (%s); it runs again in %g s, from %s",
                    self._group,
                    event.attempt,
                    self._named(event),
                    event.error or event.reason,
                    event.delay,
                    event.retry_topic,
                )
            case events.MessageDropped(reason=reason) | events.MessageDeadLettered(reason=reason) if (
                reason in _CHUNKS
            ):
                pass
            case events.MessageDropped():
                self._give_up(event, "dropped: no dead_letter_topic is named")
            case events.MessageDeadLettered():
                self._give_up(event, f"put into {event.dead_letter_topic}")
            case _:
                pass

    def _give_up(self, event: events.MessageDropped | events.MessageDeadLettered, where: str) -> None:
        self._given_up += 1
        log.error(
            "group %s: a message of topic %s is given up (%s%s, runs: %d) and %s; %d so far",
            self._group,
            self._named(event),
            event.reason,
            "" if event.error is None else f", {event.error}",
            event.attempts,
            where,
            self._given_up,
        )

    def _named(
        self, event: events.MessageRetried | events.MessageDropped | events.MessageDeadLettered
    ) -> str:
        place = f"{event.topic}, partition {event.partition}, offset {event.offset}"
        base = self._base.get(event.topic)
        return place if base is None else f"{base}, read from {place}"
