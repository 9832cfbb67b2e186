"""Where logs begin and end, for partitions of which the group has no position yet: asked beside the loop."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.core.protocol import Locate, Located, Place

__all__ = ["Locator"]

FIRST_PAUSE = 0.2  # seconds until what failed is asked again; doubled each time, up to
LONGEST_PAUSE = 10.0


class Locator:
    """Asks where logs begin and end. The loop's thread only. What fails is asked again; a refusal is an answer: None."""

    def __init__(self, admin: Callable[[], AdminClient]) -> None:
        self._admin = admin
        self._asked: dict[Place, tuple[Locate, Future[Any] | None]] = {}  # None: to be asked
        self._pause = FIRST_PAUSE
        self._ask_at = 0.0  # monotonic; when it is asked next
        self._asked_at = 0.0  # monotonic; when it was asked last

    @property
    def held_up(self) -> int:
        """How many partitions begin only when the answer is in."""
        return sum(locate.end for locate, _ in self._asked.values())

    @property
    def waits_since(self) -> float | None:
        """When was asked what has no answer yet (monotonic); None: nothing is under way."""
        waits = any(future is not None and not future.done() for _, future in self._asked.values())
        return self._asked_at if waits else None

    def want(self, locate: Locate) -> None:
        """Ask this with the next ``poll``."""
        self._asked[locate.place] = (locate, None)
        self._pause, self._ask_at = FIRST_PAUSE, 0.0

    def drop(self, places: Collection[Place]) -> None:
        """These are ours no longer."""
        for place in places:
            self._asked.pop(place, None)

    def replace_admin(self) -> None:
        """Another client answers from now on; what the last one was asked is asked again."""
        self._asked = {place: (locate, None) for place, (locate, _) in self._asked.items()}
        self._ask_at = 0.0

    def poll(self, now: float) -> list[Located]:
        """Take what has been answered, and ask for what is to be asked for."""
        if not self._asked:
            return []
        found = [answer for place in list(self._asked) if (answer := self._answer(place, now)) is not None]
        new = [locate for locate, future in self._asked.values() if future is None]
        if new and now >= self._ask_at:
            self._ask(new, now)
        return found

    def _answer(self, place: Place, now: float) -> Located | None:
        locate, future = self._asked[place]
        if future is None or not future.done():
            return None
        position: int | None = None
        try:
            position = int(future.result().offset)
        except KafkaException as error:
            if not error_name(error).endswith("AUTHORIZATION_FAILED"):
                self._again(locate, now)
                return None
        del self._asked[place]
        return Located(locate, position if position is not None and position >= 0 else None)

    def _again(self, locate: Locate, now: float) -> None:
        self._asked[locate.place] = (locate, None)
        if self._ask_at <= now:
            self._ask_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _ask(self, wanted: Collection[Locate], now: float) -> None:
        self._asked_at = now
        begin, end = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        specs = {TopicPartition(*one.place): end if one.end else begin for one in wanted}
        try:
            futures = self._admin().list_offsets(specs, isolation_level=IsolationLevel.READ_COMMITTED)
        except KafkaException:
            for one in wanted:
                self._again(one, now)
            return
        for partition, future in futures.items():
            place = Place(partition.topic, partition.partition)
            self._asked[place] = (self._asked[place][0], future)
