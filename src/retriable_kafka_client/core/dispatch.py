"""Handing out: which messages go to the workers, and what becomes of those that are not to be run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from retriable_kafka_client.core import notices, retry
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine_config import Counters, EngineConfig
from retriable_kafka_client.core.entry import DUPLICATE, FOREIGN, STUCK, Entry
from retriable_kafka_client.core.foreign_groups import Strangers
from retriable_kafka_client.core.in_flight import Load
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.partition import Assignment, Phase
from retriable_kafka_client.core.solo import Solo
from retriable_kafka_client.core.suspects import Suspects

__all__ = ["Dispatch"]

SHARE = 500  # messages that one partition hands out before the next has its turn


class Dispatch:
    """Hands out, partition by partition in turn. What is to be done goes to ``out``."""

    def __init__(
        self,
        config: EngineConfig,
        load: Load,
        outcomes: Outcomes,
        counters: Counters,
        out: list[p.Command],
        suspects: Suspects,
    ) -> None:
        self._config = config
        self._load = load
        self._outcomes = outcomes
        self._counters = counters
        self._out = out
        self._strangers = Strangers()
        self.solo = Solo(load, suspects, config.solo_patience)
        self._now = p.Now(0.0, 0.0)  # of the release under way
        self._turn = 0  # which partition hands out first

    def release(self, assignments: Collection[Assignment], now: p.Now) -> None:
        """Hand out what is due, then what is ready, partition by partition, as far as there is room."""
        config = self._config
        self._now = now
        running = [a for a in assignments if a.phase is Phase.RUNNING]
        if config.solo and self._holds(running):
            return
        wall_ms = math.floor(now.wall * 1000)
        for assignment in running:
            room = config.in_flight - self._load.in_flight
            if assignment.due and room > 0:
                self._hand_out(assignment, assignment.take_due(room, wall_ms), urgent=True)
        if config.solo and self._holds(running):
            return
        # A full house of ordinary messages would make those wait whose time comes.
        most = config.in_flight - config.reserve
        able = [a for a in running if a.is_ready or a.blocked]
        self._turn += 1
        while able and self._load.in_flight < most:
            still: list[Assignment] = []
            for index in range(len(able)):
                assignment = able[(index + self._turn) % len(able)]
                room = min(most - self._load.in_flight, SHARE if len(able) > 1 else most)
                if room > 0:
                    batch = assignment.take_batch(room)
                    if batch is not None:
                        self._load.add(assignment, len(batch))
                        self._out.append(p.RunBatch(batch))
                    else:
                        self._hand_out(assignment, assignment.take(room, wall_ms))
                    if assignment.solos:
                        self._holds(running)
                        return
                    if assignment.is_ready:
                        still.append(assignment)
            able = still

    def _holds(self, running: Sequence[Assignment]) -> bool:
        """Whether one message has the consumer to itself, or is about to; it starts if it may."""
        held = self.solo.hold(running, self._now)
        if isinstance(held, Entry):
            self._hand_out(held.assignment, [held])
        return bool(held)

    def _hand_out(self, assignment: Assignment, entries: list[Entry], *, urgent: bool = False) -> None:
        self._tell_blocked(assignment)
        if any(entry.verdict is not None for entry in entries):
            entries = self._settle(entries)
        if entries:
            self._load.add(assignment, len(entries))
            self._out.append(p.Run(entries, urgent))

    def _settle(self, entries: Sequence[Entry]) -> list[Entry]:
        """Complete or dead-letter what is not to be run, and return the rest."""
        run: list[Entry] = []
        for entry in entries:
            verdict = entry.verdict
            if verdict is None:
                run.append(entry)
            elif verdict is STUCK:
                self._outcomes.stuck(entry, self._now)
            elif verdict.reason is None:
                if verdict.counted:
                    self._counters.filtered += 1
                elif verdict is FOREIGN:
                    self._counters.foreign += 1
                    self._tell_stranger(entry)
                elif verdict is DUPLICATE:
                    self._counters.duplicates += 1
                self._outcomes.complete(entry)
            elif verdict.failure is not None:
                self._outcomes.failed_unrun(entry, verdict.failure, self._now)
            else:
                failure = retry.Failure(
                    reason=verdict.reason,
                    retry_in=None,
                    error=verdict.error,
                    text=verdict.text,
                    place=verdict.place,
                )
                self._outcomes.dead_letter(entry, failure, entry.marks.failed)
        return run

    def _tell_stranger(self, entry: Entry) -> None:
        group = self._strangers.meet(entry.marks.group or "")
        if group is not None:
            self._out.append(p.Notify(notices.stranger(entry, group)))

    def _tell_blocked(self, assignment: Assignment) -> None:
        blocked = bool(assignment.blocked)
        if blocked and not assignment.told_blocked:
            self._out.append(p.Notify(notices.blocked(assignment)))
        assignment.told_blocked = blocked
