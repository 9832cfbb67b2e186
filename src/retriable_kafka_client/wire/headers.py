"""The headers that this library puts on records: their names, and strict, total codecs.

Anybody may have written what is read. So reading either returns values within their ranges, or raises MalformedHeader,
whatever the bytes are; the error never shows them. A header that only informs never raises: one that cannot be read is left
out (docs/headers.md). Names and widths are shared with the 0.x releases, which read ``attempt``, ``timestamp`` and the
chunk headers, and ignore the rest.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = [
    "ALONE",
    "ATTEMPT",
    "CHECKSUM",
    "CHUNK_COUNT",
    "CHUNK_GROUP",
    "CHUNK_HEADERS",
    "CHUNK_INDEX",
    "DEAD_ATTEMPTS",
    "DEAD_CHUNK",
    "DEAD_ERROR",
    "DEAD_ERROR_TEXT",
    "DEAD_PLACE",
    "DEAD_REASON",
    "DEAD_TIME",
    "DECIDING",
    "FIRST_FAILURE",
    "GROUP",
    "ID",
    "MAX_TIME_MS",
    "NOT_BEFORE",
    "ORIGIN",
    "ORIGIN_TIMESTAMP",
    "PARKED",
    "PLAIN",
    "PREFIX",
    "TIMESTAMP",
    "TOTAL_SIZE",
    "Chunk",
    "Headers",
    "MalformedHeader",
    "Marks",
    "Origin",
    "dead_headers",
    "own_headers",
    "read_identity",
    "read_marks",
    "spellings",
    "write_marks",
]

T = TypeVar("T")
Headers = tuple[tuple[str, bytes | None], ...]

PREFIX = "retriable_kafka_"

# Shared with 0.x.
ATTEMPT = PREFIX + "attempt"
TIMESTAMP = PREFIX + "timestamp"
CHUNK_GROUP = PREFIX + "chunk_group"
CHUNK_INDEX = PREFIX + "chunk_id"
CHUNK_COUNT = PREFIX + "number_of_chunks"

# Ours, optional on reading.
GROUP = PREFIX + "group"
ORIGIN = PREFIX + "origin"
ORIGIN_TIMESTAMP = PREFIX + "origin_timestamp"
NOT_BEFORE = PREFIX + "not_before"
ID = PREFIX + "id"
FIRST_FAILURE = PREFIX + "first_failure"
ALONE = PREFIX + "alone"
PARKED = PREFIX + "parked"
TOTAL_SIZE = PREFIX + "total_size"  # of the whole message in bytes, on every chunk
CHECKSUM = PREFIX + "checksum"  # SHA-256 of the whole message, on the last chunk

CHUNK_HEADERS = frozenset((CHUNK_GROUP, CHUNK_INDEX, CHUNK_COUNT, TOTAL_SIZE, CHECKSUM))

# Dead letters only; never read back as marks.
DEAD_REASON = PREFIX + "dead_reason"
DEAD_ERROR = PREFIX + "dead_error"
DEAD_ERROR_TEXT = PREFIX + "dead_error_text"
DEAD_PLACE = PREFIX + "dead_place"  # informational
DEAD_ATTEMPTS = PREFIX + "dead_attempts"
DEAD_TIME = PREFIX + "dead_time"
DEAD_CHUNK = PREFIX + "dead_chunk"  # which chunk of a group that never became whole: group in hex/index/count

DECIDING = frozenset((GROUP, ORIGIN))
"""What decides where several groups, or several entries, share a retry topic, and informs elsewhere."""

_NOTHING: Sequence[None] = (None,)

_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that datetime knows
MAX_TIME_MS = _MAX_SECONDS * 1000  # the largest that still rounds up to such a second
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_GROUP = 32_767  # bytes: Kafka's own limit for a string
_MAX_ID = 255
_MAX_DEAD_TEXT = 4096  # bytes: an exception's text must not make a dead letter too large for its topic

_ORIGIN_FORM = re.compile(rb"([a-zA-Z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})")
_QUOTED = re.compile(rb"b?(['\"])(.*)\1", re.DOTALL)
_MAX_SPELLED = 500  # bytes; no origin is longer, however it is written
_ID_FORM = re.compile(rb"[ -~]{1,255}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message stood when it was first read."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Which part of a larger message a record is: number ``index`` (from 0) of ``count`` in ``group``."""

    group: bytes
    index: int
    count: int
    total: int | None = None  # bytes of the whole message, as its sender says
    checksum: bytes | None = None  # SHA-256 of the whole message


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the library wrote on a record. Without arguments: a record that carries nothing of ours. Times are
    POSIX ms.
    """

    failed: int = 0  # runs that failed so far
    not_before_ms: int | None = None
    group: str | None = None  # whose retry copy it is; None: everybody's
    origin: Origin | None = None
    origin_timestamp_ms: int | None = None
    id: str | None = None
    first_failure_ms: int | None = None
    alone: bool = False  # a worker died under it
    parked_ms: int | None = None  # when it was last re-published because it was due far off
    chunk: Chunk | None = None


PLAIN = Marks()


class MalformedHeader(ValueError):
    """A library header that cannot be what it says. ``header`` names it; ``problem`` says why, without its
    value.
    """

    def __init__(self, header: str, problem: str) -> None:
        self.header = header
        self.problem = problem
        super().__init__(header, problem)

    def __str__(self) -> str:
        return f"header {self.header}: {self.problem}"


def read_marks(
    headers: Sequence[tuple[str, bytes | None]] | None, deciding: Container[str] = DECIDING
) -> Marks:
    """Return what the library wrote; ``PLAIN`` itself if nothing. Raises MalformedHeader and nothing else.

    Headers that decide when, how often, for whom and with which others a message runs are read strictly. One that only
    informs is left out where its form is wrong, since tools that send dead letters back change such values; where it stands
    more than once, the first one counts. ``deciding``: which of group and origin decide here. The exact not-before
    counts only where it rounds up to the seconds header: a 0.x release drops it, or copies it unchanged onto a later time.
    """
    if headers:
        for name, _ in headers:
            if name.startswith(PREFIX):
                return _parse(headers, deciding)
    return PLAIN


def read_identity(headers: Sequence[tuple[str, bytes | None]]) -> Marks:
    """Return what the headers say of the message's identity, as far as it can be read. For messages that never run."""
    found = _found(headers)
    return Marks(
        origin=_informing(found, ORIGIN, _origin),
        origin_timestamp_ms=_informing(found, ORIGIN_TIMESTAMP, _time),
        id=_informing(found, ID, _id),
        first_failure_ms=_informing(found, FIRST_FAILURE, _time),
    )


