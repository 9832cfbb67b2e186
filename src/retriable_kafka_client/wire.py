"""The headers that this library puts on records: their names, and strict, total codecs.

What is read was written by anybody. Reading therefore either gives values within their ranges or raises
MalformedHeader, whatever the bytes are, and never shows them. Fields and widths are shared with the 0.x
releases: they read ``attempt``, ``timestamp`` and the chunk headers and ignore everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "ALONE",
    "ATTEMPT",
    "CHECKSUM",
    "CHUNK_COUNT",
    "CHUNK_GROUP",
    "CHUNK_INDEX",
    "DEAD_ATTEMPTS",
    "DEAD_CHUNK",
    "DEAD_ERROR",
    "DEAD_ERROR_TEXT",
    "DEAD_REASON",
    "DEAD_TIME",
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
    "read_marks",
    "write_marks",
]

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

# Dead letters only; never read back as marks.
DEAD_REASON = PREFIX + "dead_reason"
DEAD_ERROR = PREFIX + "dead_error"
DEAD_ERROR_TEXT = PREFIX + "dead_error_text"
DEAD_ATTEMPTS = PREFIX + "dead_attempts"
DEAD_TIME = PREFIX + "dead_time"
DEAD_CHUNK = PREFIX + "dead_chunk"  # which chunk of a group that never became whole: group in hex/index/count

_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that datetime knows
MAX_TIME_MS = _MAX_SECONDS * 1000  # the largest that still rounds up to such a second
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_GROUP = 32_767  # bytes: Kafka's own limit for a string
_MAX_ID = 255
_MAX_DEAD_TEXT = 4096  # bytes: an exception's text must not make a dead letter too large for its topic

_ORIGIN_FORM = re.compile(rb"([a-zA-Z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})")
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


def read_marks(headers: Sequence[tuple[str, bytes | None]] | None) -> Marks:
    """Return what the library wrote; ``PLAIN`` itself if nothing. Raises MalformedHeader and nothing else.

    The exact not-before counts only where it rounds up to the seconds header: 0.x drops it, or keeps it by
    accident.
    """
    if headers:
        for name, _ in headers:
            if name.startswith(PREFIX):
                return _parse(headers)
    return PLAIN


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
) -> list[tuple[str, bytes]]:
    """Return a dead letter's headers: why, after how many runs, when, and from ``marks`` where it came from.

    ``error`` is the exception type's name. ``error_text`` is cut at 4,096 bytes. Attempt and not-before are
    left out, so that whoever reads the dead-letter topic as a base topic starts afresh.
    """
    headers = [(DEAD_REASON, _cut(reason))]
    if error is not None:
        headers.append((DEAD_ERROR, _cut(error)))
    if error_text is not None:
        headers.append((DEAD_ERROR_TEXT, _cut(error_text)))
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


def _parse(headers: Sequence[tuple[str, bytes | None]]) -> Marks:
    found: dict[str, bytes] = {}
    for name, value in headers:
        # Names of a later release are none of our business, whatever they hold.
        if name not in _READ:
            continue
        if name in found:
            raise MalformedHeader(name, "stands more than once")
        if value is None:
            raise MalformedHeader(name, "is null")
        found[name] = value
    if not found:
        return PLAIN
    group = found.get(GROUP)
    origin = found.get(ORIGIN)
    name_bytes = found.get(ID)
    if found.get(ALONE):
        raise MalformedHeader(ALONE, "is not empty")
    return Marks(
        failed=_number(found, ATTEMPT, _MAX_INT32) or 0,
        not_before_ms=_not_before(found),
        group=None if group is None else _group(group),
        origin=None if origin is None else _origin(origin),
        origin_timestamp_ms=_number(found, ORIGIN_TIMESTAMP, MAX_TIME_MS),
        id=None if name_bytes is None else _id(name_bytes),
        first_failure_ms=_number(found, FIRST_FAILURE, MAX_TIME_MS),
        alone=ALONE in found,
        parked_ms=_number(found, PARKED, MAX_TIME_MS),
        chunk=_chunk(found),
    )


_READ = frozenset(
    (
        *(ATTEMPT, TIMESTAMP, CHUNK_GROUP, CHUNK_INDEX, CHUNK_COUNT),
        *(GROUP, ORIGIN, ORIGIN_TIMESTAMP, NOT_BEFORE, ID, FIRST_FAILURE, ALONE, PARKED),
        *(TOTAL_SIZE, CHECKSUM),
    )
)


def _number(found: dict[str, bytes], header: str, maximum: int) -> int | None:
    value = found.get(header)
    if value is None:
        return None
    if len(value) != 8:
        raise MalformedHeader(header, "is not 8 bytes")
    number = int.from_bytes(value)
    if number > maximum:
        raise MalformedHeader(header, "is out of range")
    return number


def _not_before(found: dict[str, bytes]) -> int | None:
    whole = _number(found, TIMESTAMP, _MAX_SECONDS)
    exact = _number(found, NOT_BEFORE, MAX_TIME_MS)
    if whole is None:
        return None
    if exact is not None and -(-exact // 1000) == whole:
        return exact
    return whole * 1000


def _chunk(found: dict[str, bytes]) -> Chunk | None:
    group = found.get(CHUNK_GROUP)
    index = _number(found, CHUNK_INDEX, _MAX_INT32)
    count = _number(found, CHUNK_COUNT, _MAX_INT32)
    total = _number(found, TOTAL_SIZE, _MAX_INT64)
    checksum = found.get(CHECKSUM)
    if checksum is not None:
        _checksum(checksum)
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
    return Chunk(group, index, count, total, checksum)


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
    match = _ORIGIN_FORM.fullmatch(value)
    if match is None or match[1] in (b".", b".."):
        raise MalformedHeader(ORIGIN, "is not topic/partition/offset")
    origin = Origin(match[1].decode(), int(match[2]), int(match[3]))
    if origin.partition > _MAX_INT32 or origin.offset > _MAX_INT64:
        raise MalformedHeader(ORIGIN, "is out of range")
    return origin


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
