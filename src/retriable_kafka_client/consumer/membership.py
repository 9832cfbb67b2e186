"""Whether the group has us, where no assignment says so; looked at while we wait to be assigned.

With ``group.protocol=consumer`` a member for which no partition is left gets no assignment at all; but the client's group
metadata then has a generation.

In no protocol does the client say that the group has no coordinator. Its statistics do, but cost much where there are many
partitions. So they are taken of another client, which reads nothing and joins nothing. It is made only when the group has
not taken us in for a while. Asking the brokers for the group's members is no way: librdkafka (2.16) ends the process when
such a question has timed out and the coordinator comes back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException

from retriable_kafka_client.brokers.client import close_in_time, open_client
from retriable_kafka_client.brokers.derived_settings import coordinator_settings
from retriable_kafka_client.brokers.leaving import belonging
from retriable_kafka_client.brokers.setting_values import is_classic
from retriable_kafka_client.brokers.statistics import read_report
from retriable_kafka_client.core.broker_silence import Hearing
from retriable_kafka_client.errors import ConfigError, NotReachable

__all__ = ["Membership"]

LOOK_SECONDS = 0.5  # between two looks
REPORT_SECONDS = 1.0  # between two reports of the client that looks for a coordinator
SURE_SECONDS = 10.0  # in the group: longer than it takes to give a member what there is for it
DOUBT_SECONDS = 5.0  # not in the group: from then on we look whether it has a coordinator
GONE_SECONDS = 17.0  # without one
HANGS_SECONDS = 10.0  # until a broker that was asked for it, and says nothing, names none


class Membership:
    """Whether the group has us, through all clients of a run. The loop's thread only; nothing blocks."""

    def __init__(self, group: str, settings: Mapping[str, Any]) -> None:
        """``settings`` are the consumer's."""
        self._group = group
        self._coordinator = _Coordinator(settings)
        # In the classic protocol an empty assignment is an assignment, too.
        self._silent = not is_classic(settings)
        self._waits_since: float | None = None  # monotonic, as all times here; None: we wait for nothing
        self._look_at = 0.0
        self._in_since: float | None = None  # None: the group does not have us, as far as the client knows

    def renew(self, settings: Mapping[str, Any]) -> None:
        """Another client is about to join, with these settings: whoever looks beside it shares its log."""
        self._coordinator = _Coordinator(settings)

    def begin(self, now: float) -> None:
        """We wait for an assignment."""
        self._waits_since, self._in_since = now, None

    def end(self) -> None:
        """There is one, or nobody waits for it any more."""
        self._waits_since = None
        self._coordinator.close()

    def is_known(self, consumer: Any, now: float) -> bool:
        """Whether the group must have us by now (monotonic). Raises NotReachable: it has had no coordinator for long."""
        if self._waits_since is None or now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        if belonging(consumer).generation > 0:
            self._coordinator.close()
            if self._in_since is None:
                self._in_since = now
            return self._silent and now >= self._in_since + SURE_SECONDS
        self._in_since = None
        if now >= self._waits_since + DOUBT_SECONDS and self._coordinator.is_gone(now):
            raise NotReachable(
                f"the brokers name no coordinator for group {self._group} (the client's state: {self._coordinator.state});"
                " look whether they could make the topic __consumer_offsets (offsets.topic.replication.factor is at most"
                " their number), and whether those that have its partitions are up"
            )
        return False


class _Coordinator:
    """Looks for the group's coordinator, with a client of its own; that is made by the first look."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = coordinator_settings(settings, self._on_report, REPORT_SECONDS)
        self._client: Any = None
        self._hearing = Hearing()
        self._questions = 0  # for the coordinator that this client has sent: one at a time
        self._asked_at = 0.0  # monotonic; when it sent the last one

    @property
    def state(self) -> str:
        return self._hearing.state

    def is_gone(self, now: float) -> bool:
        """Whether the group has had none for long."""
        if self._client is None:
            try:
                self._client = open_client(Consumer, self._settings)
            except ConfigError:  # nothing of it is new: there is no room for another client at present
                return False
        with suppress(KafkaException):
            self._client.consume(100, 0)
        return self._hearing.is_none(now, GONE_SECONDS)

    def _on_report(self, text: str) -> None:
        with suppress(ValueError):
            report = read_report(text)
            now = time.monotonic()
            if report.coordinator_questions != self._questions:
                self._questions, self._asked_at = report.coordinator_questions, now
            hangs = report.group_state == "wait-coord" and now > self._asked_at + HANGS_SECONDS
            answering = not hangs and report.has_broker
            self._hearing.note(report.group_state, answering=answering, now=now)

    def close(self) -> None:
        if self._client is not None:
            close_in_time(self._client, 0.0)
            self._client, self._hearing = None, Hearing()
            self._questions, self._asked_at = 0, 0.0
