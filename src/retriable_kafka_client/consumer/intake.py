"""From a polled record to an Entry: which Topic entry it belongs to, when it may run, and whether it is run at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from contextvars import Context, copy_context
from dataclasses import replace
from gc import get_referents
from hashlib import sha256
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from retriable_kafka_client import events
from retriable_kafka_client.consumer.joined_record import JoinedRecord
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.chunks import Part
from retriable_kafka_client.core.entry import FILTERED, FOREIGN, PART, Entry, Owner, Verdict
from retriable_kafka_client.core.plain_batch import PlainBatch
from retriable_kafka_client.core.routing import Role, Routing
from retriable_kafka_client.errors import Reject
from retriable_kafka_client.message import Message, PlainRecord
from retriable_kafka_client.user_functions.code_places import place_of
from retriable_kafka_client.user_functions.interrupts import is_from_signal
from retriable_kafka_client.user_functions.results import refuse_unfinished
from retriable_kafka_client.wire.headers import (
    DECIDING,
    GROUP,
    PLAIN,
    Chunk,
    MalformedHeader,
    Marks,
    read_identity,
    read_marks,
    spellings,
)
from retriable_kafka_client.wire.outbox import HEADER_BYTES

if TYPE_CHECKING:
    from retriable_kafka_client.core.partition import Assignment

__all__ = ["Intake"]

# For a name that is not UTF-8 the client sets an exception and returns a list with nothing at that place all the same. The
# interpreter's quick call, `raw.headers()` in a warm loop, does not notice, and whoever looks at the name crashes; a call
# through this does, and raises SystemError.
headers_of: Callable[[Any], Any] = methodcaller("headers")
key_of: Callable[[Any], bytes | None] = methodcaller("key")

_UNREADABLE = object()
UNREADABLE_NAME = "\ufffd"  # stands for a name that is not UTF-8

LONGEST_LANE = 64  # bytes
ENTRY_BYTES = 400  # what a held message costs beside its key, body and headers: client, broker and our own records of it
PART_BYTES = 900  # what a chunk costs besides, the only one of its group that has come: its marks, and the group itself


class Seal:
    """The checksum of a message's chunks, in their order, taken chunk by chunk as they come: that of a large message at once
    would hold the loop up.
    """

    __slots__ = ("_sum",)

    def __init__(self, *, expected: bool) -> None:
        self._sum = (
            sha256() if expected else None
        )  # None: nothing is to be compared, as far as the first chunk says

    def take(self, part: Part) -> None:
        """Take the next chunk."""
        if self._sum is not None:
            self._sum.update(part.raw.value() or b"")

    def digest(self, parts: Sequence[Part]) -> bytes:
        """The checksum of all ``parts``, which were taken; read again where it had not been expected."""
        if self._sum is not None:
            return self._sum.digest()
        again = Seal(expected=True)
        for part in parts:
            again.take(part)
        return again.digest(parts)


class Intake:
    """Reads records on the loop's thread; never raises, whatever a record or the user's filter does; only a signal
    that comes while a filter runs in the main thread goes through.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        group: str,
        message_bytes: int,
        deserializer: Callable[[bytes, Message[Any]], Any],
        keep: Callable[[Message[Any]], bool] | None,
        error_text: bool,
        keyed: bool = False,
        raw_filter: Callable[[Any], bool] | None = None,
        former_groups: Sequence[str] = (),
        policies: Sequence[retry.Policy | None] = (),
    ) -> None:
        self._policies = policies  # by route; of a filter that cannot decode now
        self._keyed = keyed  # the key orders messages
        self._raw_filter = raw_filter
        # Copies with these names are ours.
        self._ours = frozenset[str]().union(*map(spellings, (group, *former_groups)))
        self._message_bytes = message_bytes
        self._deserializer = deserializer
        self._keep = keep
        self._error_text = error_text
        self._routing = routing
        self._context = copy_context()  # of the thread that starts the consumer; filters run in copies of it

    def read(
        self, assignment: Assignment, offsets: Sequence[int], raws: Sequence[Any]
    ) -> list[Entry] | PlainBatch:
        """Make the entries of records of one partition, or a batch if all are plain.

        The loop spends most of its time here. `map` calls the client's accessors without the interpreter: half the cost.
        """
        role = self._routing.role(assignment.place.topic)
        assert role is not None, "the engine has no topic read that is not clearly one entry's"
        route, most = role.route, self._message_bytes
        raw_filter = self._raw_filter
        bodies, keys, all_headers = list(map(len, raws)), list(map(key_of, raws)), _all_headers(raws)
        unsorted = self._keep is None and raw_filter is None and assignment.queues.lanes is None
        if unsorted and raws and all_headers.count(None) == len(raws) and max(bodies) <= most:
            if keys.count(None) == len(keys):
                sizes = [body + ENTRY_BYTES for body in bodies]
            else:
                sizes = [body + len(key or b"") + ENTRY_BYTES for body, key in zip(bodies, keys, strict=True)]
            return PlainBatch(assignment, route, offsets, sizes, raws)
        entries: list[Entry] = []
        for offset, raw, body, key, headers in zip(offsets, raws, bodies, keys, all_headers, strict=True):
            held = body + len(key or b"") + ENTRY_BYTES
            if headers is _UNREADABLE:
                entries.append(_unreadable(assignment, offset, held, raw, route))
            elif raw_filter is not None and not _keeps(raw_filter, raw, self._context.copy()):
                entries.append(Entry.marked(assignment, offset, held, raw, PLAIN, route, verdict=FILTERED))
            else:
                entries.append(self._read_one(assignment, offset, held, raw, headers or (), role))
        if self._keyed:
            for entry in entries:
                chunk, key = entry.marks.chunk, entry.raw.key()
                # As Message.key: a message without one may travel under its chunk group's id.
                entry.key = None if chunk is not None and key == chunk.group else _lane(key)
        return entries

    def _read_one(
        self, assignment: Assignment, offset: int, size: int, raw: Any, headers: Sequence[Any], role: Role
    ) -> Entry:
        for name, value in headers:
            size += len(name) + (len(value) if value is not None else 0) + HEADER_BYTES
        entry = self._read_marked(assignment, offset, size, raw, headers, role)
        if len(raw) > self._message_bytes and entry.verdict is None:
            entry.verdict = Verdict(events.REASON_TOO_LARGE)
        if self._keep is not None and entry.verdict is None:
            entry.verdict = self._filter(self._keep, entry)
        return entry

    def _read_marked(
        self, assignment: Assignment, offset: int, size: int, raw: Any, headers: Sequence[Any], role: Role
    ) -> Entry:
        try:
            marks = read_marks(headers, _deciding(role))
        except MalformedHeader as error:
            malformed = Verdict(events.REASON_MALFORMED, text=str(error))
            identity = read_identity(headers)
            return Entry.marked(assignment, offset, size, raw, identity, role.route, verdict=malformed)
        if marks is PLAIN:
            return Entry(assignment, offset, size, raw, PLAIN, role.route)
        route, verdict = self._route(marks, role, assignment.place.topic)
        if marks.chunk is not None and marks.chunk.count > 1 and verdict is None:
            stamp_ms = max(0, raw.timestamp()[1])
            held = size + PART_BYTES
            part = Part.marked(assignment, offset, held, raw, marks, route, verdict=PART, born_ms=stamp_ms)
            assert isinstance(part, Part)
            part.body_bytes, part.recalled = len(raw), False
            return part
        born_ms = max(0, raw.timestamp()[1]) if marks.not_before_ms is not None else 0
        return Entry.marked(assignment, offset, size, raw, marks, route, verdict=verdict, born_ms=born_ms)

    def _route(self, marks: Marks, role: Role, topic: str) -> tuple[int, Verdict | None]:
        route = role.route
        if role.is_retry:
            if marks.group is not None and marks.group not in self._ours:
                return route, FOREIGN
            if marks.origin is not None:
                found = self._routing.of_origin(topic, marks.origin.topic)
                if found is None:
                    return route, Verdict(events.REASON_NO_ORIGIN)
                route = found
        return route, None

    def seal(self, seal: Seal | None, part: Part) -> Seal:
        """Take the next chunk into its message's checksum; None: it is the first one."""
        chunk = part.marks.chunk
        assert chunk is not None
        # Who says how long the message is adds a checksum to the last chunk.
        seal = seal or Seal(expected=chunk.total is not None)
        seal.take(part)
        return seal

    def join(self, assignment: Owner, parts: Sequence[Part], seal: Seal) -> Entry | Verdict:
        """Make one entry of all chunks of a message, in their order, and filter it; or say what is wrong with it."""
        chunks = [part.marks.chunk for part in parts if part.marks.chunk is not None]
        size = sum(part.body_bytes for part in parts)
        sums = {chunk.checksum for chunk in chunks if chunk.checksum is not None}
        if any(chunk.total not in {None, size} for chunk in chunks):
            return Verdict(events.REASON_CORRUPT)
        if sums and sums != {seal.digest(parts)}:
            return Verdict(events.REASON_CORRUPT)
        first, offset = parts[0], min(part.offset for part in parts)
        marks = replace(first.marks, chunk=Chunk(chunks[0].group, 0, 1))  # as if it had never been split
        record = JoinedRecord([part.raw for part in parts], offset)
        size = sum(part.size for part in parts)
        entry = Entry.marked(assignment, offset, size, record, marks, first.route, born_ms=first.born_ms)
        entry.key = first.key
        if self._keep is not None:
            entry.verdict = self._filter(self._keep, entry)
        return entry

    @property
    def filters(self) -> bool:
        """Whether there is a filter."""
        return self._keep is not None

    def sift(self, entry: Entry) -> Verdict | retry.Failure | None:
        """Ask the filter once more. None: it is to be run; FILTERED; or how that failed."""
        assert self._keep is not None
        verdict = self._filter(self._keep, entry)
        if verdict is None or verdict is FILTERED:
            return verdict
        if verdict.failure is not None:
            return verdict.failure
        assert verdict.reason is not None
        return retry.Failure(
            reason=verdict.reason,
            retry_in=None,
            error=verdict.error,
            text=verdict.text,
            place=verdict.place,
        )

    def _filter(self, keep: Callable[[Message[Any]], bool], entry: Entry) -> Verdict | None:
        message: Message[Any] = Message(entry.raw, entry.marks, entry.assignment.uid, self._deserializer)
        message.ended = True  # a filter sends nothing
        try:
            verdict = None if _is_true(self._context.copy().run(keep, message)) else FILTERED
        except BaseException as error:
            if is_from_signal(error):
                raise
            failure = retry.judge(None, entry.attempt, error, 0.0, self._error_text)
            decisive = retry.decisive(None, error)
            place = place_of(decisive, error, function=keep)
            verdict = Verdict(events.REASON_FILTER, error=failure.error, text=failure.text, place=place)
        refusal = message.deserializer_error
        if refusal is not None and not isinstance(refusal, Reject):
            policy = self._policies[entry.route] if self._policies else None
            failure = retry.judge(policy, entry.attempt, refusal, random.random(), self._error_text)
            place = place_of(retry.decisive(policy, refusal), refusal, function=keep)
            failure = replace(failure, place=place)
            verdict = Verdict(failure.reason, error=failure.error, text=failure.text, failure=failure)
        return verdict


