"""Other groups whose retry copies were met: each is told of once, and so many are remembered at most."""

from __future__ import annotations

__all__ = ["MOST_STRANGERS", "Strangers"]

MOST_STRANGERS = 100  # names come from records; of further ones nothing is told
MOST_NAME = 255  # characters of a name that are kept


class Strangers:
    """Their names."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[str] = set()

    def meet(self, group: str) -> str | None:
        """The name to tell of, cut where it is very long; None: it was told of, or there are too many."""
        name = group[:MOST_NAME]
        if name in self._names or len(self._names) >= MOST_STRANGERS:
            return None
        self._names.add(name)
        return name
