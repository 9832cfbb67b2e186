"""A message that came in chunks, as one record."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import cast

from retriable_kafka_client.message import RawRecord

__all__ = ["JoinedRecord"]


class JoinedRecord:
    """Stands at the lowest offset of its chunks; key, headers and timestamp are the first chunk's.

    The body is joined when it is first read, chunk after chunk, each dropped once it is copied: it costs little more than
    itself at any time. Any thread may read it.
    """

    __slots__ = ("_body", "_first", "_lock", "_offset", "_parts", "_size")

    def __init__(self, parts: Sequence[RawRecord], offset: int) -> None:
        first = parts[0]
        self._first = (first.key(), first.headers(), first.topic(), first.partition(), first.timestamp())
        self._offset = offset
        self._size = sum(len(part) for part in parts)
        self._lock = threading.Lock()  # covers the two below: a run that is overdue may still read
        self._parts: list[RawRecord] | None = list(parts)
        self._body = b""

    def value(self) -> bytes:
        """The whole body."""
        with self._lock:
            parts, self._parts = self._parts, None
            if parts is not None:
                parts.reverse()
                buffer = io.BytesIO()
                while parts:
                    buffer.write(parts.pop().value() or b"")
                self._body = buffer.getvalue()
            return self._body

    def pieces(self) -> list[bytes]:
        """The body as it lies in memory, without joining it."""
        with self._lock:
            if self._parts is None:
                return [self._body]
            return [part.value() or b"" for part in self._parts]

    def key(self) -> bytes | None:
        """The first chunk's key."""
        return self._first[0]

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        """All headers of the first chunk, the library's among them."""
        return cast("Sequence[tuple[str, bytes | None]] | None", self._first[1])

    def topic(self) -> str:
        """The topic."""
        return cast("str", self._first[2])

    def partition(self) -> int:
        """The partition."""
        return cast("int", self._first[3])

    def offset(self) -> int:
        """The lowest offset of its chunks."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """The first chunk's kind (0: there is none) and POSIX milliseconds."""
        return self._first[4]

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True  # an empty body does not make it nothing

    def __repr__(self) -> str:
        return f"<JoinedRecord {self._first[2]}/{self._first[3]}/{self._offset}>"
