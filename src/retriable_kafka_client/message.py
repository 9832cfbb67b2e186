"""What a handler sees: a lazy view on one record, the same in threads, processes and coroutines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import msgspec

from retriable_kafka_client.errors import DecodeError, Reject, RetriableKafkaError, cannot_now, leaves
from retriable_kafka_client.user_functions.interrupts import is_from_signal
from retriable_kafka_client.user_functions.results import refuse_unfinished
from retriable_kafka_client.wire.headers import Headers, Marks, own_headers
from retriable_kafka_client.wire.outbox import Output, output_of
from retriable_kafka_client.wire.outgoing import GivenHeaders, SendRequest

__all__ = [
    "JSON",
    "STDLIB_JSON",
    "Deserializer",
    "Message",
    "PlainRecord",
    "RawRecord",
    "Record",
    "instant",
]

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_AVAILABLE = 0  # confluent_kafka.TIMESTAMP_NOT_AVAILABLE, without importing it
_UNREAD: Any = object()


class RawRecord(Protocol):
    """What a Message is built on: confluent_kafka's own, or a PlainRecord."""

    def value(self) -> bytes | None:
        """The body; None: a tombstone."""

    def key(self) -> bytes | None:
        """The record's key."""

    def headers(self) -> Any:
        """A sequence of pairs of name and bytes or None, or None."""

    def topic(self) -> str | None:
        """The topic; never None on a record."""

    def partition(self) -> int | None:
        """The partition; never None on a record."""

    def offset(self) -> int | None:
        """The offset; never None on a record."""

    def timestamp(self) -> tuple[int, int]:
        """The kind (0: there is none) and POSIX milliseconds."""

    def __len__(self) -> int:
        """The body's bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """Where one copy of a message stands. ``timestamp``: aware, UTC; None where the broker names none."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime | None


class PlainRecord:
    """A record as plain values: what crosses to another process, and what tests are made of."""

    __slots__ = ("_fields",)

    def __init__(
        self,
        body: bytes | None,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        topic: str,
        partition: int,
        offset: int,
        timestamp: tuple[int, int] = (_NOT_AVAILABLE, 0),
    ) -> None:
        self._fields = (body, key, headers, topic, partition, offset, timestamp)

    @classmethod
    def of(cls, raw: RawRecord) -> PlainRecord:
        """Copy ``raw``, which must not be an error event."""
        return cls(
            raw.value(),
            raw.key(),
            raw.headers(),
            cast("str", raw.topic()),
            cast("int", raw.partition()),
            cast("int", raw.offset()),
            raw.timestamp(),
        )

    def value(self) -> bytes | None:
        """The body; None: a tombstone."""
        return self._fields[0]

    def key(self) -> bytes | None:
        """The record's key."""
        return self._fields[1]

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        """All headers, the library's among them."""
        return self._fields[2]

    def topic(self) -> str:
        """The topic."""
        return self._fields[3]

    def partition(self) -> int:
        """The partition."""
        return self._fields[4]

    def offset(self) -> int:
        """The offset."""
        return self._fields[5]

    def timestamp(self) -> tuple[int, int]:
        """The kind (0: there is none) and POSIX milliseconds."""
        return self._fields[6]

    def __len__(self) -> int:
        return len(self._fields[0] or b"")

    def __bool__(self) -> bool:
        return True  # an empty body does not make it nothing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlainRecord) and self._fields == other._fields

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainRecord, self._fields

    def __repr__(self) -> str:
        return f"<PlainRecord {self._fields[3]}/{self._fields[4]}/{self._fields[5]}>"


