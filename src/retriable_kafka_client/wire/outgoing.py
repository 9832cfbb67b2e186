"""What a sender gives, as what goes on the wire: value, key, headers and the time before which it must not
run.
"""

from __future__ import annotations

import io
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from mmap import mmap
from typing import Any, NamedTuple

from retriable_kafka_client.errors import YEAR, ConfigError, seconds
from retriable_kafka_client.wire.headers import PREFIX, Headers, Marks, write_marks

__all__ = [
    "BYTES_LIKE",
    "GivenHeaders",
    "SendRequest",
    "Serializer",
    "body_of",
    "check_file",
    "due_ms",
    "is_file",
    "key_of",
    "own_headers_of",
    "schedule_headers",
]

GivenHeaders = (
    Mapping[str, bytes | bytearray | memoryview | str | None]
    | Iterable[tuple[str, bytes | bytearray | memoryview | str | None]]
)

Serializer = Callable[[Any], bytes]
"""Makes a body of a value; runs in the sender's thread, and its exceptions go to the sender."""


class SendRequest(NamedTuple):
    """What somebody gave to a ``send``, not checked yet; see Producer.send.

    A tuple because one is made for every record: 0.25 us, against 1.25 us for a frozen dataclass.
    """

    topic: str
    value: Any
    key: str | bytes | None = None
    headers: GivenHeaders = ()
    not_before: datetime | None = None
    delay: float | timedelta | None = None


_PRODUCER = "Producer.send"  # the fields that errors name, unless somebody else sends

# Not everything with a buffer: an array of another library may have a serializer that knows more than its bytes.
BYTES_LIKE = (bytes, bytearray, memoryview, array, mmap)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def body_of(value: Any, serializer: Serializer, *, where: str = _PRODUCER) -> bytes | None:
    """Return the record's body: None, bytes-likes and files as they are, anything else through
    ``serializer``.
    """
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, BYTES_LIKE):
        return bytes(memoryview(value))
    if is_file(value):
        return _read(value, where)
    body = serializer(value)
    if not isinstance(body, (bytes, bytearray, memoryview)):
        # Not shown: it is the payload.
        raise ConfigError(f"{where.partition('.')[0]}.serializer", body, "must return bytes", secret=True)
    return bytes(body)


def is_file(value: object) -> bool:
    """Whether ``value`` is to be read and not serialized."""
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def check_file(file: Any, *, where: str = _PRODUCER) -> None:
    """Refuse a file that cannot be sent."""
    # Not every object that can seek says so.
    if isinstance(file, io.TextIOBase) or not getattr(file, "seekable", lambda: True)():
        raise ConfigError(f"{where}.value", file, "a file must be opened in binary mode and be seekable")


def _read(file: Any, where: str) -> bytes:
    check_file(file, where=where)
    body = file.read()
    if not isinstance(body, bytes):
        raise ConfigError(f"{where}.value", file, "a file must be opened in binary mode")
    return body


def key_of(key: object, *, where: str = _PRODUCER) -> bytes | None:
    """Return the record's key: text as UTF-8, bytes-likes as they are."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise ConfigError(f"{where}.key", key, "must be bytes, a text or None", secret=True)


def own_headers_of(
    given: GivenHeaders, *, where: str = _PRODUCER, reserved: bool = False
) -> list[tuple[str, str | bytes | None]]:
    """Return the sender's headers as pairs; one of the library's is a ConfigError unless ``reserved``."""
    headers: list[tuple[str, str | bytes | None]] = []  # the client's type; no value is a text
    pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):
            remedy = "must be a mapping, or pairs of name and value"
            raise ConfigError(f"{where}.headers", pair, remedy, secret=True) from None
        if not isinstance(name, str):
            raise ConfigError(f"{where}.headers", name, "a header's name must be a text")
        if "\0" in name or not _is_utf8(name):
            # The client cuts the one short, and ends the process over the other.
            remedy = "a header's name must be text that UTF-8 can write, without a NUL"
            raise ConfigError(f"{where}.headers", name, remedy)
        if name.startswith(PREFIX) and not reserved:
            raise ConfigError(f"{where}.headers", name, f"names that begin {PREFIX!r} are the library's")
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        elif value is not None and not isinstance(value, bytes):
            remedy = f"the value of {name!r} must be bytes, a text or None"
            raise ConfigError(f"{where}.headers", value, remedy, secret=True)
        headers.append((name, value))
    return headers


def _is_utf8(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def schedule_headers(not_before: datetime | None, delay: float | timedelta | None) -> Headers:
    """Return the headers that keep a record from running too early: none where that time has come already."""
    due = due_ms(not_before, delay)
    return () if due is None else tuple(write_marks(Marks(not_before_ms=due)))


def due_ms(
    not_before: datetime | None, delay: float | timedelta | None, *, where: str = _PRODUCER
) -> int | None:
    """Return the time before which a record must not run, as POSIX milliseconds; None where it has come already."""
    if delay is not None:
        if not_before is not None:
            raise ConfigError(f"{where}.not_before", not_before, "give either `not_before` or `delay`")
        wait_ms = -(-seconds(f"{where}.delay", delay) * 1000 // 1)
        due = -(-time.time_ns() // 1_000_000) + int(wait_ms) if wait_ms else 0
    elif not_before is not None:
        due = _instant_ms(not_before, f"{where}.not_before")
    else:
        return None
    return due if due * 1_000_000 > time.time_ns() else None


def _instant_ms(not_before: object, field: str) -> int:
    if not isinstance(not_before, datetime) or not_before.utcoffset() is None:
        raise ConfigError(
            field, not_before, "must be an aware datetime, as in datetime.now(UTC) + timedelta(…)"
        )
    due = -((_EPOCH - not_before) // _MILLISECOND)  # rounded up
    if due / 1000 > time.time() + YEAR:
        raise ConfigError(field, not_before, "must be at most a year from now")
    return due
