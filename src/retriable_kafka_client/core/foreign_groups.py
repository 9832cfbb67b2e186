"""Other groups whose retry copies were met: each is reported once, and so many are remembered at most."""

from __future__ import annotations

__all__ = ["MOST_GROUPS", "ForeignGroups"]

MOST_GROUPS = 100  # names come from records; further ones are not reported
MOST_NAME = 255  # characters of a name that are kept


class ForeignGroups:
    """Their names."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[str] = set()

    def meet(self, group: str) -> str | None:
        """The name to report, cut where it is very long; None: it was reported before, or there are too many."""
        name = group[:MOST_NAME]
        if name in self._names or len(self._names) >= MOST_GROUPS:
            return None
        self._names.add(name)
        return name
