"""Rebalances: what happens inside the assign, revoke and lost callbacks, and how assignments end.

The client calls these from within a poll, on the loop's thread. A revoke is the one place where the loop waits for workers
and brokers: for the drain, and for the last commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retriable_kafka_client.consumer.answers import Answers
from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.consumer.committer import Committer
from retriable_kafka_client.consumer.engine_driver import EngineDriver
from retriable_kafka_client.consumer.run_parts import RunParts
from retriable_kafka_client.core import protocol as p

__all__ = ["Rebalance", "RevokeTimes"]

SERVE_SECONDS = 0.01  # a round while draining
DRAIN_SHARE = 0.7  # of max.poll.interval.ms that a drain within a rebalance may take
REVOKE_SHARE = 0.9  # and with the last commit

Places = Sequence[p.Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeTimes:
    """How long the parts of a revoke may take, in seconds."""

    drain: float
    whole: float  # with the last commit
    last_commit: float

    @classmethod
    def within(cls, *, poll_interval: float, drain_timeout: float, session: float) -> RevokeTimes:
        """Who drains for longer than ``poll_interval`` is put out of the group. A coordinator that is silent for longer than
        ``session`` has put us out, and takes no commit any more.
        """
        return cls(
            drain=min(drain_timeout, poll_interval * DRAIN_SHARE),
            whole=poll_interval * REVOKE_SHARE,
            last_commit=session,
        )


class Rebalance:
    """The end of assignments, and their beginning as far as callbacks see it. The loop's thread only."""

    def __init__(
        self,
        run: RunParts,
        driver: EngineDriver,
        answers: Answers,
        assigner: Assigner,
        committer: Committer,
        times: RevokeTimes,
    ) -> None:
        self._run = run
        self._driver = driver
        self._answers = answers
        self._assigner = assigner
        self._committer = committer
        self._times = times

    # Callbacks ---------------------------------------------------------------------------------------------------------

    def on_assign(self, places: Places) -> None:
        """These are ours. Nothing is fetched until their positions are known."""
        self._run.connectivity.belong()
        self._assigner.accept(places)
        self._run.topics.assigned(places)
        self._driver.handle(p.Assigned(places))

    def on_revoke(self, places: Places) -> None:
        """These go to other members once we return: drain and commit. Blocks for at most ``RevokeTimes.whole``."""
        run = self._run
        began = time.monotonic()
        deadline = began + (0.0 if run.control.hard else self._times.drain)
        try:
            self._driver.handle(p.Revoking(places))
            self.drain(lambda: run.engine.drained(places), deadline)
            self.commit(places, min(time.monotonic() + self._times.last_commit, began + self._times.whole))
            run.stalls.waited(time.monotonic())
        finally:
            self.end(places, "revoked")
            run.topics.given_away(places)
            self._assigner.give_up(places)

    def on_lost(self, places: Places) -> None:
        """The group has given these to others already: nothing is committed."""
        run = self._run
        run.connectivity.lost()
        now = time.monotonic()
        self._driver.handle_all(run.work.take_after_stall(now))
        suspects, stood = run.stalls.suspects(places, now) if run.config.engine.solo else ((), 0.0)
        self.end(places, "lost", suspects, stood)
        run.topics.given_away(places)
        self._assigner.give_up(places)

    # How assignments end -----------------------------------------------------------------------------------------------

    def drain(
        self, drained: Callable[[], bool], deadline: float, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """Serve workers and producers until ``drained``, or ``deadline`` (monotonic), or a hard stop.

        ``meanwhile`` is called in each round.
        """
        while not drained() and time.monotonic() < deadline and not self._run.control.hard:
            self._answers.take()
            meanwhile()
            self._run.work.wait(SERVE_SECONDS)

    def commit(self, places: Places, deadline: float) -> None:
        """Commit these for the last time and see that it is in, by ``deadline`` (monotonic). Blocks."""
        self._await_transaction(places, deadline)
        commit = p.Commit(self._run.engine.last_progress(places))
        if commit.progress:
            self._run.engine.mark_sent(commit)
            # Inside a callback no answer to a commit can arrive: it is read back.
            landed = self._committer.landed(commit, deadline)
            self._driver.handle(p.CommitAnswered(commit, {} if landed else commit.failed("_TIMED_OUT")))

    def _await_transaction(self, places: Places, deadline: float) -> None:
        """Take the answer to a transaction that is still in flight when the drain is over, before these are given away."""
        run, transacting = self._run, self._run.transacting
        if transacting is None:
            return
        while transacting.busy and not run.control.hard:
            self._answers.take_transacted()
            if time.monotonic() >= deadline:
                break
            run.work.wait(SERVE_SECONDS)
        left = run.engine.uncommitted(places)
        if left:
            transacting.leave_behind(run.config.engine.group, left)

    def end(
        self, places: Places, reason: str, suspects: Sequence[p.Suspect] = (), stood: float = 0.0
    ) -> None:
        """These assignments are over. Arguments as in ``protocol.Ended``."""
        run = self._run
        run.positions.drop(places)
        run.locator.drop(places)
        run.topics.ended(places)
        self._assigner.drop(places)
        run.errors.ended(places)
        self._driver.handle(p.Ended(places, reason, suspects, stood))
        if run.transacting is not None:
            run.transacting.ended()
