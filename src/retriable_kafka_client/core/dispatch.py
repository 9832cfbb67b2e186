"""Handing out: which messages go to the workers, and what becomes of those that are not to be run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from retriable_kafka_client.core import notices, retry
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.engine_config import Counters, EngineConfig
from retriable_kafka_client.core.entry import DUPLICATE, FOREIGN, STUCK, Entry, Owner
from retriable_kafka_client.core.foreign_groups import ForeignGroups
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.solo import Solo
from retriable_kafka_client.core.suspects import Suspects

__all__ = ["Dispatch"]

SHARE = 500  # messages that one partition hands out before the next has its turn


class Dispatch:
    """Hands out, partition by partition in turn."""

    def __init__(
        self,
        config: EngineConfig,
        load: Load,
        outcomes: Outcomes,
        counters: Counters,
        suspects: Suspects,
    ) -> None:
        self._config = config
        self._load = load
        self._outcomes = outcomes
        self._counters = counters
        self._foreign_groups = ForeignGroups()
        self.solo = Solo(load, suspects, config.solo_patience)
        self._now = p.Now(0.0, 0.0)  # of the release under way
        self._turn = 0  # which partition hands out first

    def is_held_up(self, assignments: Collection[Assignment]) -> bool:
        """Whether messages at hand wait for others to end: for one before them, or for room with the workers."""
        full = self._load.in_flight >= self._config.in_flight - self._config.reserve
        queues = [assignment.queues for assignment in assignments]
        return any(one.behind or (full and (one.is_ready or one.due)) for one in queues)

    def release(self, assignments: Collection[Assignment], now: p.Now) -> Sequence[p.Command]:
        """Hand out what is due, then what is ready, partition by partition, as far as there is room."""
        config = self._config
        self._now = now
        running = [a for a in assignments if a.phase is Phase.RUNNING]
        if config.solo and (alone := self._start_alone(running)) is not None:
            return alone
        out: list[p.Command] = []
        wall_ms = math.floor(now.wall * 1000)
        for assignment in running:
            queues = assignment.queues
            room = config.in_flight - self._load.in_flight
            if queues.due and room > 0:
                out += self._hand_out(assignment, queues.take_due(room, wall_ms), urgent=True)
        if config.solo and (alone := self._start_alone(running)) is not None:
            return [*out, *alone]
        # A full house of ordinary messages would make those wait whose time comes.
        most = config.in_flight - config.reserve
        able = [a for a in running if a.queues.is_ready or a.queues.blocked]
        self._turn += 1
        while able and self._load.in_flight < most:
            still: list[Assignment] = []
            for index in range(len(able)):
                assignment = able[(index + self._turn) % len(able)]
                room = min(most - self._load.in_flight, SHARE if len(able) > 1 else most)
                if room > 0:
                    queues = assignment.queues
                    batch = queues.take_batch(room)
                    if batch is not None:
                        assignment.accounts.start(len(batch))
                        out.append(p.RunBatch(batch))
                    else:
                        out += self._hand_out(assignment, queues.take(room, wall_ms))
                    if queues.solos:
                        return [*out, *(self._start_alone(running) or ())]
                    if queues.is_ready:
                        still.append(assignment)
            able = still
        return out

    def _start_alone(self, running: Sequence[Assignment]) -> Sequence[p.Command] | None:
        """Start the message that is to have the consumer to itself, if it may start now. None: there is none, and others may
        start.
        """
        held = self.solo.hold(running, self._now)
        if isinstance(held, Entry):
            return self._run(held.assignment, [held])
        return () if held else None

    def _hand_out(
        self, assignment: Assignment, entries: list[Entry], *, urgent: bool = False
    ) -> Sequence[p.Command]:
        queues = assignment.queues
        news = (p.Notify(notices.blocked(assignment)),) if queues.note_blocked() else ()
        commands = self._run(assignment, entries, urgent=urgent)
        return [*news, *commands] if news else commands

    def _run(self, assignment: Owner, entries: list[Entry], *, urgent: bool = False) -> Sequence[p.Command]:
        out: Sequence[p.Command] = ()
        if any(entry.verdict is not None for entry in entries):
            entries, out = self._settle(entries)
        if not entries:
            return out
        assignment.accounts.start(len(entries))
        return [*out, p.Run(entries, urgent)]

    def _settle(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[p.Command]]:
        """Complete or dead-letter what is not to be run. Returns the rest, and what is to be done for that."""
        run: list[Entry] = []
        out: list[p.Command] = []
        for entry in entries:
            verdict = entry.verdict
            if verdict is None:
                run.append(entry)
            elif verdict is STUCK:
                out += self._outcomes.stuck(entry, self._now)
            elif verdict.reason is None:
                if verdict.counted:
                    self._counters.filtered += 1
                elif verdict is FOREIGN:
                    self._counters.foreign += 1
                    out += self._note_foreign(entry)
                elif verdict is DUPLICATE:
                    self._counters.duplicates += 1
                self._outcomes.complete(entry)
            elif verdict.failure is not None:
                out += self._outcomes.failed_unrun(entry, verdict.failure, self._now)
            else:
                failure = retry.Failure(
                    reason=verdict.reason,
                    retry_in=None,
                    error=verdict.error,
                    text=verdict.text,
                    place=verdict.place,
                )
                out += self._outcomes.dead_letter(entry, failure, entry.marks.failed)
        return run, out

    def _note_foreign(self, entry: Entry) -> Sequence[p.Command]:
        group = self._foreign_groups.meet(entry.marks.group or "")
        return () if group is None else (p.Notify(notices.foreign_group(entry, group)),)
