"""One member's transactions, and what the fake brokers make of them: visible at once and as a whole, or never.

The shell's part is in here as well: where the answer to the end of a transaction is lost, it begins anew with the same
transactional id, which ends what is open, and asks what has become of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry, Owner
from retriable_kafka_client.core.exactly_once import has_landed
from tests.simulation.broker import Committed
from tests.simulation.records import Outcome
from tests.simulation.settings import DEAD_TOPIC
from tests.simulation.tenure import Violation
from tests.simulation.underway import Copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.member import Member

__all__ = ["Flight", "Transactor"]

PASSING = ("NOT_COORDINATOR", "CONCURRENT_TRANSACTIONS", "_TIMED_OUT")


class Stage(Enum):
    """How far a transaction has come."""

    BEGUN = "begun"
    WRITTEN = "written"  # its records are in their logs, where nobody sees them
    LOCKED = "locked"  # its offsets are with the group, and hold up whoever asks for them
    IN_DOUBT = "in doubt"  # its end was sent, and no answer came
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Flight:
    """A transaction under way."""

    transact: p.Transact
    generation: int
    next_at: float  # when the next stage is reached
    stage: Stage = Stage.BEGUN
    uids: dict[p.Place, str] = field(default_factory=dict)  # of the topics whose offsets are locked
    refused: dict[p.HandOff | p.Publication, str] = field(default_factory=dict)
    code: str | None = None
    asks_at: float = 0.0  # in doubt: when the shell begins anew

    @property
    def parts(self) -> Iterator[p.HandOff | p.Publication]:
        yield from self.transact.handoffs
        yield from self.transact.publications


class Transactor:
    """See the module's docstring."""

    def __init__(self, member: Member) -> None:
        self.flight: Flight | None = None
        self._member = member

    def begin(self, transact: p.Transact) -> None:
        member, world = self._member, self._member.world
        if self.flight is not None:
            raise Violation("T", f"{member.name} begins a transaction while another one is in flight")
        world.watch.transactions.begun(member, transact)
        self.flight = Flight(transact, member.generation, world.soon())

    @property
    def is_open(self) -> bool:
        """Whether a transaction holds offsets, or its end is in doubt."""
        return self.flight is not None and self.flight.stage in (Stage.LOCKED, Stage.IN_DOUBT)

    def entries(self) -> list[Entry]:
        """The messages whose copies or outputs are in flight."""
        return [part.entry for part in self.flight.parts] if self.flight is not None else []

    def assignments(self) -> set[Owner]:
        """Those of whose messages or progress something is in flight."""
        owners = {one.owner for one in self.flight.transact.progress} if self.flight is not None else set()
        return {entry.assignment for entry in self.entries()} | owners

    def serve(self) -> None:
        """Let it come as far as it has come by now, and tell the engine."""
        world = self._member.world
        while (flight := self.flight) is not None and flight.next_at <= world.mono and not world.broker.down:
            match flight.stage:
                case Stage.BEGUN:
                    self._write(flight)
                case Stage.WRITTEN:
                    self._add_offsets(flight)
                case Stage.LOCKED:
                    self._end(flight)
                case Stage.IN_DOUBT:
                    self._clear_up(flight)
                case Stage.COMMITTED | Stage.ABORTED:
                    self._answer(flight)
            flight.next_at = max(flight.next_at, world.soon())

    def vanish(self, land: float) -> None:
        """The process ends. An open transaction keeps its offsets locked until the broker aborts it."""
        flight, world, is_open = self.flight, self._member.world, self.is_open
        self.flight = None
        if flight is None or not is_open:
            return
        if not world.broker.down and world.random.random() < land:
            flight.next_at = world.mono + world.random.uniform(1.0, 9.0)
            world.departed.append((self, flight))
            return
        world.say(f"{self._member.name} leaves a transaction open")
        until = world.mono + world.random.uniform(0.5, 4.0)
        for place in flight.uids:
            world.broker.lock(place, flight, until)

    def arrive(self, flight: Flight) -> None:
        """The end of a transaction that its sender did not live to see."""
        self._land(flight)

    def _write(self, flight: Flight) -> None:
        world = self._member.world
        for part in flight.parts:
            code: str | None = None
            if isinstance(part, p.HandOff):
                code = world.broker.refusing.get(part.target)
                if code is None and world.often(world.faults.refuse_copy):
                    code = "MSG_SIZE_TOO_LARGE"
            elif world.often(world.faults.refuse_output):
                code = "TOPIC_AUTHORIZATION_FAILED"
            if code is not None:
                flight.refused[part] = code
        if not flight.refused and world.often(world.faults.abort):
            flight.code = world.random.choice(PASSING)
        self._go_on(flight, Stage.WRITTEN)

    def _add_offsets(self, flight: Flight) -> None:
        """The group's part: only a member may, and only what it was given in this generation."""
        member, world, broker = self._member, self._member.world, self._member.world.broker
        if flight.generation != member.generation or flight.generation < 0 or not world.group.has(member):
            flight.code = "ILLEGAL_GENERATION"
        flight.code = flight.code or broker.commit_code
        for one in flight.transact.progress:
            if not one.metadata and not member.same_topic(one):
                flight.code = flight.code or "UNKNOWN_TOPIC_ID"
            elif len(one.metadata) > broker.metadata_limit:
                flight.code = flight.code or "OFFSET_METADATA_TOO_LARGE"
        self._go_on(flight, Stage.LOCKED)
        if flight.stage is Stage.LOCKED:
            for one in flight.transact.progress:
                flight.uids[one.place] = broker.logs[one.place].uid
                broker.lock(one.place, flight)
            if world.often(0.7):  # waits for brokers that are busy
                flight.next_at = world.mono + world.random.uniform(0.5, 5.0)

    def _go_on(self, flight: Flight, stage: Stage) -> None:
        if not flight.refused and flight.code is None:
            flight.stage = stage
            return
        flight.stage = Stage.ABORTED
        for topic in {part.target for part in flight.parts if isinstance(part, p.HandOff)}:
            self._mark(topic)

    def _end(self, flight: Flight) -> None:
        world = self._member.world
        # Even while all is calm: it takes no longer, and is a matter of the shell and the brokers alone.
        if world.random.random() >= world.faults.lose_answer * (0.2 if world.calm else 1.0):
            self._land(flight)
            return
        world.say(f"{self._member.name} gets no answer to the end of its transaction")
        flight.stage = Stage.IN_DOUBT
        flight.asks_at = world.mono + world.random.uniform(0.0, 2.0)
        # The end is on its way still: what began anew before it arrives has ended the transaction.
        flight.next_at = world.mono + world.random.uniform(0.0, 3.0)
        if flight.next_at > flight.asks_at:
            flight.next_at, flight.code = flight.asks_at, "_TIMED_OUT"

    def _clear_up(self, flight: Flight) -> None:
        if flight.code is None:
            self._land(flight)
            flight.next_at = flight.asks_at
        else:
            flight.stage = Stage.ABORTED
            self._unlock(flight)
        flight.code = None if self.has_landed(flight) else "_TIMED_OUT"

    def has_landed(self, flight: Flight) -> bool:
        """What the shell finds out once nothing is open any more: whether a partition stands where it would.

        That tells nothing where the map has no room to say anything new, where a topic that was made anew took its
        positions along, and of partitions that are not ours any more: there the shell would make the effects again.
        """
        broker, tenures = self._member.world.broker, self._member.tenures
        ours = {place: tenure.assignment for place, tenure in tenures.items()}
        news = [one for one in flight.transact.progress if one.news and ours.get(one.place) is one.owner]
        if not news or any(broker.logs[one.place].uid != flight.uids[one.place] for one in news):
            return flight.stage is Stage.COMMITTED
        stands = {
            one.place: broker.committed.get(one.place) == Committed(one.position, one.metadata)
            for one in flight.transact.progress
        }
        return has_landed(flight.transact, stands)

    def _land(self, flight: Flight) -> None:
        """All of it is visible."""
        member, world, broker = self._member, self._member.world, self._member.world.broker
        world.watch.transactions.landed(member, flight.transact)
        flight.stage = Stage.COMMITTED
        for handoff in flight.transact.handoffs:
            uid = member.all_tenures[handoff.entry.assignment].uid
            member.sends.land(Copy(handoff, uid, world.mono, world.mono))
        for publication in flight.transact.publications:
            broker.resolve(publication.entry.raw)
        for topic in {handoff.target for handoff in flight.transact.handoffs}:
            self._mark(topic)
        for one in flight.transact.progress:
            if broker.logs[one.place].uid == flight.uids[one.place]:  # else it went with its topic
                broker.committed[one.place] = Committed(one.position, one.metadata)
                world.watch.commit_landed(one)
        self._unlock(flight)
        world.say(f"{member.name}'s transaction is committed")

    def _unlock(self, flight: Flight) -> None:
        for place in flight.uids:
            self._member.world.broker.unlock(place, flight)

    def _mark(self, topic: str) -> None:
        """The end of a transaction takes an offset of each partition that it wrote to."""
        world = self._member.world
        if topic != DEAD_TOPIC:
            for partition in range(world.settings.partitions[topic]):
                world.broker.logs[p.Place(topic, partition)].skip(1)

    def _answer(self, flight: Flight) -> None:
        member, world = self._member, self._member.world
        self.flight = None
        world.moved = True
        landed = flight.stage is Stage.COMMITTED
        if flight.asks_at:
            landed = flight.code is None
        for part in flight.parts:
            entry = part.entry
            tenure = member.all_tenures[entry.assignment]
            if landed:
                world.watch.completed(tenure, entry.raw)
            elif isinstance(part, p.Publication) and part in flight.refused:
                tenure.sends.pop(entry.offset, None)
                member.workers.expect(entry, Outcome.FAIL, part.chance)
        member.step(
            p.Transacted(transact=flight.transact, landed=landed, refused=flight.refused, code=flight.code)
        )
