"""The name of a partition."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Place"]


class Place(NamedTuple):
    """A partition's name."""

    topic: str
    partition: int
