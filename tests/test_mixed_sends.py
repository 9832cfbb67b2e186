"""The rule "alone, or among others", and sending by it, on a client that does as it is told."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from retriable_kafka_client.sending.batching import LARGE, Batching, batching_of
from retriable_kafka_client.sending.mixed_sends import MixedSends
from retriable_kafka_client.sending.parcels import Parcel
from retriable_kafka_client.sending.sources import MemorySource
from tests.support.limits import FixedLimits

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
FATAL = KafkaError(KafkaError._FATAL)

Report = Callable[[KafkaError | None, Any], None]


class Client:
    """A client with room for so many records; ``answer`` reports on the oldest."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.refuses: KafkaError | None = None
        self.held: list[tuple[bytes | None, Report]] = []

    def produce(self, _topic: str, *, value: bytes | None, on_delivery: Report, **_more: Any) -> None:
        if self.refuses is not None:
            raise KafkaException(self.refuses)
        if len(self.held) >= self.room:
            raise BufferError
        self.held.append((value, on_delivery))

    def answer(self, error: KafkaError | None = None) -> None:
        _, report = self.held.pop(0)
        report(error, None if error else _Report())

    def values(self) -> list[bytes | None]:
        return [value for value, _ in self.held]


class _Report:
    def topic(self) -> str:
        return "orders"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 1

    def timestamp(self) -> tuple[int, int]:
        return 1, 2


class Lab:
    """Two clients, and what became of the parcels."""

    def __init__(self, *, retry_alone: bool = True) -> None:
        self.shared, self.alone = Client(), Client()
        self.settled: dict[bytes, str | None] = {}
        self.failures: list[tuple[Batching, str]] = []
        self.sends = MixedSends(
            self._client, FixedLimits(None), budget=10_000, retry_alone=retry_alone, failed=self._failed
        )

    def send(self, body: bytes, batching: Batching = Batching.SHARED) -> None:
        self.sends.send(self.parcel(body), batching)

    def parcel(self, body: bytes, **more: Any) -> Parcel:
        def settle(error: KafkaError | None, _report: Any) -> None:
            self.settled[body] = None if error is None else error.name()

        source = MemorySource(body)
        return Parcel(topic="orders", source=source, key=None, headers=(), settle=settle, **more)

    def _client(self, batching: Batching) -> Producer:
        return cast("Producer", self.alone if batching is Batching.ALONE else self.shared)

    def _failed(self, batching: Batching, error: KafkaError) -> None:
        self.failures.append((batching, error.name()))


@pytest.mark.parametrize(
    ("size", "limit", "more", "batching"),
    [
        (100, 1_000, {}, Batching.SHARED),
        (100, None, {}, Batching.SHARED),
        (950, 1_000, {}, Batching.ALONE),  # with what a batch costs
        (LARGE, None, {}, Batching.ALONE),
        (LARGE, 2 * LARGE, {}, Batching.SHARED),
        (LARGE + 1, 2 * LARGE, {}, Batching.ALONE),
        (100, 1_000, {"most": 99}, Batching.ALONE),
        (100, 1_000, {"whole": [("n", bytes(900))]}, Batching.ALONE),
    ],
)
def test_what_may_be_too_large_goes_alone(
    size: int, limit: int | None, more: dict[str, Any], batching: Batching
) -> None:
    assert batching_of(Lab().parcel(bytes(size), **more), limit) is batching


def test_what_the_client_takes_less_of_goes_alone() -> None:
    parcel = Lab().parcel(bytes(100))
    assert batching_of(parcel, 1_000, client_limit=120) is Batching.ALONE


def test_what_finds_no_room_goes_later_and_in_order() -> None:
    lab = Lab()
    lab.shared.room = 1
    for body in (b"a", b"b", b"c"):
        lab.send(body)
    assert lab.shared.values() == [b"a"]
    lab.shared.answer()
    lab.shared.room = 5
    lab.send(b"d")  # not before those that wait
    assert lab.shared.values() == []
    lab.sends.advance()
    assert lab.shared.values() == [b"b", b"c", b"d"]
    assert lab.settled == {b"a": None}


def test_what_is_refused_for_its_size_among_others_goes_again_alone() -> None:
    lab = Lab()
    lab.send(b"a")
    lab.shared.answer(TOO_LARGE)
    assert lab.settled == {}
    assert lab.alone.values() == [b"a"]
    lab.alone.answer()
    assert lab.settled == {b"a": None}
    assert lab.failures == []


def test_or_that_is_its_answer() -> None:
    lab = Lab(retry_alone=False)
    lab.send(b"a")
    lab.shared.answer(TOO_LARGE)
    assert lab.settled == {b"a": "MSG_SIZE_TOO_LARGE"}
    assert lab.alone.values() == []


@pytest.mark.parametrize("batching", Batching)
def test_whose_client_failed_is_known_before_the_parcel_hears_of_it(batching: Batching) -> None:
    lab = Lab()
    lab.shared.refuses = lab.alone.refuses = FATAL
    lab.send(b"a", batching)
    assert lab.failures == [(batching, "_FATAL")]
    assert lab.settled == {b"a": "_FATAL"}
