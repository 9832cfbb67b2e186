"""Handlers that hold a whole process up: the member's loop does not go round until such a run has ended.

If that takes longer than the group waits for a poll, the member is put out, and its partitions are lost. What ran meanwhile
is suspect: this member runs it again alone, counted, and does not run it once more when it did it alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, cast

from retriable_kafka_client import events
from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.workers.runner import Runner
from tests.simulation.records import Expected, Kind, Record
from tests.simulation.tenure import Tenure, Violation

if TYPE_CHECKING:
    from tests.simulation.member import Member
    from tests.simulation.settings import Settings
    from tests.simulation.workers import Workers

__all__ = ["Stalling", "StuckWatch", "expect_stuck", "stall_seconds"]

POLL_SECONDS = 1.0  # in which a member must poll, or is put out

_Key = tuple[p.Place, str, int]


def stall_seconds(random: Random) -> float:
    """How long a stall is; the group does not notice the shorter ones."""
    return random.uniform(0.3, 4.0)


class Stalling:
    """One member's stalls, as the real shell sees them."""

    def __init__(self, workers: Workers) -> None:
        self.until: float | None = None  # the loop stands still
        self._late_at = 0.0  # when the group puts the member out
        self._put_out = False  # and it has done so
        self._stalls = Stalls(cast("Runner", workers))
        self._stop = False
        self._culprit: Entry | None = None

    def begin(self, entry: Entry, now: float, until: float) -> None:
        """This run holds everything up."""
        self.until, self._late_at, self._put_out = until, now + POLL_SECONDS, False
        self._culprit, self._stop = entry, False
        self._stalls.begin(POLL_SECONDS, now)

    def is_late(self, now: float) -> bool:
        """Whether the group puts the member out at this moment."""
        if self.until is None or self._put_out or self._late_at > min(now, self.until):
            return False
        self._put_out = True
        return True

    def stop(self) -> bool:
        """Somebody asks the member to stop, which it does not notice yet. Whether it stands still."""
        self._stop |= self.until is not None
        return self.until is not None

    def come_round(self, member: Member) -> None:
        """It is over."""
        world = member.world
        self.until = None
        stood = self._stalls.turn(world.mono)
        member.workers.serve(self._stalls.took if stood else None)
        if member.evicted_until is not None and member.revoke is None:
            world.come_back(member)
        self._culprit = None
        if self._stop and not member.gone:
            member.begin_revoke(tuple(member.tenures), "stopped")

    def suspects(self, member: Member, places: Sequence[p.Place]) -> tuple[Sequence[p.Suspect], float]:
        """These partitions are lost: what may be to blame."""
        found, stood = self._stalls.suspects(places, member.world.mono)
        culprit = self._culprit
        if culprit is not None and self._put_out and culprit.assignment.place in places:
            names = [(one.place, one.offset) for one in found]
            if (culprit.assignment.place, culprit.offset) not in names:
                raise Violation("S", f"{culprit.raw} held {member.name} up, and is not suspected")
        return found, stood


class StuckWatch:
    """What one member must know of its suspects. Raises Violation."""

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[int, bool]] = {}  # the attempt that was lost, and whether it was alone
        self._told: set[tuple[int, int]] = set()

    def lost(self, suspects: Iterable[p.Suspect]) -> None:
        for one in suspects:
            self._known[one.place, one.uid, one.offset] = one.attempt, one.alone
            self._told.add((one.offset, one.attempt))

    def told(self, event: events.HandlerStuck) -> None:
        self._told.discard((event.offset, event.attempt))

    def all_told(self) -> None:
        """After the loss was handled."""
        if self._told:
            raise Violation("S", f"nobody was told of suspects: {sorted(self._told)}")

    def ended(self, entry: Entry) -> None:
        """A run came to its end, and the loop went on."""
        if entry.alone and entry.assignment.hands_out:
            self._known.pop((entry.assignment.place, entry.assignment.uid, entry.offset), None)

    def restored(self, tenure: Tenure, position: int | None) -> None:
        for key in [key for key in self._known if key[0] == tenure.place]:
            if key[1] != tenure.assignment.uid or (position is not None and key[2] < position):
                del self._known[key]

    def arrived(self, tenure: Tenure, record: Record, now: p.Now) -> None:
        """It has come again: it runs alone and counted, or not at all."""
        known = self._known.get((tenure.place, tenure.assignment.uid, record.offset_))
        if known is None or record.facts.kind is not Kind.RUN:
            return
        attempt, certain = known
        facts = record.facts
        first_ms = facts.first_failure_ms
        tenure.suspected[record.offset_] = replace(
            facts,
            failed=max(facts.failed, attempt - certain),
            alone=True,
            first_failure_ms=math.floor(now.wall * 1000) if first_ms is None else first_ms,
        )
        if certain:
            tenure.stuck.add(record.offset_)


def expect_stuck(settings: Settings, tenure: Tenure, record: Record, now: p.Now) -> Expected:
    """What must follow when a message is at hand that held the process up while it ran alone."""
    route = settings.config.routes[record.facts.route]
    policy = route.policy
    nowhere = settings.retry_topic not in (route.retry_topic, record.place.topic)
    attempt = tenure.facts(record).failed + 1
    if policy is None or nowhere or attempt >= policy.max_attempts:
        return Expected(reason=events.REASON_WORKER_STUCK, attempts=attempt, alone=True)
    delay = policy.delay.delay(attempt, 0.5)
    return Expected(
        reason=None,
        attempts=attempt,
        alone=True,
        not_before_ms=math.ceil((now.wall + delay) * 1000),
        failed_ms=math.floor(now.wall * 1000),
    )
