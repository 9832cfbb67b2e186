"""The one rule by which a message goes among others or alone.

A broker that finds one record too large refuses the whole batch, its neighbours with it. So whatever may be too large for
its topic goes in a batch of its own.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from retriable_kafka_client.sending.parcels import Parcel
from retriable_kafka_client.sending.splitting import UNKNOWN_LIMIT, fits

__all__ = ["LARGE", "LARGEST_COPY", "BatchLimits", "Batching", "batching_of"]

# Bytes; the most that the client takes. A copy may be as large: what is too large is for the broker to say.
LARGEST_COPY = 1_000_000_000

# Bytes from which a copy goes alone: it counts against the budget by itself.
LARGE = 1_000_000


class BatchLimits(Protocol):
    """What topics take, in bytes of a batch; see TopicLimits."""

    def limit(self, topic: str) -> int | None: ...
    def pending(self, topic: str) -> bool: ...
    def expire(self, topic: str) -> None: ...


class Batching(Enum):
    """How a client puts records into batches."""

    SHARED = "shared"  # many into one
    ALONE = "alone"  # each into one of its own: see single_record_settings


def batching_of(
    parcel: Parcel, limit: int | None, *, client_limit: int = LARGEST_COPY, large: int = LARGE
) -> Batching:
    """Return how the parcel goes to a topic that takes batches of ``limit`` bytes (None: not known).

    It goes alone, and in chunks where it must: above ``large`` bytes, above the size that its sender wants for a chunk, and
    where ``limit``, or the client with its ``client_limit``, might refuse it.
    """
    size = parcel.size
    if size > large or (parcel.most is not None and size > parcel.most):
        return Batching.ALONE
    limit = UNKNOWN_LIMIT if limit is None else limit
    small = fits(size, limit, client_limit, parcel.key, parcel.whole_headers)
    return Batching.SHARED if small else Batching.ALONE
