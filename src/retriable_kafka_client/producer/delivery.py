"""What became of a record: the value, the future that gives it, and the failures that nobody asked about."""

from __future__ import annotations

import logging
import weakref
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from retriable_kafka_client.brokers.error_codes import delivery_error
from retriable_kafka_client.message import instant
from retriable_kafka_client.runtime.forks import used_before_fork

__all__ = ["Delivery", "DeliveryFuture", "UnreadFailures"]

log = logging.getLogger("retriable_kafka_client.delivery")


class Delivery(NamedTuple):
    """Where the brokers have put a record.

    A tuple because one is made for every record: 0.5 us, against 2 us for a frozen dataclass with a datetime
    in it.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None  # POSIX; None where the brokers name none

    @property
    def timestamp(self) -> datetime | None:
        """The record's timestamp: aware, UTC; None where the brokers name none."""
        return None if self.timestamp_ms is None else instant(self.timestamp_ms)

    @classmethod
    def of(cls, report: Any) -> Delivery:
        """Read it off a delivery report that has no error."""
        kind, milliseconds = report.timestamp()
        return cls(report.topic(), report.partition(), report.offset(), milliseconds if kind else None)


class _Failure:
    """One failed delivery. It lives as long as its future; if nobody has looked at it by then, it is noted as unread."""

    __slots__ = ("__weakref__", "code", "looked", "topic", "unread")

    def __init__(self, topic: str, code: str, unread: UnreadFailures) -> None:
        self.topic = topic
        self.code = code
        self.unread = unread
        self.looked = False

    def note_unless_looked(self) -> None:
        if not self.looked:
            self.looked = True
            self.unread.note(self.topic, self.code)

    def __del__(self) -> None:
        self.note_unless_looked()


class UnreadFailures:
    """Failed deliveries whose futures were dropped, or left until the producer closed, before anybody looked.

    Any thread may call it. Futures end on whatever thread the garbage collector runs, so ``note`` only appends to a deque;
    ``report`` logs what is there, one line for each topic and code.
    """

    __slots__ = ("_alive", "_closed", "_last", "_noted", "forked")

    def __init__(self) -> None:
        self.forked = False  # this process was forked since, and nobody settles what is on its way
        self._last: Counter[tuple[str, str]] | None = None  # at the interpreter's end: all that fails
        self._noted: deque[tuple[str, str]] = deque()
        self._alive: weakref.WeakSet[_Failure] = weakref.WeakSet()
        self._closed = False

    def last_call(self) -> None:
        """The interpreter ends: from now on count all that fails, with what nobody has looked at so far, and log nothing."""
        last: Counter[tuple[str, str]] = Counter()
        for failure in list(self._alive):
            if not failure.looked:
                failure.looked = True
                last[failure.topic, failure.code] += 1
        while self._noted:
            last[self._noted.popleft()] += 1
        self._last = last

    def last_words(self) -> Counter[tuple[str, str]]:
        """Return what was counted since, by topic and code."""
        return self._last or Counter()

    def failed(self, topic: str, code: str, *, looked: bool) -> _Failure | None:
        """A delivery failed; returns what its future must hold on to, unless somebody has looked at that."""
        if self._last is not None:
            self._last[topic, code] += 1
        return None if looked or self._last is not None else self.watch(topic, code)

    def watch(self, topic: str, code: str) -> _Failure:
        """Return what a future that has just failed must hold on to."""
        failure = _Failure(topic, code, self)
        self._alive.add(failure)
        return failure

    def note(self, topic: str, code: str) -> None:
        """Note a failure that nobody looked at."""
        if self._last is not None:
            return  # `failed` has counted it
        self._noted.append((topic, code))
        if self._closed:
            self.report()

    def report(self) -> None:
        """Log what was noted since the last call."""
        counts: Counter[tuple[str, str]] = Counter()
        while self._noted:
            counts[self._noted.popleft()] += 1
        for (topic, code), count in counts.items():
            log.error(
                "deliveries to topic %s that failed and whose futures nobody read: %d (%s)",
                topic,
                count,
                code,
            )

    def close(self) -> None:
        """Log what is unread; what is dropped from now on is logged at once."""
        for failure in list(self._alive):
            failure.note_unless_looked()
        self.report()
        self._closed = True


class DeliveryFuture(Future[Delivery]):
    """The future of one record. A success is kept cheap: only a failure is watched for being read."""

    topic = ""  # set by who makes it: a constructor of our own would cost 0.5 us for every record
    unread: UnreadFailures | None = None
    _failure: _Failure | None = None
    _looked = False

    def settle(self, error: KafkaError | None, report: Any) -> None:
        """Take the record's delivery report."""
        if error is None:
            self.set_result(Delivery.of(report))
            return
        failed = delivery_error(error, self.topic)
        if self.unread is not None:
            self._failure = self.unread.failed(self.topic, failed.code, looked=self._looked)
        self.set_exception(failed)

    def cancel(self) -> bool:
        """Return False: a record that the client has cannot be called back."""
        return False

    def result(self, timeout: float | None = None) -> Delivery:
        """As Future.result."""
        self._check_fork()
        try:
            return super().result(timeout)
        finally:
            self._look()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As Future.exception."""
        self._check_fork()
        try:
            return super().exception(timeout)
        finally:
            self._look()

    def add_done_callback(self, fn: Callable[[Future[Delivery]], object]) -> None:
        """As Future.add_done_callback; whoever adds one is taken to look."""
        self._looked = True
        self._look()
        super().add_done_callback(fn)

    def _check_fork(self) -> None:
        if self.unread is not None and self.unread.forked and not self.done():
            raise used_before_fork("Producer")

    def _look(self) -> None:
        if self._failure is not None:
            self._failure.looked = True
