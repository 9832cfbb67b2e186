"""The fake executor of one member: runs end in any order, and some take their worker with them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core import retry
from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.core.plain_batch import Succeeded
from retriable_kafka_client.errors import Reject, RetryAfter
from retriable_kafka_client.wire.headers import PLAIN
from retriable_kafka_client.wire.outbox import Output
from retriable_kafka_client.workers.runner import Running
from tests.simulation.records import Expected, Outcome, Record
from tests.simulation.underway import Job

if TYPE_CHECKING:
    from tests.simulation.member import Member

__all__ = ["Workers"]

AFTER_SECONDS = 2.0


def _in_batches(done: Sequence[Entry]) -> tuple[list[Entry], list[Succeeded]]:
    """Tell of plain messages as the threads do: by assignment, in the order of their offsets."""
    others: list[Entry] = []
    plain: dict[Owner, list[Entry]] = {}
    for entry in done:
        if entry.marks is PLAIN:
            plain.setdefault(entry.assignment, []).append(entry)
        else:
            others.append(entry)
    succeeded = []
    for assignment, entries in plain.items():
        entries.sort(key=lambda entry: entry.offset)
        size = sum(entry.size for entry in entries)
        succeeded.append(Succeeded(assignment, [entry.offset for entry in entries], size))
    return others, succeeded


_ERRORS: dict[Outcome, BaseException] = {
    Outcome.FAIL: RuntimeError("failed"),
    Outcome.AFTER: RetryAfter(AFTER_SECONDS),
    Outcome.REJECT: Reject("rejected"),
    Outcome.GIVE_UP: KeyError("given up"),
}


class Workers:
    """What was handed out: queued, running, or on its way back unstarted."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._queue: deque[Entry] = deque()
        self._jobs: list[Job] = []
        self._withdrawn: list[Entry] = []

    def __len__(self) -> int:
        return len(self._queue) + len(self._jobs) + len(self._withdrawn)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._queue
        yield from self._withdrawn
        for job in self._jobs:
            yield job.entry

    def busy(self) -> Iterator[Entry]:
        """What a drain has to wait for: a run that was given up matters only to those behind it in its lane."""
        ordered = self._member.world.settings.config.ordering != "unordered"
        overdue = [job.entry for job in self._jobs if job.overdue]
        return (entry for entry in self if ordered or entry not in overdue)

    def running(self) -> Running:
        """As a real pool has it: what ended is there to be taken."""
        now = self._member.world.mono
        busy = tuple([job.entry for job in self._jobs if job.ends_at > now])
        return Running(queued=len(self._queue), busy=busy)

    def push(self, entries: Collection[Entry]) -> None:
        self._queue.extend(entries)

    def withdraw(self) -> Sequence[Entry]:
        """Give back what has not begun and must not begin any more; some executors are late with that."""
        world = self._member.world
        back = [entry for entry in self._queue if not entry.assignment.hands_out]
        self._queue = deque([entry for entry in self._queue if entry.assignment.hands_out])
        if back and world.often(world.faults.late_withdraw):
            self._withdrawn += back
            return ()
        return back

    def begin(self) -> None:
        """Let free workers take what is queued."""
        member, world = self._member, self._member.world
        while self._queue and len(self._jobs) < world.settings.workers and member.stalling.until is None:
            entry = self._queue.popleft()
            world.watch.began(member, entry, world.now)
            record: Record = entry.raw
            outcome = record.facts.script.outcome(entry.attempt)
            job = Job(entry, world.work(), outcome)
            stall = world.stall(record)
            if stall:
                job.outcome, job.ends_at = Outcome.DONE, world.mono + stall
                member.stalling.begin(entry, world.mono, job.ends_at)
                world.say(f"{member.name} stands still: {record} holds it up")
            self._jobs.append(job)
            world.moved = True
            if world.trace is not None:
                world.say(f"{member.name} begins {record}, until {job.ends_at:.2f}: {outcome.value}")

    def serve(self, also: Callable[[p.Finished], None] | None = None) -> None:
        """Tell the engine what has come to an end, and before it whoever else wants to know."""
        member, world = self._member, self._member.world
        if self._withdrawn:
            back, self._withdrawn = self._withdrawn, []
            member.step(p.Withdrawn(back))
        ended = [job for job in self._jobs if job.ends_at <= world.mono]
        if not ended:
            return
        self._jobs = [job for job in self._jobs if job.ends_at > world.mono]
        world.moved = True
        chance = world.random.random()
        finished = p.Finished(chance=chance)
        for job in ended:
            entry, tenure = job.entry, member.all_tenures[job.entry.assignment]
            if job.overdue:
                world.watch.ended(tenure, entry.raw)
                member.stuck.ended(entry)
                finished.released.append(entry)
                continue
            if job.outcome is not Outcome.OVERDUE:
                world.watch.ended(tenure, entry.raw)
                member.stuck.ended(entry)
            if job.outcome is Outcome.DONE:
                world.broker.resolve(entry.raw)
                world.watch.completed(tenure, entry.raw)
                finished.done.append(entry)
                continue
            if job.outcome is Outcome.SEND:
                outputs = self._outputs()
                tenure.sends[entry.offset] = outputs
                finished.sent.append((entry, outputs))
                continue
            policy = world.settings.config.routes[entry.route].policy
            self.expect(entry, job.outcome, chance)
            if job.outcome is Outcome.OVERDUE:
                job.overdue, job.ends_at = True, world.mono
                if not world.calm:
                    job.ends_at += world.random.random() * 4.0
                self._jobs.append(job)
                late = retry.judge(policy, entry.attempt, TimeoutError(), chance, error_text=True)
                finished.overdue.append((entry, late))
                continue
            if job.outcome is Outcome.DIE:
                finished.died.append(entry)
                continue
            error = _ERRORS[job.outcome]
            if job.outcome is Outcome.FAIL and world.random.random() < 0.2:
                error = GeneratorExit()
            failure = retry.judge(policy, entry.attempt, error, chance, error_text=True)
            finished.failed.append((entry, failure))
        if world.settings.config.ordering == "unordered" and world.random.random() < 0.7:
            done, succeeded = _in_batches(finished.done)
            finished = replace(finished, done=done, succeeded=succeeded)
        if also is not None:
            also(finished)
        member.step(finished)

    def _outputs(self) -> tuple[Output, ...]:
        random = self._member.world.random
        return tuple(
            [Output(topic="out", body=bytes(random.randrange(200))) for _ in range(random.choice((1, 2)))]
        )

    def expect(self, entry: Entry, outcome: Outcome, chance: float) -> None:
        """Write down what must follow this run, which failed."""
        member = self._member
        member.world.watch.failed(
            member.all_tenures[entry.assignment], entry.raw, self._expected(entry, outcome, chance)
        )

    def _expected(self, entry: Entry, outcome: Outcome, chance: float) -> Expected:
        """By the words of the interface."""
        world = self._member.world
        record: Record = entry.raw
        route = world.settings.config.routes[record.facts.route]
        policy = route.policy
        # A retry topic by pattern is the one that a message comes from; a base topic is none.
        nowhere = route.retry_topic is not None and world.settings.retry_topic not in (
            route.retry_topic,
            record.place.topic,
        )
        facts = self._member.all_tenures[entry.assignment].facts(record)
        attempt = facts.failed + 1
        alone = facts.alone or outcome is Outcome.DIE
        reason: str | None = None
        if outcome is Outcome.REJECT:
            reason = events.REASON_REJECTED
        elif outcome is Outcome.GIVE_UP and policy is not None:
            reason = events.REASON_GIVEN_UP
        elif policy is None or attempt >= policy.max_attempts or nowhere:
            reason = events.REASON_WORKER_DIED if outcome is Outcome.DIE else events.REASON_EXHAUSTED
        if reason is not None or policy is None:
            return Expected(reason=reason, attempts=attempt, alone=alone)
        delay = AFTER_SECONDS if outcome is Outcome.AFTER else policy.delay.delay(attempt, chance)
        wall = world.now.wall
        return Expected(
            reason=None,
            attempts=attempt,
            alone=alone,
            not_before_ms=math.ceil((wall + delay) * 1000),
            failed_ms=math.floor(wall * 1000),
        )
