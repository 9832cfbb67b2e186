"""Planted bugs: where partitions begin that have no position yet."""

from __future__ import annotations

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.ownership import Ownership
from retriable_kafka_client.core.partition import Assignment
from tests.simulation.mutations import Mutation

__all__ = ["BEGINNING_MUTATIONS"]

_located = Ownership.located


def _rule_holds_for_all(self: Ownership, _assignment: Assignment) -> bool:
    return self._config.reset == "latest"


def _says_nothing(self: Ownership, event: p.Located) -> list[p.Command]:
    """The first position is committed with the first message."""
    commands = _located(self, event)
    assignment = self._assignments.get(event.locate.place)
    if assignment is not None and assignment is event.locate.token:
        assignment.progress.dirty = False
    return commands


BEGINNING_MUTATIONS = (
    Mutation(
        "begin a retry topic where auto.offset.reset says",
        ((Ownership, "_begins_at_end", _rule_holds_for_all),),
    ),
    Mutation("commit no position before a message came", ((Ownership, "located", _says_nothing),)),
)
