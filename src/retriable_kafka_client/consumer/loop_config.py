"""What one run of a consumer is made with, and what other threads ask of it."""

from __future__ import annotations

from dataclasses import dataclass

from retriable_kafka_client.config import Cluster, Limits
from retriable_kafka_client.core.engine_config import EngineConfig

__all__ = ["Control", "LoopConfig"]


@dataclass(slots=True)
class Control:
    """What other threads ask of the loop; single flags, so that a signal handler can set them."""

    stop: bool = False
    stop_signalled: bool = False  # a signal has asked for it; the next one means hard
    hard: bool = False  # without drain
    hold: bool = False  # read and start nothing for the time being


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What never changes during a run."""

    engine: EngineConfig
    topics: tuple[str, ...]  # names and patterns of all base and retry topics
    cluster: Cluster
    limits: Limits
