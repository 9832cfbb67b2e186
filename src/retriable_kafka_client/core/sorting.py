"""Where what arrives goes: it may run, it waits for its time or an earlier message, or it is put together of chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from retriable_kafka_client.core.accounts import Accounts
from retriable_kafka_client.core.chunks import Assembler, GroupKey, Part, key_of
from retriable_kafka_client.core.entry import GONE, PART, Entry, Owner, Verdict
from retriable_kafka_client.core.queues import Queues, completes_quietly
from retriable_kafka_client.events import REASON_NOT_BEFORE
from retriable_kafka_client.wire.headers import PLAIN

__all__ = ["YEAR_MS", "Sorter"]

YEAR_MS = 366 * 24 * 3600 * 1000  # a not-before further off than this is a mistake, and dead-lettered


class Sorter:
    """Fills the queues of one assignment, and its assembler. Times are in milliseconds of the wall clock, or monotonic."""

    __slots__ = ("_accounts", "_chunks", "_mark", "_queues")

    def __init__(
        self,
        accounts: Accounts,
        queues: Queues,
        chunks: Assembler,
        mark: Callable[[Sequence[Entry], int], None] | None,
    ) -> None:
        self._accounts = accounts
        self._queues = queues
        self._chunks = chunks
        self._mark = mark  # what is known of messages from before; at this time of the wall clock

    def take_in(self, entries: Iterable[Entry], wall_ms: int, mono: float = 0.0) -> None:
        """Sort fresh messages into what is ready, what is due and what waits: for its time, or for more chunks."""
        active = 0
        queues = self._queues
        lanes = queues.lanes
        queues.unbatch()
        for entry in entries:
            if entry.verdict is PART:
                assert isinstance(entry, Part)
                self._assemble(entry, wall_ms, mono)
                continue
            not_before_ms = entry.not_before_ms
            if not_before_ms is not None:
                _refuse_far_off(entry, not_before_ms, wall_ms)
            if lanes is not None and not completes_quietly(entry) and not lanes.enter(entry):
                continue
            if not_before_ms is not None and entry.verdict is None:
                if not_before_ms > wall_ms:
                    queues.waiting.push(entry)
                    continue
                queues.due.append(entry)
                active += entry.size
                continue
            queues.ready.append(entry)
            active += entry.size
        self._accounts.hold(active)

    def _assemble(self, part: Part, wall_ms: int, mono: float) -> None:
        chunks, key, lanes = self._chunks, key_of(part), self._queues.lanes
        released = chunks.take(part.assignment, part, wall_ms, mono)
        if lanes is not None and key in chunks.groups and key not in chunks.reservations:
            chunks.reservations[key] = lanes.reserve(part.key, part.offset)
        self._let_go(key, released, wall_ms)

    def give_up_expired(self, wall_ms: int, mono: float, log_ms: int, *, first_only: bool = False) -> None:
        """Wait no longer for chunks that should have come by now, when the log stands at ``log_ms``.

        ``first_only``: of the group alone that begins first.
        """
        expired = self._chunks.expired(mono, log_ms)
        if first_only:
            expired = sorted(expired, key=lambda key: self._chunks.groups[key].first)[:1]
        for key in expired:
            self._let_go(key, self._chunks.expire(key), wall_ms)

    def _let_go(self, key: GroupKey, released: Sequence[Entry], wall_ms: int) -> None:
        """Sort what has left the assembler: a whole message, or chunks with a verdict, which need no order."""
        if not released:
            return
        if self._mark is not None:
            self._mark(released, wall_ms)
        queues = self._queues
        reservation = self._chunks.reservations.pop(key, None) if key not in self._chunks.groups else None
        for entry in released:
            self._accounts.join(len(entry.others))
            due_ms = entry.not_before_ms
            if due_ms is not None:
                _refuse_far_off(entry, due_ms, wall_ms)
            if reservation is not None and not isinstance(entry, Part):
                assert queues.lanes is not None
                entry.key = reservation.key  # who names another key in a later chunk changes nothing
                if not queues.lanes.fill(reservation, entry):
                    return
            if entry.verdict is None and due_ms is not None and due_ms > wall_ms:
                queues.waiting.push(entry)
            else:
                queues.enqueue(entry)
        if reservation is not None and isinstance(released[0], Part):
            queues.drop_reservation(reservation)

    def drop_lost_reservations(self) -> None:
        """Nothing is cut: a message whose chunks are not held either has gone from the log, and nobody waits for it."""
        for key in [key for key in self._chunks.reservations if key not in self._chunks.groups]:
            self._queues.drop_reservation(self._chunks.reservations.pop(key))

    def pass_gone(self, owner: Owner, offset: int) -> None:
        """A chunk that was cut is no longer in the log."""
        self._chunks.cut.remove(offset)
        self._queues.enqueue(Entry.marked(owner, offset, 0, None, PLAIN, 0, verdict=GONE))


def _refuse_far_off(entry: Entry, not_before_ms: int, wall_ms: int) -> None:
    """A time more than a year from now is a mistake, and not waited for."""
    if entry.verdict is None and not_before_ms > wall_ms + YEAR_MS:
        entry.verdict = Verdict(REASON_NOT_BEFORE)
