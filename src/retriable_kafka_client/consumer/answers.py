"""What workers and brokers have answered, and what time has brought: taken once in each round of the loop."""

from __future__ import annotations

import time

from retriable_kafka_client.consumer.callbacks import Callbacks
from retriable_kafka_client.consumer.committer import Committer
from retriable_kafka_client.consumer.engine_driver import EngineDriver
from retriable_kafka_client.consumer.run_parts import RunParts
from retriable_kafka_client.core import protocol as p

__all__ = ["Answers"]

SILENCE_SECONDS = 10.0  # of a commit, until health says so


class Answers:
    """Takes them and hands them to the engine. Also inside rebalance callbacks, so a drain goes on. Nothing blocks."""

    def __init__(
        self, run: RunParts, driver: EngineDriver, callbacks: Callbacks, committer: Committer
    ) -> None:
        self._run = run
        self._driver = driver
        self._callbacks = callbacks
        self._committer = committer

    def take(self) -> None:
        """Raises what a callback would have raised, and ConsumerFailed when workers or transactions are broken for good."""
        self._callbacks.raise_failure()
        run, driver = self._run, self._driver
        driver.handle_all(run.work.take(time.monotonic()))
        for answer in run.handoffs.poll():
            driver.handle(answer)
            if isinstance(answer, p.Published):
                run.outflow.add(-answer.publication.size)
        self.take_transacted()
        if run.control.hold != run.engine.on_hold:
            driver.handle(p.Hold(run.control.hold))
        driver.handle(p.Tick())
        self._note_silence(time.monotonic())
        run.snapshots.publish(time.monotonic())

    def take_transacted(self) -> None:
        """The answer to the transaction in flight, if it is in."""
        answer = None if self._run.transacting is None else self._run.transacting.take()
        if answer is not None:
            self._driver.handle(answer)

    def _note_silence(self, now: float) -> None:
        silence = self._committer.unanswered_for(now)
        self._run.problems.mark(
            "commit",
            "the group's coordinator does not answer a commit",
            holds=silence > SILENCE_SECONDS + self._committer.allowance,
        )
