"""What one member's producer has on its way: copies, and what handlers send."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.wire.headers import dead_headers, own_headers, write_marks
from tests.simulation.letters import Letter, cut_up
from tests.simulation.records import Facts, Kind, Outcome, Record
from tests.simulation.underway import Copy, Mailing

if TYPE_CHECKING:
    from tests.simulation.member import Member

__all__ = ["Sends"]


class Sends:
    """Each lands and is answered some time after it was produced, or is refused."""

    def __init__(self, member: Member) -> None:
        self.copies: list[Copy] = []
        self.mailings: list[Mailing] = []
        self._member = member

    def produce(self, handoff: p.HandOff) -> None:
        world = self._member.world
        world.watch.copies.produced(self._member, handoff, world.now)
        lands_at = world.soon()
        uid = self._member.all_tenures[handoff.entry.assignment].uid
        self.copies.append(Copy(handoff, uid, lands_at, world.soon(lands_at)))

    def publish(self, publication: p.Publication) -> None:
        world = self._member.world
        world.watch.publishes(self._member, publication)
        lands_at = world.soon()
        self.mailings.append(Mailing(publication, lands_at, world.soon(lands_at)))

    def serve(self) -> None:
        """Let land what has its time, and tell the engine."""
        self._answer_copies()
        self._answer_mailings()

    def vanish(self, land: float) -> None:
        """The process ends: each lands with that likelihood."""
        world = self._member.world
        for copy in self.copies:
            refused = copy.handoff.target in world.broker.refusing
            if not copy.landed and not refused and world.random.random() < land:
                self.land(copy)
            elif not copy.landed and not refused:
                self._land_in_part(copy)
        for mailing in self.mailings:
            if not mailing.landed and world.random.random() < land:
                mailing.landed = True
                world.broker.resolve(mailing.publication.entry.raw)

    def _answer_copies(self) -> None:
        world = self._member.world
        if world.broker.down or not self.copies:
            return
        for copy in list(self.copies):
            target = copy.handoff.target
            if not copy.landed and copy.lands_at <= world.mono:
                code = world.broker.refusing.get(target)
                if code is None and world.often(world.faults.refuse_copy):
                    code = "MSG_SIZE_TOO_LARGE"
                if code is not None:
                    if target not in world.broker.refusing:
                        self._land_in_part(copy)
                    self.copies.remove(copy)
                    self._member.step(p.HandOffAnswered(copy.handoff, code))
                    continue
                self.land(copy)
            if copy.landed and copy.answers_at <= world.mono:
                self.copies.remove(copy)
                tenure = self._member.all_tenures[copy.handoff.entry.assignment]
                world.watch.completed(tenure, copy.handoff.entry.raw)
                world.moved = True
                self._member.step(p.HandOffAnswered(copy.handoff, None))

    def _answer_mailings(self) -> None:
        world = self._member.world
        if world.broker.down:
            return
        for mailing in list(self.mailings):
            publication = mailing.publication
            entry = publication.entry
            if not mailing.landed and mailing.lands_at <= world.mono:
                if world.often(world.faults.refuse_output):
                    self.mailings.remove(mailing)
                    self._member.workers.expect(entry, Outcome.FAIL, publication.chance)
                    self._member.step(p.Published(publication, "TOPIC_AUTHORIZATION_FAILED"))
                    continue
                mailing.landed = True
                world.broker.resolve(entry.raw)
            if mailing.landed and mailing.answers_at <= world.mono:
                self.mailings.remove(mailing)
                world.watch.completed(self._member.all_tenures[entry.assignment], entry.raw)
                world.moved = True
                self._member.step(p.Published(publication, None))

    def land(self, copy: Copy) -> None:
        """The copy is in the log."""
        world, handoff = self._member.world, copy.handoff
        record: Record = handoff.entry.raw
        headers: list[tuple[str, bytes | None]] = list(own_headers(record.headers()))
        if handoff.kind is p.HandOffKind.DEAD_LETTER:
            assert handoff.failure is not None
            headers += dead_headers(
                handoff.marks,
                reason=handoff.failure.reason,
                error=handoff.failure.error,
                error_text=handoff.failure.text,
                attempts=handoff.attempts,
                time_ms=int(world.now.wall * 1000),
            )
        else:
            headers += write_marks(handoff.marks)
        facts = self._facts(copy)
        if handoff.kind is p.HandOffKind.DEAD_LETTER or not world.often(world.settings.chunked):
            world.append(handoff.target, Record(record.body, headers, facts, record.key_))
        else:
            at_once = world.settings.config.exactly_once
            world.send_letter(handoff.target, self._letter(copy, facts), at_once=at_once)
        world.broker.resolve(record)
        copy.landed = True

    def _letter(self, copy: Copy, facts: Facts) -> Letter:
        """A copy in chunks, as the sender makes it."""
        record, random = copy.handoff.entry.raw, self._member.world.random
        own = own_headers(record.headers())
        bodies = cut_up(random, record.body, random.choice((2, 3)))
        return Letter(facts, bodies, copy.handoff.marks, own, record.key_, random.randbytes(16))

    def _facts(self, copy: Copy) -> Facts:
        tenure = self._member.all_tenures[copy.handoff.entry.assignment]
        return self._member.world.watch.copies.copy_of(copy.handoff, tenure, copy.uid)

    def _land_in_part(self, copy: Copy) -> None:
        """One chunk of a copy was taken, and another one refused: nobody ever gets it whole."""
        world, handoff = self._member.world, copy.handoff
        if handoff.kind is p.HandOffKind.RETRY and world.often(world.settings.chunked):
            letter = self._letter(copy, replace(self._facts(copy), kind=Kind.RUN))
            world.send_letter(handoff.target, letter, missing=True)
