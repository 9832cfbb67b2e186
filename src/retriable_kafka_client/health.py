"""How something is, as a probe wants to know it."""

from __future__ import annotations

from dataclasses import dataclass

from retriable_kafka_client.wire.checks import sealed

__all__ = ["Health"]


@sealed
@dataclass(frozen=True, slots=True)
class Health:
    """``alive``: it works, or will again by itself. ``ready``: it can do its work now.

    ``reasons`` says in words what keeps either from being true, and besides what an operator should look at, which need not
    keep it from being ready; no secret stands in them.
    """

    alive: bool
    ready: bool
    reasons: tuple[str, ...] = ()
