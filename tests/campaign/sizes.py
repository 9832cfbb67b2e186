"""Which of two sizes a campaign has."""

import os
from typing import TypeVar

__all__ = ["FULL", "pick"]

FULL = os.environ.get("RKC_CAMPAIGN", "") == "full"
"""Whether the full sizes were asked for."""

T = TypeVar("T")


def pick(daily: T, full: T) -> T:
    """The size for every day, or the full one."""
    return full if FULL else daily
