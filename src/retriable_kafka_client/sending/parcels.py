"""Parcels: messages as they are given to what sends them; and copies and outputs as parcels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError

from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.protocol import HandOff, HandOffKind
from retriable_kafka_client.message import Message
from retriable_kafka_client.sending.sources import MemorySource, PiecesSource, Source
from retriable_kafka_client.wire.headers import DEAD_CHUNK, Marks, dead_headers, own_headers, write_marks
from retriable_kafka_client.wire.outbox import Output

__all__ = ["Pair", "Parcel", "Settle", "copy_parcel", "output_parcel"]

MAX_ATTEMPTS = 2**31 - 1  # what the header holds

Pair = tuple[str, str | bytes | None]
Settle = Callable[[KafkaError | None, Any], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Parcel:
    """One message to be sent.

    ``settle`` is called once, on the thread that serves the client: with no error and the first record's delivery report, or
    with the error. It must not raise.
    """

    topic: str
    source: Source | None  # None: a null body
    key: bytes | None
    headers: Sequence[Pair]  # those of chunks (a 0.x program's own) go only with a message that goes whole
    settle: Settle
    split: bool = True  # may go in chunks
    whole: Sequence[Pair] = ()  # more headers, where it does not
    most: int | None = None  # bytes of a chunk, where the sender says
    refused: int | None = None  # bodies of this size were too large
    limit: int | None = None  # what the topic was taken to bear then

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return 0 if self.source is None else self.source.size

    @property
    def whole_headers(self) -> list[Pair]:
        """The headers of a message that goes whole."""
        return [*self.headers, *self.whole]


def copy_parcel(handoff: HandOff, wall: float, settle: Settle) -> Parcel:
    """The parcel of a copy; a dead letter is stamped ``wall`` (seconds)."""
    entry, raw = handoff.entry, handoff.entry.raw
    chunk = entry.marks.chunk
    part = chunk if chunk is not None and chunk.count > 1 and not _is_joined(entry) else None
    headers = _headers(handoff, wall)
    if part is not None:
        headers.append((DEAD_CHUNK, f"{part.group.hex()}/{part.index}/{part.count}".encode()))
    return Parcel(
        topic=handoff.target,
        source=_source(raw),
        key=cast("bytes | None", raw.key()) if part else _key(handoff),
        headers=headers,
        # One of several still; a chunk cannot be split into chunks and remain one.
        whole=write_marks(Marks(chunk=part)) if part else (),
        settle=settle,
    )


def output_parcel(output: Output, settle: Settle) -> Parcel:
    """The parcel of what a handler sends."""
    marks = Marks(not_before_ms=output.not_before_ms, id=output.id or None)
    return Parcel(
        topic=output.topic,
        source=None if output.body is None else MemorySource(output.body),
        key=output.key,
        headers=[*output.headers, *write_marks(marks)],
        settle=settle,
        split=output.split,
    )


def _headers(handoff: HandOff, wall: float) -> list[Pair]:
    raw, marks, failure = handoff.entry.raw, handoff.marks, handoff.failure
    if (
        handoff.entry.marks.origin is None
    ):  # a copy's own time is not the original's, also where that has none
        kind, timestamp_ms = raw.timestamp()
        if kind != TIMESTAMP_NOT_AVAILABLE and timestamp_ms >= 0:
            marks = replace(marks, origin_timestamp_ms=timestamp_ms)
    headers: list[Pair] = [*own_headers(raw.headers())]
    if handoff.kind is HandOffKind.DEAD_LETTER:
        assert failure is not None
        headers += dead_headers(
            marks,
            reason=failure.reason,
            error=failure.error,
            error_text=failure.text,
            place=failure.place,
            attempts=min(handoff.attempts, MAX_ATTEMPTS),
            time_ms=int(wall * 1000),
        )
    else:
        headers += write_marks(marks)
    return headers


def _is_joined(entry: Entry) -> bool:
    """Whether it is a whole message that came in chunks, and not one chunk of a group that is not whole."""
    return bool(getattr(entry, "others", ())) or hasattr(entry.raw, "pieces")


def _source(raw: Any) -> Source | None:
    """The body of a record; of one that came in chunks, without joining them."""
    pieces = getattr(raw, "pieces", None)
    if pieces is not None:
        return PiecesSource(pieces())
    body = raw.value()
    return None if body is None else MemorySource(body)


def _key(handoff: HandOff) -> bytes | None:
    return Message(handoff.entry.raw, handoff.entry.marks, "", _undecoded).key


def _undecoded(body: bytes, _message: Message[Any]) -> bytes:
    return body
