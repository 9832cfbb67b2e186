"""From a polled record to an Entry: which Topic entry it belongs to, when it may run, and whether it is run at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from retriable_kafka_client.core import retry
from retriable_kafka_client.core.chunks import Part
from retriable_kafka_client.core.entry import FILTERED, FOREIGN, PART, Entry, Verdict
from retriable_kafka_client.joined import JoinedRecord
from retriable_kafka_client.message import Message, PlainRecord
from retriable_kafka_client.wire import PLAIN, Chunk, MalformedHeader, Marks, read_marks

if TYPE_CHECKING:
    from retriable_kafka_client.core.engine import Route
    from retriable_kafka_client.core.partition import Assignment

__all__ = ["Intake"]

# For a name that is not UTF-8 the client sets an exception and returns a list with nothing at that place all the same. The
# interpreter's quick call, `raw.headers()` in a warm loop, does not notice, and whoever looks at the name crashes; a call
# through this does, and raises SystemError.
headers_of: Callable[[Any], Any] = methodcaller("headers")

ENTRY_BYTES = 400  # what a held message costs beside its key, body and headers: client, broker and our own records of it


@dataclass(frozen=True, slots=True)
class _Role:
    """What a consumed topic is to this consumer."""

    route: int  # of what says nothing of its origin
    by_origin: dict[str, int] | None  # None: a base topic


class Intake:
    """Reads records on the loop's thread; never raises, whatever a record or the user's filter does."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        group: str,
        message_bytes: int,
        deserializer: Callable[[bytes, Message[Any]], Any],
        keep: Callable[[Message[Any]], bool] | None,
        error_text: bool,
        keyed: bool = False,
    ) -> None:
        self._keyed = keyed  # the key orders messages
        self._group = group
        self._message_bytes = message_bytes
        self._deserializer = deserializer
        self._keep = keep
        self._error_text = error_text
        self._roles = {route.topic: _Role(index, None) for index, route in enumerate(routes)}
        for retry_topic in {route.retry_topic for route in routes if route.retry_topic}:
            users = [index for index, route in enumerate(routes) if route.retry_topic == retry_topic]
            # A scheduled job says nothing of an origin, and its own later copies name the retry topic itself.
            by_origin = {retry_topic: users[0]} | {routes[index].topic: index for index in users}
            self._roles[retry_topic] = _Role(users[0], by_origin)

    def read(self, assignment: Assignment, offsets: Sequence[int], raws: Sequence[Any]) -> list[Entry]:
        """Make the entries of records of one partition. The loop spends most of its time here: 0.5 us a plain record."""
        role = self._roles[assignment.place.topic]
        route, most = role.route, self._message_bytes
        unfiltered = self._keep is None
        entries: list[Entry] = []
        for offset, raw in zip(offsets, raws, strict=True):
            size = len(raw)
            key = raw.key()
            held = size + ENTRY_BYTES if key is None else size + len(key) + ENTRY_BYTES
            try:
                headers = headers_of(raw)
            except Exception:  # noqa: BLE001 - a name that is not UTF-8 ends in a SystemError
                entries.append(_unreadable(assignment, offset, held, raw, route))
                continue
            if headers is None and unfiltered and size <= most:
                entries.append(Entry(assignment, offset, held, raw, PLAIN, route))
            else:
                entries.append(self._read_one(assignment, offset, held, raw, headers or (), role))
        if self._keyed:
            for entry in entries:
                chunk, key = entry.marks.chunk, entry.raw.key()
                # As Message.key: a message without one may travel under its chunk group's id.
                entry.key = None if chunk is not None and key == chunk.group else key
        return entries

    def _read_one(
        self, assignment: Assignment, offset: int, size: int, raw: Any, headers: Sequence[Any], role: _Role
    ) -> Entry:
        for name, value in headers:
            size += len(name) + (len(value) if value is not None else 0)
        entry = self._read_marked(assignment, offset, size, raw, headers, role)
        if len(raw) > self._message_bytes and entry.verdict is None:
            entry.verdict = Verdict(retry.REASON_TOO_LARGE)
        if self._keep is not None and entry.verdict is None:
            entry.verdict = self._filter(self._keep, entry)
        return entry

    def _read_marked(
        self, assignment: Assignment, offset: int, size: int, raw: Any, headers: Sequence[Any], role: _Role
    ) -> Entry:
        try:
            marks = read_marks(headers)
        except MalformedHeader as error:
            verdict = Verdict(retry.REASON_MALFORMED, text=str(error))
            return Entry(assignment, offset, size, raw, PLAIN, role.route, None, verdict)
        if marks is PLAIN:
            return Entry(assignment, offset, size, raw, PLAIN, role.route)
        route, verdict_or_none = self._route(marks, role)
        if marks.chunk is not None and marks.chunk.count > 1 and verdict_or_none is None:
            part = Part(assignment, offset, size, raw, marks, route, marks.not_before_ms, PART)
            part.body_bytes, part.born_ms = len(raw), max(0, raw.timestamp()[1])
            return part
        born_ms = max(0, raw.timestamp()[1]) if marks.not_before_ms is not None else 0
        return Entry(
            assignment, offset, size, raw, marks, route, marks.not_before_ms, verdict_or_none, born_ms
        )

    def _route(self, marks: Marks, role: _Role) -> tuple[int, Verdict | None]:
        route, verdict = role.route, None
        if role.by_origin is not None:
            if marks.group is not None and marks.group != self._group:
                return route, FOREIGN
            if marks.origin is not None:
                found = role.by_origin.get(marks.origin.topic)
                if found is None:
                    return route, Verdict(retry.REASON_NO_ORIGIN)
                route = found
        return route, verdict

    def seal(self, seal: Any, part: Part) -> Any:
        """Take the next chunk's body into the checksum; False where none is to be expected.

        Chunk by chunk, as they come: the checksum of a large message would hold the loop up.
        """
        chunk = part.marks.chunk
        assert chunk is not None
        if seal is None:
            seal = sha256() if chunk.total is not None else False
        if seal is not False:
            seal.update(part.raw.value() or b"")
        return seal

    def join(self, assignment: Assignment, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
        """Make one entry of all chunks of a message, in their order, and filter it; or say what is wrong with it."""
        chunks = [part.marks.chunk for part in parts if part.marks.chunk is not None]
        size = sum(part.body_bytes for part in parts)
        sums = {chunk.checksum for chunk in chunks if chunk.checksum is not None}
        if any(chunk.total not in {None, size} for chunk in chunks):
            return Verdict(retry.REASON_CORRUPT)
        if sums and seal is False:
            seal = sha256()
            for part in parts:
                seal.update(part.raw.value() or b"")
        if any(seal.digest() != one for one in sums):
            return Verdict(retry.REASON_CORRUPT)
        first, offset = parts[0], min(part.offset for part in parts)
        marks = replace(first.marks, chunk=Chunk(chunks[0].group, 0, 1))  # as if it had never been split
        entry = Entry(
            assignment,
            offset,
            sum(part.size for part in parts),
            JoinedRecord([part.raw for part in parts], offset),
            marks,
            first.route,
            marks.not_before_ms,
            None,
            first.born_ms,
        )
        entry.key = first.key
        if self._keep is not None:
            entry.verdict = self._filter(self._keep, entry)
        return entry

    def _filter(self, keep: Callable[[Message[Any]], bool], entry: Entry) -> Verdict | None:
        message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, self._deserializer)
        try:
            return None if keep(message) else FILTERED
        except Exception as error:  # noqa: BLE001 - the filter is the user's
            failure = retry.judge(None, entry.attempt, error, 0.0, self._error_text)
            return Verdict(retry.REASON_FILTER, error=failure.error, text=failure.text)


def _unreadable(assignment: Assignment, offset: int, size: int, raw: Any, route: int) -> Entry:
    """The entry of a record whose headers cannot be read; it goes on without them.

    The client's own record must not be asked for them again: it would give out a half-made list, and whoever looks into
    that ends the interpreter.
    """
    place = assignment.place
    plain = PlainRecord(raw.value(), raw.key(), None, place.topic, place.partition, offset, raw.timestamp())
    verdict = Verdict(retry.REASON_MALFORMED, text="the headers cannot be read: a name is not UTF-8")
    return Entry(assignment, offset, size, plain, PLAIN, route, None, verdict)
