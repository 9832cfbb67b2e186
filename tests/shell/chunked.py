"""Messages as they stand in a topic, whole and in chunks, put together again without the library's reader."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from retriable_kafka_client.sending.splitting import batch_bytes
from retriable_kafka_client.wire.headers import Headers, Marks, own_headers, read_marks
from tests.support.kafka import Kafka
from tests.support.records import Read, read_all

__all__ = ["Sent", "random_bytes", "sent", "set_limit"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One message, of one record or several."""

    partition: int
    key: bytes | None
    body: bytes | None
    headers: Headers  # the sender's own
    marks: Marks  # of the first record
    records: int
    largest: int  # bytes of the largest batch
    every: tuple[Mapping[str, bytes | None], ...]  # each record's headers


def sent(servers: str, topic: str, *, incomplete: bool = False) -> list[Sent]:
    """All messages in the topic, in the order of their first records. Checks what every group must be. `incomplete`:
    groups that did not become whole are left out.
    """
    groups: dict[object, list[Read]] = {}
    for record in read_all(servers, topic):
        chunk = read_marks(record.headers).chunk
        groups.setdefault(chunk.group if chunk else (record.partition, record.offset), []).append(record)
    return [_message(records) for records in groups.values() if not incomplete or _is_whole(records)]


def _is_whole(records: list[Read]) -> bool:
    chunk = read_marks(records[0].headers).chunk
    return chunk is None or chunk.count == len(records)


def _message(records: list[Read]) -> Sent:
    first = records[0]
    marks = read_marks(first.headers)
    chunk = marks.chunk
    key, body = first.key, first.value
    if chunk is not None:
        body = b"".join(record.value or b"" for record in records)
        key = None if key == chunk.group else key
        chunks = [one for record in records if (one := read_marks(record.headers).chunk) is not None]
        checksums = [None] * (chunk.count - 1) + [hashlib.sha256(body).digest()]
        assert [one.index for one in chunks] == list(range(chunk.count))
        assert [one.checksum for one in chunks] == checksums
        assert {one.total for one in chunks} == {len(body)}
        assert len({(record.partition, record.key) for record in records}) == 1
        assert len({own_headers(record.headers) for record in records}) == 1
        assert first.key is not None
    return Sent(
        partition=first.partition,
        key=key,
        body=body,
        headers=own_headers(first.headers),
        marks=marks,
        records=len(records),
        largest=max(batch_bytes(len(one.value or b""), one.key, one.headers) for one in records),
        every=tuple(dict(one.headers) for one in records),
    )


def random_bytes(size: int, seed: bytes = b"seed") -> bytes:
    """Bytes that no compression makes smaller; equal for equal arguments."""
    return hashlib.shake_128(seed).digest(size)


def set_limit(kafka: Kafka, topic: str, limit: int) -> None:
    """Change the topic's max.message.bytes and wait until the broker says so."""
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    kafka.admin().incremental_alter_configs([resource])[resource].result(30)