def spellings(group: str) -> frozenset[str]:
    """Return how a header with this group may read once a tool has written it as text: as it is, quoted, in base64,
    or UTF-8 taken for Latin-1.
    """
    name = group.encode("utf-8", "surrogatepass")
    forms = (group, str(name), f'"{group}"', b64encode(name).decode(), name.decode("latin-1"))
    return frozenset(forms)


def own_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """Return the sender's own headers, in order, without the library's."""
    if not headers:
        return ()
    return tuple([pair for pair in headers if not pair[0].startswith(PREFIX)])


def write_marks(marks: Marks) -> list[tuple[str, bytes]]:
    """Return the headers that say ``marks``; ``read_marks`` of them gives ``marks`` back.

    The seconds header is rounded up, so that 0.x never runs a message early. An original timestamp beyond the
    year 9999 (a sender may claim anything) is left out; any other value that a reader would refuse is a
    MalformedHeader here.
    """
    headers: list[tuple[str, bytes]] = []
    if marks.failed:
        headers.append((ATTEMPT, _packed(ATTEMPT, marks.failed, _MAX_INT32)))
    exact = marks.not_before_ms
    if exact is not None:
        headers.append((TIMESTAMP, _packed(TIMESTAMP, -(-exact // 1000), _MAX_SECONDS)))
        if exact % 1000:
            headers.append((NOT_BEFORE, _packed(NOT_BEFORE, exact, MAX_TIME_MS)))
    headers += _identity(marks)
    if marks.alone:
        headers.append((ALONE, b""))
    if marks.parked_ms is not None:
        headers.append((PARKED, _packed(PARKED, marks.parked_ms, MAX_TIME_MS)))
    chunk = marks.chunk
    if chunk is not None:
        if len(chunk.group) != 16:
            raise MalformedHeader(CHUNK_GROUP, "is not 16 bytes")
        headers.append((CHUNK_GROUP, chunk.group))
        headers.append((CHUNK_INDEX, _packed(CHUNK_INDEX, chunk.index, chunk.count - 1)))
        headers.append((CHUNK_COUNT, _packed(CHUNK_COUNT, chunk.count, _MAX_INT32)))
        if chunk.total is not None:
            headers.append((TOTAL_SIZE, _packed(TOTAL_SIZE, chunk.total, _MAX_INT64)))
        if chunk.checksum is not None:
            headers.append((CHECKSUM, _checksum(chunk.checksum)))
    return headers


def dead_headers(
    marks: Marks,
    *,
    reason: str,
    attempts: int,
    time_ms: int,
    error: str | None = None,
    error_text: str | None = None,
    place: str | None = None,
) -> list[tuple[str, bytes]]:
    """Return a dead letter's headers: why, after how many runs, when, and from ``marks`` where it came from.

    ``error`` is the exception type's name, ``place`` where it was raised. ``error_text`` is cut at 4,096 bytes. Attempt
    and not-before are left out, so that whoever reads the dead-letter topic as a base topic starts afresh.
    """
    headers = [(DEAD_REASON, _cut(reason))]
    if error is not None:
        headers.append((DEAD_ERROR, _cut(error)))
    if error_text is not None:
        headers.append((DEAD_ERROR_TEXT, _cut(error_text)))
    if place is not None:
        headers.append((DEAD_PLACE, _cut(place)))
    headers.append((DEAD_ATTEMPTS, _packed(DEAD_ATTEMPTS, attempts, _MAX_INT32)))
    headers.append((DEAD_TIME, _packed(DEAD_TIME, time_ms, MAX_TIME_MS)))
    return headers + _identity(marks)


def _identity(marks: Marks) -> list[tuple[str, bytes]]:
    """Return the headers that retry copies and dead letters share."""
    headers: list[tuple[str, bytes]] = []
    if marks.group is not None:
        group = marks.group.encode("utf-8", "surrogatepass")
        _group(group)
        headers.append((GROUP, group))
    if marks.origin is not None:
        origin = marks.origin
        text = f"{origin.topic}/{origin.partition}/{origin.offset}".encode("utf-8", "surrogatepass")
        _origin(text)
        headers.append((ORIGIN, text))
    stamped = marks.origin_timestamp_ms
    if stamped is not None and 0 <= stamped <= MAX_TIME_MS:
        headers.append((ORIGIN_TIMESTAMP, stamped.to_bytes(8)))
    if marks.id is not None:
        name = marks.id.encode("utf-8", "surrogatepass")
        _id(name)
        headers.append((ID, name))
    if marks.first_failure_ms is not None:
        headers.append((FIRST_FAILURE, _packed(FIRST_FAILURE, marks.first_failure_ms, MAX_TIME_MS)))
    return headers


def _parse(headers: Sequence[tuple[str, bytes | None]], deciding: Container[str]) -> Marks:
    found = _found(headers)
    if not found:
        return PLAIN
    alone = _only(found, ALONE)
    if alone:
        raise MalformedHeader(ALONE, "is not empty")
    return Marks(
        failed=_number(found, ATTEMPT, _MAX_INT32) or 0,
        not_before_ms=_not_before(found),
        group=_decided(found, GROUP, _group, deciding),
        origin=_decided(found, ORIGIN, _origin, deciding),
        origin_timestamp_ms=_informing(found, ORIGIN_TIMESTAMP, _time),
        id=_informing(found, ID, _id),
        first_failure_ms=_informing(found, FIRST_FAILURE, _time),
        alone=alone is not None,
        parked_ms=_informing(found, PARKED, _time),
        chunk=_chunk(found),
    )


_READ = frozenset(
    (
        *(ATTEMPT, TIMESTAMP, CHUNK_GROUP, CHUNK_INDEX, CHUNK_COUNT),
        *(GROUP, ORIGIN, ORIGIN_TIMESTAMP, NOT_BEFORE, ID, FIRST_FAILURE, ALONE, PARKED),
        *(TOTAL_SIZE, CHECKSUM),
    )
)

_Found = dict[str, list[bytes | None]]


def _found(headers: Sequence[tuple[str, bytes | None]]) -> _Found:
    """Our headers by name. Names of a later release are none of our business, whatever they hold."""
    found: _Found = {}
    for name, value in headers:
        if name in _READ:
            found.setdefault(name, []).append(value)
    return found


def _only(found: _Found, header: str) -> bytes | None:
    """The value of a header that decides something; None: it is not there. Raises MalformedHeader."""
    values = found.get(header)
    if values is None:
        return None
    if len(values) > 1:
        raise MalformedHeader(header, "stands more than once")
    if values[0] is None:
        raise MalformedHeader(header, "is null")
    return values[0]


def _informing(found: _Found, header: str, read: Callable[[bytes], T]) -> T | None:
    """The value of a header that only informs; None: it is not there, or cannot be read."""
    value = found.get(header, _NOTHING)[0]
    if value is None:
        return None
    try:
        return read(value)
    except MalformedHeader:
        return None


def _decided(found: _Found, header: str, read: Callable[[bytes], T], deciding: Container[str]) -> T | None:
    if header not in deciding:
        return _informing(found, header, read)
    value = _only(found, header)
    return None if value is None else read(value)


def _number(found: _Found, header: str, maximum: int) -> int | None:
    value = _only(found, header)
    if value is None:
        return None
    if len(value) != 8:
        raise MalformedHeader(header, "is not 8 bytes")
    number = int.from_bytes(value)
    if number > maximum:
        raise MalformedHeader(header, "is out of range")
    return number


def _time(value: bytes) -> int:
    number = int.from_bytes(value)
    if len(value) != 8 or number > MAX_TIME_MS:
        raise MalformedHeader("a time", "is not 8 bytes, or out of range")
    return number


def _not_before(found: _Found) -> int | None:
    whole = _number(found, TIMESTAMP, _MAX_SECONDS)
    exact = _number(found, NOT_BEFORE, MAX_TIME_MS)
    if whole is None:
        return None
    if exact is not None and -(-exact // 1000) == whole:
        return exact
    return whole * 1000


def _chunk(found: _Found) -> Chunk | None:
    group = _only(found, CHUNK_GROUP)
    index = _number(found, CHUNK_INDEX, _MAX_INT32)
    count = _number(found, CHUNK_COUNT, _MAX_INT32)
    if group is None and index is None and count is None:
        return None
    if group is None:
        raise MalformedHeader(CHUNK_GROUP, "is missing beside the other chunk headers")
    if index is None:
        raise MalformedHeader(CHUNK_INDEX, "is missing beside the other chunk headers")
    if count is None:
        raise MalformedHeader(CHUNK_COUNT, "is missing beside the other chunk headers")
    if len(group) != 16:
        raise MalformedHeader(CHUNK_GROUP, "is not 16 bytes")
    if index >= count:
        raise MalformedHeader(CHUNK_INDEX, "is not below the number of chunks")
    # Nothing is put together of one, and so nothing compared.
    deciding = (TOTAL_SIZE, CHECKSUM) if count > 1 else ()
    total = _decided(found, TOTAL_SIZE, _size, deciding)
    return Chunk(group, index, count, total, _decided(found, CHECKSUM, _checksum, deciding))


def _size(value: bytes) -> int:
    number = int.from_bytes(value)
    if len(value) != 8 or number > _MAX_INT64:
        raise MalformedHeader(TOTAL_SIZE, "is not 8 bytes, or out of range")
    return number


def _checksum(value: bytes) -> bytes:
    if len(value) != 32:
        raise MalformedHeader(CHECKSUM, "is not 32 bytes")
    return value


def _group(value: bytes) -> str:
    if not 0 < len(value) <= _MAX_GROUP:
        raise MalformedHeader(GROUP, "is empty or too long")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedHeader(GROUP, "is not UTF-8") from None


def _origin(value: bytes) -> Origin:
    match = _ORIGIN_FORM.fullmatch(value) or _spelled_origin(value)
    if match is None or match[1] in (b".", b".."):
        raise MalformedHeader(ORIGIN, "is not topic/partition/offset")
    origin = Origin(match[1].decode(), int(match[2]), int(match[3]))
    if origin.partition > _MAX_INT32 or origin.offset > _MAX_INT64:
        raise MalformedHeader(ORIGIN, "is out of range")
    return origin


def _spelled_origin(value: bytes) -> re.Match[bytes] | None:
    """An origin that a tool has written as text: quoted, escaped, or in base64."""
    if len(value) > _MAX_SPELLED:
        return None
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        return _ORIGIN_FORM.fullmatch(quoted[2].replace(b"\\/", b"/"))
    try:
        return _ORIGIN_FORM.fullmatch(b64decode(value, validate=True))
    except ValueError:
        return _ORIGIN_FORM.fullmatch(value.replace(b"\\/", b"/"))


def _id(value: bytes) -> str:
    if _ID_FORM.fullmatch(value) is None:
        raise MalformedHeader(ID, f"is not 1 to {_MAX_ID} printable ASCII characters")
    return value.decode()


def _packed(header: str, number: int, maximum: int) -> bytes:
    if not 0 <= number <= maximum:
        raise MalformedHeader(header, "is out of range")
    return number.to_bytes(8)


def _cut(text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= _MAX_DEAD_TEXT:
        return encoded
    return encoded[:_MAX_DEAD_TEXT].decode("utf-8", "ignore").encode()
