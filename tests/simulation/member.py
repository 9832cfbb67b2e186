"""One member of the group: a real engine and intake, and around them a shell without I/O, threads or time.

It performs commands as the real shell does. What the real shell waits for is kept here as a list of things that are under
way, with the instants at which they happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retriable_kafka_client.consumer.intake import ENTRY_BYTES, Intake
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.entry import Owner
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.message import Message
from tests.simulation.broker import Committed, Log
from tests.simulation.joining import Joining
from tests.simulation.letters import WatchedJoiner
from tests.simulation.records import Record, Whole
from tests.simulation.sends import Sends
from tests.simulation.stalling import Stalling, StuckWatch
from tests.simulation.tenure import Tenure, Violation
from tests.simulation.transacting import Transactor
from tests.simulation.underway import Cursor, Fetch, Flight, Look, Rereading, Revoke
from tests.simulation.workers import Workers

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Member"]


class Member:
    """See the module's docstring."""

    def __init__(self, world: World, name: str) -> None:
        settings = world.settings
        self.world = world
        self.name = name
        self.generation = -1
        self.evicted_until: float | None = None  # when it will learn that its partitions are lost
        self.revoke: Revoke | None = None
        self.leaving = False
        self.on_hold = False
        self.gone = False
        self.joining: Joining | None = Joining(name, world.mono)
        self.renewed: set[str] = set()  # topics that were re-created while we ran
        # Its offset maps may say less than is true.
        self.exactly_once = settings.config.exactly_once
        self.shortened = not self.exactly_once and settings.config.map_units < settings.config.least_map_units
        self.intake = Intake(
            settings.config.routing,
            group=settings.config.group,
            message_bytes=settings.message_bytes,
            deserializer=_never,
            keep=_keep if settings.filtering else None,
            error_text=True,
            keyed=settings.config.ordering == "key",
        )
        self.engine = Engine(settings.config, self.intake.read, WatchedJoiner(self.intake, world.watch))
        self.rereading: Rereading | None = None
        self.cursors: dict[p.Place, Cursor] = {}
        self.tenures: dict[p.Place, Tenure] = {}
        self.all_tenures: dict[Owner, Tenure] = {}
        self.workers = Workers(self)
        self.stalling = Stalling(self.workers)
        self.stuck = StuckWatch()
        self.sends = Sends(self)
        self.transactor = Transactor(self)
        self.flights: list[Flight] = []
        self.fetches: list[Fetch] = []
        self.looks: list[Look] = []
        self._landing = 0.0  # commits of one member land in the order in which they were sent
        self._sizes: dict[Record, int] = {}

    @property
    def reopening(self) -> bool:
        """Whether it is about to come back with a new client."""
        return self.revoke is not None and self.revoke.returns

    # What the watch asks -----------------------------------------------------------------------------------------------

    @property
    def handed_out(self) -> int:
        """Messages with the workers, by our own count."""
        return len(self.workers)

    def held_bytes(self) -> int:
        """What the messages weigh that the engine holds or that are under way."""
        held = {
            record
            for tenure in self.tenures.values()
            if tenure.assignment.phase is Phase.RUNNING
            for record in tenure.held.values()
            if not record.facts.kind.silent and record.offset_ not in tenure.assignment.chunks.cut
        }
        held.update(entry.raw for entry in self.workers)
        held.update(copy.handoff.entry.raw for copy in self.sends.copies)
        held.update(mailing.publication.entry.raw for mailing in self.sends.mailings)
        held.update(entry.raw for entry in self.transactor.entries())
        for whole in [record for record in held if isinstance(record, Whole)]:
            held.update(whole.records)
        outputs = sum(mailing.publication.size for mailing in self.sends.mailings)
        return sum(self._sizes.get(record, 0) for record in held) + outputs

    # Steps -------------------------------------------------------------------------------------------------------------

    def step(self, event: p.EngineEvent) -> None:
        """Tell the engine, and perform what it wants."""
        world = self.world
        now = world.now
        if world.trace is not None:
            world.say(f"{self.name} <- {world.trace.event(event)}")
        try:
            commands = self.engine.handle(event, now)
        except (AssertionError, ValueError, KeyError, IndexError) as error:
            raise Violation("the engine", f"{self.name} at {type(event).__name__}: {error!r}") from error
        world.watch.sync(self, event)
        if isinstance(event, p.Arrived):
            tenure = self.tenures[event.place]
            if tenure.assignment.phase is Phase.RUNNING:
                world.watch.arrived(tenure, event.raws, now)
        followups: list[p.EngineEvent] = []
        for command in commands:
            if world.trace is not None:
                world.say(f"{self.name}    -> {world.trace.command(command)}")
            self._perform(command, followups)
        for followup in followups:
            self.step(followup)
        # What an idle tick might break stays broken: the next step's check finds it.
        world.watch.after(self, event, now, quick=not commands and isinstance(event, p.Tick))

    def _perform(self, command: p.Command, followups: list[p.EngineEvent]) -> None:
        world = self.world
        match command:
            case p.Run() | p.RunBatch():
                entries = command.entries if isinstance(command, p.Run) else command.batch.entries()
                world.watch.alone(self, entries)
                world.watch.handed_out(self, entries, world.now)
                self.workers.push(entries)
            case p.Produce() | p.Publish() | p.Commit() | p.Transact():
                self._send(command)
            case p.Withdraw():
                back = self.workers.withdraw()
                if back:
                    followups.append(p.Withdrawn(back))
            case p.FetchCommitted():
                for place in command.places:
                    reads_at = world.soon()
                    answers_at = world.from_afar(world.soon(reads_at))
                    token = self.engine.assignments[place]
                    self.fetches.append(Fetch(place, token, reads_at, answers_at))
            case p.Start():
                self.cursors[command.place] = Cursor(None if command.earliest else command.offset)
            case p.Locate():
                reads_at = world.seen(world.mono)
                self.looks.append(Look(command, reads_at, world.seen(reads_at)))
            case p.Pause():
                self.cursors[command.place].paused = True
            case p.Resume():
                self.cursors[command.place].paused = False
            case p.Recall():
                world.watch.recall_begins(self, command)
                uid = self.tenures[command.place].uid
                self.rereading = Rereading(command, command.first, uid)
            case p.CancelRecall():
                assert self.rereading is not None and self.rereading.recall is command.recall
                self.rereading = None
            case p.Notify():
                world.watch.notified(self, command.event)

    def _send(self, command: p.Produce | p.Publish | p.Commit | p.Transact) -> None:
        if self.exactly_once != isinstance(command, p.Transact):
            raise Violation("T", f"{self.name} wants {type(command).__name__}: {self.exactly_once=}")
        match command:
            case p.Produce():
                self.sends.produce(command.handoff)
            case p.Publish():
                self.sends.publish(command.publication)
            case p.Commit():
                self._send_commit(command, last=False)
            case p.Transact():
                self.transactor.begin(command)

    def _send_commit(self, commit: p.Commit, *, last: bool) -> Flight:
        world = self.world
        world.watch.commit_made(self, commit.progress)
        lands_at = self._landing = max(self._landing, world.soon())
        answers_at = world.soon(lands_at)
        codes: dict[p.Place, str] = {}
        if world.often(world.faults.refuse_commit):
            for one in commit.progress:
                if world.random.random() < 0.6:
                    codes[one.place] = "REBALANCE_IN_PROGRESS"
        elif world.often(world.faults.lose_answer):
            lands_at = self._landing = answers_at + world.random.uniform(0.0, 2.0)
        flight = Flight(commit, self.generation, lands_at, answers_at, last, codes)
        self.flights.append(flight)
        return flight

    # One round ---------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One turn of the loop, or of the mini-loop inside a revoke."""
        world = self.world
        if self.stalling.until is not None:
            if world.mono < self.stalling.until:
                return
            self.stalling.come_round(self)
            if self.gone:
                return
        if self.joining is not None and self.revoke is None:
            self._look_around(self.joining)
            if self.gone:
                return
        self.sends.serve()
        self.transactor.serve()
        self._answer_commits()
        self._answer_fetches()
        self._answer_looks()
        self.workers.serve()
        self._reread()
        self.step(p.Tick())
        if self.revoke is not None:
            self._go_on_revoking(self.revoke)
        else:
            self._see_topics()
            self._poll()
        self.workers.begin()
        for _ in range(CALM_SLICES if world.calm else 0):
            if not self.workers:
                break
            self.workers.serve()
            self.workers.begin()

    def _look_around(self, joining: Joining) -> None:
        """Whether to go on waiting for an assignment."""
        why = joining.look(self.world.broker, self.world.mono)
        if why is not None:
            self.world.say(f"the run of {self.name} ends: {why}")
            self.vanish(land=0.0)
            self.world.group.leave(self)

    def _poll(self) -> None:
        world = self.world
        most = self.engine.poll_budget(CALM_POLL if world.calm else world.settings.poll)
        lost = world.often(world.faults.lose_batch)
        arrivals: list[p.EngineEvent] = []
        batch = 0
        places = [place for place, cursor in self.cursors.items() if not cursor.paused]
        if len(places) > 1 and world.random.random() < 0.5:
            places.reverse()
        for place in places:
            if world.broker.down or most <= 0:
                break
            cursor, log = self.cursors[place], world.broker.logs[place]
            self._go_back(cursor, log)
            if cursor.position is None or cursor.position > log.end:
                cursor.position = 0
            records = log.read(cursor.position, most)
            if not records:
                cursor.position = log.end
                continue
            cursor.before, cursor.position = records[0].offset_, records[-1].offset_ + 1
            most -= len(records)
            for record in records:
                self._sizes[record] = size_of(record)
                batch += self._sizes[record]
            offsets = [record.offset_ for record in records]
            arrivals.append(p.Arrived(place, offsets, records, records[0].stamp_ms, records[-1].stamp_ms))
        world.watch.largest_batch = max(world.watch.largest_batch, batch)
        if lost and arrivals:
            self._begin_again()
            return
        world.moved |= bool(arrivals)
        for arrival in arrivals:
            self.step(arrival)
        if not arrivals:
            self._say_idle(places)

    def _say_idle(self, places: Sequence[p.Place]) -> None:
        for place in places:
            position = self.cursors[place].position
            following = self.tenures[place].assignment.progress.next_offset
            waits = bool(self.tenures[place].assignment.chunks)
            if position is not None and (waits or following is None or position > following):
                self.tenures[place].next = max(self.tenures[place].next, position)
                self.tenures[place].read_ms = int(self.world.now.wall * 1000)
                self.step(p.Idle(place, position))

    def _reread(self) -> None:
        """Go on with a recall."""
        world, under_way = self.world, self.rereading
        most = self.engine.reread_budget(CALM_POLL if world.calm else world.settings.poll)
        if under_way is None or world.broker.down or not most:
            return
        log = world.broker.logs[under_way.recall.place]
        records = log.read(under_way.position, most)
        records = [record for record in records if record.offset_ < under_way.recall.stop]
        world.moved = True
        if log.uid != under_way.uid or (records and world.often(0.05)):
            self.rereading = None
            self.step(p.RecallEnded(under_way.recall, reached=False))
        elif records:
            under_way.position = records[-1].offset_ + 1
            batch = sum(size_of(record) for record in records)
            world.watch.largest_batch = max(world.watch.largest_batch, batch)
            world.watch.reread(self.tenures[under_way.recall.place], records, world.now)
            self.step(p.Recalled(under_way.recall, [record.offset_ for record in records], records))
        else:
            self.rereading = None
            self.step(p.RecallEnded(under_way.recall))

    def rebalanced(self) -> None:
        """The group has us. The client was paused while a poll came back, and goes on where that poll began."""
        self.joining = None
        for place, cursor in self.cursors.items():
            same = self.world.broker.logs[place].uid == self.tenures[place].uid
            cursor.goes_back |= cursor.before is not None and same and self.world.goes_back()

    def _go_back(self, cursor: Cursor, log: Log) -> None:
        """Not where the record is compacted away meanwhile: by it alone the engine knows that the log is the same."""
        if cursor.goes_back and cursor.before is not None and log.holds(cursor.before):
            cursor.position = cursor.before
        cursor.goes_back = False

    def _begin_again(self) -> None:
        """A batch was lost on its way to us: every partition is read again from its next offset."""
        for place, cursor in self.cursors.items():
            cursor.position = self.tenures[place].assignment.progress.next_offset

    def _see_topics(self) -> None:
        """Learn of topics that were re-created."""
        if self.world.broker.down or self.world.random.random() < 0.5:
            return
        changed = [
            place
            for place, tenure in self.tenures.items()
            if tenure.fetched and self.world.broker.logs[place].uid != tenure.uid
        ]
        for place in changed:
            uid = self.world.broker.logs[place].uid
            self.step(p.TopicChanged(place=place, uid=uid, retention_ms=self.world.settings.retention_ms))
            self.renewed.add(place.topic)
        if changed and self.world.settings.reopens:
            self._reopen()

    def _reopen(self) -> None:
        """Give everything up and come back with a new client."""
        self.begin_revoke(tuple(self.tenures), "revoked")
        assert self.revoke is not None
        self.revoke.returns = True

    # Answers -----------------------------------------------------------------------------------------------------------

    def hold(self, on: bool) -> None:
        """Pause everything, or go on."""
        self.on_hold = on
        self.step(p.Hold(on))

    def _answer_commits(self) -> None:
        world = self.world
        if world.broker.down:
            return
        for flight in list(self.flights):
            if not flight.landed and flight.lands_at <= world.mono:
                self.land_commit(flight)
            if not flight.answered and flight.answers_at <= world.mono:
                timed_out = not flight.landed
                codes = flight.commit.failed("_TIMED_OUT")
                self._answer(flight, codes if timed_out else flight.codes)
            if flight.landed and flight.answered:
                self.flights.remove(flight)

    def _answer(self, flight: Flight, codes: Mapping[p.Place, str]) -> None:
        flight.answered, flight.confirmed = True, not codes
        self.world.moved = True
        self.step(p.CommitAnswered(flight.commit, codes))

    def land_commit(self, flight: Flight) -> None:
        """The broker takes the commit, or parts of it."""
        world, broker = self.world, self.world.broker
        flight.landed = True
        member = flight.generation == self.generation >= 0 and world.group.has(self)
        for one in flight.commit.progress:
            code = flight.codes.get(one.place) or broker.commit_code
            if not member:
                code = "ILLEGAL_GENERATION"
            elif code is None and not one.metadata and not self.same_topic(one):
                code = "UNKNOWN_TOPIC_ID"  # nobody could see that the position is not of this topic
            elif code is None and len(one.metadata) > broker.metadata_limit:
                code = "OFFSET_METADATA_TOO_LARGE"
            if code is not None:
                flight.codes[one.place] = code
                continue
            broker.committed[one.place] = Committed(one.position, one.metadata)
            if world.trace is not None:
                world.say(f"{self.name} committed {one.place.topic}/{one.place.partition} at {one.position}")
            world.watch.commit_landed(one)

    def same_topic(self, one: p.Progress) -> bool:
        return self.all_tenures[one.owner].uid == self.world.broker.logs[one.place].uid

    def _answer_fetches(self) -> None:
        world = self.world
        if world.broker.down:
            return
        for fetch in list(self.fetches):
            locked = world.broker.is_locked(fetch.place, world.mono)
            if not fetch.read and fetch.reads_at <= world.mono and not locked:
                fetch.read = True
                if world.often(world.faults.meddle) and self.counts(fetch):
                    self._meddle(fetch.place)
                fetch.committed = world.broker.committed.get(fetch.place)
                fetch.uid = world.broker.logs[fetch.place].uid
            if fetch.read and fetch.answers_at <= world.mono:
                self.fetches.remove(fetch)
                if self.counts(fetch):
                    self._restore(fetch)

    def counts(self, fetch: Fetch) -> bool:
        """Whether the answer is for the assignment that asked: as the shell's Positions have it."""
        return self.engine.assignments.get(fetch.place) is fetch.token

    def _answer_looks(self) -> None:
        world = self.world
        if world.broker.down:
            return
        for look in list(self.looks):
            place = look.locate.place
            if look.position is None and look.reads_at <= world.mono:
                look.position = world.broker.logs[place].end if look.locate.end else 0
            if look.position is not None and look.answers_at <= world.mono:
                self.looks.remove(look)
                tenure = self.tenures.get(place)
                if tenure is not None and tenure.assignment is look.locate.token:
                    world.watch.located(tenure, look.position, end=look.locate.end)
                    self.step(p.Located(look.locate, look.position))

    def _meddle(self, place: p.Place) -> None:
        """A tool writes metadata of its own, or copies the offset map to an earlier position."""
        world = self.world
        committed = world.broker.committed.get(place)
        if committed is None or committed.position == 0 or not world.watch.is_current(place, committed):
            return
        world.say(f"a tool rewrites what is committed for {place.topic}/{place.partition}")
        if world.random.random() < 0.5:
            world.broker.committed[place] = Committed(committed.position, "moved by hand")
        else:
            world.broker.committed[place] = Committed(committed.position - 1, committed.metadata)
        world.watch.meddled(place)

    def _restore(self, fetch: Fetch) -> None:
        world, committed = self.world, fetch.committed
        tenure = self.tenures.get(fetch.place)
        if tenure is None or tenure.fetched:
            return
        counts = tenure.assignment.phase is Phase.STARTING
        if counts:
            world.watch.restored(tenure, committed, fetch.uid)
        self.step(
            p.Restored(
                place=fetch.place,
                position=committed.position if committed is not None else None,
                metadata=committed.metadata if committed is not None else "",
                uid=fetch.uid,
                topic_id=fetch.uid,
                cluster=world.broker.cluster,
                retention_ms=world.settings.retention_ms,
                earliest=fetch.place.topic in self.renewed,
            )
        )
        if counts:
            self.stuck.restored(tenure, committed.position if committed is not None else None)

    # Assignments -------------------------------------------------------------------------------------------------------

    def assign(self, places: Sequence[p.Place]) -> None:
        self.step(p.Assigned(tuple(places)))

    def begin_revoke(self, places: Sequence[p.Place], reason: str) -> None:
        """Give these away after a drain."""
        if reason == "stopped" and self.stalling.stop():
            return
        self.revoke = Revoke(tuple(places), reason, self.world.mono + self.world.settings.drain_timeout)
        if reason == "stopped":
            self.leaving = True
            self.step(p.Stopping())
        else:
            self.step(p.Revoking(tuple(places)))

    def _go_on_revoking(self, revoke: Revoke) -> None:
        world, places, flight = self.world, revoke.places, revoke.flight
        if self.exactly_once:
            self._go_on_draining(revoke)
            return
        if flight is None:
            if world.mono < revoke.deadline and not self.engine.drained(places):
                return
            revoke.give_up_at = max(revoke.deadline, world.mono + LAST_COMMIT_SECONDS)
        elif not flight.answered:
            if world.mono < revoke.give_up_at:
                return
            self._answer(flight, flight.commit.failed("_TIMED_OUT"))
        if flight is not None and (flight.confirmed or world.mono >= revoke.give_up_at):
            self._end(revoke, committed=flight.confirmed)
            return
        if world.mono < revoke.retry_at:
            return
        revoke.overrun = frozenset([place for place in places if not self.engine.drained([place])])
        progress = self.engine.last_progress(places)
        if progress:
            revoke.retry_at = world.mono + 0.1
            commit = p.Commit(progress)
            self.engine.mark_sent(commit)
            revoke.flight = self._send_commit(commit, last=True)
        else:
            self._end(revoke, committed=True)

    def _go_on_draining(self, revoke: Revoke) -> None:
        """What is to be committed is in transactions: the drain waits for them, after its deadline for one in flight."""
        patience = LAST_COMMIT_SECONDS if self.transactor.flight is not None else 0.0
        if self.world.mono < revoke.deadline + patience and not self.engine.drained(revoke.places):
            return
        revoke.overrun = frozenset([place for place in revoke.places if not self.engine.drained([place])])
        if self.engine.last_progress(revoke.places):
            raise Violation("T", f"{self.name} commits besides its transactions")
        self._end(revoke, committed=True)

    def _end(self, revoke: Revoke, *, committed: bool) -> None:
        busy = self._busy()
        for place in revoke.places:
            tenure = self.tenures.get(place)
            if tenure is None:
                continue
            if tenure.assignment in busy and self.engine.drained([place]):
                raise Violation("D", f"{tenure} is said to be drained, and is not")
            if place in revoke.overrun or not committed or self.evicted_until is not None:
                tenure.dirty = True
            else:
                self.world.watch.ended_cleanly(tenure)
            self.cursors.pop(place, None)
        self.revoke = None
        self.step(p.Ended(revoke.places, revoke.reason))
        self.world.group.gave_up(self)
        if self.leaving:
            self.vanish(land=0.5)
        if revoke.returns or (self.leaving and self.says_that_it_leaves(revoke)):
            self.world.group.leave(self)
        elif self.leaving:
            self.world.say(f"{self.name} went without a word")
            self.world.group.keep(self)
        if revoke.returns:
            self.give_up_commits()
            self.evicted_until = None
            self.world.group.join(self)

    def says_that_it_leaves(self, _revoke: Revoke) -> bool:
        """Whether the group hears of it when we close: as the shell's leaving.py has it."""
        return True

    def give_up_commits(self) -> None:
        """The client is gone, and with it the answers; commits that are out may land."""
        for flight in self.flights:
            if not flight.answered:
                self._answer(flight, flight.commit.failed("_DESTROY"))

    def _busy(self) -> set[Owner]:
        """The assignments of what the workers or the producer have."""
        busy = {entry.assignment for entry in self.workers.busy()}
        busy |= {mailing.publication.entry.assignment for mailing in self.sends.mailings}
        busy |= self.transactor.assignments()
        return busy | {copy.handoff.entry.assignment for copy in self.sends.copies}

    def lose(self) -> None:
        """Learn that the group went on without us."""
        self.evicted_until = None
        places = tuple(self.tenures)
        self.cursors.clear()
        self.fetches.clear()
        if places:
            suspects, stood = self.stalling.suspects(self, places)
            self.stuck.lost(suspects)
            self.step(p.Ended(places, "lost", suspects, stood))
            self.stuck.all_told()

    def mark_dirty(self) -> None:
        """From now on what we do may be done by another member as well."""
        for tenure in self.tenures.values():
            tenure.dirty = True

    def vanish(self, land: float) -> None:
        """The process ends. What is in the air lands with that likelihood, or never."""
        world = self.world
        self.mark_dirty()
        self.gone = True
        self.transactor.vanish(land)
        if not world.broker.down:
            self.sends.vanish(land)
            for flight in self.flights:
                if not flight.landed and world.random.random() < land:
                    self.land_commit(flight)


LAST_COMMIT_SECONDS = 2.0
CALM_POLL = 10  # records: a backlog must not pass for lateness
CALM_SLICES = 3  # how often the workers take more within one round of a calm world


def size_of(record: Record) -> int:
    """What holding the record costs."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers() or ())
    return len(record) + len(record.key_ or b"") + ENTRY_BYTES + headers


def _never(body: bytes, message: Message[Any]) -> None:
    raise AssertionError("nothing is decoded here")


def _keep(message: Message[Any]) -> bool:
    return not any(name == "skip" for name, _ in message.headers)
