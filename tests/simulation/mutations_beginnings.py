"""Planted bugs: where partitions begin that have no position yet."""
# ruff: noqa: SLF001 - as in mutations

from __future__ import annotations

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.partition import Assignment
from tests.simulation.mutations import Mutation

__all__ = ["BEGINNING_MUTATIONS"]

_on_located = Engine._on_located


def _rule_holds_for_all(self: Engine, _assignment: Assignment) -> bool:
    return self._config.reset == "latest"


def _says_nothing(self: Engine, event: p.Located) -> None:
    """The first position is committed with the first message."""
    _on_located(self, event)
    assignment = self._assignments.get(event.locate.place)
    if assignment is not None and assignment is event.locate.token:
        assignment.progress.dirty = False


BEGINNING_MUTATIONS = (
    Mutation(
        "begin a retry topic where auto.offset.reset says",
        ((Engine, "_begins_at_end", _rule_holds_for_all),),
    ),
    Mutation("commit no position before a message came", ((Engine, "_on_located", _says_nothing),)),
)
