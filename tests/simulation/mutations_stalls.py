"""Planted bugs about messages that hold the whole process up. See mutations.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.core.entry import STUCK, Entry
from retriable_kafka_client.core.ownership import Ownership
from retriable_kafka_client.core.protocol import Command, Ended, Finished, Suspect
from retriable_kafka_client.core.suspects import Suspects
from tests.simulation.mutations import Mutation

__all__ = ["STALL_MUTATIONS"]

_note = Suspects.note
_mark = Suspects.mark
_ended = Ownership.ended


def _forgets(self: Suspects, suspects: Iterable[Suspect]) -> None:
    """What ran while the loop stood still runs again as if nothing had been."""


def _is_never_certain(self: Suspects, suspects: Iterable[Suspect]) -> None:
    _note(self, [replace(one, alone=False) for one in suspects])


def _does_not_count(self: Suspects, suspects: Iterable[Suspect]) -> None:
    """The lost run burns no attempt."""
    _note(self, [replace(one, attempt=one.attempt - 1) for one in suspects])


def _beside_others(self: Suspects, entries: Sequence[Entry], now_ms: int) -> None:
    _mark(self, entries, now_ms)
    for entry in entries:
        if entry.verdict is not STUCK:
            entry.alone = entry.marks.alone


def _sees_only_what_runs(self: Stalls, finished: Finished) -> None:
    """What ended while the loop stood still did nothing."""


def _says_nothing(self: Ownership, event: Ended) -> list[Command]:
    commands = _ended(self, replace(event, suspects=()))
    self._suspects.note(event.suspects)
    return commands


STALL_MUTATIONS = (
    Mutation("forget what ran while the loop stood still", ((Suspects, "note", _forgets),)),
    Mutation("never be certain of what holds the loop up", ((Suspects, "note", _is_never_certain),)),
    Mutation("do not count the run that held the loop up", ((Suspects, "note", _does_not_count),)),
    Mutation("run a suspect beside others", ((Suspects, "mark", _beside_others),)),
    Mutation("suspect only what has not ended", ((Stalls, "took", _sees_only_what_runs),)),
    Mutation("say nothing of suspects", ((Ownership, "ended", _says_nothing),)),
)
