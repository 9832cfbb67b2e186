"""The promises of DESIGN.md, checked against what the simulation itself knows.

The watch sees every event, command, landing and acknowledgement, and keeps its own books: it believes the engine only where
the engine is being questioned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from retriable_kafka_client import events
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry, Owner, Verdict
from retriable_kafka_client.core.offset_map import OffsetMap, OffsetMapError, decode
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.wire.headers import own_headers
from tests.simulation.broker import Broker, Committed
from tests.simulation.records import Expected, Kind, PartRecord, Record, Whole
from tests.simulation.tenure import Cover, Tenure, Violation
from tests.simulation.watch_copies import REASONS, CopyWatch
from tests.simulation.watch_transactions import TransactionWatch
from tests.simulation.watch_unread import UnreadWatch

if TYPE_CHECKING:
    from tests.simulation.letters import Letter
    from tests.simulation.member import Member
    from tests.simulation.settings import Settings

__all__ = ["Watch"]


class Watch:
    """Keeps the books and raises Violation."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self.settings = settings
        self.broker = broker
        self.calm_since_ms: int | None = None  # since when nothing disturbs the members
        self.largest_batch = 0
        self.copies = CopyWatch(settings)
        self.transactions = TransactionWatch(self)
        self.unread = UnreadWatch()
        self.wholes: dict[tuple[Owner, int], Whole] = {}  # put together, by the lowest offset
        self._of_place: dict[p.Place, list[Tenure]] = {}
        self._last_read: tuple[p.Place, str, int, str] | None = None
        self._last_cover: Cover | None = None

    # Assignments -------------------------------------------------------------------------------------------------------

    def sync(self, member: Member, event: p.EngineEvent) -> None:
        """Take note of assignments that the engine began or ended while it handled ``event``."""
        held = member.engine.assignments
        for place, tenure in list(member.tenures.items()):
            if held.get(place) is tenure.assignment:
                continue
            if isinstance(event, p.Ended) and place in event.places:
                allowed = True
            elif isinstance(event, p.TopicChanged):
                allowed = event.place == place and event.uid != tenure.uid
            else:
                allowed = (
                    isinstance(event, p.Arrived)
                    and event.place == place
                    and event.offsets[0] < tenure.next
                    and self.broker.logs[place].uid != tenure.uid
                )
            if not allowed:
                raise Violation("C", f"{tenure}: the assignment ended at {type(event).__name__}")
            if not isinstance(event, p.Ended):
                tenure.dirty = True
            self._close(tenure)
            del member.tenures[place]
        for place, assignment in held.items():
            if place in member.tenures:
                continue
            tenure = member.tenures[place] = member.all_tenures[assignment] = Tenure(member, assignment)
            self._of_place.setdefault(place, []).append(tenure)
            if isinstance(event, p.TopicChanged):
                tenure.uid, tenure.fetched = event.uid, True
            elif isinstance(event, p.Arrived):
                tenure.uid, tenure.fetched = assignment.uid, True
                tenure.next = tenure.floor = event.offsets[0]
            elif not isinstance(event, p.Assigned):
                raise Violation("C", f"{tenure}: an assignment began at {type(event).__name__}")

    def _close(self, tenure: Tenure) -> None:
        tenure.alive = False
        if tenure.assignment.phase is not Phase.ENDED:
            raise Violation("O", f"{tenure}: ended, but the engine goes on with it")

    def restored(self, tenure: Tenure, committed: Committed | None, uid: str) -> None:
        tenure.uid, tenure.fetched = uid, True
        if committed is None:
            return
        cover = self._read(tenure.place, tenure.uid, committed.position, committed.metadata, meddled=True)
        if cover is not None:
            tenure.floor = tenure.next = committed.position
            tenure.cover = cover
            tenure.done.update(cover.above())

    def located(self, tenure: Tenure, position: int, *, end: bool) -> None:
        """It is told where its log begins or ends, and has no position but that."""
        if tenure.assignment.phase not in (Phase.STARTING, Phase.RUNNING):
            return
        tenure.located = True
        if not end:
            return
        tenure.floor = tenure.next = position
        tenure.cover = Cover(position, OffsetMap(position, (), position))
        log = self.broker.logs[tenure.place]
        if tenure.place.topic == self.settings.retry_topic or log.uid != tenure.uid:
            return
        for record in [one for offset, one in log.unresolved.items() if offset < position]:
            self.broker.resolve(record)  # it was there before the group's first position

    def is_current(self, place: p.Place, committed: Committed) -> bool:
        """Whether it was committed of the topic that is there now."""
        uid = self.broker.logs[place].uid
        return self._read(place, uid, committed.position, committed.metadata, meddled=True) is not None

    def meddled(self, place: p.Place) -> None:
        """What was committed for the place is not what its owners committed."""
        for tenure in self._of_place.get(place, ()):
            tenure.dirty = True

    def _read(
        self, place: p.Place, uid: str, position: int, metadata: str, *, meddled: bool = False
    ) -> Cover | None:
        """Read a commit as the next owner of the place will. None: it is of another incarnation, and says nothing.

        ``meddled``: the metadata may be anybody's, and then only the position counts.
        """
        if (place, uid, position, metadata) == self._last_read:
            return self._last_cover  # it lands mostly right after it was made
        owner = Assignment(place, parks=False, map_units=0)
        owner.identify(
            p.Restored(
                place=place, position=None, metadata="", uid=uid, topic_id=uid, cluster=self.broker.cluster
            )
        )
        try:
            self._last_cover = Cover(
                position, decode(metadata, base=position, binding=owner.progress.binding)
            )
            self._last_read = place, uid, position, metadata
            return self._last_cover
        except OffsetMapError as error:
            if error.reason == "topic":
                return None
            if meddled:
                return Cover(position, OffsetMap(position, (), position))
            raise Violation("D", f"{place}: the committed map cannot be read: {error.reason}") from None

    def ended_cleanly(self, tenure: Tenure) -> None:
        """Everything was answered before the assignment's end: all that is complete must be committed."""
        committed = self.broker.committed.get(tenure.place)
        if tenure.member.shortened or tenure.dirty or self.broker.logs[tenure.place].uid != tenure.uid:
            return
        cover: Cover | None = None
        if committed is not None:
            # Until the first commit in a mirror, what is committed was copied.
            copied = self.broker.mirrored
            cover = self._read(
                tenure.place, tenure.uid, committed.position, committed.metadata, meddled=copied
            )
        if tenure.located and committed is None:
            raise Violation(
                "L", f"{tenure}: no position at a clean end; the next owner may begin behind what comes"
            )
        for offset in sorted(tenure.done):
            if cover is None or not cover.has(offset):
                raise Violation("D", f"{tenure}: {offset} completed, but was not committed at a clean end")

    # Arrival -----------------------------------------------------------------------------------------------------------

    def arrived(self, tenure: Tenure, records: Sequence[Record], now: p.Now) -> None:
        if records[-1].offset_ >= tenure.next:  # what comes again says nothing of the time
            tenure.read_ms = min(records[-1].stamp_ms, math.floor(now.wall * 1000))
        for record in records:
            offset = record.offset_
            if offset < tenure.next:
                continue  # it came before
            tenure.next = offset + 1
            if tenure.begin < 0:
                tenure.begin = offset
            if tenure.cover is None or not tenure.cover.has(offset):
                tenure.held[offset] = record
                tenure.member.stuck.arrived(tenure, record, now)
                if isinstance(record, PartRecord):
                    if (record.letter, record.index) not in tenure.indexes:
                        tenure.came[record.letter] = now.mono
                        tenure.indexes.add((record.letter, record.index))
                    tenure.firsts.setdefault(record.letter, offset)
                    if tenure.firsts[record.letter] == offset and offset - record.index < tenure.begin:
                        tenure.orphans.add(record.letter)
                    self.reread(tenure, [record], now)

    # Running -----------------------------------------------------------------------------------------------------------

    def alone(self, member: Member, entries: Iterable[Entry]) -> None:
        """Who has the consumer to itself starts when nothing runs, and nothing starts beside it."""
        runs = [*member.workers, *entries]
        if not self.settings.config.solo or len(runs) < 2:
            return
        for entry in runs:
            if entry.alone and entry.assignment.phase is not Phase.ENDED:
                raise Violation("S", f"{entry.raw} is to run alone, and {len(runs) - 1} others run beside it")

    def handed_out(self, member: Member, entries: Iterable[Entry], now: p.Now) -> None:
        wall_ms = math.floor(now.wall * 1000)
        for entry in entries:
            record: Record = entry.raw
            tenure = member.all_tenures[entry.assignment]
            facts = tenure.facts(record)
            if member.on_hold:
                raise Violation("hold", f"{record} is handed out while everything is paused")
            self._check_order(tenure, record)
            if not tenure.alive:
                raise Violation("O", f"{record} is handed out after its assignment ended")
            if tenure.assignment.phase is not Phase.RUNNING:
                raise Violation("O", f"{record} is handed out while its assignment drains")
            if record.offset_ in tenure.stuck:
                raise Violation("S", f"{record} is run though it held {member.name} up while it ran alone")
            if facts.kind is not Kind.RUN:
                raise Violation("P", f"{record} is run although it is {facts.kind.value}")
            if facts.not_before_ms is not None and facts.not_before_ms > wall_ms:
                raise Violation("N", f"{record} is run {facts.not_before_ms - wall_ms} ms early")
            if entry.attempt != facts.failed + 1:
                raise Violation(
                    "A", f"{record} runs as attempt {entry.attempt} after {facts.failed} failures"
                )
            if entry.alone != facts.alone:
                raise Violation("A", f"{record}: alone is {entry.alone}")
            if entry.offset != record.offset_ or entry.route != facts.route:
                raise Violation("B", f"{record} is handed out as {entry!r} of route {entry.route}")

    def _failed_in(self, earlier: Tenure, record: Record) -> bool:
        """Whether it failed there; a message in chunks perhaps with duplicates of them, and so at another offset."""
        if record.offset_ in earlier.again:
            return True
        wholes = [self.wholes.get((earlier.assignment, offset)) for offset in earlier.again]
        return isinstance(record, Whole) and any(
            one is not None and one.letter is record.letter for one in wholes
        )

    def began(self, member: Member, entry: Entry, now: p.Now) -> None:
        """A worker begins it."""
        record: Record = entry.raw
        tenure = member.all_tenures[entry.assignment]
        if not tenure.alive or tenure.assignment.phase is not Phase.RUNNING:
            raise Violation("O", f"{record} begins in {tenure}, which hands out nothing any more")
        if member.on_hold:
            raise Violation("hold", f"{record} begins while everything is paused")
        if entry.offset in tenure.begun:
            raise Violation("D", f"{record} runs twice in one assignment")
        tenure.begun.add(entry.offset)
        if isinstance(record, Whole):
            if record.letter in tenure.ran:
                raise Violation("G", f"{record} runs twice in one assignment")
            tenure.ran.add(record.letter)
        self.transactions.began(tenure, record)
        self._check_order(tenure, record)
        lane = self._lane(record)
        if lane is not None:
            if lane in tenure.running:
                raise Violation("order", f"{record} begins while {tenure.running[lane]} runs")
            if self._stand(tenure, record) < tenure.last.get(lane, -1):
                raise Violation("order", f"{record} begins after {tenure.last[lane]}")
            tenure.running[lane], tenure.last[lane] = record, self._stand(tenure, record)
        if tenure.cover is not None and tenure.cover.has(entry.offset):
            raise Violation("D", f"{record} runs again although it was committed as complete")
        for earlier in record.begun:
            excused = earlier.dirty or earlier.member.shortened or tenure.dirty
            excused |= self._failed_in(earlier, record)
            if not excused and earlier.uid == tenure.uid:
                raise Violation(
                    "D", f"{record} runs in {tenure}, but ran in {earlier} and nothing excuses that"
                )
        record.begun.append(tenure)
        self._check_late(record, now)

    def _check_late(self, record: Record, now: p.Now) -> None:
        config = self.settings.config
        if self.calm_since_ms is None or record.place.topic != self.settings.retry_topic:
            return
        if config.window < 5 or config.buffer_bytes < 5_000:
            return  # a message or two that are due within the interval hold such a window, one after the other
        least = 0 if config.exactly_once else config.least_map_units
        if least <= config.map_units < 100:
            return  # admission lets through one or two at a time
        if self.settings.stalls and len(record.begun) > 1:
            return  # it ran in time: there, partitions are lost in the calm, too, and what no commit held runs again
        since_ms = max(self.calm_since_ms, record.stamp_ms, record.facts.not_before_ms or 0)
        late = now.wall - since_ms / 1000
        # Twice the interval: at its first end a message that is due within the second may still hold the window. Where
        # the bytes are for two messages or three, such ones follow each other.
        intervals = 2 if config.buffer_bytes >= 50_000 else 6
        if late > intervals * config.parking_interval + self.settings.patience:
            raise Violation("N", f"{record} runs {late:.1f} s late")

    def _lane(self, record: Record) -> bytes | None:
        """What it must not overtake."""
        ordering = self.settings.config.ordering
        if ordering == "unordered" or record.facts.kind.silent:
            return None
        if isinstance(record, PartRecord):
            record = Record(b"", None, record.facts, record.letter.key)
        return record.key_ if ordering == "key" else b""

    def _stand(self, tenure: Tenure, record: Record) -> int:
        """Its place in the order: a message in chunks has that of its first one, though its duplicate be used."""
        return tenure.firsts[record.letter] if isinstance(record, Whole) else record.offset_

    def _check_order(self, tenure: Tenure, record: Record) -> None:
        lane = self._lane(record)
        for earlier in tenure.held.values() if lane is not None else ():
            if isinstance(earlier, PartRecord) and (
                earlier.resolved
                or (isinstance(record, Whole) and record.letter is earlier.letter)
                or earlier.letter in tenure.given_up
                or tenure.firsts.get(earlier.letter) != earlier.offset_
            ):
                continue  # it holds no place
            if earlier.offset_ < self._stand(tenure, record) and self._lane(earlier) == lane:
                raise Violation("order", f"{record} overtakes {earlier}")

    def ended(self, tenure: Tenure, record: Record) -> None:
        """A worker is done with it, whatever came of it."""
        lane = self._lane(record)
        if lane is not None and tenure.running.get(lane) is record:
            del tenure.running[lane]

    def failed(self, tenure: Tenure, record: Record, expected: Expected) -> None:
        """A run failed, and this must follow."""
        route = self.settings.config.routes[record.facts.route]
        if expected.reason is not None or route.retry_topic is not None:
            tenure.expected[record.offset_] = expected
            return
        facts = tenure.facts(record)
        tenure.begun.discard(record.offset_)
        if isinstance(record, Whole):
            tenure.ran.discard(record.letter)
        tenure.again[record.offset_] = replace(
            facts,
            failed=expected.attempts,
            alone=expected.alone,
            not_before_ms=expected.not_before_ms,
            first_failure_ms=expected.failed_ms if facts.first_failure_ms is None else facts.first_failure_ms,
        )

    def publishes(self, member: Member, publication: p.Publication) -> None:
        entry = publication.entry
        tenure = member.all_tenures[entry.assignment]
        if not tenure.alive:
            raise Violation("O", f"{entry.raw} publishes after its assignment ended")
        if self.settings.config.exactly_once:  # until it is known what has become of them
            wanted = tenure.sends.get(entry.offset)
        else:
            wanted = tenure.sends.pop(entry.offset, None)
        if wanted != publication.outputs:
            raise Violation("L", f"{entry.raw} publishes what it did not send, or once more")

    def completed(self, tenure: Tenure, record: Record) -> None:
        """The engine is told that nothing is left to do."""
        if tenure.alive:
            tenure.held.pop(record.offset_, None)
            tenure.again.pop(record.offset_, None)
            tenure.done.add(record.offset_)
            for part in record.records if isinstance(record, Whole) else ():
                tenure.held.pop(part.offset_, None)
                tenure.done.add(part.offset_)

    # Chunks ------------------------------------------------------------------------------------------------------------

    def joined(self, records: Sequence[PartRecord], made: Entry | Verdict) -> None:
        """A message was put together."""
        letter = records[0].letter
        if any(record.letter is not letter for record in records):
            raise Violation("B", f"{letter.facts}: chunks of several messages are put together")
        if letter.corrupt:
            if not isinstance(made, Verdict) or made.reason != events.REASON_CORRUPT:
                raise Violation("B", f"{records[0]}: what is corrupt is put together")
            return
        if isinstance(made, Verdict):
            raise Violation("B", f"{records[0]} is {made.reason}")
        if made.raw.value() != letter.body or len(made.raw) != len(letter.body):
            raise Violation("B", f"{records[0]}: the bytes are others than were sent")
        chunk = made.marks.chunk
        key = None if chunk is not None and made.raw.key() == chunk.group else made.raw.key()
        if key != letter.key or own_headers(made.raw.headers()) != letter.own:
            raise Violation("B", f"{records[0]}: key and headers are others than were sent")
        if made.offset != min(record.offset_ for record in records):
            raise Violation("B", f"{records[0]}: the message stands at {made.offset}")

    def _is_needed(self, record: Record, cover: Cover) -> bool:
        """Whether it must not be committed as complete."""
        if record.facts.kind.silent:
            return False
        if not isinstance(record, PartRecord):
            return True
        if record.resolved:
            return False
        others = [one for one in record.letter.copies[record.index] if one is not record and not one.gone]
        return not any(one.place == record.place and not cover.has(one.offset_) for one in others)

    def _given_up(self, member: Member, event: events.ChunksGivenUp) -> None:
        place = p.Place(event.topic, event.partition)
        tenure = member.tenures[place]
        record = tenure.held.get(event.offset)
        if not isinstance(record, PartRecord):
            raise Violation("L", f"{tenure}: {event.offset} is given up, and was no chunk")
        letter, now = record.letter, member.world.now
        if letter in tenure.given_up or letter in tenure.ran:
            raise Violation("G", f"{record} is given up although its message has ended")
        tenure.given_up[letter] = event.reason
        config = self.settings.config
        there = {
            one.index for one in tenure.held.values() if isinstance(one, PartRecord) and one.letter is letter
        }
        chunks = tenure.assignment.chunks
        gone = any(part.gone for part in letter.parts())
        was_cut = chunks.recalls or chunks.cut  # then a group may have lost its beginning to that
        if (event.reason == events.REASON_ORPHAN) != (letter in tenure.orphans) and not (
            was_cut and (letter in tenure.orphans or gone)
        ):
            raise Violation("G", f"{record} is given up as {event.reason}")
        if event.reason == events.REASON_INCOMPLETE:
            if len(there) == len(letter.bodies) and not gone:
                raise Violation("G", f"{record} is given up, and the message is there")
            if now.mono < tenure.came[letter] + min(60.0, config.chunk_wait):
                raise Violation("G", f"{record} is given up at once")
            jammed = config.ordering != "unordered" and member.cursors[place].paused
            if member.cursors[place].paused and not jammed:
                raise Violation("G", f"{record} is given up while nothing is read")
            if not jammed and tenure.read_ms < tenure.first_ms[letter] + config.chunk_wait * 1000 - 1:
                raise Violation("G", f"{record} is given up before its time")
        elif event.reason == events.REASON_TOO_LARGE:
            if sum(len(letter.bodies[index]) for index in there) <= config.message_bytes:
                raise Violation("G", f"{record} is said to be too large")
        elif event.reason != events.REASON_ORPHAN and not letter.corrupt:
            raise Violation("G", f"{record} is said to be {event.reason}")

    def reread(self, tenure: Tenure, records: Sequence[Record], now: p.Now) -> None:
        """These were read, or read again."""
        for record in records:
            if isinstance(record, PartRecord):
                read_ms = min(record.stamp_ms, math.floor(now.wall * 1000))
                tenure.first_ms[record.letter] = min(tenure.first_ms.get(record.letter, read_ms), read_ms)

    def recall_begins(self, member: Member, recall: p.Recall) -> None:
        """Something is to be read again."""
        tenure = member.tenures[recall.place]
        if not recall.first < recall.stop <= tenure.next:
            raise Violation("V", f"{tenure}: {recall.first} up to {recall.stop} is to be read again")

    # Drops -------------------------------------------------------------------------------------------------------------

    def notified(self, member: Member, event: events.Event) -> None:
        if isinstance(event, events.OffsetMapShortened | events.OffsetMapOverflow):
            member.shortened = True
        elif isinstance(event, events.ChunksGivenUp):
            self._given_up(member, event)
        elif isinstance(event, events.HandlerStuck):
            member.stuck.told(event)
        elif isinstance(event, events.MessageDropped):
            tenure = member.tenures[p.Place(event.topic, event.partition)]
            record = self.wholes.get((tenure.assignment, event.offset), tenure.held.get(event.offset))
            if record is None:
                raise Violation("L", f"{tenure}: {event.offset} is dropped, and was not there")
            expected = self.copies.expected(tenure, record, member.world.now)
            reason = expected.reason if expected is not None else REASONS.get(record.facts.kind)
            attempts = expected.attempts if expected is not None else record.facts.failed
            if isinstance(record, PartRecord):
                reason = tenure.given_up.get(record.letter)
            if self.settings.config.routes[record.facts.route].dead_letter is not None:
                raise Violation("L", f"{record} is dropped, but has a dead-letter topic")
            if reason != event.reason or attempts != event.attempts:
                raise Violation(
                    "P", f"{record} is dropped for {event.reason} after {event.attempts}: {reason}"
                )
            self.broker.resolve(record)
            self.completed(tenure, record)

    # Commits -----------------------------------------------------------------------------------------------------------

    def commit_made(
        self,
        member: Member,
        progress: Sequence[p.Progress],
        coming: Mapping[Tenure, set[int]] | None = None,
        chunks: Collection[tuple[Letter, int]] = (),
    ) -> dict[Tenure, Cover]:
        """``coming``: offsets that the same transaction makes complete, and the ``chunks`` of which these were made.

        Returns what each partition's part says.
        """
        covers: dict[Tenure, Cover] = {}
        for one in progress:
            tenure = member.tenures.get(one.place)
            if tenure is None or one.owner is not tenure.assignment:
                raise Violation("O", f"{member.name} commits {one.place} after its assignment ended")
            if len(one.metadata) > self.settings.config.map_units:
                raise Violation("R", f"{tenure}: {len(one.metadata)} units of metadata")
            cover = self._read(tenure.place, tenure.uid, one.position, one.metadata)
            if cover is None:
                raise Violation("D", f"{tenure} commits the map of another topic")
            if one.position < tenure.floor:
                raise Violation("C", f"{tenure}: the position falls from {tenure.floor} to {one.position}")
            if coming is None:
                self.promised(tenure, one.position)
            covers[tenure] = cover
            included = coming.get(tenure, ()) if coming is not None else ()
            for offset, record in tenure.held.items():
                if isinstance(record, PartRecord) and (record.letter, record.index) in chunks:
                    continue
                if offset not in included and cover.has(offset) and self._is_needed(record, cover):
                    raise Violation("C", f"{tenure}: {record} is incomplete, committed is {one.position}")
            if one.position > max(tenure.next, tenure.cover.position if tenure.cover is not None else 0):
                raise Violation("C", f"{tenure}: {one.position} is committed, read is {tenure.next}")
            if not member.shortened:
                for offset in sorted(tenure.done):
                    if not cover.has(offset):
                        raise Violation(
                            "D", f"{tenure}: {offset} is complete, and the commit does not say so"
                        )
        return covers

    def promised(self, tenure: Tenure, position: int) -> None:
        """No later commit may say less."""
        tenure.floor = position
        tenure.done = {offset for offset in tenure.done if offset >= position}

    def commit_landed(self, one: p.Progress) -> None:
        """The next owner of the place will believe this."""
        log = self.broker.logs[one.place]
        cover = self._read(one.place, log.uid, one.position, one.metadata)
        if cover is None:
            return
        for offset, record in log.unresolved.items():
            if cover.has(offset) and self._is_needed(record, cover):
                raise Violation("L", f"{record} is committed, and was neither handled nor handed off")
        if one.position > log.end:
            raise Violation("L", f"{one.place}: {one.position} is committed beyond the log's end")

    # After every step --------------------------------------------------------------------------------------------------

    def after(self, member: Member, event: p.EngineEvent, now: p.Now, *, quick: bool) -> None:
        """Check what must hold at any time; ``quick``: without the engine's own invariants."""
        engine, config = member.engine, self.settings.config
        try:
            if not quick:
                engine.validate()
        except AssertionError as error:
            raise Violation("validate()", f"{member.name} after {type(event).__name__}: {error}") from error
        if member.on_hold:
            self._check_held(member)
        handed = member.handed_out
        if handed > config.in_flight or engine.in_flight != handed:
            raise Violation("R", f"{member.name} has {handed} in flight, the engine says {engine.in_flight}")
        if isinstance(event, p.Arrived) and member.held_bytes() > self._most_bytes(member):
            raise Violation("R", f"{member.name} holds {member.held_bytes()} bytes")
        room = config.in_flight - engine.in_flight
        if engine.stopping or member.on_hold or engine.is_solo:
            room = 0
        wall_ms = math.floor(now.wall * 1000)
        for assignment in engine.assignments.values():
            if assignment.phase is not Phase.RUNNING:
                continue
            # Copies that come back refused count again. Chunks of what is given up, and what was read again, come besides.
            # In order, what stands behind a message that is not whole is bounded by bytes alone.
            bounded = config.ordering == "unordered" or not self.settings.chunked
            if not quick and bounded and assignment.messages > 3 * config.window:
                chunks = 7 * len(member.tenures[assignment.place].given_up) + 10 * bool(self.settings.chunked)
                if assignment.messages > 3 * config.window + chunks:
                    raise Violation("R", f"{assignment.place}: {assignment.progress.incomplete} incomplete")
            if (room > config.reserve and assignment.queues.is_ready) or (room > 0 and assignment.queues.due):
                raise Violation("N", f"{assignment.place}: messages wait although there is room for {room}")
            due_ms = assignment.queues.waiting.next_due_ms
            if isinstance(event, p.Tick) and due_ms is not None and due_ms <= wall_ms:
                raise Violation("N", f"{assignment.place}: due at {due_ms} and still waiting at {wall_ms}")

    def _check_held(self, member: Member) -> None:
        for place, cursor in member.cursors.items():
            tenure = member.tenures.get(place)
            if tenure is not None and tenure.assignment.phase is Phase.RUNNING and not cursor.paused:
                raise Violation("hold", f"{tenure} is read while everything is paused")

    def _most_bytes(self, member: Member) -> int:
        """The budget and a poll for each of its halves; and one for each base partition whose messages came delayed."""
        delayed = sum(
            1
            for place, tenure in member.tenures.items()
            if place.topic != self.settings.retry_topic
            and (tenure.assignment.queues.waiting or tenure.assignment.queues.behind)
        )
        letter = self.settings.message_bytes + 6 * 700 if self.settings.chunked else 0  # with its overhead
        return self.settings.config.buffer_bytes + letter + (2 + delayed) * self.largest_batch
