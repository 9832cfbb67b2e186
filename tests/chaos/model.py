"""A small model of a group at work: facts of runs in which every promise is kept, whatever happens to the members.

Time goes in rounds of ten seconds: who owns what; runs; a kill, a loss, a hand-over or none; commits. Everything follows
from the seed.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from retriable_kafka_client.core.offset_map import OffsetMap
from retriable_kafka_client.core.runs import runs_of
from tests.campaign.commits import CommitLog, Committed
from tests.campaign.evidence import Spot
from tests.chaos.facts import Ack, Death, End, Facts, Fault, Letter, Member, Output, Run, Sent, Stored, Tenure
from tests.chaos.index import letter_reasons
from tests.chaos.orders import MAX_ATTEMPTS, Kind, Order, retry_delay

__all__ = ["good_facts"]

ROUND = 10.0
PARTITIONS = {"orders": 2, "bills": 1, "local": 1, "retries": 2}
EXECUTORS = ("threads", "processes", "coroutines")
ENOUGH = 80  # rounds


@dataclass(slots=True)
class Entry:
    """One message in a log: its records stand at `offsets`."""

    order: Order
    offsets: list[int]
    failed: int
    at: float
    due: float
    aborted: bool = False


@dataclass(slots=True)
class Log:
    """A partition, and how far its owner is with it."""

    topic: str
    number: int
    entries: list[Entry] = field(default_factory=list)
    end: int = 0
    done: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)  # by commits
    position: int | None = None
    tenure: Tenure | None = None
    effects: list[Stored | Letter | Output] = field(
        default_factory=list
    )  # of the transaction that is to come


def _orders(chance: random.Random, messages: int) -> list[Order]:
    """Each kind at least once, the rest by chance."""
    base = ["orders", "bills"]
    fixed: list[dict[str, Any]] = [
        {"kind": Kind.KILLER},
        {"kind": Kind.PARTIAL},
        {"kind": Kind.POISON},
        {"kind": Kind.REJECTED, "outputs": 1},
        {"kind": Kind.SKIPPED},
        {"filler": 300_000, "fails": 1, "outputs": 2},
        {"filler": 300_000},
        {"topic": "retries", "delay": 5.0, "outputs": 1},
        {"topic": "local", "fails": 2, "outputs": 1},
        {"fails": MAX_ATTEMPTS, "outputs": 1},
        {"fails": 1, "outputs": 2},
        {"fails": 2, "outputs": 2},
    ]
    usual: list[dict[str, Any]] = [{}, {}, {}, {"fails": 1}, {"delay": 2.0}]
    orders = []
    for number in range(messages):
        chosen = fixed[number] if number < len(fixed) else chance.choice(usual)
        more: dict[str, Any] = {
            "topic": chance.choice(base),
            "outputs": chance.choice((0, 1, 2)),
            **chosen,
        }
        if more.get("delay"):
            more["topic"] = "retries"
        if more.get("kind") in (Kind.PARTIAL, Kind.POISON, Kind.SKIPPED, Kind.KILLER):
            more["outputs"] = 0
        orders.append(Order(number, **more))
    return orders


class Model:
    """Makes one good run."""

    def __init__(self, seed: int, guarantee: str, messages: int) -> None:
        self.chance = random.Random(seed)
        self.exactly_once = guarantee == "exactly_once"
        self.facts = Facts(guarantee=guarantee, end=End(healed=0.0))
        self.logs = [Log(topic, number) for topic, count in PARTITIONS.items() for number in range(count)]
        self.commits: list[Committed] = []
        self.at = 1000.0
        self.runs = 0
        self.spots = {"dead": 0, "out": 0}
        self.members: dict[int, Member] = {}
        for order in _orders(self.chance, messages):
            self._send(order)
        for _ in range(3):
            self._join()

    def run(self) -> Facts:
        for _ in range(ENOUGH):
            self._round()
            self.at += ROUND
            if all(len(log.done) == log.end for log in self.logs) and not any(
                log.effects for log in self.logs
            ):
                break
        else:
            raise AssertionError("the model did not come to an end")
        self._finish()
        return self.facts

    # The world ----------------------------------------------------------------------------------------------------------

    def _send(self, order: Order) -> None:
        at = self.at - 50 + order.id * 0.1
        acked = self.chance.random() < 0.95
        self.facts.sent[order.id] = Sent(order, f"s{order.id}", at, acked)
        if acked or self.chance.random() < 0.5:
            log = self._log(order.topic)
            count = 1 if not order.split else 1 if order.kind is Kind.PARTIAL else 3
            if acked:
                self.facts.sent[order.id].spot = Spot(log.topic, log.number, log.end)
            self._append(log, order, 0, at, at + order.delay, count if order.split else 0)

    def _log(self, topic: str) -> Log:
        return self.chance.choice([log for log in self.logs if log.topic == topic])

    def _append(
        self, log: Log, order: Order, failed: int, at: float, due: float, chunks: int, visible: bool = True
    ) -> None:
        offsets = list(range(log.end, log.end + (chunks or 1)))
        log.end += len(offsets)
        log.entries.append(Entry(order, offsets, failed, at, due, aborted=not visible))
        if not visible:
            log.done.update(offsets)
        for offset in offsets:
            group = f"g{order.id}-{failed}-{offsets[0]}" if chunks else ""
            spot = Spot(log.topic, log.number, offset)
            self.facts.stored.append(Stored(spot, order.id, failed, at, group, visible=visible))

    def _join(self) -> None:
        number = len(self.members) + 1
        self.members[number] = Member(number, EXECUTORS[number % 3], self.at)
        self.facts.members[number] = self.members[number]

    def _alive(self) -> list[Member]:
        return [one for one in self.members.values() if one.killed is None and one.asked is None]

    # One round ----------------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        for log in self.logs:
            if log.tenure is None:
                owner = self.chance.choice(self._alive())
                log.done |= log.held
                log.tenure = Tenure(owner.number, log.topic, log.number, self.at + 0.5, log.position)
                self.facts.tenures.append(log.tenure)
        victim = self.chance.choice(self._alive())
        what = self.chance.choice(("nothing", "nothing", "kill", "lost", "stop", "hand-over", "overrun"))
        for log in self.logs:
            assert log.tenure is not None
            struck = log.tenure.member == victim.number
            for entry in list(log.entries):
                if (
                    entry.at > self.at + 1
                    or entry.due > self.at + 1
                    or entry.aborted
                    or entry.offsets[0] in log.done
                ):
                    continue
                if self.chance.random() < 0.8:
                    self._handle(log, entry)
                elif struck and what in ("kill", "overrun") and self._runs(entry):
                    self._cut(log, entry, what)
            if struck and what == "overrun" and log.tenure.overrun == 0:
                log.tenure.overrun = 1
            if not struck or what in ("nothing", "stop", "hand-over", "overrun"):
                self._commit(log, self.at + 7.0)
            if struck and what != "nothing":
                self._give_up(log, what)
        if what == "kill":
            victim.killed = victim.ended = self.at + 6.8
            victim.code = -9
            self.facts.faults.append(Fault("kill", victim.killed, victim.killed, member=victim.number))
            self._join()
        elif what == "stop":
            victim.asked, victim.ended, victim.code = self.at + 6.5, self.at + 8.0, 0
            self._join()

    @staticmethod
    def _runs(entry: Entry) -> bool:
        return entry.order.kind in (Kind.PLAIN, Kind.REJECTED)

    def _give_up(self, log: Log, what: str) -> None:
        assert log.tenure is not None
        if what in ("kill", "lost"):
            for effect in log.effects:
                if self.chance.random() < 0.5:
                    self._emit(effect, visible=False)
            log.effects.clear()
            log.done = log.held | _aborted(log)
        if what != "kill":
            reasons = {"lost": "lost", "stop": "stopped", "hand-over": "revoked", "overrun": "revoked"}
            log.tenure.ended, log.tenure.reason = self.at + 7.5, reasons[what]
        log.tenure = None

    def _name(self, log: Log) -> tuple[int, int, int]:
        assert log.tenure is not None
        self.runs += 1
        return log.tenure.member, 100 + log.tenure.member, self.runs

    def _note(self, log: Log, entry: Entry, attempt: int, began: float, ended: float | None, end: str) -> Run:
        spot = Spot(log.topic, log.number, entry.offsets[0])
        stamp = f"s{entry.order.id}"
        run = Run(entry.order.id, attempt, spot, self._name(log), began, ended, end, stamp)
        self.facts.runs.append(run)
        return run

    def _cut(self, log: Log, entry: Entry, what: str) -> None:
        """A run that its owner does not live to see the end of, or that nobody waits for."""
        if entry.order.topic == "local":
            return
        late = what == "overrun" and entry.order.succeeds and entry.failed >= entry.order.fails
        ended, end = (self.at + 15.0, "done") if late else (None, "")
        self._note(log, entry, entry.failed + 1, self.at + 6.5, ended, end)

    def _handle(self, log: Log, entry: Entry) -> None:
        order, began = entry.order, self.at + 1.0 + self.chance.random()
        if order.kind is Kind.SKIPPED:
            self.facts.skipped.setdefault(order.id, began)
        elif order.kind in (Kind.POISON, Kind.PARTIAL):
            attempts = 1 if order.kind is Kind.POISON else 0
            self._letter(log, order, min(letter_reasons(order)), attempts, began)
        elif order.topic == "local":
            self._in_place(log, entry, began)
        else:
            self._once(log, entry, entry.failed + 1, began)
        log.done.update(entry.offsets)

    def _in_place(self, log: Log, entry: Entry, began: float) -> None:
        for attempt in range(1, entry.order.fails + 1):
            self._note(log, entry, attempt, began, began + 0.1, "failed")
            began += 0.1 + retry_delay(attempt)
        run = self._note(log, entry, entry.order.fails + 1, began, began + 0.1, "done")
        self._outputs(log, entry.order, run)

    def _once(self, log: Log, entry: Entry, attempt: int, began: float) -> None:
        order = entry.order
        assert log.tenure is not None
        executor = self.members[log.tenure.member].executor
        if executor == "processes" and (order.kind is Kind.KILLER or self.chance.random() < 0.05):
            run = self._note(log, entry, attempt, began, None, "")
            self.facts.deaths.append(Death(run.member, run.spot, attempt, began + 0.2))
            if attempt < MAX_ATTEMPTS:
                self._copy(log, entry, attempt, began + 0.2)
            else:
                self._letter(log, order, "worker-died", attempt, began + 0.2)
            return
        ended = began + self.chance.random()
        if order.kind is Kind.REJECTED:
            self._note(log, entry, attempt, began, ended, "rejected")
            self._letter(log, order, "rejected", attempt, ended)
        elif order.kind is Kind.KILLER or attempt <= order.fails:
            self._note(log, entry, attempt, began, ended, "failed")
            if attempt < MAX_ATTEMPTS:
                self._copy(log, entry, attempt, ended)
            else:
                self._letter(log, order, "exhausted", attempt, ended)
        else:
            self._outputs(log, order, self._note(log, entry, attempt, began, ended, "done"))

    # Effects

    def _outputs(self, log: Log, order: Order, run: Run) -> None:
        assert run.ended is not None
        for part in range(order.outputs):
            self._effect(log, Output(self._spot("out"), order.id, part, run.name, run.ended + 0.01))

    def _letter(self, log: Log, order: Order, reason: str, attempts: int, at: float) -> None:
        chunk = f"g{order.id}/0" if order.kind is Kind.PARTIAL else ""
        stamp = "" if chunk else f"s{order.id}"
        self._effect(log, Letter(self._spot("dead"), order.id, reason, attempts, at + 0.01, chunk, stamp))

    def _copy(self, log: Log, entry: Entry, attempt: int, at: float) -> None:
        # The spot is found when it is written.
        self._effect(log, Stored(Spot("", 0, 0), entry.order.id, attempt, at + 0.01))

    def _spot(self, topic: str) -> Spot:
        self.spots[topic] += 1
        return Spot(topic, 0, self.spots[topic])

    def _effect(self, log: Log, effect: Stored | Letter | Output) -> None:
        if self.exactly_once:
            log.effects.append(effect)
        else:
            self._emit(effect)

    def _emit(self, effect: Stored | Letter | Output, visible: bool = True) -> None:
        effect.visible = visible
        if isinstance(effect, Output):
            self.facts.outputs.append(effect)
        elif isinstance(effect, Letter):
            self.facts.letters.append(effect)
        else:
            order = self.facts.sent[effect.id].order
            due = effect.at - 0.01 + retry_delay(effect.failed)
            chunks = 3 if order.split else 0
            self._append(self._log("retries"), order, effect.failed, effect.at, due, chunks, visible)

    def _commit(self, log: Log, at: float) -> None:
        assert log.tenure is not None
        log.done |= _aborted(log)
        if log.done == log.held:
            return
        end = 1 + max(log.done)
        incomplete = [offset for offset in range(end) if offset not in log.done]
        position = incomplete[0] if incomplete else end
        done = OffsetMap(position, tuple(runs_of(incomplete)), end) if incomplete else None
        self.commits.append(
            Committed(topic=log.topic, partition=log.number, at=at, position=position, map=done)
        )
        self.facts.acks.append(Ack(log.tenure.member, log.topic, log.number, position, at + 0.1))
        log.held, log.position = set(log.done), position
        effects, log.effects = log.effects, []
        for effect in effects:
            self._emit(effect)

    def _finish(self) -> None:
        for log in self.logs:
            if log.tenure is not None:
                self._commit(log, self.at + 1.0)
                log.tenure.ended, log.tenure.reason = self.at + 3.0, "stopped"
        self.facts.end = End(healed=self.at, drained=self.at + 1.0)
        for member in self._alive():
            member.asked, member.ended, member.code = self.at + 2.0, self.at + 4.0, 0
        self.facts.commits = CommitLog(self.commits)


def _aborted(log: Log) -> set[int]:
    """Offsets that no reader of committed records sees."""
    return {offset for entry in log.entries if entry.aborted for offset in entry.offsets}


def good_facts(seed: int, guarantee: str = "at_least_once", messages: int = 60) -> Facts:
    """The facts of one good run."""
    return Model(seed, guarantee, messages).run()
