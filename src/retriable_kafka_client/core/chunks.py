"""Messages that come in chunks: what of one assignment has been read and is not whole yet.

A group of chunks leaves as a whole message, or is given up: its chunks then end in the dead-letter topic as they came. Over
the budget a group is *cut*: its chunks are forgotten but for their offsets, and read again (*recalled*) when there is room.
What a sender claims costs nothing: only chunks that were read are kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from retriable_kafka_client.core.entry import DUPLICATE, Entry, Owner, Verdict
from retriable_kafka_client.core.lanes import Reservation
from retriable_kafka_client.core.offset_set import OffsetSet
from retriable_kafka_client.events import REASON_INCOMPLETE, REASON_ORPHAN, REASON_TOO_LARGE

__all__ = ["Assembler", "Group", "GroupKey", "Joiner", "Lost", "Part", "Workshop", "key_of"]

REMEMBERED = 10_000  # groups of one assignment that have ended: what comes late of them opens no new one
LEAST_SILENCE = (
    60.0  # seconds without a chunk of a group that is given up, by our own clock; less where `chunk_wait` is
)
WALK_SECONDS = 20e-6  # for each group, between two looks at what has expired: tens of thousands must not hold the loop up

GroupKey: TypeAlias = tuple[bytes, int]
"""The group's id and the number of its chunks: who contradicts himself sends two groups, neither of them whole."""


class Part(Entry):
    """One chunk of a message. Its ``born_ms`` is the record's timestamp."""

    __slots__ = ("body_bytes", "recalled")

    is_part = True
    body_bytes: int
    recalled: bool  # read again, after it was cut

    @property
    def begins(self) -> bool:
        """Whether it is the first one of its message."""
        chunk = self.marks.chunk
        return chunk is not None and chunk.index == 0


class Joiner(Protocol):
    """What the shell knows of records."""

    def seal(self, seal: Any, part: Part) -> Any:
        """Take the next chunk, in their order, into the group's checksum; ``seal`` is None before the first."""
        ...

    def join(self, assignment: Owner, parts: Sequence[Part], seal: Any) -> Entry | Verdict:
        """Make the whole message of its chunks, in their order, at the lowest offset; or say why it cannot be it."""
        ...


@dataclass(slots=True, kw_only=True)
class Workshop:
    """What the assemblers of one consumer share."""

    joiner: Joiner | None = None  # None: no chunk ever comes
    message_bytes: int = 2**63 - 1  # the largest message
    chunk_wait: float = 900.0  # seconds of log time between a message's first chunk and its last
    begun: int = 0  # groups
    left: int = 0  # of these, whole ones and those that were given up


@dataclass(frozen=True, slots=True)
class Lost:
    """A group that was given up."""

    reason: str
    offset: int  # of its first chunk that was read
    chunks: int  # that were read
    count: int  # that it should have had


class Group:
    """The chunks of one message, as far as they are held."""

    __slots__ = (
        "body_bytes",
        "bytes",
        "count",
        "first",
        "first_ms",
        "maybe_cut",
        "number",
        "parts",
        "read_at",
        "seal",
        "sealed",
    )

    def __init__(self, number: int, count: int, *, maybe_cut: bool) -> None:
        self.number = number  # in the order in which the consumer's groups were begun
        self.count = count
        self.maybe_cut = maybe_cut  # chunks of it may be among the cut ones
        self.parts: dict[int, Part] = {}  # by index
        self.bytes = 0
        self.body_bytes = 0
        self.first = -1  # the lowest offset
        self.first_ms = 0  # the timestamp there
        self.read_at = -math.inf  # monotonic; when its last chunk was read
        self.seal: Any = None  # the checksum of the chunks below `sealed`
        self.sealed = 0

    def add(self, index: int, part: Part, read_at: float, joiner: Joiner, wall_ms: int) -> None:
        self.parts[index] = part
        self.bytes += part.size
        self.body_bytes += part.body_bytes
        self.read_at = max(self.read_at, read_at)
        if self.first < 0 or part.offset < self.first:
            self.first = part.offset
            self.first_ms = min(part.born_ms, wall_ms)
        while self.sealed in self.parts:
            self.seal = joiner.seal(self.seal, self.parts[self.sealed])
            self.sealed += 1

    def remove(self, index: int) -> Part:
        part = self.parts.pop(index)
        self.bytes -= part.size
        self.body_bytes -= part.body_bytes
        self.seal, self.sealed = None, 0  # the duplicate may say something else
        return part


