"""The engine, driven: events go in with the time, and the commands that come out are performed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, assert_never

from retriable_kafka_client import events
from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.consumer.committer import Committer
from retriable_kafka_client.consumer.run_parts import RunParts
from retriable_kafka_client.core import protocol as p

__all__ = ["EngineDriver"]

Reading = p.FetchCommitted | p.Locate | p.Start | p.Pause | p.Resume | p.Recall | p.CancelRecall


class EngineDriver:
    """The one way to the engine while a client lives. The loop's thread only; nothing blocks.

    Two commands are answered at once, so ``handle`` is called again from within: Withdraw, and a Commit that the client
    refuses to send.
    """

    def __init__(self, run: RunParts, client: Any, assigner: Assigner, committer: Committer) -> None:
        self._run = run
        self._engine = run.engine
        self._client = client
        self._assigner = assigner
        self._committer = committer

    @staticmethod
    def now() -> p.Now:
        """The present instant, by both clocks."""
        return p.Now(time.time(), time.monotonic())

    def handle(self, event: p.EngineEvent) -> None:
        """Hand one event to the engine, and perform what it commands."""
        for command in self._engine.handle(event, self.now()):
            self._perform(command)

    def handle_all(self, happened: Iterable[p.EngineEvent]) -> None:
        """Handle each event before the next one is asked for."""
        for event in happened:
            self.handle(event)

    def _perform(self, command: p.Command) -> None:
        run = self._run
        match command:
            case p.Run():
                run.work.push(command)
            case p.RunBatch():
                run.work.push_batch(command)
            case p.Withdraw():
                self.handle(run.work.withdraw())
            case p.Notify():
                self._notify(command.event)
            case p.Produce():
                run.handoffs.send(command.handoff)
            case p.Publish():
                run.handoffs.publish(command.publication)
                run.outflow.add(command.publication.size)
            case p.Transact():
                assert run.transacting is not None
                run.transacting.perform(command, self._client)
            case p.Commit():
                self._commit(command)
            case _:
                self._direct(command)

    def _direct(self, command: Reading) -> None:
        """Which partitions are read, and from where."""
        run = self._run
        match command:
            case p.FetchCommitted():
                run.positions.want(command.places)
            case p.Locate():
                run.locator.want(command)
            case p.Start():
                self._assigner.want(command)
            case p.Pause():
                self._assigner.pause(command.place)
            case p.Resume():
                self._assigner.resume(command.place)
            case p.Recall() | p.CancelRecall():
                run.rereader.perform(command)
            case _:
                assert_never(command)

    def _commit(self, commit: p.Commit) -> None:
        refused = self._committer.send(commit)
        if refused is not None:
            self.handle(p.CommitAnswered(*refused))

    def _notify(self, event: events.Event) -> None:
        match event:
            case events.TopicReset():
                self._run.topics.directory.suspect(event.topic)  # its log goes back
            case events.HandOffRefused():
                self._run.topics.directory.suspect(event.target)
        self._run.notifier.publish(event)
