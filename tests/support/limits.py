"""What topics take, as a test says."""

from __future__ import annotations

__all__ = ["FixedLimits"]


class FixedLimits:
    """`BatchLimits` by which every topic takes batches of `size` bytes (None: nobody knows), whatever it refuses."""

    def __init__(self, size: int | None) -> None:
        self._size = size

    def limit(self, topic: str) -> int | None:
        return self._size

    def pending(self, topic: str) -> bool:
        return False

    def expire(self, topic: str) -> None:
        """It has refused one: that changes nothing."""
