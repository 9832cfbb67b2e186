"""Promise T: copies, outputs and progress become visible together, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriable_kafka_client.core import protocol as p
from tests.simulation.records import PartRecord, Record, Whole
from tests.simulation.tenure import Cover, Tenure, Violation

if TYPE_CHECKING:
    from tests.simulation.letters import Letter
    from tests.simulation.member import Member
    from tests.simulation.watch import Watch

__all__ = ["TransactionWatch"]


class TransactionWatch:
    """Raises Violation."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._visible: set[object] = set()  # messages whose copy or outputs are

    def begun(self, member: Member, transact: p.Transact) -> None:
        """The engine wants this to become visible."""
        if not transact.progress:
            raise Violation("T", f"{member.name} begins a transaction without progress")
        coming: dict[Tenure, set[int]] = {}
        chunks: set[tuple[Letter, int]] = set()
        parts: list[p.HandOff | p.Publication] = [*transact.handoffs, *transact.publications]
        for part in parts:
            entry, tenure = part.entry, member.all_tenures[part.entry.assignment]
            if not tenure.alive:
                raise Violation("O", f"{entry.raw} is sent after its assignment ended")
            offsets = {entry.offset, *entry.others}
            if offsets & coming.setdefault(tenure, set()):
                raise Violation("T", f"{entry.raw} stands twice in a transaction")
            coming[tenure] |= offsets
            chunks |= _chunks(entry.raw)
            if isinstance(part, p.Publication):
                self._watch.publishes(member, part)
            elif id(part) not in tenure.produced or part.tries:
                tenure.produced.add(id(part))
                self._watch.copies.produced(member, part, member.world.now)
        covers = self._watch.commit_made(member, transact.progress, coming, chunks)
        for tenure, offsets in coming.items():
            self._check_told(member, tenure, covers.get(tenure), offsets)

    def _check_told(self, member: Member, tenure: Tenure, cover: Cover | None, offsets: set[int]) -> None:
        if cover is None:
            raise Violation("T", f"{tenure}: effects are to be visible, and its progress is not")
        if self.excuses(member):
            return
        tenure.effects = {offset for offset in tenure.effects if offset >= cover.position}
        for offset in sorted(offsets | tenure.effects):
            if not cover.has(offset):
                raise Violation("T", f"{tenure}: the effects of {offset} are visible, its completion is not")

    def excuses(self, member: Member) -> bool:
        """Whether chunk groups keep the maps of this world too long."""
        return member.shortened and bool(member.world.settings.chunked)

    def landed(self, member: Member, transact: p.Transact) -> None:
        """All of it is visible from now on."""
        parts: list[p.HandOff | p.Publication] = [*transact.handoffs, *transact.publications]
        for part in parts:
            record: Record = part.entry.raw
            tenure = member.all_tenures[part.entry.assignment]
            key = _key(record)
            if key in self._visible:
                raise Violation("T", f"the effects of {record} are visible twice")
            # What was read before the client knew that the topic was made anew is read again.
            if self._watch.broker.logs[tenure.place].uid == tenure.uid and not self.excuses(member):
                self._visible.add(key)
            tenure.effects |= {part.entry.offset, *part.entry.others}
            tenure.sends.pop(part.entry.offset, None)

        for one in transact.progress:
            owner = member.tenures.get(one.place)
            if owner is not None and one.owner is owner.assignment:
                self._watch.promised(owner, one.position)

    def mirrored(self) -> None:
        """Nobody knows any more what had effects above the positions that were copied."""
        self._visible.clear()

    def began(self, tenure: Tenure, record: Record) -> None:
        """A worker begins it."""
        if (
            _key(record) in self._visible and not tenure.dirty
        ):  # who was thrown out may run it, and never commits it
            raise Violation("T", f"{record} runs again in {tenure}, and its effects are visible")


def _chunks(record: Record) -> set[tuple[Letter, int]]:
    """The chunks that the message came in, of which there may be duplicates."""
    if isinstance(record, Whole):
        return {(record.letter, index) for index in range(len(record.letter.bodies))}
    return {(record.letter, record.index)} if isinstance(record, PartRecord) else set()


def _key(record: Record) -> object:
    return record.letter if isinstance(record, Whole) else record
