"""What the engine says of copies, checked against what the simulation knows of their messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.wire.headers import Origin
from tests.simulation.records import Expected, Facts, Kind, PartRecord, Record
from tests.simulation.stalling import expect_stuck
from tests.simulation.tenure import Tenure, Violation

if TYPE_CHECKING:
    from tests.simulation.member import Member
    from tests.simulation.settings import Settings

__all__ = ["REASONS", "CopyWatch"]

REASONS = {
    Kind.MALFORMED: events.REASON_MALFORMED,
    Kind.NO_ORIGIN: events.REASON_NO_ORIGIN,
    Kind.TOO_FAR: events.REASON_NOT_BEFORE,
    Kind.TOO_LARGE: events.REASON_TOO_LARGE,
}


class CopyWatch:
    """Raises Violation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def produced(self, member: Member, handoff: p.HandOff, now: p.Now) -> None:
        entry = handoff.entry
        record: Record = entry.raw
        tenure = member.all_tenures[entry.assignment]
        facts = tenure.came_as(record)
        marks = handoff.marks
        if not tenure.alive:
            raise Violation("O", f"a copy of {record} is produced after its assignment ended")
        if entry.offset in tenure.done:
            raise Violation("L", f"a copy of {record} is produced although it is complete")
        if marks.id != (facts.id or f"{tenure.uid}-{record.place.partition}-{record.offset_}"):
            raise Violation("B", f"the copy of {record} has another id: {marks.id}")
        if marks.group != self._settings.config.group:
            raise Violation("B", f"the copy of {record} names group {marks.group}")
        expected_origin = facts.origin or Origin(record.place.topic, record.place.partition, record.offset_)
        if marks.origin != expected_origin:
            raise Violation("B", f"the copy of {record} names origin {marks.origin}")
        expected = self.expected(tenure, record, now)
        if isinstance(record, PartRecord):
            reason = tenure.given_up.get(record.letter)
            if reason is None:
                raise Violation("P", f"{record} goes to {handoff.target}, but its message was not given up")
            self._check_dead(record, handoff, reason, facts.failed)
        elif handoff.kind is p.HandOffKind.PARK:
            self._check_parked(record, handoff, facts, now)
        elif expected is not None:
            self._check_failed(record, handoff, facts, expected)
        elif facts.kind not in REASONS:
            raise Violation("P", f"{record} goes to {handoff.target} without a failed run")
        else:
            self._check_dead(record, handoff, REASONS[facts.kind], facts.failed)

    def expected(self, tenure: Tenure, record: Record, now: p.Now) -> Expected | None:
        """What must follow the failed run, if one was the last."""
        if record.offset_ in tenure.stuck and record.offset_ not in tenure.expected:
            tenure.expected[record.offset_] = expect_stuck(self._settings, tenure, record, now)
        return tenure.expected.get(record.offset_)

    def _check_failed(self, record: Record, handoff: p.HandOff, facts: Facts, expected: Expected) -> None:
        marks = handoff.marks
        if expected.reason is not None:
            self._check_dead(record, handoff, expected.reason, expected.attempts)
            return
        if handoff.kind is not p.HandOffKind.RETRY:
            raise Violation("A", f"{record} is not retried after attempt {expected.attempts}")
        if handoff.target != self._settings.retry_topic:
            raise Violation("L", f"the copy of {record} goes to {handoff.target}")
        if marks.failed != expected.attempts or handoff.attempts != expected.attempts:
            raise Violation("A", f"the copy of {record} says {marks.failed} failures: {expected.attempts}")
        if marks.alone != expected.alone:
            raise Violation("A", f"the copy of {record}: alone is {marks.alone}")
        if marks.not_before_ms is None or not 0 <= marks.not_before_ms - expected.not_before_ms <= 1:
            raise Violation(
                "N", f"the copy of {record} is due {marks.not_before_ms}: {expected.not_before_ms}"
            )
        first_ms = facts.first_failure_ms if facts.first_failure_ms is not None else expected.failed_ms
        if marks.first_failure_ms != first_ms:
            raise Violation("B", f"the copy of {record} first failed at {marks.first_failure_ms}: {first_ms}")

    def _check_dead(self, record: Record, handoff: p.HandOff, reason: str, attempts: int) -> None:
        if handoff.kind is not p.HandOffKind.DEAD_LETTER:
            raise Violation(
                "P", f"{record} goes to {handoff.target} instead of being dead-lettered: {reason}"
            )
        if handoff.target != self._settings.config.routes[record.facts.route].dead_letter:
            raise Violation("P", f"{record} is dead-lettered to {handoff.target}")
        if handoff.failure is None or handoff.failure.reason != reason:
            raise Violation("P", f"{record} is dead-lettered for {handoff.failure}, not {reason}")
        if handoff.attempts != attempts:
            raise Violation("A", f"{record} is dead-lettered after {handoff.attempts} runs: {attempts}")

    def _check_parked(self, record: Record, handoff: p.HandOff, facts: Facts, now: p.Now) -> None:
        marks = handoff.marks
        wall_ms = math.floor(now.wall * 1000)
        if handoff.target != record.place.topic or record.place.topic != self._settings.retry_topic:
            raise Violation("L", f"{record} is parked in {handoff.target}")
        if marks.not_before_ms != facts.not_before_ms or facts.not_before_ms is None:
            raise Violation("N", f"{record} loses its time by parking: {marks.not_before_ms}")
        if marks.failed != facts.failed or marks.alone != facts.alone:
            raise Violation("A", f"{record} is parked with {marks.failed} failures: {facts.failed}")
        if marks.first_failure_ms != facts.first_failure_ms:
            raise Violation("B", f"{record} is parked, and first failed at {marks.first_failure_ms}")
        if handoff.tries:
            return
        if self._settings.config.exactly_once and marks.parked_ms is not None:
            wall_ms = marks.parked_ms  # it may have had to wait for its transaction
        interval_ms = int(self._settings.config.parking_interval * 1000)
        if facts.not_before_ms <= wall_ms + interval_ms:
            raise Violation("N", f"{record} is parked although it is due soon")
        if facts.parked_ms is not None and wall_ms - interval_ms < facts.parked_ms <= wall_ms:
            raise Violation("N", f"{record} is parked twice within an interval")

    def copy_of(self, handoff: p.HandOff, tenure: Tenure, uid: str) -> Facts:
        """What is true of the record that a hand-off makes."""
        record: Record = handoff.entry.raw
        expected = tenure.expected.get(record.offset_)
        facts = tenure.came_as(record)
        kind = Kind.KEPT if handoff.kind is p.HandOffKind.DEAD_LETTER else Kind.RUN
        copy = Facts(
            kind=kind,
            script=facts.script,
            route=facts.route,
            failed=facts.failed,
            alone=facts.alone,
            not_before_ms=facts.not_before_ms,
            id=facts.id or f"{uid}-{record.place.partition}-{record.offset_}",
            origin=facts.origin or Origin(record.place.topic, record.place.partition, record.offset_),
            first_failure_ms=facts.first_failure_ms,
        )
        if handoff.kind is p.HandOffKind.PARK:
            copy.parked_ms = handoff.marks.parked_ms
        elif expected is not None:
            copy.failed = expected.attempts
            copy.alone = expected.alone
            copy.not_before_ms = handoff.marks.not_before_ms
            if copy.first_failure_ms is None:
                copy.first_failure_ms = expected.failed_ms
        return copy
