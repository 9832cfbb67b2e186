"""The records of one transaction: sent through its producer, and which of them were refused."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, Producer

from retriable_kafka_client.brokers.error_codes import is_fatal, is_retriable, is_too_large, no_report
from retriable_kafka_client.brokers.writable import TOPIC_CODES
from retriable_kafka_client.core.protocol import HandOff, Publication, Transact
from retriable_kafka_client.sending.batching import Batching, BatchLimits, batching_of
from retriable_kafka_client.sending.mixed_sends import MixedSends
from retriable_kafka_client.sending.parcels import Parcel, copy_parcel, output_parcel

__all__ = ["TransactionRecords"]

BUDGET = 32 * 1024 * 1024  # bytes of large messages in the client
POLL_SECONDS = 0.02

# Once the transaction is broken: for the reports that are still to come, or twice as long as the first one took.
LAST_REPORTS_SECONDS = 1.0

SERVE_EVERY = 1000  # records between two looks for reports

# Errors that are not the record's own: the transaction as a whole, its producer, or the brokers have failed.
_NOT_ITS_OWN = frozenset(
    (
        *("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_STATE", "_FATAL", "_FENCED", "_DESTROY", "_CONFLICT"),
        *("OUT_OF_ORDER_SEQUENCE_NUMBER", "DUPLICATE_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH"),
        *("INVALID_TXN_STATE", "INVALID_PRODUCER_ID_MAPPING", "CONCURRENT_TRANSACTIONS", "PRODUCER_FENCED"),
        *("TRANSACTION_COORDINATOR_FENCED", "UNKNOWN_PRODUCER_ID", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"),
        *("CLUSTER_AUTHORIZATION_FAILED", "SASL_AUTHENTICATION_FAILED", "_AUTHENTICATION"),
    )
)


class _Record:
    """One record, or one message in chunks."""

    __slots__ = ("batching", "error", "owner", "parcel", "refused_before")

    def __init__(self, owner: HandOff | Publication, parcel: Parcel, batching: Batching) -> None:
        self.owner = owner
        self.parcel = parcel
        self.batching = batching
        self.error: KafkaError | None = None
        self.refused_before: int | None = None  # Parcel.refused before this try

    @property
    def is_alone(self) -> bool:
        return self.batching is Batching.ALONE


class TransactionRecords:
    """What one Transact sends, over all its tries. Only the thread of transactions calls it."""

    def __init__(self, transact: Transact, limits: BatchLimits, wall: float) -> None:
        self._limits = limits
        self._try = 0  # reports of an earlier one count for nothing
        self._left = 0
        self._reported_at: float | None = None  # monotonic; when the brokers first said something of this try
        self._records: list[_Record] = []
        for handoff in transact.handoffs:
            self._add(handoff, copy_parcel(handoff, wall, _nowhere))
        for publication in transact.publications:
            for output in publication.outputs:
                self._add(publication, output_parcel(output, _nowhere))

    def _add(self, owner: HandOff | Publication, parcel: Parcel) -> None:
        batching = batching_of(parcel, self._limits.limit(parcel.topic))
        self._records.append(_Record(owner, parcel, batching))

    @property
    def topics(self) -> Collection[str]:
        """Where the records go."""
        return {record.parcel.topic for record in self._records}

    @property
    def batching(self) -> Batching:
        """How the producer must send them: all have one producer, so one that goes alone makes all go alone."""
        return Batching.ALONE if any(record.is_alone for record in self._records) else Batching.SHARED

    def is_ready(self) -> bool:
        """Whether the limits of the topics are known to which records go alone."""
        pending = [self._limits.pending(record.parcel.topic) for record in self._records if record.is_alone]
        return not any(pending)

    def send(self, producer: Producer, deadline: float) -> KafkaError | None:
        """Send all, and wait for the brokers, or until ``deadline`` (``time.monotonic()``); returns the first error.

        Raises KafkaException where the client itself fails.
        """
        self._try += 1
        began = time.monotonic()
        self._reported_at = None
        self._left = 0
        sends = MixedSends(lambda _batching: producer, self._limits, budget=BUDGET, retry_alone=False)
        for record in self._records:
            record.error, record.refused_before = None, record.parcel.refused
            # Another one: what is left of an earlier try may still settle its own.
            record.parcel = replace(record.parcel, settle=partial(self._settled, self._try, record))
        for number, record in enumerate(self._records):
            self._left += 1
            sends.send(record.parcel, record.batching)
            if record.error is not None and not record.is_alone:
                break  # the client takes nothing more; one that goes alone was judged before it is given to the client
            if number % SERVE_EVERY == 0:
                producer.poll(0)
        sends.advance()
        while self._left and time.monotonic() < deadline:
            producer.poll(POLL_SECONDS)
            if self._first_error() is not None:
                # The client lets nothing more go. What is on its way is waited for: it may be refused, too, and an abort
                # that finds something under way was seen to hang.
                last = time.monotonic() + max(LAST_REPORTS_SECONDS, 2 * self._first_report(began))
                deadline = min(deadline, last)
            sends.advance()
        return self._first_error() or (no_report() if self._left else None)

    def _first_report(self, began: float) -> float:
        """Seconds until the brokers said something of this try."""
        return 0.0 if self._reported_at is None else self._reported_at - began

    def _settled(self, number: int, record: _Record, error: KafkaError | None, _report: Any) -> None:
        if number == self._try:
            if self._reported_at is None:
                self._reported_at = time.monotonic()
            self._left -= 1
            record.error = error

    def _first_error(self) -> KafkaError | None:
        found = [record.error for record in self._records if record.error is not None]
        return next((one for one in found if one.name() not in _NOT_ITS_OWN), found[0]) if found else None

    @property
    def is_broken(self) -> bool:
        """Whether any record of this try was not taken."""
        return self._left > 0 or self._first_error() is not None

    # After a try that failed -------------------------------------------------------------------------------------------

    def refused(self) -> dict[HandOff | Publication, str]:
        """Whose records were refused for good, with the code."""
        by_topic: dict[str, str] = {}
        codes: dict[HandOff | Publication, str] = {}
        for record in self._records:
            code = _own_code(record)
            if code is not None:
                codes.setdefault(record.owner, code)
                if code in TOPIC_CODES:
                    by_topic[record.parcel.topic] = code
        return {**self.bound_for(by_topic), **codes}

    def bound_for(self, topics: Mapping[str, str]) -> dict[HandOff | Publication, str]:
        """Whose records go to these topics, with the topic's code."""
        found: dict[HandOff | Publication, str] = {}
        for record in self._records:
            code = topics.get(record.parcel.topic)
            if code is not None:
                found.setdefault(record.owner, code)
        return found

    def make_smaller(self) -> bool:
        """Let what was too large among others go alone in the next try, and what was too large as chunks in smaller ones.
        Whether there was any.
        """
        found = False
        for record in self._records:
            if _was_too_large(record):
                record.batching, found = Batching.ALONE, True
        return found


def _was_too_large(record: _Record) -> bool:
    """Too large, and not yet for good: it may have been its neighbours, or smaller chunks may do."""
    if record.is_alone:
        # It would have gone on with smaller chunks, had the transaction not been broken by then.
        return record.parcel.refused != record.refused_before and _own_code(record) is None
    return is_too_large(record.error)


def _own_code(record: _Record) -> str | None:
    """The code of a refusal of this very record."""
    error = record.error
    if error is None or is_fatal(error) or (is_retriable(error) and error.name() not in TOPIC_CODES):
        return None
    if is_too_large(error) and not record.is_alone:
        return None
    name = str(error.name())
    return None if name in _NOT_ITS_OWN else name


def _nowhere(_error: KafkaError | None, _report: Any) -> None:
    """No try has begun."""
