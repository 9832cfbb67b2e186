"""Files of evidence: one line per event, written by any number of processes, whole even if one is killed."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

__all__ = ["EvidenceWriter", "read_evidence"]


class EvidenceWriter:
    """Appends events to a file; safe from any thread and from many processes at once.

    Each event is a single `write()` to an O_APPEND descriptor: the kernel puts it at the end undivided, and
    it survives a SIGKILL of the writer as soon as `write` has returned. The file is opened at the first
    event, so that a writer can be pickled and sent to worker processes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = -1

    def write(self, event: str, **fields: Any) -> None:
        """Append one event, a JSON object with `event`, `pid`, `time` (wall clock, s) and the fields."""
        line = (
            msgspec.json.encode({"event": event, "pid": os.getpid(), "time": time.time(), **fields}) + b"\n"
        )
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes written to {self._path}")

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> str:
        return self._path

    def __setstate__(self, path: str) -> None:
        self._path = path
        self._file = -1


def read_evidence(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All events in the order in which they were written; none when the file does not exist yet.

    A line that is being written is not there yet; any other line that is not an event raises ValueError.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    return [msgspec.json.decode(line) for line in whole.splitlines()]
