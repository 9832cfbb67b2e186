"""Many seeds in a row; in a module of its own so that other processes can import it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from tests.simulation.tenure import Violation
from tests.simulation.world import run

__all__ = ["failures", "first_failure"]


def failures(seeds: Iterable[int]) -> list[tuple[int, str]]:
    """The seeds that broke a promise, and how."""
    found = []
    for seed in seeds:
        try:
            run(seed)
        except Violation as violation:
            found.append((seed, str(violation)))
        except Exception as error:  # noqa: BLE001 - a defect of the simulation must name its seed, too
            found.append((seed, "".join(traceback.format_exception_only(error)).strip()))
    return found


def first_failure(seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that broke a promise, and how."""
    for seed in seeds:
        found = failures([seed])
        if found:
            return found[0]
    return None
