"""Everything that parses bytes from outside, one function each: any bytes in, and nothing undeclared comes out."""

import base64
import zlib
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Literal

from retriable_kafka_client import DecodeError, Message
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.offset_map import Binding, OffsetMap, OffsetMapError, decode, encode
from retriable_kafka_client.message import JSON, STDLIB_JSON, PlainRecord
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import MalformedHeader, Marks, own_headers, read_marks, write_marks
from tests.fuzz.member import Member
from tests.fuzz.reader import Reader

__all__ = ["TARGETS"]

BINDING = Binding(b"orders/0", b"uid", b"cluster")


def headers(data: bytes) -> None:
    """What the library writes on a record."""
    reader = Reader(data)
    given = reader.headers() + (reader.chunk(3) if reader.byte() & 1 else ())
    assert not any(name.startswith(wire.PREFIX) for name, _ in own_headers(given))
    try:
        marks = read_marks(given)
    except MalformedHeader as error:
        assert error.header in str(error)
        return
    # What was understood can be written, and means the same.
    assert read_marks(write_marks(marks)) == marks


def whole_headers(data: bytes) -> None:
    """One header's value, as it is."""
    reader = Reader(data)
    name = reader.among(tuple(name for name in wire.__all__ if isinstance(getattr(wire, name), str)))
    try:
        marks = read_marks([(getattr(wire, name), reader.rest())])
    except MalformedHeader:
        return
    assert read_marks(write_marks(marks)) == marks


def offset_map(data: bytes) -> None:
    """Commit metadata, as anybody may write it."""
    for text in (data.decode("utf-8", "replace"), "rkc2s" + data.decode("latin-1"), "rkc1w" + _wide(data)):
        try:
            decode(text, base=5, binding=BINDING)
        except OffsetMapError:
            continue


def signed_offset_map(data: bytes) -> None:
    """Commit metadata whose checksum and binding are right, so that the claims behind them are looked at."""
    reader = Reader(data)
    base, end = reader.number(), reader.number()
    names = [BINDING.place, BINDING.cluster, BINDING.incarnation]
    version = reader.byte() % 2 + 1
    if version == 1:
        names.remove(BINDING.cluster)
    fields = ((base, 64), *((_digest(name), 32) for name in names), (end, 64))
    claims = ((reader.byte() % 64, 6), (reader.byte() % 64, 6), (reader.number() % 2**32, 32))
    body = "".join(f"{value:0{size}b}" for value, size in (*fields, *claims))
    body += "".join(f"{one:08b}" for one in reader.rest())
    body += "0" * (-(32 + len(body)) % 6)
    size = -(-len(body) // 8)
    seed = zlib.crc32(b"2") if version == 2 else 0
    checksum = zlib.crc32((int(body, 2) << size * 8 - len(body)).to_bytes(size), seed)
    bits = f"{checksum:032b}{body}"
    padded = bits + "0" * (-len(bits) % 24)
    letters = base64.urlsafe_b64encode(int(padded, 2).to_bytes(len(padded) // 8)).decode()
    try:
        found = decode(f"rkc{version}s" + letters[: len(bits) // 6], base=base, binding=BINDING)
    except OffsetMapError as error:
        assert error.reason == "malformed"
        return
    assert isinstance(found, OffsetMap)
    assert found.base == base and found.end == end
    again = encode(found, binding=BINDING, budget_units=10**6)
    assert decode(again, base=base, binding=BINDING) == found


def payload(data: bytes) -> None:
    """A body."""
    for deserializer in (JSON, STDLIB_JSON):
        record = PlainRecord(data, None, None, "orders", 0, 7)
        message: Message[Any] = Message(record, Marks(), "uid", deserializer)
        try:
            message.value  # noqa: B018 - decoding is the thing
        except DecodeError as error:
            assert not data or error.__cause__ is not None
            assert message.decode_error is error


def claims(data: bytes) -> None:
    """Records with claims of any kind, through intake, assembler and engine, in every order of handling."""
    reader = Reader(data)
    orders: tuple[Literal["unordered", "key", "partition"], ...] = ("unordered", "key", "partition")
    ordering, log = reader.among(orders), dict[tuple[str, int], PlainRecord]()
    member = Member(
        lambda place, offset: log.get((place.topic, offset)),
        ordering=ordering,
        buffer_bytes=20_000,
        message_bytes=4_000,
        window=10,
        fails=lambda entry: (entry.offset + entry.attempt) % 7 == 0,
    )
    ends = dict.fromkeys(member.places, 0)
    for _ in range(60):
        if not reader:
            break
        action, place = reader.byte(), reader.among(member.places)
        if action < 150:
            for _ in range(1 + action % 6):
                log[place.topic, ends[place]] = _record(reader, place.topic, ends[place], member.now.wall)
                ends[place] += 1 + (reader.byte() == 255)  # compaction leaves gaps
            member.poll(place, 10)
        elif action < 190:
            member.wait(reader.byte() * 0.25)
        elif action < 220:
            member.reread(4)
        elif action < 235:
            member.idle(place)
        elif action < 245:
            log.pop((place.topic, reader.number()), None)
        else:
            member.tell(p.Hold(action % 2 == 1))
        # The oldest group may grow to the largest message, and its last chunk comes before that is seen.
        assert member.engine.assembling_bytes <= max(10_000, 3 * 4_000)
    member.tell(p.Hold(False))


def _record(reader: Reader, topic: str, offset: int, wall: float) -> PlainRecord:
    kind = reader.byte()
    if kind < 150:
        given = reader.chunk(4)
    elif kind < 230:
        given = reader.headers()
    else:
        given = ()
    stamp = int(wall * 1000) if kind % 4 else reader.number() - 2
    key = reader.among((None, b"a", b"b", b"%016d" % 0, b"k" * 100))
    body = reader.take(reader.byte() % 40) or None
    return PlainRecord(body, key, list(given), topic, 0, offset, (1, stamp))


def _digest(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=4).digest())


def _wide(data: bytes) -> str:
    """Pairs of bytes as characters of the wide alphabet, or near it."""
    return "".join(chr(0x3400 + int.from_bytes(data[at : at + 2]) % 0xA000) for at in range(0, len(data), 2))


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "headers": headers,
    "whole-headers": whole_headers,
    "offset-map": offset_map,
    "signed-offset-map": signed_offset_map,
    "payload": payload,
    "claims": claims,
}
"""By the name that `make fuzz` takes."""
