"""The fake broker: logs with gaps, what the group has committed, and what is refused at present."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from retriable_kafka_client.core.protocol import Place
from tests.simulation.records import PartRecord, Record, Whole

__all__ = ["Broker", "Committed", "Log"]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed for one partition."""

    position: int
    metadata: str


class Log:
    """One partition in one incarnation."""

    def __init__(self, place: Place, uid: str) -> None:
        self.place = place
        self.uid = uid
        self.end = 0
        self.unresolved: dict[int, Record] = {}
        self._offsets: list[int] = []
        self._records: list[Record] = []

    def append(self, record: Record, wall_ms: int) -> None:
        record.place, record.offset_, record.stamp_ms = self.place, self.end, wall_ms
        record.resolved = record.facts.kind.silent
        if not record.resolved:
            self.unresolved[self.end] = record
        self._offsets.append(self.end)
        self._records.append(record)
        self.end += 1

    def skip(self, count: int) -> None:
        """Leave offsets without records, as transaction markers and aborted transactions do."""
        self.end += count

    def compact(self, index: int) -> Record:
        """Take one record out of the log."""
        self._offsets.pop(index)
        record = self._records.pop(index)
        record.gone = True
        self.resolve(record)
        return record

    def index(self, offset: int) -> int:
        """Where the first record at or behind the offset stands among the records."""
        return min(bisect_left(self._offsets, offset), len(self._offsets) - 1)

    def holds(self, offset: int) -> bool:
        """Whether a record stands there."""
        index = bisect_left(self._offsets, offset)
        return index < len(self._offsets) and self._offsets[index] == offset

    def read(self, position: int, most: int) -> list[Record]:
        first = bisect_left(self._offsets, position)
        return self._records[first : first + most]

    def resolve(self, record: Record) -> None:
        record.resolved = True
        self.unresolved.pop(record.offset_, None)

    def __len__(self) -> int:
        return len(self._records)


class Broker:
    """All logs, one group's commits, and the troubles of the moment."""

    def __init__(self, metadata_limit: int) -> None:
        self.logs: dict[Place, Log] = {}
        self.committed: dict[Place, Committed] = {}
        # Open transactions hold a partition's offsets, each by itself, until they end; after their producer's death until
        # that time at the latest.
        self._holders: dict[Place, dict[object, float | None]] = {}
        self.cluster = "first"
        self.metadata_limit = metadata_limit
        self.down = False  # nothing is answered and nothing lands
        # What a client hears of the group's coordinator, and whether a broker answers it; monotonic.
        self._coordinator = ("query-coord", False)  # while it is down
        self.coordinator_since = 0.0
        self.refusing: dict[str, str] = {}  # topic -> error code of every produce
        self.commit_code: str | None = None  # every commit is refused with it

    @property
    def coordinator(self) -> tuple[str, bool]:
        return self._coordinator if self.down else ("up", True)

    def turn(self, coordinator: tuple[str, bool], mono: float) -> None:
        """The group has this coordinator from now on; for anything but "up" it is as good as down."""
        if coordinator != self.coordinator:
            self.coordinator_since = mono
        self.down = coordinator[0] != "up"
        self._coordinator = coordinator

    def resolve(self, record: Record) -> None:
        """The message needs no more work."""
        if isinstance(record, Whole):
            record.resolved = True
            record.letter.resolve(self)
        elif isinstance(record, PartRecord):
            record.letter.resolve_index(self, record.index)
        else:
            self.resolve_one(record)

    def resolve_one(self, record: Record) -> None:
        """The record needs no more work. A record of a log that was re-created counts no more."""
        record.resolved = True
        if record.offset_ < 0:
            return
        log = self.logs[record.place]
        if log.unresolved.get(record.offset_) is record:
            del log.unresolved[record.offset_]

    def recreate(self, topic: str, uid: str) -> None:
        """Delete the topic with all that was committed for it, and make it anew."""
        for place in list(self.logs):
            if place.topic == topic:
                self.logs[place] = Log(place, uid)
                self.committed.pop(place, None)
                self._holders.pop(place, None)

    @property
    def mirrored(self) -> bool:
        return self.cluster != "first"

    def mirror(self) -> None:
        """From now on it is another cluster, to which records and the group's positions, metadata and all, were copied."""
        self.cluster = "mirror"
        self._holders.clear()
        for log in self.logs.values():
            log.uid += " in the mirror"

    def lock(self, place: Place, holder: object, until: float | None = None) -> None:
        """A transaction has added the partition's offsets; ``until``: when the brokers abort it."""
        self._holders.setdefault(place, {})[holder] = until

    def unlock(self, place: Place, holder: object) -> None:
        """The transaction has ended. What others hold stays held."""
        self._holders.get(place, {}).pop(holder, None)

    def is_locked(self, place: Place, mono: float) -> bool:
        """Whether nobody is told yet what is committed for it."""
        holders = self._holders.get(place, {})
        for holder in [one for one, until in holders.items() if until is not None and until <= mono]:
            del holders[holder]
        return bool(holders)

    def lag(self, place: Place) -> int:
        log = self.logs[place]
        committed = self.committed.get(place)
        return log.end - (committed.position if committed is not None else 0)
