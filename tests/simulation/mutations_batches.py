"""Planted bugs in what becomes of plain records, which travel in columns, and in what ends oddly. See mutations.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.plain_batch import PlainBatch, Succeeded
from retriable_kafka_client.core.queues import Queues
from tests.simulation.mutations import Mutation

__all__ = ["BATCH_MUTATIONS"]

_take_batch = Queues.take_batch
_finished = Outcomes.finished


def _rest_is_forgotten(self: Queues, room: int) -> PlainBatch | None:
    waiting = len(self.batches)
    batch = _take_batch(self, room)
    if batch is not None and len(self.batches) == waiting:
        self.batches.popleft()
    return batch


def _room_is_forgotten(self: Queues, room: int) -> PlainBatch | None:
    del room
    return _take_batch(self, 2**31)


def _map_is_forgotten(self: Queues, room: int) -> PlainBatch | None:
    if not self.batches:
        return None
    batch = self.batches.popleft()
    if len(batch) > room:
        self.batches.appendleft(batch.part(room, len(batch)))
    return batch.part(0, room)


def _goes_before_what_stands_there(self: Queues, batch: PlainBatch) -> None:
    self._accounts.hold(batch.size)
    self.ready.extendleft(batch.entries()[1:])


def _all_between_is_complete(self: Outcomes, succeeded: Sequence[Succeeded]) -> None:
    for one in succeeded:
        self._complete_run(one.assignment, one.offsets[0], one.offsets[-1] + 1, one.size)


def _first_run_is_all(self: Outcomes, succeeded: Sequence[Succeeded]) -> None:
    for one in succeeded:
        first = one.offsets[0]
        self._complete_run(one.assignment, first, first + len(one.offsets), one.size)


def _exits_are_forgotten(self: Outcomes, event: p.Finished, now: p.Now) -> list[p.Command]:
    left = [(entry, failure) for entry, failure in event.failed if failure.error != "GeneratorExit"]
    return _finished(self, replace(event, failed=left), now)


BATCH_MUTATIONS = (
    Mutation(
        "leave what ended in a GeneratorExit in flight", ((Outcomes, "finished", _exits_are_forgotten),)
    ),
    Mutation("forget the rest of a batch", ((Queues, "take_batch", _rest_is_forgotten),)),
    Mutation("hand out batches without a bound", ((Queues, "take_batch", _room_is_forgotten),)),
    Mutation("hand out batches without admission", ((Queues, "take_batch", _map_is_forgotten),)),
    Mutation("lose the first of a batch", ((Queues, "take_in_batch", _goes_before_what_stands_there),)),
    Mutation(
        "complete all between those of a batch", ((Outcomes, "_on_succeeded", _all_between_is_complete),)
    ),
    Mutation("take those of a batch for neighbours", ((Outcomes, "_on_succeeded", _first_run_is_all),)),
)