def _all_headers(raws: Sequence[Any]) -> list[Any]:
    """The headers of each; _UNREADABLE where a name is not UTF-8."""
    found: list[Any] = []
    remaining = iter(raws)
    while True:
        try:
            found.extend(map(headers_of, remaining))
        except Exception:  # noqa: BLE001 - it ends in a SystemError
            found.append(_UNREADABLE)
        else:
            return found


def _lane(key: bytes | None) -> bytes | None:
    """What orders messages with this key: a long one would be held beyond its message."""
    return key if key is None or len(key) <= LONGEST_LANE else sha256(key).digest()


def _keeps(raw_filter: Callable[[Any], bool], raw: Any, context: Context) -> bool:
    try:
        return _is_true(context.run(raw_filter, raw))
    except BaseException as error:
        if is_from_signal(error):
            raise
        return False


def _deciding(role: Role) -> Collection[str]:
    """Whether it matters here whose copy a record is, and of which topic."""
    if not role.is_retry:
        return ()
    return DECIDING if len(role.users) > 1 else (GROUP,)


def _is_true(answer: object) -> bool:
    """What a filter says. Raises AwaitableReturned: a coroutine would be true."""
    if answer is True or answer is False:
        return answer
    refuse_unfinished(answer, "the filter")
    return bool(answer)


