"""One seed's world: time, troubles, what is sent, and the loop. Same seed, same steps."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from retriable_kafka_client.core.protocol import Now, Place
from retriable_kafka_client.wire.headers import ATTEMPT, Marks, Origin, write_marks
from tests.simulation.broker import Broker, Log
from tests.simulation.group import Group
from tests.simulation.joining import bounces
from tests.simulation.letters import Letter, Sending, cut_up
from tests.simulation.member import Member
from tests.simulation.records import Facts, Kind, Outcome, Record, Script
from tests.simulation.settings import DEAD_TOPIC, GROUP, RETRY_TOPIC, Faults, Settings, draw
from tests.simulation.stalling import stall_seconds
from tests.simulation.tenure import Violation
from tests.simulation.trace import Trace
from tests.simulation.transacting import Flight, Transactor
from tests.simulation.watch import Watch

__all__ = ["World", "run"]

DAY_MS = 24 * 3600 * 1000
CALM_ROUNDS = 3_000
CALM_MEMBERS = 2  # the others stop: fewer of them cost less
ROLL_STEP = 1.0  # seconds
BUSY_STEP = 0.7  # seconds of a round in which something happens


class World:
    """See the module's docstring. ``trace`` None: nothing is written down, which takes half of the time."""

    def __init__(self, seed: int, *, trace: Trace | None = None) -> None:
        self.seed = seed
        self.trace = trace
        self.random = Random(seed)
        self._backward = Random(
            f"backward {seed}"
        )  # apart, so that worlds where nobody goes back stay what they are
        self._looking = Random(f"looking {seed}")  # likewise
        self._far = Random(f"far {seed}").random() < 0.3  # likewise: the brokers are far away
        mirrored = Random(f"mirror {seed}")  # apart, for the same reason
        self._mirror_at = mirrored.uniform(1_002.0, 1_010.0) if mirrored.random() < 0.2 else math.inf
        self._stalling = Random(f"stalling {seed}")  # likewise
        self._stalls_left = 12  # then the handler is mended
        self.settings: Settings = draw(seed, self.random)
        self.faults: Faults = self.settings.faults
        self.mono = 1_000.0
        self.calm = False
        self.ending = False  # everybody is to stop
        self.moved = False  # something happened in this round besides ticks
        self.broker = Broker(self.settings.metadata_limit)
        self.watch = Watch(self.settings, self.broker)
        for topic, count in self.settings.partitions.items():
            for partition in range(count):
                place = Place(topic, partition)
                self.broker.logs[place] = Log(place, f"{topic}@0")
        self.consumed = [place for place in self.broker.logs if place.topic != DEAD_TOPIC]
        # A name that is a pattern stands for no topic: it is assigned and held.
        self._read = [place for place in self.consumed if not place.topic.startswith("^")]
        self.group = Group(self, list(self.consumed))
        self.members: list[Member] = []
        self._offset = 1_700_000_000.0 - self.mono  # of the wall clock
        self._born = 0
        self._heal_at = 0.0
        self._sendings: list[Sending] = []
        self.departed: list[
            tuple[Transactor, Flight]
        ] = []  # whose end is on its way, though the sender is gone
        self._rejoin: list[float] = []  # when a member that went is started again
        for _ in range(self.settings.members):
            self._start_member()

    # Time and chance ---------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        return Now(self.mono + self._offset, self.mono)

    def often(self, likelihood: float) -> bool:
        return not self.calm and likelihood > 0.0 and self.random.random() < likelihood

    def goes_back(self) -> bool:
        """Whether a client reads its last poll again, after a rebalance."""
        return not self.calm and self._backward.random() < self.faults.go_back

    def soon(self, after: float | None = None) -> float:
        """When the broker has done something: at once, or in a while."""
        start = self.mono if after is None else after
        if self.calm or self.random.random() < 0.5:
            return start
        return start + self.random.random() * 1.5

    def from_afar(self, after: float) -> float:
        """When an answer is in that may have a long way: it may come after the assignment that asked for it."""
        if self.calm or not self._far:
            return after
        return after + self._looking.random() * 12.0

    def seen(self, after: float) -> float:
        """When a question about a log is answered."""
        if self.calm or self._looking.random() < 0.5:
            return after
        return after + self._looking.random() * 1.5

    def work(self) -> float:
        """When a run that begins now ends."""
        if self.calm:
            return self.mono
        if self.often(self.faults.slow):
            return self.mono + self.random.uniform(2.0, 15.0)
        return self.mono + self.random.choice((0.0, 0.0, 0.2, 1.5)) * self.random.random()

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.lines.append(f"{self.mono:9.3f} {self.now.wall:.3f} {text}")

    # The loop ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through it. Raises Violation."""
        if self.trace is not None:
            self.say(f"{self.settings}")
        for _ in range(self.settings.rounds):
            self.mono += self.random.choice((0.02, 0.1, 0.3, 0.8)) * (0.5 + self.random.random())
            self._disturb()
            self._send()
            self._go_on_sending()
            self._round()
        self._roll()
        self._heal()
        self._until("lag returns to 0", self._quiet)
        self.ending = True
        for member in self.members:
            member.begin_revoke(tuple(member.tenures), "stopped")
        self._until("all members stop", lambda: not self.members)

    def _roll(self) -> None:
        """In some worlds, let a member join while others drain for long and the brokers come and go."""
        spells, vain = bounces(self.seed)
        if not spells:
            return
        self._heal_broker()
        seconds = sum(spell.seconds for spell in spells)
        self.group.held_until = self.mono + seconds
        member = self._start_member()
        for spell in spells:
            self.broker.turn(spell.coordinator, self.mono)
            self.say(f"the coordinator: {spell.coordinator[0]}")
            stop = self.mono + spell.seconds
            while self.mono < stop:
                self.mono = min(stop, self.mono + ROLL_STEP)
                self._round()
        if vain and not member.gone:
            raise Violation("join", f"{member.name} waits on, and nobody was there")

    def _until(self, what: str, reached: object) -> None:
        assert callable(reached)
        started, step = self.mono, BUSY_STEP
        for _ in range(CALM_ROUNDS):
            if reached():
                return
            step = BUSY_STEP if self.moved else min(step * 2, 4.0)
            self.mono += step
            self._round()
            if not self.ending:
                self.watch.unread.look(self._read, self.members, self.mono)
            if self.mono > started + self.settings.calm:
                break
        lags = {f"{place.topic}/{place.partition}": self.broker.lag(place) for place in self.consumed}
        left = [str(record) for log in self.broker.logs.values() for record in log.unresolved.values()]
        raise Violation("V", f"{what}: not after {self.mono - started:.0f} s: lag {lags}, unresolved {left}")

    def _quiet(self) -> bool:
        return (
            self.group.settled
            and not any(self.broker.lag(place) for place in self.consumed)
            and not any(log.unresolved for log in self.broker.logs.values())
            and not any(
                member.handed_out
                or member.sends.copies
                or member.sends.mailings
                or member.flights
                or member.transactor.flight
                for member in self.members
            )
        )

    def _round(self) -> None:
        self.moved = False
        if not self.broker.down:
            self.group.step()
        for transactor, flight in list(self.departed):
            if flight.next_at <= self.mono and not self.broker.down:
                self.departed.remove((transactor, flight))
                transactor.arrive(flight)
        for member in list(self.members):
            if (
                member.evicted_until is not None
                and member.evicted_until <= self.mono
                and member.revoke is None
                and member.stalling.until is None
            ):
                self.come_back(member)
            if member.stalling.is_late(self.mono) and self.group.has(member):
                self._put_out(member, member.stalling.until or 0.0)
            member.round()
        self.members = [member for member in self.members if not member.gone]

    def _put_out(self, member: Member, until: float) -> None:
        """The group goes on without the member, which learns of it then."""
        self.say(f"{member.name} is evicted")
        member.evicted_until = until
        member.mark_dirty()
        self.group.leave(member)

    def stall(self, record: Record) -> float:
        """For how long a run of it that begins now holds the process up."""
        if not record.facts.script.stalls or not self._stalls_left:
            return 0.0
        self._stalls_left -= 1
        return stall_seconds(self._stalling)

    def come_back(self, member: Member) -> None:
        """It learns that it was put out, and joins again."""
        member.lose()
        if not member.leaving:
            self.group.join(member)

    # Troubles ----------------------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        faults, random = self.faults, self.random
        if self.broker.down or self.broker.refusing or self.broker.commit_code:
            if self.mono >= self._heal_at:
                self._heal_broker()
        elif self.often(faults.broker_down):
            self.broker.down = True
            self._heal_at = self.mono + random.uniform(0.5, 8.0)
            self.say("the broker is down")
        elif self.often(faults.refuse_copies):
            topic = random.choice((RETRY_TOPIC, DEAD_TOPIC))
            self.broker.refusing[topic] = "UNKNOWN_TOPIC_OR_PART"
            self._heal_at = self.mono + random.uniform(0.5, 8.0)
            self.say(f"copies to {topic} are refused")
        elif self.often(faults.refuse_commits):
            self.broker.commit_code = "GROUP_AUTHORIZATION_FAILED"
            self._heal_at = self.mono + random.uniform(0.5, 4.0)
            self.say("commits are refused")
        if self.often(faults.clock_step):
            self._offset += random.choice((-20.0, -3.0, -0.5, 0.5, 3.0, 20.0)) * random.random()
            self.say("the wall clock is set")
        if self.often(faults.recreate) and not self.broker.down:
            topic = random.choice(self.consumed).topic
            self._born += 1
            self.broker.recreate(topic, f"{topic}@{self._born}")
            self.say(f"{topic} is deleted and made again")
        if self.mono >= self._mirror_at and not self.broker.down:
            self._mirror_at = math.inf
            self._fail_over()
        if self.often(faults.compact):
            self._compact()
        if self.often(faults.shuffle):
            self.group.request()
        self._disturb_members()

    def _compact(self) -> None:
        """Take a record out of a log, rather one that somebody means to read again."""
        log = self.broker.logs[self.random.choice(self.consumed)]
        cut = [
            log.index(tenure.assignment.chunks.cut.lowest)
            for member in self.members
            for tenure in member.tenures.values()
            if tenure.place == log.place and tenure.uid == log.uid and tenure.assignment.chunks.cut
        ]
        if log.place.topic != RETRY_TOPIC and len(log):
            gone = log.compact(cut[0] if cut else self.random.randrange(len(log)))
            self.broker.resolve(gone)  # of a chunk: its duplicates as well
            self.say(f"{gone} is compacted away")

    def _fail_over(self) -> None:
        """Everybody goes on with a mirror of the cluster: what was under way is gone."""
        self.say("the cluster is lost; its mirror takes over")
        for member in self.members:
            member.vanish(land=0.0)
            self.group.crashed(member, self.mono)
            self._rejoin.append(self.mono + self.random.uniform(0.1, 4.0))
        self.members.clear()
        self.departed.clear()
        for place, committed in list(self.broker.committed.items()):
            # A position of a topic that is gone, copied before anybody looked at the new one, passes for a good one.
            if not self.watch.is_current(place, committed):
                del self.broker.committed[place]
        self.broker.mirror()
        self.watch.transactions.mirrored()

    def _disturb_members(self) -> None:
        faults, random = self.faults, self.random
        for member in list(self.members):
            # Rather while a transaction is open: that is short, and what its end finds matters.
            if self.often(faults.crash * (5 if member.transactor.is_open else 1)):
                self.say(f"{member.name} crashes")
                member.vanish(land=0.5)
                self.group.crashed(member, self.mono + random.uniform(0.0, 2.0))
                self._rejoin.append(self.mono + random.uniform(0.1, 4.0))
            elif member.stalling.until is not None:
                continue
            elif member.evicted_until is None and self.group.has(member) and self.often(faults.evict):
                self._put_out(member, self.mono + random.uniform(0.0, 5.0))
            elif member.revoke is None and member.evicted_until is None and self.often(faults.stop):
                self.say(f"{member.name} is stopped")
                member.begin_revoke(tuple(member.tenures), "stopped")
                self._rejoin.append(self.mono + random.uniform(0.1, 4.0))
            elif member.on_hold:
                if random.random() < 0.3:
                    member.hold(False)
            elif self.often(faults.hold):
                member.hold(True)
        self.members = [member for member in self.members if not member.gone]
        for at in list(self._rejoin):
            if at <= self.mono:
                self._rejoin.remove(at)
                self._start_member()

    def _start_member(self) -> Member:
        self._born += 1
        member = Member(self, f"m{self._born}")
        self.members.append(member)
        self.group.join(member)
        return member

    def _heal_broker(self) -> None:
        self.broker.down = False
        self.broker.refusing.clear()
        self.broker.commit_code = None
        self.say("the broker is well")

    def _heal(self) -> None:
        self._heal_broker()
        self.calm = True
        staying = [member for member in self.members if not member.leaving]
        if not staying:
            self._start_member()
        for member in staying[CALM_MEMBERS:]:
            if member.revoke is None and member.evicted_until is None:
                member.begin_revoke(tuple(member.tenures), "stopped")
        for member in self.members:
            if member.on_hold:
                member.hold(False)
        self.watch.calm_since_ms = math.ceil(self.now.wall * 1000)
        self.say("calm")
        for sending in self._sendings:
            sending.next_at = 0.0
        self._go_on_sending()

    # What is sent ------------------------------------------------------------------------------------------------------

    def append(self, topic: str, record: Record, partition: int | None = None) -> None:
        """Put the record at the end of one of the topic's partitions."""
        if partition is None:
            partition = self.random.randrange(self.settings.partitions[topic])
        log = self.broker.logs[Place(topic, partition)]
        if topic != DEAD_TOPIC and self.often(self.faults.gap):
            log.skip(self.random.choice((1, 1, 2, 3, 40)))
        log.append(record, math.floor(self.now.wall * 1000))
        self.say(f"{record} is appended: {record.facts.kind.value}")
        if topic != DEAD_TOPIC and self.often(self.faults.gap):
            log.skip(self.random.choice((1, 2)))

    def _send(self) -> None:
        settings, random = self.settings, self.random
        if self.broker.down:
            return
        count = settings.messages * 2 * random.random()
        for _ in range(int(count) + (random.random() < count % 1)):
            route = random.randrange(len(settings.config.routes))
            retried = settings.config.routes[route].retry_topic is not None
            if random.random() < settings.odd:
                self._send_odd(route)
            elif settings.chunked and random.random() < settings.chunked:
                self._send_chunked(route)
            elif retried and random.random() < settings.jobs:
                self._send_job()
            else:
                not_before_ms = None
                if random.random() < 0.05:  # a delayed message in a base topic
                    not_before_ms = math.ceil(self.now.wall * 1000) + random.randrange(4_000)
                self._send_plain(route, not_before_ms)

    def _script(self) -> Script:
        outcomes = tuple([self.random.choice(self.settings.outcomes) for _ in range(3)])
        return Script(outcomes, self.settings.stalls and self._stalling.random() < 0.1)

    def _body(self) -> bytes:
        return bytes(self.random.randrange(self.settings.body_bytes + 1))

    def _send_plain(self, route: int, not_before_ms: int | None) -> None:
        facts = Facts(kind=Kind.RUN, script=self._script(), route=route, not_before_ms=not_before_ms)
        headers: list[tuple[str, bytes | None]] | None = None
        if not_before_ms is not None:
            headers = [*write_marks(Marks(not_before_ms=not_before_ms))]
        self.append(self.settings.names[route], Record(self._body(), headers, facts, self._key()))

    def _first_route(self) -> int:
        """Which entry a record of the retry topic belongs to that says nothing of its origin."""
        routes = self.settings.config.routes
        return next(index for index, route in enumerate(routes) if route.retry_topic is not None)

    def _key(self) -> bytes | None:
        """None for one in so many, too."""
        key = self.random.randrange(self.settings.keys + 1) if self.settings.keys else 0
        return b"%d" % key if key else None

    def _send_job(self) -> None:
        """A scheduled job: it goes to the retry topic at once."""
        far_ms = int(self.random.random() ** 2 * self.settings.farthest * 1000)
        not_before_ms = math.ceil(self.now.wall * 1000) + far_ms
        facts = Facts(
            kind=Kind.RUN, script=self._script(), route=self._first_route(), not_before_ms=not_before_ms
        )
        marks = Marks(not_before_ms=not_before_ms)
        self.append(RETRY_TOPIC, Record(self._body(), [*write_marks(marks)], facts))

    def _send_chunked(self, route: int) -> None:
        settings, random = self.settings, self.random
        kind, own, marks = Kind.RUN, list[tuple[str, bytes | None]](), Marks()
        now_ms = math.ceil(self.now.wall * 1000)
        if settings.filtering and random.random() < 0.2:
            kind, own = Kind.FILTERED, [("skip", b"")]
        elif random.random() < 0.05:
            kind, marks = Kind.TOO_FAR, Marks(not_before_ms=now_ms + 1_000 * DAY_MS)
        elif random.random() < 0.1:
            marks = Marks(not_before_ms=now_ms + random.randrange(4_000))
        facts = Facts(kind=kind, script=self._script(), route=route, not_before_ms=marks.not_before_ms)
        most = int(settings.message_bytes * random.choice((0.5, 1.0, 1.0, 1.2)))
        count = random.choice((2, 2, 3, 4, 6))
        bodies = cut_up(random, random.randbytes(random.randrange(most + 1)), count)
        group = random.randbytes(16)
        letter = Letter(facts, bodies, marks, tuple(own), self._key(), group)
        letter.corrupt = random.random() < 0.05
        topic = settings.names[route]
        self.send_letter(topic, letter)
        if random.random() < 0.05:  # somebody contradicts himself about the number of chunks
            other = Letter(replace(facts), [*bodies, b"more"], marks, tuple(own), letter.key, group)
            self.send_letter(topic, other, missing=True)

    def send_letter(
        self, topic: str, letter: Letter, *, missing: bool = False, at_once: bool = False
    ) -> None:
        """Begin to append the chunks; ``missing``: not all of them; ``at_once``: all of them, in order."""
        random = self.random
        order = list(range(len(letter.bodies)))
        if at_once:
            partition = random.randrange(self.settings.partitions[topic])
            for index in order:
                self.append(topic, letter.record(index, total=index % 2 == 0), partition)
            return
        if missing or self.often(0.1):
            order.pop(random.randrange(len(order)))
        if self.often(0.15):
            order.insert(random.randrange(len(order) + 1), random.choice(order))
        if self.often(0.1):
            random.shuffle(order)
        total = letter.corrupt or random.random() < 0.5
        partition = random.randrange(self.settings.partitions[topic])
        self._sendings.append(Sending(letter, topic, partition, order, total))
        self._go_on_sending()

    def _go_on_sending(self) -> None:
        """Append some chunks of what is on its way."""
        for sending in list(self._sendings):
            while sending.order and sending.next_at <= self.mono and (self.calm or not self.broker.down):
                letter, index = sending.letter, sending.order.pop(0)
                part = letter.record(index, total=sending.total)
                self.append(sending.topic, part, sending.partition)
                if letter.resolved or any(copy.resolved for copy in letter.copies[index]):
                    self.broker.resolve(part)
                if self.often(0.5):
                    sending.next_at = self.mono + self.random.choice((0.0, 0.5, 2.0))
                elif self.often(0.03):
                    sending.next_at = (
                        self.mono + self.random.uniform(1.0, 2.0) * self.settings.config.chunk_wait
                    )
            if not sending.order:
                self._sendings.remove(sending)

    def _send_odd(self, route: int) -> None:
        """A record that must not be run."""
        settings, random = self.settings, self.random
        kinds = [Kind.MALFORMED, Kind.TOO_FAR, Kind.TOO_LARGE]
        if settings.config.routes[route].retry_topic is not None:
            kinds += [Kind.FOREIGN, Kind.NO_ORIGIN]
        if settings.filtering:
            kinds += [Kind.FILTERED] * 3
        kind = random.choice(kinds)
        topic = settings.names[route]
        if kind in {Kind.FOREIGN, Kind.NO_ORIGIN} or (
            kind in {Kind.MALFORMED, Kind.TOO_FAR} and random.random() < 0.3
        ):
            topic = RETRY_TOPIC if settings.config.routes[route].retry_topic is not None else topic
        now_ms = math.ceil(self.now.wall * 1000)
        facts = Facts(
            kind=kind,
            script=Script((Outcome.DONE,)),
            route=self._first_route() if topic == RETRY_TOPIC else route,
        )
        body, headers = self._body(), list[tuple[str, bytes | None]]()
        if kind is Kind.MALFORMED:
            headers = [random.choice(((ATTEMPT, b"123"), (ATTEMPT, None), (ATTEMPT, b"\xff" * 8)))]
        elif kind is Kind.TOO_LARGE:
            body = bytes(settings.message_bytes + 1)
        elif kind is Kind.FILTERED:
            headers = [("skip", b"")]
        else:
            headers = [*write_marks(_odd_marks(kind, now_ms, facts))]
        self.append(topic, Record(body, headers, facts, self._key()))


def _odd_marks(kind: Kind, now_ms: int, facts: Facts) -> Marks:
    if kind is Kind.FOREIGN:
        return Marks(failed=1, group="others", origin=Origin("one", 0, 1), not_before_ms=now_ms)
    if kind is Kind.NO_ORIGIN:
        facts.failed, facts.origin, facts.id = 1, Origin("nowhere", 0, 1), "nowhere-0-1"
        return Marks(failed=1, group=GROUP, origin=facts.origin, id=facts.id)
    facts.not_before_ms = now_ms + 1_000 * DAY_MS
    return Marks(not_before_ms=facts.not_before_ms)


def run(seed: int, *, trace: Trace | None = None) -> None:
    """Live through one seed's world. Raises Violation."""
    World(seed, trace=trace).run()
