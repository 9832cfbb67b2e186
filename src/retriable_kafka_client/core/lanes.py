"""Which messages of one assignment may be under way together: of each lane only the head, the others wait behind it.

A lane is what must be handled in order: the messages of one key, or a whole partition. Messages enter in the order of
their offsets and leave when they are complete, so the head is the lane's lowest incomplete offset. That is why lanes and
admission cannot block each other: the partition's lowest incomplete offset is the head of whichever lane it is in, and
the tracker admits it always.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from retriable_kafka_client.core.entry import Entry

__all__ = ["Lanes", "Reservation"]

_WHOLE = b""  # the one lane of a partition that is handled in order as a whole


class Reservation:
    """The place of a message that is not whole yet: what stands behind it waits for it."""

    __slots__ = ("entry", "gone", "key", "offset")

    def __init__(self, key: bytes | None, offset: int) -> None:
        self.key = key
        self.offset = offset  # the message's lowest one, which its entry has too
        self.entry: Entry | None = None  # the whole message, if it came while others were before it
        self.gone = False


class Lanes:
    """See the module's docstring. A lane with one message costs one item of a dict."""

    __slots__ = ("_behind", "_by_key", "_heads", "_reserved", "bytes", "waiting")

    def __init__(self, *, by_key: bool) -> None:
        self._by_key = by_key  # else everything is one lane
        self._heads: dict[bytes, int] = {}  # each lane's head, by its offset
        self._behind: dict[bytes, deque[Entry | Reservation]] = {}  # what waits, in order; never an empty one
        self._reserved: dict[bytes, Reservation] = {}  # the heads that are reservations
        self.waiting = 0  # messages behind a head
        self.bytes = 0  # of these

    def _lane(self, key: bytes | None) -> bytes | None:
        return key if self._by_key else _WHOLE

    def enter(self, entry: Entry) -> bool:
        """Take a place at the lane's end; whether that is its head. Without a key, in key mode, it always may go."""
        lane = self._lane(entry.key)
        if lane is None:
            return True
        if self._enter(lane, entry):
            return True
        self.waiting += 1
        self.bytes += entry.size
        return False

    def leave(self, entry: Entry) -> Entry | None:
        """``entry`` is complete: the message behind it, which may go now, if it was the head and there is one."""
        lane = self._lane(entry.key)
        if lane is None or self._heads.get(lane) != entry.offset:
            return None
        return self._next(lane)

    def is_head(self, entry: Entry) -> bool:
        """Whether it may be under way."""
        lane = self._lane(entry.key)
        return lane is None or (self._heads.get(lane) == entry.offset and lane not in self._reserved)

    def longest(self) -> tuple[int, int, bytes | None] | None:
        """The lane with the most behind its head: the head's offset, how many, and the key, if there is one. O(lanes)."""
        if not self._behind:
            return None
        lane = max(self._behind, key=lambda lane: len(self._behind[lane]))
        return self._heads[lane], len(self._behind[lane]), lane if self._by_key else None

    # Messages that come in pieces --------------------------------------------------------------------------------------

    def reserve(self, key: bytes | None, offset: int) -> Reservation:
        """Keep the place of a message of which the first piece has come."""
        reservation = Reservation(key, offset)
        lane = self._lane(key)
        if lane is not None and self._enter(lane, reservation):
            self._reserved[lane] = reservation
        return reservation

    def fill(self, reservation: Reservation, entry: Entry) -> bool:
        """The message is whole: ``entry``, with the same key and offset, takes its place. Returns whether it may go."""
        assert entry.key == reservation.key and reservation.entry is None
        reservation.offset = (
            entry.offset
        )  # a higher one if a chunk that had come twice is no longer in the log
        lane = self._lane(reservation.key)
        if lane is None:
            return True
        if self._reserved.get(lane) is reservation:
            del self._reserved[lane]
            self._heads[lane] = entry.offset
            return True
        reservation.entry = entry
        self.waiting += 1
        self.bytes += entry.size
        return False

    def drop(self, reservation: Reservation) -> Entry | None:
        """The message will never be whole, and is complete: what may go now, if it stood before that."""
        lane = self._lane(reservation.key)
        if lane is None:
            return None
        if self._reserved.get(lane) is reservation:
            del self._reserved[lane]
            return self._next(lane)
        reservation.gone = True
        return None

    # Inside ------------------------------------------------------------------------------------------------------------

    def _enter(self, lane: bytes, one: Entry | Reservation) -> bool:
        if lane not in self._heads:
            self._heads[lane] = one.offset
            return True
        self._behind.setdefault(lane, deque()).append(one)
        return False

    def _next(self, lane: bytes) -> Entry | None:
        """The head left: the next one takes its place. It is returned if it may go."""
        queue = self._behind.get(lane)
        while queue:
            one = queue.popleft()
            if not queue:
                del self._behind[lane]
            if isinstance(one, Reservation):
                if one.gone:
                    continue
                self._heads[lane] = one.offset
                if one.entry is None:
                    self._reserved[lane] = one
                    return None
                one = one.entry
            self._heads[lane] = one.offset
            self.waiting -= 1
            self.bytes -= one.size
            return one
        del self._heads[lane]
        return None

    def clear(self) -> None:
        """Forget everything."""
        self._heads.clear()
        self._behind.clear()
        self._reserved.clear()
        self.waiting = self.bytes = 0

    def _entries(self) -> Iterator[Entry]:
        for queue in self._behind.values():
            for one in queue:
                entry = one.entry if isinstance(one, Reservation) else one
                if entry is not None:
                    yield entry

    def validate(self) -> None:
        entries = list(self._entries())
        assert self.waiting == len(entries) and self.bytes == sum(entry.size for entry in entries)
        assert self._behind.keys() <= self._heads.keys() and self._reserved.keys() <= self._heads.keys()
        assert all(self._heads[lane] == reservation.offset for lane, reservation in self._reserved.items())
        for lane, queue in self._behind.items():
            offsets = [self._heads[lane], *[one.offset for one in queue]]
            assert queue and len(offsets) == len(set(offsets)), (lane, offsets)
