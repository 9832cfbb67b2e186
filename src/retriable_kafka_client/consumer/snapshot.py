"""What the loop publishes for other threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.lag import Lags
from retriable_kafka_client.consumer.log_bounds import Locator
from retriable_kafka_client.consumer.notifier import Notifier
from retriable_kafka_client.consumer.positions import Positions
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.consumer.work import Work
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import Place
from retriable_kafka_client.stats import PartitionStats, Stats

__all__ = ["Figures", "Snapshot", "SnapshotPublisher", "take_stats", "worth_knowing"]

ALL_SECONDS = 0.5  # as often as logs' ends are looked at; longer where there are many partitions
ALL_SECONDS_EACH = 0.001
SNAPSHOT_SECONDS = 0.1  # between two snapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The loop at one instant."""

    at: float  # monotonic
    stats: Stats
    reasons: tuple[str, ...]  # why it is not ready
    remarks: tuple[str, ...] = ()  # what an operator should look at besides


class Figures:
    """The figures of the partitions: those that have changed are taken anew, and now and then all."""

    def __init__(self) -> None:
        self._known: Mapping[tuple[str, int], PartitionStats] = MappingProxyType({})
        self._all_at = 0.0  # monotonic

    def take(self, engine: Engine, lags: Lags, now: float) -> Mapping[tuple[str, int], PartitionStats]:
        """One entry for each partition that is ours."""
        assignments = engine.assignments
        touched: Collection[Place] = engine.take_touched()
        if now >= self._all_at:
            self._all_at = now + max(ALL_SECONDS, ALL_SECONDS_EACH * len(assignments))
            touched, known = assignments.keys(), {}
        elif touched:
            known = dict(self._known)
        else:
            return self._known
        for place in touched:
            one = assignments.get(place)
            if one is None:
                known.pop(place, None)
            else:
                known[place.topic, place.partition] = _figures(place, one, engine, lags, now)
        self._known = MappingProxyType(known)
        return self._known


def _figures(place: Place, one: Assignment, engine: Engine, lags: Lags, now: float) -> PartitionStats:
    standing = engine.standing.get(one)
    end, lag = lags.figures(place, one)
    return PartitionStats(
        end=end,
        lag=lag,
        position=one.progress.position,
        incomplete=one.messages,
        assembling=len(one.chunks.groups),
        waiting=len(one.queues.waiting),
        behind=one.queues.behind,
        in_flight=one.accounts.in_flight,
        paused=one.paused,
        held_by=None if standing is None else standing.offset,
        held_for=0.0 if standing is None else now - standing.since,
    )


def take_stats(
    engine: Engine, lags: Lags, figures: Figures, *, lost_events: int, overdue: int, now: float
) -> Stats:
    """Copy the engine's figures. ``now``: monotonic."""
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
        partitions=figures.take(engine, lags, now),
    )


def worth_knowing(engine: Engine, now: float) -> tuple[str, ...]:
    """What does not keep the consumer from its work, but an operator should know. ``now``: monotonic."""
    return tuple(
        f"{one.place.topic}/{one.place.partition} has stood for {now - holder.since:.0f} s behind the message at offset"
        f" {holder.offset}"
        for one, holder in engine.standing.items()
    )


def why_not_ready(
    engine: Engine, *, problems: Iterable[str], assigned: bool, pending: int, overdue: int, slots: int
) -> tuple[str, ...]:
    """What keeps the consumer from its work. ``pending``: partitions whose positions are not known yet."""
    reasons = list(problems)
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


class SnapshotPublisher:
    """Takes a snapshot now and then, and gives it to ``show``, which puts it where other threads read it.

    The loop's thread only. It asks all the parts that it is made with, and changes none of them.
    """

    def __init__(
        self,
        show: Callable[[Snapshot], None],
        *,
        engine: Engine,
        work: Work,
        notifier: Notifier,
        problems: Problems,
        errors: ClientErrors,
        positions: Positions,
        locator: Locator,
        lags: Lags,
    ) -> None:
        self._show = show
        self._engine = engine
        self._work = work
        self._notifier = notifier
        self._problems = problems
        self._errors = errors
        self._positions = positions
        self._locator = locator
        self._lags = lags
        self._figures = Figures()
        self._published_at = float("-inf")  # monotonic

    def publish(self, now: float, *, force: bool = False) -> None:
        """Publish how it stands, unless that was done a moment ago. ``now``: monotonic."""
        if now < self._published_at + SNAPSHOT_SECONDS and not force:
            return
        self._published_at = now
        engine, overdue = self._engine, self._work.overdue
        self._notifier.accepted(frozenset(engine.refusals))
        reasons = why_not_ready(
            engine,
            problems=self._problems.reasons(),
            assigned=self._errors.assigned,
            pending=len(self._positions) + self._locator.held_up,
            overdue=overdue,
            slots=self._work.slots,
        )
        stats = take_stats(
            engine,
            self._lags,
            self._figures,
            lost_events=self._notifier.lost,
            overdue=overdue,
            now=now,
        )
        remarks = (*self._lags.remarks(now), *worth_knowing(engine, now))
        self._show(Snapshot(at=now, stats=stats, reasons=reasons, remarks=remarks))