class Message(Generic[T]):
    """One message, as handlers, filters and deserializers see it.

    Nothing is decoded or copied before it is read. Not thread-safe: one handler at a time holds it. Built
    with plain slots because one is made for every message (a frozen eager one took the loop from 1.04 to 0.38
    M messages/s).
    """

    __slots__ = ("__dict__", "_deserializer", "_marks", "_raw", "_topic_uid", "ended")

    _value: Any = _UNREAD
    decode_error: DecodeError | None = None
    """Internal: what the first read of ``value`` ended in. The run fails by it even if the handler went on."""
    deserializer_error: BaseException | None = None
    """Internal: the same where the payload is not bad: the deserializer could not decode it now, or rejected the message."""
    outbox: Sequence[Output] = ()
    """Internal: what the handler has sent so far."""
    eventful: bool = False
    """Internal: whether the run has left either error or an ``outbox``; where not, the runner looks at nothing else."""
    ended: bool
    """Internal: nobody publishes any more what is sent. Not set: it is not so."""

    def __init__(self, raw: RawRecord, marks: Marks, topic_uid: str, deserializer: Deserializer) -> None:
        self._raw = raw
        self._marks = marks
        self._topic_uid = topic_uid  # names the record's topic and its incarnation
        self._deserializer = deserializer

    @property
    def value(self) -> T:
        """The decoded payload; decoded once, when first read. None for a null body.

        Raises DecodeError, each time, when the body is empty or the deserializer raises; the message then
        goes to the dead-letter topic whatever the handler makes of it. An OSError or a RetryAfter out of the
        deserializer, or what was raised ``from`` one, passes as it is: it says that nothing can be decoded
        now, and the run has failed, whatever the handler makes of it. So does Reject.
        """
        if self._value is _UNREAD:
            self._value = self._decoded()
        return cast("T", self._value)

    def _decoded(self) -> Any:
        ended = self.decode_error or self.deserializer_error
        if ended is not None:
            raise ended
        body = self._raw.value()
        if body is None:
            return None
        if not body:
            self.eventful, self.decode_error = True, DecodeError("the payload is empty")
            raise self.decode_error
        outside = sys.exc_info()[1]  # what a handler is just handling
        try:
            deserializer = self._deserializer
            if isinstance(deserializer, _Json):
                return deserializer(body, self)
            value = copy_context().run(deserializer, body, self)
            if not isinstance(value, (dict, list)):  # what JSON gives is not looked through
                refuse_unfinished(value, "the deserializer")
            return value
        except BaseException as error:
            if is_from_signal(error):
                raise
            self.eventful = True
            if cannot_now(error, outside, implied=True) or all(
                isinstance(one, Reject) for one in leaves(error)
            ):
                self.deserializer_error = error
                raise
            self.decode_error = DecodeError(f"the payload cannot be decoded: {type(error).__name__}")
            raise self.decode_error from error

    @property
    def body(self) -> bytes | None:
        """The payload's bytes as they stand in the record; None: a tombstone."""
        return self._raw.value()

    @property
    def key(self) -> bytes | None:
        """The sender's key."""
        key = self._raw.key()
        chunk = self._marks.chunk
        # A chunked message without a key of its own travels under its group id.
        return None if chunk is not None and key == chunk.group else key

    @property
    def headers(self) -> Headers:
        """The sender's own headers, in order; never the library's."""
        return own_headers(self._raw.headers())

    @property
    def topic(self) -> str:
        """The topic that the message was first read from, also on retries."""
        origin = self._marks.origin
        return origin.topic if origin is not None else cast("str", self._raw.topic())

    @property
    def field(self) -> str:
        """Which part of the record a deserializer is given: the value. For those of confluent-kafka, as ``topic`` is."""
        theirs = sys.modules.get(
            "confluent_kafka.serialization"
        )  # what it compares with, if it is there at all
        return "value" if theirs is None else cast("str", theirs.MessageField.VALUE)

    @property
    def partition(self) -> int:
        """The original record's partition."""
        origin = self._marks.origin
        return origin.partition if origin is not None else cast("int", self._raw.partition())

    @property
    def offset(self) -> int:
        """The original record's offset."""
        origin = self._marks.origin
        return origin.offset if origin is not None else cast("int", self._raw.offset())

    @property
    def timestamp(self) -> datetime | None:
        """The original record's timestamp: aware, UTC; None where it has none or it lies beyond the year
        9999.
        """
        if self._marks.origin is None:
            return _timestamp(self._raw)
        stamped = self._marks.origin_timestamp_ms
        return None if stamped is None else instant(stamped)

    @property
    def record(self) -> Record:
        """Where this copy stands: in the retry topic on later attempts."""
        raw = self._raw
        return Record(
            cast("str", raw.topic()), cast("int", raw.partition()), cast("int", raw.offset()), _timestamp(raw)
        )

    @property
    def attempt(self) -> int:
        """1 on the first run, one more after each failed one."""
        return self._marks.failed + 1

    @property
    def id(self) -> str:
        """Stable over retries and replays, another when the topic is re-created: the idempotency key."""
        raw = self._raw
        return self._marks.id or f"{self._topic_uid}-{raw.partition()}-{raw.offset()}"

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: GivenHeaders = (),
        not_before: datetime | None = None,
        delay: float | timedelta | None = None,
        split: bool = False,
    ) -> None:
        """Publish a record once the handler has succeeded, before this message completes; never if it fails.

        What is given is as for ``Producer.send``, and is serialized (JSON) or read (a file) now. A topic that
        refuses it makes this a failed attempt. Its ``id`` derives from this message's: the n-th record that a
        handler sends has the same one in every run. ``split``: in chunks, if it is above its topic's limit.
        Raises RetriableKafkaError outside of the handler, also once that has returned.
        """
        self._refuse_if_ended()
        request = SendRequest(topic, value, key, headers, not_before, delay)
        output = output_of(request, split=split, serializer=JSON)
        self._refuse_if_ended()  # meanwhile: then another thread is at work here
        if isinstance(self.outbox, list):
            self.outbox.append(output)
        else:
            self.outbox = [output]
        self.eventful = True

    def _refuse_if_ended(self) -> None:
        if getattr(self, "ended", False):
            raise RetriableKafkaError(
                f"{self!r} can send only while its handler runs: what is sent is published when the handler has"
                " succeeded; use a Producer elsewhere"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (PlainRecord.of(self._raw), self._marks, self._topic_uid, self._deserializer)

    def __repr__(self) -> str:
        return f"<Message {self.topic}/{self.partition}/{self.offset} attempt {self.attempt}>"


def _copy(raw: PlainRecord, marks: Marks, topic_uid: str, deserializer: Deserializer) -> Message[Any]:
    message: Message[Any] = Message(raw, marks, topic_uid, deserializer)
    message.ended = True  # what is sent from the copy would come back to nobody
    return message


Deserializer = Callable[[bytes, Message[Any]], Any]
"""Makes ``message.value`` from the body. Runs in the worker; an exception dead-letters the message."""


class _Json:
    """A JSON codec for both directions: a deserializer with body and message, a serializer with a value."""

    __slots__ = ("_dumps", "_loads", "_name")

    def __init__(self, name: str, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> None:
        self._name = name
        self._loads = loads
        self._dumps = dumps

    @overload
    def __call__(self, value: bytes, message: Message[Any], /) -> Any: ...
    @overload
    def __call__(self, value: Any, /) -> bytes: ...
    def __call__(self, value: Any, message: Message[Any] | None = None, /) -> Any:
        return self._dumps(value) if message is None else self._loads(value)

    def __reduce__(self) -> str:
        return self._name  # by its name in this module: one object in every process

    def __repr__(self) -> str:
        return self._name


def _stdlib_dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _plain_base(value: Any) -> Any:
    """What msgspec does not write by itself: a text or number of a class of the user's own is written as its base."""
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"an object of type {type(value).__name__} cannot be written as JSON; pass a serializer")


JSON = _Json("JSON", msgspec.json.Decoder().decode, msgspec.json.Encoder(enc_hook=_plain_base).encode)
"""JSON by msgspec: strict UTF-8.

Reading: integers are exact up to 4,300 digits. NaN, infinity, numbers beyond a float's range, lone surrogates and a byte
order mark are refused. Writing: integers as long as that; NaN and infinity become null; numbers as keys of a dictionary
become texts; bytes within a value become base64; dataclasses, ``msgspec.Struct``, datetime, UUID, Decimal, sets and enums
are written, too.
"""

STDLIB_JSON = _Json("STDLIB_JSON", json.loads, _stdlib_dumps)
"""JSON by the standard library, about seven times slower: NaN and infinity both ways, lone surrogates, integers exact up to
4,300 digits, UTF-16 and UTF-32 read as well. What the 0.x releases write and read.
"""


def instant(milliseconds: int) -> datetime | None:
    """Return POSIX milliseconds as an aware datetime in UTC; None where they are negative or beyond 9999."""
    if milliseconds < 0:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def _timestamp(raw: RawRecord) -> datetime | None:
    kind, milliseconds = raw.timestamp()
    return None if kind == _NOT_AVAILABLE else instant(milliseconds)