class Assembler:
    """The unfinished groups of one assignment, in the order in which they were begun."""

    __slots__ = (
        "_ended",
        "_long_ago",
        "_passed",
        "_shop",
        "_walk_at",
        "_whole",
        "begin",
        "bytes",
        "count",
        "cut",
        "groups",
        "log_ms",
        "lost",
        "recalls",
        "reservations",
    )

    def __init__(self, shop: Workshop | None = None) -> None:
        self._shop = shop if shop is not None else Workshop()
        self.groups: dict[GroupKey, Group] = {}
        self.bytes = 0  # of all chunks that are held
        self.count = 0  # of them
        self.cut = OffsetSet()  # chunks that are incomplete, and not held by anybody
        self.reservations: dict[
            GroupKey, Reservation
        ] = {}  # in order: the lanes' places of unfinished groups, also of cut ones
        self.begin: int | None = None  # the first offset that was delivered
        self.recalls = 0  # that were begun
        self.log_ms = 0  # the timestamp of the last record that was read; at the log's end, the time
        self.lost: list[Lost] = []  # until the engine takes it
        self._whole = 0  # since the engine has asked
        self._walk_at = -math.inf  # monotonic; before, nobody looks for what has expired
        # When reading had come to which offset, at intervals, not longer ago than any group must be silent; below
        # `_long_ago` all was read before that.
        self._passed: deque[tuple[float, int]] = deque()
        self._long_ago = 0
        self._ended: OrderedDict[GroupKey, str | None] = (
            OrderedDict()
        )  # None: it was whole; else why it was not

    def __bool__(self) -> bool:
        """Whether anything waits for further chunks, or to be read again."""
        return bool(self.groups) or bool(self.cut)

    @property
    def oldest(self) -> Group | None:
        return next(iter(self.groups.values()), None)

    @property
    def youngest(self) -> Group | None:
        return next(reversed(self.groups.values()), None)

    def note_poll(self, offset: int) -> None:
        """A poll brought something from this offset on."""
        if self.begin is None:
            self.begin = offset

    def note_log(self, log_ms: int) -> None:
        """So far the log has come: a record's timestamp, or at the log's end the time (wall clock)."""
        self.log_ms = log_ms

    def take_lost(self) -> list[Lost]:
        """What was given up since the last call."""
        lost, self.lost = self.lost, []
        return lost

    def begin_recall(self) -> tuple[int, int]:
        """What was cut is read again: from the first offset up to the second one."""
        self.recalls += 1
        return self.cut.lowest, self.cut.highest + 1

    def take(self, assignment: Owner, part: Part, wall_ms: int, mono: float) -> Sequence[Entry]:
        """Take a chunk in. Returns what can go on: the whole message, or chunks that have a verdict."""
        key = key_of(part)
        if key in self._ended:
            reason = self._ended[key]
            return (_judged(part, DUPLICATE if reason is None else Verdict(reason)),)
        chunk, joiner = part.marks.chunk, self._shop.joiner
        assert chunk is not None and joiner is not None
        group = self.groups.get(key)
        if group is None:
            self._shop.begun += 1
            group = Group(self._shop.begun, chunk.count, maybe_cut=bool(self.cut))
            self.groups[key] = group
        elif chunk.index in group.parts:
            held = group.parts[chunk.index]
            if held.offset < part.offset:
                return (_judged(part, DUPLICATE),)
            # Read again behind its duplicate. The first one counts: where it stands gives the message its id.
            self._drop(group, chunk.index)
            self._keep(group, chunk.index, part, mono, wall_ms)
            return (_judged(held, DUPLICATE),)
        self._keep(group, chunk.index, part, mono, wall_ms)
        known = len(group.parts) > 1 or key in self.reservations or part.recalled or bool(self.cut)
        if not known and self._is_orphan(part.offset, chunk.index):
            return self._give_up(key, group, REASON_ORPHAN)
        if group.body_bytes > self._shop.message_bytes:
            return self._give_up(key, group, REASON_TOO_LARGE)
        if len(group.parts) < chunk.count:
            return ()
        parts = [group.parts[index] for index in range(chunk.count)]
        whole = joiner.join(assignment, parts, group.seal)
        if isinstance(whole, Verdict):
            assert whole.reason is not None
            return self._give_up(key, group, whole.reason)
        self._leave(key, group, None)
        offsets = sorted([one.offset for one in parts])
        assert whole.offset == offsets[0]
        self._whole += 1
        whole.others = tuple(offsets[1:])
        return (whole,)

    def _keep(self, group: Group, index: int, part: Part, mono: float, wall_ms: int) -> None:
        assert self._shop.joiner is not None
        group.add(index, part, self._read_at(part, mono), self._shop.joiner, wall_ms)
        self.bytes += part.size
        self.count += 1

    def _drop(self, group: Group, index: int) -> None:
        self.bytes -= group.remove(index).size
        self.count -= 1

    def _is_orphan(self, offset: int, index: int) -> bool:
        """Whether the chunks before this one cannot all have been delivered in this assignment."""
        assert self.begin is not None
        return offset - index < self.begin

    @property
    def _silence(self) -> float:
        return min(LEAST_SILENCE, self._shop.chunk_wait)

    def passed(self, offset: int, mono: float) -> None:
        """What lies below the offset has been read."""
        if not self._passed or mono >= self._passed[-1][0] + self._silence / 8:
            self._passed.append((mono, offset))
        while self._passed[0][0] <= mono - self._silence:
            self._long_ago = self._passed.popleft()[1]

    def _read_at(self, part: Part, mono: float) -> float:
        """When the chunk was read for the first time, or a little later."""
        if not part.recalled:
            return mono
        if part.offset < self._long_ago:
            return mono - self._silence
        return next((at for at, offset in self._passed if part.offset < offset), mono)

    def is_overdue(self, wall_ms: int) -> bool:
        """Whether a group has waited for long enough if the log has nothing more."""
        wait_ms = int(self._shop.chunk_wait * 1000)
        return any(wall_ms >= group.first_ms + wait_ms for group in self.groups.values())

    def expired(self, mono: float, log_ms: int) -> list[GroupKey]:
        """Groups that wait for a chunk no longer: the log has gone on without it."""
        if mono < self._walk_at:
            return []
        self._walk_at = mono + len(self.groups) * WALK_SECONDS
        wait_ms = int(self._shop.chunk_wait * 1000)
        return [
            key
            for key, group in self.groups.items()
            if not (group.maybe_cut and self.cut)
            and log_ms >= group.first_ms + wait_ms
            and mono >= group.read_at + self._silence
        ]

    def expire(self, key: GroupKey) -> Sequence[Entry]:
        """Give this group up. Returns its chunks."""
        return self._give_up(key, self.groups[key], REASON_INCOMPLETE)

    def _give_up(self, key: GroupKey, group: Group, reason: str) -> Sequence[Entry]:
        self._leave(key, group, reason)
        self.lost.append(Lost(reason, group.first, len(group.parts), group.count))
        parts = sorted(group.parts.values(), key=lambda part: part.offset)
        return [_judged(part, Verdict(reason)) for part in parts]

    def _leave(self, key: GroupKey, group: Group, reason: str | None) -> None:
        del self.groups[key]
        self.bytes -= group.bytes
        self.count -= len(group.parts)
        self._shop.left += 1
        self._ended[key] = reason
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def take_whole(self) -> int:
        """How many messages became whole since the last call."""
        count, self._whole = self._whole, 0
        return count

    def cut_youngest(self) -> None:
        """Forget the group that was begun last, but for the offsets of its chunks."""
        _, group = self.groups.popitem()
        self.bytes -= group.bytes
        self.count -= len(group.parts)
        for part in group.parts.values():
            self.cut.add(part.offset)

    def clear(self) -> None:
        """Forget everything."""
        self.groups.clear()
        self.reservations.clear()
        self.cut = OffsetSet()
        self.bytes = self.count = 0

    def validate(self) -> None:
        self.cut.validate()
        assert len(self._ended) <= REMEMBERED
        groups = self.groups.values()
        if not groups:
            assert self.bytes == self.count == 0
            return
        assert self.bytes == sum(group.bytes for group in groups)
        assert self.count == sum(len(group.parts) for group in groups)
        assert [group.number for group in groups] == sorted({group.number for group in groups})
        for key, group in self.groups.items():
            assert group.parts and len(group.parts) < key[1] and key not in self._ended
            assert group.bytes == sum(part.size for part in group.parts.values())
            assert group.first == min(part.offset for part in group.parts.values())
            assert not any(part.offset in self.cut for part in group.parts.values())


def key_of(part: Part) -> GroupKey:
    """Which message it is a chunk of."""
    chunk = part.marks.chunk
    assert chunk is not None
    return chunk.group, chunk.count


def _judged(part: Part, verdict: Verdict) -> Part:
    part.verdict = verdict
    return part
