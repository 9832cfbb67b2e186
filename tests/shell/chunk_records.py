"""Chunk records, written with the plain client as anybody may write them."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Producer

from retriable_kafka_client.wire.headers import PLAIN, Chunk, Headers, Marks, write_marks

__all__ = ["Split", "interleaved", "produce_chunks"]


@dataclass(frozen=True)
class Split:
    """One message and its chunks."""

    body: bytes
    size: int  # bytes of one chunk
    key: bytes | None = None
    headers: Headers = ()
    marks: Marks = PLAIN
    sums: bool = True  # total size and checksum are written
    group: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def count(self) -> int:
        return max(1, -(-len(self.body) // self.size))

    def chunk(self, index: int) -> tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]:
        """A chunk's body, key and headers."""
        last = index == self.count - 1
        chunk = Chunk(
            self.group,
            index,
            self.count,
            len(self.body) if self.sums else None,
            hashlib.sha256(self.body).digest() if self.sums and last else None,
        )
        marks = Marks(not_before_ms=self.marks.not_before_ms, failed=self.marks.failed, chunk=chunk)
        body = self.body[index * self.size : (index + 1) * self.size]
        return body, self.key or self.group, [*self.headers, *write_marks(marks)]


def interleaved(messages: Sequence[Split]) -> list[tuple[Split, int]]:
    """A chunk of each in turn."""
    longest = max(message.count for message in messages)
    return [(message, index) for index in range(longest) for message in messages if index < message.count]


def produce_chunks(
    servers: str, topic: str, chunks: Iterable[tuple[Split, int]], *, partition: int = 0
) -> list[int]:
    """Append these chunks in this order; returns their offsets."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "message.max.bytes": 2_000_000,
            "queue.buffering.max.kbytes": 65_536,
            "linger.ms": 5,
            "max.in.flight.requests.per.connection": 1,
        }
    )
    offsets: list[int] = []

    def delivered(error: object, message: object) -> None:
        assert error is None, error
        offsets.append(message.offset())  # type: ignore[attr-defined]

    wanted = 0
    for message, index in chunks:
        body, key, headers = message.chunk(index)
        while True:
            try:
                producer.produce(
                    topic, body, key, partition=partition, headers=list(headers), on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.1)
        wanted += 1
        producer.poll(0)
    assert producer.flush(120) == 0
    assert len(offsets) == wanted
    return offsets
