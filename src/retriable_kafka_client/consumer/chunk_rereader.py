"""Reading a part of a log again, beside what is consumed: chunks that were cut for want of memory.

A client of its own, so that the group's position and prefetch stay as they are. It joins no group and commits nothing. Only
the loop's thread touches it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from retriable_kafka_client.brokers.client import close_in_time, open_client
from retriable_kafka_client.brokers.derived_settings import rereader_settings
from retriable_kafka_client.brokers.error_codes import is_end_of_log, is_fatal
from retriable_kafka_client.brokers.reachability import LOST_SECONDS, MOST_LOST_SECONDS
from retriable_kafka_client.core.protocol import CancelRecall, Recall, Recalled, RecallEnded

__all__ = ["ChunkRereader"]

CLOSE_SECONDS = 2.0


class ChunkRereader:
    """Performs one ``Recall`` at a time. Makes its client when it is first needed. The loop's thread only."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = rereader_settings(settings)
        self._client: Any = None
        self._recall: Recall | None = None
        self._heard_at = 0.0  # monotonic
        self._lost_after = LOST_SECONDS  # doubled each time: it may only be slow

    def perform(self, command: Recall | CancelRecall) -> None:
        """Begin, or end, as the engine says."""
        if isinstance(command, Recall):
            self.begin(command)
        else:
            self.cancel(command.recall)

    def begin(self, recall: Recall) -> None:
        """Read this from now on."""
        if self._client is None:
            self._client = open_client(Consumer, self._settings)
        self._recall, self._heard_at = recall, time.monotonic()
        self._client.assign([TopicPartition(*recall.place, recall.first)])

    def cancel(self, recall: Recall) -> None:
        """Read this no longer."""
        if self._recall is recall:
            self._stop()

    def poll(self, most: int) -> list[Recalled | RecallEnded]:
        """What has come since the last call, at most ``most`` records. Never waits."""
        recall = self._recall
        if recall is None:
            return []
        try:
            batch = self._client.consume(most, 0)
        except KafkaException:
            self._stop()
            return [RecallEnded(recall, reached=False)]
        if batch:
            self._heard_at, self._lost_after = time.monotonic(), LOST_SECONDS
        elif time.monotonic() >= self._heard_at + self._lost_after:
            self._lost_after = min(2 * self._lost_after, MOST_LOST_SECONDS)
            close_in_time(self._client, 0.0)
            self._client = self._recall = None
            return [RecallEnded(recall, reached=False)]
        offsets: list[int] = []
        raws: list[Any] = []
        ended: RecallEnded | None = None
        broken = False  # the client is of no use any more
        for raw in batch:
            error = raw.error()
            if error is not None and is_fatal(error):  # of the whole client: it names no partition
                broken = True
                ended = ended or RecallEnded(recall, reached=False)
                continue
            if (raw.topic(), raw.partition()) != recall.place or ended is not None:
                continue
            if error is not None:
                if is_end_of_log(error):
                    # A new leader may for a while serve less than the one before it: what it does not show is not gone.
                    ended = RecallEnded(recall, reached=raw.offset() >= recall.stop)
            elif raw.offset() >= recall.stop:
                ended = RecallEnded(recall)
            else:
                offsets.append(raw.offset())
                raws.append(raw)
                if raw.offset() == recall.stop - 1:
                    ended = RecallEnded(recall)
        happened: list[Recalled | RecallEnded] = [Recalled(recall, offsets, raws)] if offsets else []
        if ended is not None:
            self._stop()
            if broken:
                close_in_time(self._client, 0.0)
                self._client = None
            happened.append(ended)
        return happened

    def _stop(self) -> None:
        self._recall = None
        self._client.unassign()

    def close(self) -> None:
        """Close the client, for at most 2 s. One that still has a request under way is left to itself."""
        if self._client is not None:
            close_in_time(self._client, CLOSE_SECONDS)