def _unreadable(assignment: Owner, offset: int, size: int, raw: Any, route: int) -> Entry:
    """The entry of a record with a header whose name cannot be read. What can be read of its headers goes along."""
    place, headers = assignment.place, _legible(raw)
    size += sum(len(name) + len(value or b"") + HEADER_BYTES for name, value in headers)
    plain = PlainRecord(
        raw.value(), raw.key(), headers, place.topic, place.partition, offset, raw.timestamp()
    )
    verdict = Verdict(events.REASON_MALFORMED, text="the name of a header is not UTF-8")
    identity = read_identity(headers)
    return Entry.marked(assignment, offset, size, plain, identity, route, verdict=verdict)


def _legible(raw: Any) -> list[tuple[str, bytes | None]]:
    """What can be read of headers of which a name cannot: that name reads UNREADABLE_NAME.

    Asked a second time, the client's record gives out the list that it made: pairs without a name where the name cannot be
    read. Whoever takes that name ends the interpreter; a look at what the pair refers to does not.
    """
    found: list[tuple[str, bytes | None]] = []
    try:
        given = headers_of(raw)
        for pair in given if isinstance(given, list) else ():
            named = isinstance(pair, tuple) and len(pair) == 2 and len(get_referents(pair)) == 2
            found.append((pair[0] if named else UNREADABLE_NAME, pair[1]))
    except Exception:  # noqa: BLE001 - another release of the client, which gives out nothing
        return []
    return found
