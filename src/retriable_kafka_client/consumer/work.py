"""Messages on their way to the workers, and what came of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace

from retriable_kafka_client import events
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.consumer.transacting import Transacting
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.notices import timed_out
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.errors import ConsumerFailed, RetriableKafkaError
from retriable_kafka_client.workers.runner import Runner

__all__ = ["Outflow", "Work"]


class Outflow:
    """Bytes of what handlers sent that no broker has answered for. Brokers that do not take them hold up handlers."""

    def __init__(self, runner: Runner, most: int) -> None:
        self._runner = runner
        self._most = most
        self._bytes = 0

    def add(self, change: int) -> None:
        """So many bytes more are under way; fewer, where it is negative."""
        before = self._bytes
        self._bytes += change
        if before <= self._most < self._bytes:
            self._runner.hold(True)
        elif self._bytes <= self._most < before:
            self._runner.hold(False)


class Work:
    """Hands messages to the runner, and makes events of what it gives back. The loop's thread only; nothing blocks."""

    def __init__(
        self,
        runner: Runner,
        intake: Intake,
        stalls: Stalls,
        transacting: Transacting | None,
        publish: Callable[[events.Event], None],
    ) -> None:
        """``publish`` takes events for ``on_event``."""
        self._runner = runner
        self._intake = intake
        self._stalls = stalls
        self._transacting = transacting
        self._publish = publish
        # What the filter said of what was to be run; None: to drop it.
        self._unrun: list[tuple[Entry, Failure | None]] = []
        self._late: set[Entry] = set()  # failed for their time limit, and their handlers still run

    @property
    def overdue(self) -> int:
        """Runs beyond their time limit that still hold a worker. Those of ended assignments count as overrun instead."""
        return sum(entry.assignment.phase is not Phase.ENDED for entry in self._late)

    @property
    def slots(self) -> int:
        """How many messages can run at once."""
        return self._runner.slots

    # To the workers ----------------------------------------------------------------------------------------------------

    def push(self, run: p.Run) -> None:
        """Have these messages run."""
        self._runner.push(self._sifted(run.entries), urgent=run.urgent)

    def push_batch(self, run: p.RunBatch) -> None:
        """Have this batch run."""
        self._runner.push_batch(run.batch)

    def withdraw(self) -> p.Withdrawn:
        """Take back what has not begun of assignments that hand out nothing at present."""
        return p.Withdrawn(self._runner.withdraw(lambda entry: not entry.assignment.hands_out))

    def _sifted(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Ask the filter again about what it could not look into before; returns what is to be run."""
        if not self._intake.filters or not any(entry.unsifted for entry in entries):
            return entries
        run: list[Entry] = []
        for entry in entries:
            sifted = self._intake.sift(entry) if entry.unsifted else None
            if sifted is None:
                entry.unsifted = False
                run.append(entry)
            else:
                # Kept for the next round: it may make the engine hand out the next one, and so on without end.
                self._unrun.append((entry, sifted if isinstance(sifted, Failure) else None))
                self._runner.ring()
        return run

    # From the workers --------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Iterator[p.Finished]:
        """What has ended since the last call. Each event must be handled before the next one is asked for.

        ``now``: monotonic. Raises ConsumerFailed when the pool is broken.
        """
        stood = self._stalls.turn(now)
        self._runner.sweep(now)
        finished = self._runner.take()
        if stood:
            self._stalls.took(finished)
        if finished:
            yield self._noted(finished)
        if self._unrun:
            unrun, self._unrun = self._unrun, []
            yield p.Finished(
                failed=[(entry, failure) for entry, failure in unrun if failure is not None],
                filtered=[entry for entry, failure in unrun if failure is None],
            )
        failure = self._runner.failure
        if failure is not None:
            raise ConsumerFailed(
                f"the executor broke and runs nothing any more: {_described(failure)}"
            ) from failure

    def take_after_stall(self, now: float) -> Iterator[p.Finished]:
        """Partitions were lost: what ended while the loop stood still, if it did. ``now``: monotonic."""
        if self._stalls.turn(now):
            finished = self._runner.take()
            self._stalls.took(finished)
            yield self._noted(finished)

    def wait(self, seconds: float) -> None:
        """Block until there may be something to take, at most so long."""
        self._runner.wait(seconds)

    def _noted(self, finished: p.Finished) -> p.Finished:
        self._late.update(entry for entry, _ in finished.overdue)
        self._late.difference_update(finished.released)
        if self._transacting is not None:
            self._transacting.sent(finished.sent)
        for running, failed in ((False, finished.failed), (True, finished.overdue)):
            for entry, failure in failed:
                if failure.timed_out:
                    self._publish(timed_out(entry, running=running))
        return replace(finished, chance=random.random())


def _described(failure: BaseException) -> str:
    """Name the failure, with its text where that is known to hold no payload."""
    name = type(failure).__name__
    return f"{name}: {failure}" if isinstance(failure, (RetriableKafkaError, BrokenExecutor)) else name
