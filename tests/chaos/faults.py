"""What is done to the system, all of it from one seed: two lanes of faults, one for members, one for brokers and links.

Each lane does one thing at a time and undoes it, so that never two brokers are away at once. Which fault comes when, to
whom and for how long follows from the seed; how long the system takes to recover does not.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.chaos.crew import ChaosCrew, Seat
from tests.chaos.proxy import Links
from tests.support.evidence import EvidenceWriter
from tests.support.kafka import KafkaCluster

__all__ = ["USER", "BrokerLane", "Lane", "MemberLane", "grant_everything"]

USER = "alice"
"""The user that the members log in as."""
FAR = 0.15  # s each way
IN_SYNC = 120.0  # s for a broker to come back into all replica sets


class Lane(threading.Thread):
    """A thread of faults, until it is told to end; `trouble` is what went wrong with the harness itself."""

    def __init__(self, name: str, seed: int, told: EvidenceWriter, calm: tuple[float, float]) -> None:
        super().__init__(name=name, daemon=True)
        self.chance = random.Random(f"{seed}/{name}")
        self.trouble: BaseException | None = None
        self.count = 0
        self._told = told
        self._calm = calm
        self._over = threading.Event()
        self._bag: list[Callable[[], None]] = []

    def faults(self) -> list[Callable[[], None]]:
        """All kinds; each comes once before any comes again."""
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._over.wait(self.chance.uniform(*self._calm)):
                if not self._bag:
                    self._bag = self.faults()
                    self.chance.shuffle(self._bag)
                self._bag.pop()()
        except BaseException as error:  # noqa: BLE001 - the thread that waits for it raises it
            self.trouble = error

    def end(self) -> None:
        """No further fault; the one at hand is undone at once."""
        self._over.set()

    def wait(self, low: float, high: float) -> None:
        """Let it be for that long, or until the end."""
        self._over.wait(self.chance.uniform(low, high))

    @contextmanager
    def fault(self, kind: str, **about: int) -> Iterator[None]:
        """Note what is done between entering and leaving."""
        self.count += 1
        began = time.time()
        self._told.write("fault-begins", kind=kind, **about)
        try:
            yield
        finally:
            self._told.write("fault", kind=kind, began=began, ended=time.time(), **about)


class MemberLane(Lane):
    """Faults of members. It owns their seats."""

    def __init__(self, crew: ChaosCrew, seed: int, calm: tuple[float, float]) -> None:
        super().__init__("members", seed, crew.told, calm)
        self._crew = crew

    def faults(self) -> list[Callable[[], None]]:
        return [
            *(self.kill, self.kill, self.stop, self.stop, self.kill_worker, self.kill_worker),
            *(self.short_pause, self.long_pause, self.storm, self.freeze),
        ]

    def _seat(self, executor: str = "") -> Seat:
        seat = self.chance.choice([one for one in self._crew.seats if executor in ("", one.executor)])
        if seat.ended():  # the checker says what it thinks of that
            seat.start()
        return seat

    def kill(self) -> None:
        seat = self._seat()
        with self.fault("kill", member=seat.member):
            seat.kill()
        self.wait(0.0, 4.0)
        seat.start()

    def stop(self) -> None:
        seat = self._seat()
        with self.fault("stop", member=seat.member):
            seat.ask()
            seat.wait()
        seat.start()

    def kill_worker(self) -> None:
        seat = self._seat("processes")
        seat.wait_working()
        with self.fault("kill-worker", member=seat.member):
            seat.kill_worker(self.chance.randrange(2))

    def short_pause(self) -> None:
        self._pause("pause-short", 1.0, 4.0)

    def long_pause(self) -> None:
        self._pause("pause-long", 9.0, 16.0)  # the session is over after 6 s

    def _pause(self, kind: str, low: float, high: float) -> None:
        seat = self._seat()
        with self.fault(kind, member=seat.member):
            seat.pause()
            try:
                self.wait(low, high)
            finally:
                seat.resume()

    def storm(self) -> None:
        """One rebalance after the other: members leave and come, two at a time."""
        with self.fault("storm"):
            for _ in range(3):
                chosen = self.chance.sample(self._crew.seats, 2)
                leaving = [seat for seat in chosen if not seat.ended()]
                for seat in leaving:
                    seat.ask()
                for seat in leaving:
                    seat.wait()
                for seat in chosen:
                    seat.start()

    def freeze(self) -> None:
        seat = self._seat("coroutines")
        seat.wait_working()
        with self.fault("freeze", member=seat.member):
            seat.freeze()
            self.wait(8.0, 8.0)


class BrokerLane(Lane):
    """Faults of brokers, of the links to them, and of what the members may do there."""

    def __init__(
        self, kafka: KafkaCluster, links: Links, told: EvidenceWriter, seed: int, calm: tuple[float, float]
    ) -> None:
        super().__init__("brokers", seed, told, calm)
        self._kafka = kafka
        self._links = links

    def faults(self) -> list[Callable[[], None]]:
        return [
            *(self.kill, self.stop, self.short_pause, self.long_pause, self.rolling),
            *(self.slow_link, self.cut_link, self.stuck_link, self.far_away, self.refuse, self.refuse),
        ]

    def _any(self) -> int:
        return self.chance.randrange(1, 1 + len(self._kafka.brokers))

    def kill(self) -> None:
        number = self._any()
        with self.fault("broker-kill", broker=number):
            self._kafka.broker(number).kill()
            self.wait(1.0, 6.0)
            self._back(number)

    def stop(self) -> None:
        number = self._any()
        with self.fault("broker-stop", broker=number):
            self._restart(number)

    def _restart(self, number: int) -> None:
        self._kafka.broker(number).stop()
        self._back(number)

    def _back(self, number: int) -> None:
        self._kafka.broker(number).start()
        self._kafka.wait_members()
        self._kafka.wait_in_sync(timeout=IN_SYNC)

    def short_pause(self) -> None:
        self._pause(1.0, 3.0)

    def long_pause(self) -> None:
        self._pause(7.0, 14.0)  # its own session is over after 4 s

    def _pause(self, low: float, high: float) -> None:
        number = self._any()
        with self.fault("broker-pause", broker=number):
            self._kafka.broker(number).pause()
            try:
                self.wait(low, high)
            finally:
                self._kafka.broker(number).resume()
            self._kafka.wait_members()
            self._kafka.wait_in_sync(timeout=IN_SYNC)

    def rolling(self) -> None:
        """Each broker in turn, as in an upgrade."""
        with self.fault("rolling"):
            for broker in self._kafka.brokers:
                self._restart(broker.id)

    def slow_link(self) -> None:
        number = self._any()
        with self.fault("slow-link", broker=number):
            self._links[number].slow(self.chance.uniform(0.02, 0.2))
            self._healed_after(number, 5.0, 15.0)

    def far_away(self) -> None:
        """All brokers, for long enough that members start, stop and rebalance meanwhile."""
        numbers = range(1, 1 + len(self._kafka.brokers))
        with self.fault("far-away"):
            for number in numbers:
                self._links[number].slow(FAR)
            try:
                self.wait(20.0, 40.0)
            finally:
                for number in numbers:
                    self._links[number].heal()

    def cut_link(self) -> None:
        number = self._any()
        with self.fault("cut-link", broker=number):
            self._links[number].cut()
            self._healed_after(number, 3.0, 12.0)

    def stuck_link(self) -> None:
        number = self._any()
        with self.fault("stuck-link", broker=number):
            self._links[number].stuck()
            self._healed_after(number, 3.0, 12.0)

    def _healed_after(self, number: int, low: float, high: float) -> None:
        try:
            self.wait(low, high)
        finally:
            self._links[number].heal()

    def refuse(self) -> None:
        """Members may not write to the retry topic."""
        with self.fault("refuse"):
            admin = self._kafka.admin()
            for answer in admin.create_acls([DENIED]).values():
                answer.result(30.0)
            try:
                self.wait(4.0, 12.0)
            finally:
                _remove(self._kafka, DENIED)


def _rule(
    kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType
) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, permission)


DENIED = _rule(ResourceType.TOPIC, "retries", AclOperation.WRITE, AclPermissionType.DENY)


def _remove(kafka: KafkaCluster, one: AclBinding) -> None:
    wanted = AclBindingFilter(
        one.restype,
        one.name,
        one.resource_pattern_type,
        one.principal,
        one.host,
        one.operation,
        one.permission_type,
    )
    for answer in kafka.admin().delete_acls([wanted]).values():
        assert answer.result(30.0)


def grant_everything(kafka: KafkaCluster) -> None:
    """The members may do all that they need."""
    allow = AclPermissionType.ALLOW
    rules = [
        _rule(ResourceType.TOPIC, "*", AclOperation.ALL, allow),
        _rule(ResourceType.GROUP, "*", AclOperation.ALL, allow),
        _rule(ResourceType.TRANSACTIONAL_ID, "*", AclOperation.ALL, allow),
        _rule(ResourceType.BROKER, "kafka-cluster", AclOperation.ALL, allow),
    ]
    for answer in kafka.admin().create_acls(rules).values():
        answer.result(30.0)
