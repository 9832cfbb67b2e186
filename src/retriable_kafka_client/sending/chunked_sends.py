"""Messages that go alone, or as a group of chunks: to one partition, in order, and acknowledged as one.

Their client puts each record into a batch of its own: two records near the limit would be too large together.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.brokers.error_codes import is_too_large, too_large, unreadable
from retriable_kafka_client.sending.batching import BatchLimits
from retriable_kafka_client.sending.parcels import Pair, Parcel
from retriable_kafka_client.sending.sources import Unreadable
from retriable_kafka_client.sending.splitting import Plan, plan
from retriable_kafka_client.wire.headers import CHUNK_HEADERS, Chunk, Marks, write_marks

__all__ = ["ChunkedSends", "DeliveryReport"]

_FEW = 8  # records of one topic that may be in the client, however large
_SHARE = 8 * 1024 * 1024  # bytes of one topic up to which more than that may be
_ACTIVE = 8  # messages of one topic at a time: one waits for its partition, the next ones are on their way


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """Where a message's first record stands: like a client's own report, but without the payload."""

    where: tuple[str, int, int]
    stamp: tuple[int, int]

    def topic(self) -> str:
        return self.where[0]

    def partition(self) -> int:
        return self.where[1]

    def offset(self) -> int:
        return self.where[2]

    def timestamp(self) -> tuple[int, int]:
        return self.stamp


class _Sending:
    """One try at a parcel."""

    __slots__ = (
        *("acknowledged", "body", "digest", "error", "id", "next", "outstanding", "parcel", "partition"),
        *("plan", "report"),
    )

    def __init__(self, parcel: Parcel, plan: Plan) -> None:
        self.parcel = parcel
        self.plan = plan
        self.id = uuid.uuid4().bytes
        self.partition = -1  # until the configured partitioner's choice for the first record is known
        self.next = 0
        self.outstanding = 0
        self.acknowledged = 0
        self.digest = hashlib.sha256()
        self.body: bytes | None = None  # read, not yet in the client
        self.report: DeliveryReport | None = None
        self.error: KafkaError | None = None


class _Line:
    """What goes to one topic, in order."""

    __slots__ = ("active", "bytes", "records", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Parcel] = deque()
        self.active: list[_Sending] = []
        self.records = 0  # in the client
        self.bytes = 0

    def has_room(self) -> bool:
        return self.records < _FEW or self.bytes < _SHARE


class ChunkedSends:
    """Sends parcels. One thread calls it, and serves the delivery reports of ``client()`` between two calls of ``advance``.

    At most ``budget`` bytes are in the client at once, besides one record of each topic. ``client_limit``: bytes of the
    largest record that the client takes.
    """

    def __init__(
        self, client: Callable[[], Producer], limits: BatchLimits, *, client_limit: int, budget: int
    ) -> None:
        self._client = client
        self._limits = limits
        self._client_limit = client_limit
        self._budget = budget
        self._bytes = 0  # in the client
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """Parcels that are not settled."""
        return sum(len(line.waiting) + len(line.active) for line in self._lines.values())

    def add(self, parcel: Parcel) -> None:
        """Take a parcel; ``advance`` sends it."""
        self._lines.setdefault(parcel.topic, _Line()).waiting.append(parcel)

    def advance(self) -> None:
        """Give the client what there is room for; never waits."""
        for topic, line in list(self._lines.items()):
            while line.waiting and len(line.active) < _ACTIVE and not self._limits.pending(topic):
                self._begin(line, line.waiting.popleft())
            # The oldest first: who reads them holds what is not whole.
            for sending in list(line.active):
                while self._may_go(line, sending):
                    if not self._produce(line, sending):
                        return  # the client's queue is full
            if not (line.waiting or line.active or line.records):
                self._lines.pop(topic, None)

    def abandon(self, error: KafkaError) -> None:
        """Settle what is left with an error. The client must have been purged."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            for sending in line.active:
                sending.parcel.settle(sending.error or error, None)
            for parcel in line.waiting:
                parcel.settle(error, None)
            line.active.clear()
            line.waiting.clear()

    def _may_go(self, line: _Line, sending: _Sending) -> bool:
        if sending.error is not None or sending.next == sending.plan.count:
            return False
        if sending.next and sending.partition < 0:
            return False
        return line.has_room() and (self._bytes < self._budget or not line.records)

    def _begin(self, line: _Line, parcel: Parcel) -> None:
        limit = self._limits.limit(parcel.topic)
        planned = self._plan(parcel, limit)
        if planned is None:
            text = "it is above the topic's limit, and its key and headers leave too little room for a chunk"
            parcel.settle(too_large(text), None)
            return
        parcel.limit = limit
        line.active.append(_Sending(parcel, planned))

    def _plan(self, parcel: Parcel, limit: int | None) -> Plan | None:
        size = parcel.size
        if parcel.source is None or not parcel.split:
            return Plan(size, max(1, size), True)  # what is too large is for the broker to say
        lower = limit is not None and (parcel.limit is None or limit < parcel.limit)
        return plan(
            size,
            limit=limit,
            client_limit=self._client_limit,
            key=parcel.key,
            headers=parcel.headers,
            whole=parcel.whole,
            most=parcel.most,
            # What is known now says more than that something was refused.
            refused=None if lower else parcel.refused,
        )

    def _produce(self, line: _Line, sending: _Sending) -> bool:
        """Whether the client took the next record, or what became of it is settled."""
        parcel = sending.parcel
        if sending.body is None and parcel.source is not None:
            try:
                sending.body = parcel.source.read(*sending.plan.span(sending.next))
            except Unreadable as error:
                self._failed(line, sending, unreadable(str(error)))
                return True
            if not sending.plan.whole:
                sending.digest.update(sending.body)
        size = 0 if sending.body is None else len(sending.body)
        line.records += 1
        line.bytes += size
        self._bytes += size
        sending.outstanding += 1
        try:
            self._client().produce(
                parcel.topic,
                value=sending.body,
                key=sending.id if parcel.key is None and not sending.plan.whole else parcel.key,
                headers=self._headers(sending),
                partition=sending.partition,
                on_delivery=partial(self._delivered, line, sending, size),
            )
        except BufferError:
            self._out(line, sending, size)
            return False
        except KafkaException as error:
            self._out(line, sending, size)
            self._failed(line, sending, error.args[0])
            return True
        sending.body = None
        sending.next += 1
        return True

    def _headers(self, sending: _Sending) -> list[Pair]:
        planned = sending.plan
        if planned.whole:
            headers = sending.parcel.whole_headers
        else:
            headers = [(name, value) for name, value in sending.parcel.headers if name not in CHUNK_HEADERS]
            last = sending.next == planned.count - 1
            checksum = sending.digest.digest() if last else None
            chunk = Chunk(sending.id, sending.next, planned.count, planned.size, checksum)
            headers += write_marks(Marks(chunk=chunk))
        return headers

    def _out(self, line: _Line, sending: _Sending, size: int) -> None:
        line.records -= 1
        line.bytes -= size
        self._bytes -= size
        sending.outstanding -= 1

    def _delivered(
        self, line: _Line, sending: _Sending, size: int, error: KafkaError | None, message: Any
    ) -> None:
        self._out(line, sending, size)
        if error is not None:
            self._failed(line, sending, error)
            return
        sending.acknowledged += 1
        if sending.partition < 0:
            sending.partition = message.partition()
            where = (message.topic(), message.partition(), message.offset())
            sending.report = DeliveryReport(where, message.timestamp())
        self._look(line, sending)

    def _failed(self, line: _Line, sending: _Sending, error: KafkaError) -> None:
        sending.error = sending.error or error
        self._look(line, sending)

    def _look(self, line: _Line, sending: _Sending) -> None:
        """Settle what has come to its end. Of a failed message, chunks that are still in the client are waited for: none of
        them may appear in the log after the answer.
        """
        if sending.outstanding or sending not in line.active:
            return
        parcel = sending.parcel
        if sending.error is None:
            if sending.acknowledged == sending.plan.count:
                line.active.remove(sending)
                parcel.settle(None, sending.report)
            return
        line.active.remove(sending)
        if is_too_large(sending.error) and parcel.split and parcel.source:
            self._limits.expire(parcel.topic)
            parcel.refused = sending.plan.chunk
            line.waiting.appendleft(parcel)  # as another group, of smaller chunks
        else:
            parcel.settle(sending.error, None)
