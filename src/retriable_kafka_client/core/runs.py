"""Offsets as runs of neighbours: first .. stop - 1."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["runs_of", "within"]


def runs_of(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """The runs of increasing offsets, of which there is at least one."""
    first = offsets[0]
    if offsets[-1] - first + 1 == len(offsets):
        return [(first, first + len(offsets))]
    runs: list[tuple[int, int]] = []
    stop = first
    for offset in offsets:
        if offset != stop:
            runs.append((first, stop))
            first = offset
        stop = offset + 1
    runs.append((first, stop))
    return runs


def within(offsets: Sequence[int], runs: Sequence[tuple[int, int]]) -> list[int]:
    """Indexes of the offsets that lie in one of ``runs``; both increase."""
    kept: list[int] = []
    remaining = iter(runs)
    run = next(remaining, None)
    for index, offset in enumerate(offsets):
        while run is not None and offset >= run[1]:
            run = next(remaining, None)
        if run is None:
            break
        if offset >= run[0]:
            kept.append(index)
    return kept
