"""A transactional producer that is replaced as soon as it may not be trusted any more.

librdkafka 2.16 does not have part 2 of KIP-890. A request to end a transaction (EndTxn) that is delayed is sent a second
time, and the later one may end the next transaction. So once one was sent twice, or any request timed out, a new producer
with the same transactional id takes over, and the brokers refuse whatever the old one has left. The client's statistics
count the requests. They are waited for only after a call that took long enough for a second request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.brokers.client import open_client
from retriable_kafka_client.brokers.reachability import LOST_SECONDS, MOST_LOST_SECONDS
from retriable_kafka_client.brokers.setting_values import resend_pause
from retriable_kafka_client.brokers.statistics import LatestReport, reporting

__all__ = ["TransactionalProducer", "reason_of"]

REPORT_SECONDS = 0.04  # between the client's reports on itself
REPORTS_WAIT = 2.0  # seconds, for two of them
SURE_SHARE = 0.75  # of the shortest pause before the client sends a request again


class TransactionalProducer:
    """One transactional id, and the producer that has it at present. One thread calls it, and nearly every call blocks."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._reports = LatestReport()
        self._settings: dict[str, Any] = {}
        self._sure = resend_pause(settings) * SURE_SHARE
        self._producer: Producer | None = None
        self._initialised = False
        self._made_at = 0.0  # monotonic
        self._lost_after = LOST_SECONDS  # doubled each time: it may only be slow
        self._ended = 0  # requests to end a transaction that the producer has sent, if none was sent twice
        self._doubt = False  # one may have been
        self.use(settings)

    def use(self, settings: Mapping[str, Any]) -> None:
        """Make producers with these from now on."""
        self._settings = reporting(settings, self._reports.take, REPORT_SECONDS)
        if self._producer is not None:
            self.discard()

    def open(self, timeout: float) -> Producer:
        """Return a producer without an open transaction; a new one where the last one may not be trusted.

        Blocks for ``timeout`` seconds at most, and a little for statistics. Raises KafkaException: it is not ready yet.
        """
        if self._doubt and not self._is_clean():
            self.discard()
        if self._producer is None:
            self._reports.clear()
            self._ended, self._doubt, self._initialised = 0, False, False
            self._producer = open_client(Producer, self._settings)
            self._made_at = time.monotonic()
        if not self._initialised:
            try:
                self._producer.init_transactions(timeout)
            except KafkaException as error:
                lost = time.monotonic() >= self._made_at + self._lost_after
                if lost or not error.args[0].retriable():
                    self.discard()
                if lost:
                    self._lost_after = min(2 * self._lost_after, MOST_LOST_SECONDS)
                raise
            self._lost_after = LOST_SECONDS
            self._initialised = True
        return self._producer

    @property
    def wants_opening(self) -> bool:
        """Whether a producer was thrown away, which may have left a transaction open."""
        return not self._initialised

    def commit(self, deadline: float) -> None:
        """Commit the open transaction; blocks until ``deadline`` (``time.monotonic()``) at most.

        Raises KafkaException: it has not come through, or nobody knows.
        """
        assert self._producer is not None
        began = time.monotonic()
        while True:
            try:
                self._producer.commit_transaction(max(0.1, deadline - time.monotonic()))
                break
            except KafkaException as error:
                # Its own time-out: the call goes on where it stood.
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    raise
        self._ended += 1
        self._doubt = self._doubt or time.monotonic() - began >= self._sure

    def abort(self, deadline: float) -> None:
        """Abort the open transaction; blocks until ``deadline`` (``time.monotonic()``) at most. Nothing of it will be
        visible, whatever happens here.
        """
        assert self._producer is not None
        while True:
            try:
                self._producer.abort_transaction(max(0.1, deadline - time.monotonic()))
                break
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    self.discard()
                    return
        self._ended += 1
        self._doubt = True  # where nothing had been sent there was nothing to end

    def serve(self) -> None:
        """Take the client's reports; else they pile up."""
        if self._producer is not None:
            with suppress(KafkaException):
                self._producer.poll(0)

    def discard(self) -> None:
        """Throw the producer away. Ending a client may take as long as its requests: on a thread that is left alone."""
        producer, self._producer = self._producer, None
        self._initialised = False
        if producer is not None:
            grave = [producer]
            del producer
            threading.Thread(target=_bury, args=(grave,), name="rkc-end-producer", daemon=True).start()

    def _is_clean(self) -> bool:
        """Whether the client has sent no request twice and none has timed out, by what it reports from now on."""
        producer = self._producer
        if producer is None or not self._initialised:
            return True  # replaced already, or about to be
        try:
            producer.poll(0)
            # The next one may have been begun before the last request was sent.
            wanted = self._reports.count + 2
            deadline = time.monotonic() + REPORTS_WAIT
            while self._reports.count < wanted:
                if time.monotonic() >= deadline:
                    return False
                producer.poll(REPORT_SECONDS)
        except KafkaException:
            return False
        report = self._reports.read()
        if report.timed_out or report.transactions_ended > self._ended:
            return False
        self._ended, self._doubt = report.transactions_ended, False
        return True


def _bury(grave: list[Producer]) -> None:
    with suppress(KafkaException):
        grave[0].purge()
    grave.clear()


def reason_of(error: KafkaException) -> KafkaError:
    """The client's error in the exception."""
    reason: KafkaError = error.args[0]
    return reason
