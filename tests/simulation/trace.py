"""A run as text, for people and for comparing two runs."""

from __future__ import annotations

import hashlib

from retriable_kafka_client.core import protocol as p

__all__ = ["Trace"]


class Trace:
    """Lines, kept in memory."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def digest(self) -> str:
        """The same for the same lines."""
        return hashlib.blake2b("\n".join(self.lines).encode(), digest_size=16).hexdigest()

    def event(self, event: p.EngineEvent) -> str:
        match event:
            case p.Assigned() | p.Revoking():
                return f"{type(event).__name__} {_places(event.places)}"
            case p.Ended():
                return f"Ended {_places(event.places)} {event.reason}"
            case p.Restored():
                return f"Restored {_place(event.place)} at {event.position}, map {len(event.metadata)} units"
            case p.Arrived():
                return f"Arrived {_place(event.place)} {list(event.offsets)}"
            case p.Finished():
                failed = [
                    f"{entry!r}: {failure.reason}, {failure.retry_in}" for entry, failure in event.failed
                ]
                overdue = [f"{entry!r}: {failure.retry_in}" for entry, failure in event.overdue]
                done = [
                    *event.done,
                    *(f"{len(one.offsets)} of {one.offsets[0]}.." for one in event.succeeded),
                ]
                return (
                    f"Finished done={done} failed={failed} died={list(event.died)} "
                    f"sent={[entry for entry, _ in event.sent]} overdue={overdue} released={list(event.released)}"
                )
            case p.Withdrawn():
                return f"Withdrawn {list(event.entries)}"
            case p.HandOffAnswered():
                return f"HandOffAnswered {_handoff(event.handoff)}: {event.code or 'acknowledged'}"
            case p.Published():
                return f"Published {event.publication.entry!r}: {event.code or 'acknowledged'}"
            case p.CommitAnswered():
                return f"CommitAnswered {_commit(event.commit)}: {dict(event.codes) or 'acknowledged'}"
            case p.Transacted():
                refused = {type(one).__name__: code for one, code in event.refused.items()}
                answer = "landed" if event.landed else f"did not land: {event.code}, refused {refused}"
                return f"Transacted {_transact(event.transact)}: {answer}"
            case p.Idle() | p.Located():
                place = event.place if isinstance(event, p.Idle) else event.locate.place
                return f"{type(event).__name__} {_place(place)} at {event.position}"
            case p.Recalled() | p.RecallEnded():
                what = list(event.offsets) if isinstance(event, p.Recalled) else event.reached
                return f"{type(event).__name__} {_place(event.recall.place)} {what}"
            case p.TopicChanged():
                return f"TopicChanged {_place(event.place)} {event.uid}"
            case p.Stopping() | p.Tick() | p.Hold():
                return f"{event}"

    def command(self, command: p.Command) -> str:
        match command:
            case p.FetchCommitted():
                return f"FetchCommitted {_places(command.places)}"
            case p.Start():
                where = "the beginning" if command.earliest else command.offset
                return f"Start {_place(command.place)} at {where}"
            case p.Locate():
                return f"Locate the {'end' if command.end else 'beginning'} of {_place(command.place)}"
            case p.Pause() | p.Resume():
                return f"{type(command).__name__} {_place(command.place)}"
            case p.Recall():
                return f"Recall {_place(command.place)} {command.first} up to {command.stop}"
            case p.CancelRecall():
                return f"CancelRecall {_place(command.recall.place)}"
            case p.Run():
                return f"Run {list(command.entries)}"
            case p.RunBatch():
                return f"RunBatch {command.batch.entries()}"
            case p.Withdraw():
                return "Withdraw"
            case p.Produce():
                return f"Produce {_handoff(command.handoff)}"
            case p.Publish():
                return f"Publish {len(command.publication.outputs)} of {command.publication.entry!r}"
            case p.Commit():
                return f"Commit {_commit(command)}"
            case p.Transact():
                return f"Transact {_transact(command)}"
            case p.Notify():
                return f"Notify {command.event}"


def _place(place: p.Place) -> str:
    return f"{place.topic}/{place.partition}"


def _places(places: object) -> str:
    assert isinstance(places, tuple | list)
    return " ".join([_place(place) for place in places])


def _handoff(handoff: p.HandOff) -> str:
    marks = handoff.marks
    return (
        f"{handoff.kind.value} of {handoff.entry!r} to {handoff.target}: failed {marks.failed}, "
        f"not before {marks.not_before_ms}, tries {handoff.tries}"
    )


def _commit(commit: p.Commit | p.Transact) -> str:
    return ", ".join([f"{_place(one.place)} {one.position} +{len(one.metadata)}" for one in commit.progress])


def _transact(transact: p.Transact) -> str:
    copies = [f"{handoff.kind.value} of {handoff.entry!r}" for handoff in transact.handoffs]
    outputs = [f"{len(one.outputs)} of {one.entry!r}" for one in transact.publications]
    return f"copies={copies} outputs={outputs} {_commit(transact)}"
