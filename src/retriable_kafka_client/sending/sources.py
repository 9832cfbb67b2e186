"""Where the bytes of a message come from, a piece at a time: memory, a file, the chunks it came in."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["FileSource", "MemorySource", "PiecesSource", "Source", "Unreadable", "view_of"]


class Unreadable(Exception):
    """The bytes cannot be had; the text says why, without them."""


class Source(Protocol):
    """The bytes of one message."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, start: int, stop: int) -> bytes:
        """Return these bytes. Raises Unreadable."""
        ...


def view_of(value: memoryview) -> memoryview | bytes:
    """Return it as single bytes, copied only where they do not lie side by side."""
    return value.cast("B") if value.c_contiguous else value.tobytes()


class MemorySource:
    """Bytes in memory, which are not copied before they are sent."""

    __slots__ = ("_view", "size")

    def __init__(self, view: memoryview | bytes) -> None:
        self._view = view
        self.size = len(view)

    def read(self, start: int, stop: int) -> bytes:
        """As Source."""
        if type(self._view) is bytes and (start, stop) == (0, self.size):
            return self._view
        return bytes(self._view[start:stop])


class PiecesSource:
    """Bytes in several pieces."""

    __slots__ = ("_ends", "_pieces", "size")

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._ends: list[int] = []
        self.size = 0
        for piece in pieces:
            self.size += len(piece)
            self._ends.append(self.size)

    def read(self, start: int, stop: int) -> bytes:
        """As Source."""
        parts = []
        for piece, end in zip(self._pieces, self._ends, strict=True):
            first = end - len(piece)
            if first < stop and start < end:
                parts.append(memoryview(piece)[max(0, start - first) : stop - first])
        return b"".join(parts)


class FileSource:
    """A file from where it stood to where it ended when this was made; never in memory as a whole."""

    __slots__ = ("_file", "_start", "size")

    def __init__(self, file: Any) -> None:
        self._file = file
        self._start: int = file.tell()
        self.size: int = max(0, file.seek(0, os.SEEK_END) - self._start)
        file.seek(self._start)

    def read(self, start: int, stop: int) -> bytes:
        """As Source."""
        buffer = io.BytesIO()
        try:
            self._file.seek(self._start + start)
            while left := stop - start - buffer.tell():
                part = self._file.read(left)
                if not isinstance(part, bytes):
                    raise Unreadable("the file does not give bytes: open it in binary mode")
                if not part or len(part) > left:
                    raise Unreadable(f"the file ended before its {self.size} bytes were read")
                if len(part) == stop - start:
                    return part
                buffer.write(part)
        except Unreadable:
            raise
        except BaseException as error:
            # Its text may hold anything.
            raise Unreadable(f"the file could not be read: {type(error).__name__}") from error
        return buffer.getvalue()
