"""How far an assignment has come."""

from __future__ import annotations

from enum import Enum

__all__ = ["Phase"]


class Phase(Enum):
    """The phases follow each other in this order; an assignment may also end before it runs or drains."""

    STARTING = "starting"  # position and map are being asked for; nothing is consumed
    RUNNING = "running"
    DRAINING = "draining"  # hands out nothing more; what runs may finish
    ENDED = "ended"  # commits nothing; late results are dropped
