"""What the loop publishes for other threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from types import MappingProxyType

from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.lags import Lags
from retriable_kafka_client.stats import PartitionStats, Stats

__all__ = ["Snapshot", "take_stats", "why_not_ready", "worth_knowing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The loop at one instant."""

    at: float  # monotonic
    stats: Stats
    reasons: tuple[str, ...]  # why it is not ready
    remarks: tuple[str, ...] = ()  # what an operator should look at besides


def take_stats(engine: Engine, lags: Lags, *, lost_events: int, overdue: int, now: float) -> Stats:
    """Copy the engine's figures. ``now``: monotonic."""
    figures = {place: lags.figures(place, one) for place, one in engine.assignments.items()}
    standing = engine.standing
    partitions = {
        (place.topic, place.partition): PartitionStats(
            end=figures[place][0],
            lag=figures[place][1],
            position=None if one.tracker is None else one.tracker.position,
            incomplete=one.messages,
            assembling=len(one.chunks.groups),
            waiting=len(one.waiting),
            behind=one.behind,
            in_flight=one.in_flight,
            paused=one.paused,
            held_by=standing[one].offset if one in standing else None,
            held_for=now - standing[one].since if one in standing else 0.0,
        )
        for place, one in engine.assignments.items()
    }
    return Stats(
        **asdict(engine.counters),
        lost_events=lost_events,
        lost_records=lags.lost_records,
        hanging=lags.hanging,
        on_hold=engine.on_hold,
        in_flight=engine.in_flight,
        overrun=engine.overrun,
        overdue=overdue,
        buffered_bytes=engine.active_bytes + engine.waiting_bytes + engine.assembling_bytes,
        assembling_bytes=engine.assembling_bytes,
        partitions=MappingProxyType(partitions),
    )


def worth_knowing(engine: Engine, now: float) -> tuple[str, ...]:
    """What does not keep the consumer from its work, but an operator should know. ``now``: monotonic."""
    return tuple(
        f"{one.topic}/{one.partition} has stood for {now - holder.since:.0f} s behind the message at offset {holder.offset}"
        for one, holder in engine.standing.items()
    )


def why_not_ready(
    engine: Engine, *, troubles: Iterable[str], assigned: bool, pending: int, overdue: int, slots: int
) -> tuple[str, ...]:
    """What keeps the consumer from its work. ``pending``: partitions whose positions are not known yet."""
    reasons = list(troubles)
    reasons += [f"topic {name} is not read: {reason}" for name, reason in engine.unclear.items()]
    reasons += [f"topic {target} refuses copies: {code}" for target, code in engine.refusals.items()]
    if not assigned:
        reasons.append("no assignment yet")
    elif pending:
        reasons.append(f"the positions of {pending} partitions are not known yet")
    if (engine.overrun + overdue) * 2 >= slots:
        reasons.append(
            f"{engine.overrun} handlers of partitions that were given away, and {overdue} beyond their time limit,"
            " hold the workers"
        )
    return tuple(reasons)
