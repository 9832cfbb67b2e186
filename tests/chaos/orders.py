"""What each message of a chaos run is: a pure function of the seed and the message's number.

Producer, handler and checker all make the same `Order` from it, so that nobody has to tell another one what was meant.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

__all__ = [
    "MAX_ATTEMPTS",
    "RETRY_DELAYS",
    "SPLIT_ABOVE",
    "TOPICS",
    "Kind",
    "Order",
    "body_of",
    "headers_of",
    "key_of",
    "order_of",
    "retry_delay",
    "stamp",
]

MAX_ATTEMPTS = 4
RETRY_DELAYS = (0.5, 2.0, 10.0)  # seconds after the first, second, third failed attempt
SPLIT_ABOVE = 100_000  # bytes: larger messages travel in chunks
TOPICS = ("orders", "bills", "local", "retries")
"""Two base topics with one retry topic, a base topic that retries in place, and the retry topic itself, for jobs."""


class Kind(StrEnum):
    """How a message behaves."""

    PLAIN = "plain"  # succeeds, after so many failures as planned
    REJECTED = "rejected"  # the handler raises Reject
    KILLER = "killer"  # kills its worker process each time; in a thread or coroutine it only fails
    POISON = "poison"  # cannot be decoded
    SKIPPED = "skipped"  # the filter says no
    PARTIAL = "partial"  # one of its chunks is never sent


@dataclass(frozen=True, slots=True)
class Order:
    """What one message is meant to do."""

    id: int
    kind: Kind = Kind.PLAIN
    topic: str = "orders"  # one of TOPICS
    fails: int = 0  # attempts that fail
    work: float = 0.0  # seconds
    outputs: int = 0  # records that each attempt sends
    delay: float = 0.0  # seconds that it must wait; 0.0: none
    filler: int = 0  # bytes that make it longer

    @property
    def split(self) -> bool:
        """Whether it travels in chunks."""
        return self.kind is Kind.PARTIAL or self.filler > SPLIT_ABOVE

    @property
    def succeeds(self) -> bool:
        """Whether a run of it succeeds in the end, if no worker is killed under it."""
        return self.kind is Kind.PLAIN and self.fails < MAX_ATTEMPTS


def order_of(seed: int, id: int) -> Order:
    """The order of that number."""
    chance = random.Random(f"{seed}/{id}")
    lot = chance.random()
    base = chance.choice(("orders", "orders", "bills"))
    work = round(chance.uniform(0.2, 2.0) if chance.random() < 0.003 else chance.uniform(0.0, 0.008), 4)
    outputs = chance.choice((0, 0, 1, 1, 2))
    if lot < 0.002:
        return Order(id, Kind.KILLER if lot < 0.0005 else Kind.PARTIAL, base)
    if lot < 0.006:
        return Order(id, Kind.POISON, base)
    if lot < 0.012:
        return Order(id, Kind.REJECTED, base, outputs=outputs)
    if lot < 0.022:
        return Order(id, Kind.SKIPPED, base)
    if lot < 0.026:
        filler = chance.randrange(2 * SPLIT_ABOVE, 6 * SPLIT_ABOVE)
        return Order(id, topic=base, fails=chance.choice((0, 0, 1)), outputs=outputs, filler=filler)
    if lot < 0.06:
        delay = round(chance.uniform(0.5, 10.0), 3)
        return Order(id, topic="retries", work=work, outputs=outputs, delay=delay)
    if lot < 0.12:
        return Order(id, topic="local", fails=chance.choice((0, 1, 2)), work=work, outputs=outputs)
    if lot < 0.18:
        fails = chance.choice((1, 1, 1, 1, 2, 2, 3, MAX_ATTEMPTS))
        return Order(id, topic=base, fails=fails, work=work, outputs=outputs)
    return Order(id, topic=base, work=work, outputs=outputs, filler=chance.choice((0, 0, 50, 400)))


def body_of(seed: int, order: Order) -> bytes:
    """The message's body."""
    if order.kind is Kind.POISON:
        return b'{"id": %d' % order.id
    filler = random.Random(f"{seed}/{order.id}/body").randbytes(-(-order.filler // 2)).hex()
    return msgspec.json.encode({"id": order.id, "x": filler})


def key_of(order: Order) -> bytes:
    """The message's key."""
    return b"k%d" % (order.id % 997)


def headers_of(order: Order) -> list[tuple[str, bytes]]:
    """The message's own headers: its number, and what the filter looks at."""
    more = [("skip", b"1")] if order.kind is Kind.SKIPPED else []
    return [("n", b"%d" % order.id), *more]


def stamp(body: bytes | None, key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> str:
    """A digest of all that must arrive as it was sent."""
    digest = hashlib.blake2b(body or b"", digest_size=8)
    digest.update(repr((key, list(headers))).encode())
    return digest.hexdigest()


def retry_delay(attempt: int) -> float:
    """Seconds between the failure of that attempt and the next one."""
    return RETRY_DELAYS[min(attempt, len(RETRY_DELAYS)) - 1]
