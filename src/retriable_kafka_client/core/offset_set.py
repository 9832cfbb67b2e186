"""A set of offsets that costs about a bit for each: pages of 1,024, as in the tracker."""

from __future__ import annotations

from collections.abc import Iterator

from retriable_kafka_client.core.offset_map import PAGE_SHIFT

__all__ = ["OffsetSet"]

_LOW = (1 << PAGE_SHIFT) - 1


class OffsetSet:
    """Offsets >= 0."""

    __slots__ = ("_count", "_pages")

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}  # page -> mask, never 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, offset: int) -> bool:
        return self._pages.get(offset >> PAGE_SHIFT, 0) >> (offset & _LOW) & 1 == 1

    def add(self, offset: int) -> None:
        """Take it in; it must not be there."""
        assert offset not in self
        page = offset >> PAGE_SHIFT
        self._pages[page] = self._pages.get(page, 0) | 1 << (offset & _LOW)
        self._count += 1

    def remove(self, offset: int) -> None:
        """Take it out; it must be there."""
        assert offset in self
        page = offset >> PAGE_SHIFT
        left = self._pages[page] ^ 1 << (offset & _LOW)
        if left:
            self._pages[page] = left
        else:
            del self._pages[page]
        self._count -= 1

    @property
    def lowest(self) -> int:
        """O(pages); ValueError of an empty set."""
        page = min(self._pages)
        mask = self._pages[page]
        return (page << PAGE_SHIFT) + (mask & -mask).bit_length() - 1

    @property
    def highest(self) -> int:
        """O(pages); ValueError of an empty set."""
        page = max(self._pages)
        return (page << PAGE_SHIFT) + self._pages[page].bit_length() - 1

    def within(self, first: int, stop: int) -> Iterator[int]:
        """Those in first .. stop - 1, increasing."""
        for page in sorted(page for page in self._pages if first >> PAGE_SHIFT <= page <= stop >> PAGE_SHIFT):
            mask = self._pages[page]
            while mask:
                low = mask & -mask
                offset = (page << PAGE_SHIFT) + low.bit_length() - 1
                if first <= offset < stop:
                    yield offset
                mask ^= low

    def validate(self) -> None:
        masks = self._pages.values()
        assert self._count == sum([mask.bit_count() for mask in masks]) and all(masks)
