"""The records of one transaction: sent through its producer, and which of them were refused."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.brokers.error_codes import is_fatal, is_retriable, is_too_large, no_report
from retriable_kafka_client.brokers.writable import TOPIC_CODES
from retriable_kafka_client.core.protocol import HandOff, Publication, Transact
from retriable_kafka_client.sending.chunked_sends import BatchLimits, ChunkedSends, Parcel
from retriable_kafka_client.sending.parcels import LARGE, LARGEST_COPY, copy_parcel, output_parcel
from retriable_kafka_client.sending.splitting import UNKNOWN_LIMIT, fits

__all__ = ["TransactionRecords"]

BUDGET = 32 * 1024 * 1024  # bytes of large messages in the client
POLL_SECONDS = 0.02
LAST_REPORTS_SECONDS = (
    1.0  # for what is on its way when the transaction is broken, or twice what the first report took
)
SERVE_EVERY = 1000  # records between two looks for reports

# What says nothing against the record itself: the transaction as a whole, its producer, or the brokers are in trouble.
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

    __slots__ = ("apart", "error", "owner", "parcel", "refused_before")

    def __init__(self, owner: HandOff | Publication, parcel: Parcel, *, apart: bool) -> None:
        self.owner = owner
        self.parcel = parcel
        self.apart = apart  # in a request of its own, and in chunks where it must
        self.error: KafkaError | None = None
        self.refused_before: int | None = None


class TransactionRecords:
    """What one Transact sends, over all its tries. One thread calls it."""

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
        size = 0 if parcel.source is None else parcel.source.size
        headers = [*parcel.headers, *parcel.whole]
        limit = self._limits.limit(parcel.topic) or UNKNOWN_LIMIT
        apart = size > LARGE or not fits(size, limit, LARGEST_COPY, parcel.key, headers)
        self._records.append(_Record(owner, parcel, apart=apart))

    @property
    def topics(self) -> Collection[str]:
        """Where the records go."""
        return {record.parcel.topic for record in self._records}

    @property
    def is_large(self) -> bool:
        """Whether each record must go in a request of its own: what is near the limit must not share one."""
        return any(record.apart for record in self._records)

    def is_ready(self) -> bool:
        """Whether all is known that must be known before large ones can go."""
        pending = [self._limits.pending(record.parcel.topic) for record in self._records if record.apart]
        return not any(pending)

    def send(self, producer: Producer, deadline: float) -> KafkaError | None:
        """Send all and wait until the brokers have it; returns the first error. Raises KafkaException."""
        self._try += 1
        began = time.monotonic()
        self._reported_at = None
        self._left = 0
        chunked = ChunkedSends(lambda: producer, self._limits, client_limit=LARGEST_COPY, budget=BUDGET)
        for record in self._records:
            record.error, record.refused_before = None, record.parcel.refused
            # Another one: what is left of an earlier try may still settle its own.
            record.parcel = replace(record.parcel, settle=partial(self._settled, self._try, record))
        for number, record in enumerate(self._records):
            self._left += 1
            if record.apart:
                chunked.add(record.parcel)
            elif not self._produce(producer, record, deadline):
                break
            if number % SERVE_EVERY == 0:
                producer.poll(0)
        chunked.advance()
        while self._left and time.monotonic() < deadline:
            producer.poll(POLL_SECONDS)
            if self._first_error() is not None:
                # The client lets nothing more go. What is on its way is waited for: it may be refused, too, and an abort
                # that finds something under way was seen to hang.
                last = time.monotonic() + max(LAST_REPORTS_SECONDS, 2 * self._first_report(began))
                deadline = min(deadline, last)
            chunked.advance()
        return self._first_error() or (no_report() if self._left else None)

    def _first_report(self, began: float) -> float:
        """Seconds until the brokers said something of this try."""
        return 0.0 if self._reported_at is None else self._reported_at - began

    def _produce(self, producer: Producer, record: _Record, deadline: float) -> bool:
        """Whether the client took it."""
        parcel = record.parcel
        source = parcel.source
        body = None if source is None else source.read(0, source.size)
        headers = [*parcel.headers, *parcel.whole]
        while True:
            try:
                producer.produce(
                    parcel.topic, value=body, key=parcel.key, headers=headers, on_delivery=parcel.settle
                )
                return True
            except BufferError:
                if time.monotonic() >= deadline:
                    parcel.settle(no_report(), None)
                    return False
                producer.poll(POLL_SECONDS)
            except KafkaException as error:
                parcel.settle(error.args[0], None)
                return False

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
        """Set apart what was too large among others, or in such chunks; whether there was any."""
        found = False
        for record in self._records:
            if _was_too_large(record):
                record.apart = found = True
        return found


def _was_too_large(record: _Record) -> bool:
    """Too large, and not yet for good: it may have been its neighbours, or smaller chunks may do."""
    if record.apart:
        # It would have gone on with smaller chunks, had the transaction not been broken by then.
        return record.parcel.refused != record.refused_before and _own_code(record) is None
    return is_too_large(record.error)


def _own_code(record: _Record) -> str | None:
    """The code of a refusal of this very record."""
    error = record.error
    if error is None or is_fatal(error) or (is_retriable(error) and error.name() not in TOPIC_CODES):
        return None
    if is_too_large(error) and not record.apart:
        return None
    name = str(error.name())
    return None if name in _NOT_ITS_OWN else name


def _nowhere(_error: KafkaError | None, _report: Any) -> None:
    """No try has begun."""
