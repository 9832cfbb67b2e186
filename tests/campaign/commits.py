"""Every commit of a group, read from the broker's own log of them, and what each says is done."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import TopicCollection

from retriable_kafka_client.core.offset_map import Binding, OffsetMap, decode
from tests.campaign.evidence import Spot
from tests.support.kafka import Kafka
from tests.support.records import read_all

__all__ = ["CommitLog", "Committed", "commits_of", "read_commit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """One commit of one partition, as the broker wrote it down."""

    topic: str
    partition: int
    at: float  # wall clock of the broker, s, in whole milliseconds
    position: int
    map: OffsetMap | None = None  # None: a bare position


@dataclass(slots=True)
class CommitLog:
    """When each record was first committed as done, by position or by map."""

    commits: list[Committed]  # in the order of the broker's log
    falls: list[str] = field(default_factory=list)
    """Each commit whose position lies below that of one before."""
    _first: dict[Spot, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        highest: dict[tuple[str, int], int] = {}
        for commit in self.commits:
            place = (commit.topic, commit.partition)
            before = highest.get(place, 0)
            if commit.position < before:
                self.falls.append(f"{place}: position {commit.position} after {before} at {commit.at:.3f}")
            self._cover(commit, range(before, commit.position))
            highest[place] = max(before, commit.position)
            if commit.map is not None:
                start = commit.map.base
                for first, stop in commit.map.incomplete:
                    self._cover(commit, range(start, first))
                    start = stop
                self._cover(commit, range(start, commit.map.end))

    def _cover(self, commit: Committed, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self._first.setdefault(Spot(commit.topic, commit.partition, offset), commit.at)

    def covered_at(self, spot: Spot) -> float | None:
        """When the record was first committed as done; None: never."""
        return self._first.get(spot)

    @property
    def covered(self) -> Iterable[tuple[Spot, float]]:
        """All records that were ever committed as done, with the time of the first such commit."""
        return self._first.items()


def read_commit(key: bytes, value: bytes | None) -> tuple[str, str, int, int, str] | None:
    """Group, topic, partition, position and metadata of a record of `__consumer_offsets`.

    None when it is something else (members, tombstones).
    """
    if value is None or struct.unpack_from(">h", key)[0] not in (0, 1):
        return None
    group, at = _text(key, 2)
    topic, at = _text(key, at)
    partition = struct.unpack_from(">i", key, at)[0]
    version, position = struct.unpack_from(">hq", value)
    at = 10 + (4 if version >= 3 else 0)  # the leader's epoch
    if version >= 4:
        length, at = _varint(value, at)
        # librdkafka counts the NUL behind its C string as a part of the text.
        metadata = value[at : at + length - 1].decode().rstrip("\0")
    else:
        metadata, _ = _text(value, at)
    return group, topic, partition, position, metadata


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return result, at


def commits_of(kafka: Kafka, group: str, topics: Iterable[str]) -> CommitLog:
    """All commits of the group for these topics, as they exist now.

    OffsetMapError for metadata that is not a map of the library's: a judge who overlooks maps excuses too much.
    """
    names = list(topics)
    described = kafka.admin().describe_topics(TopicCollection(names))
    uids = {name: str(described[name].result(30.0).topic_id) for name in names}
    cluster = str(kafka.admin().list_topics(timeout=30.0).cluster_id).encode()
    found: list[Committed] = []
    for record in read_all(kafka.bootstrap_servers, "__consumer_offsets"):
        assert record.key is not None
        commit = read_commit(record.key, record.value)
        if commit is None or commit[0] != group or commit[1] not in uids:
            continue
        _, topic, partition, position, metadata = commit
        binding = Binding(f"{topic}/{partition}".encode(), uids[topic].encode(), cluster)
        found.append(
            Committed(
                topic=topic,
                partition=partition,
                at=record.timestamp_ms / 1000,
                position=position,
                map=decode(metadata, base=position, binding=binding) if metadata else None,
            )
        )
    return CommitLog(found)
