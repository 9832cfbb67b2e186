"""One test's own topics, group and consumers on a cluster, mock or real, and what came of its messages."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Self

import pytest
from confluent_kafka import KafkaException

from retriable_kafka_client import DISCARD, Cluster, Consumer, Limits, Message, Retry, Topic
from tests.support.names import unique
from tests.support.protocols import NO_CONSUMER_PROTOCOL, has_consumer_protocol
from tests.support.records import Read, end_offsets, group_lag, produce_many, produce_one, read_all
from tests.support.waiting import WAIT, wait_until

__all__ = ["Lab", "Log", "as_json", "nothing", "number", "raiser", "ready", "settings_of"]

# An idempotent producer takes half a second to begin.
PLAIN_PRODUCER: Mapping[str, Any] = {"enable.idempotence": False, "retries": 0}


def settings_of(protocol: str) -> dict[str, Any]:
    """Settings of "classic", "range" or "consumer" (KIP-848), quick for tests."""
    quick = {"fetch.wait.max.ms": 20}  # a fetch must not wait for the topic beside it
    classic = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
    match protocol:
        case "consumer":
            return quick | {"group.protocol": "consumer"}
        case "range":
            return quick | classic | {"partition.assignment.strategy": "range"}
        case _:
            return quick | classic


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def nothing(_message: Message[Any]) -> None:
    """Succeed."""


def raiser(error: BaseException | type[BaseException]) -> Callable[[Message[Any]], None]:
    """A handler that raises it."""

    def handler(_message: Message[Any]) -> None:
        raise error

    return handler


def ready(consumer: Consumer) -> None:
    """Wait until it is."""
    wait_until(lambda: consumer.health().ready, what=repr(consumer.health()))


def number(value: bytes | None) -> int:
    """A library header's number."""
    assert value is not None and len(value) == 8
    return int.from_bytes(value)


class Log:
    """What handlers and `on_event` noted, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        with self._lock:
            self._items.append(item)

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def __iter__(self) -> Any:
        return iter(self.items)

    @property
    def items(self) -> list[Any]:
        with self._lock:
            return list(self._items)

    def counts(self) -> Counter[Any]:
        return Counter(self.items)

    def wait(self, count: int, what: str = "", timeout: float = WAIT) -> list[Any]:
        """Wait until there are so many; returns all."""
        wait_until(lambda: len(self) >= count, timeout, f"{count} {what}: {self.items[-20:]}")
        return self.items

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.items if isinstance(one, kind)]


class Lab:
    """Names, topics and consumers of one test; every consumer is stopped at the test's end."""

    def __init__(
        self, servers: str, create: Callable[[str, int, Mapping[str, str]], object], test: str, *, real: bool
    ) -> None:
        self.servers = servers
        self.real = real
        self.test = test
        self.group = unique(f"{test}-group")
        self.events = Log()
        self._create = create
        self._started: list[Consumer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def topic(
        self, label: str = "orders", partitions: int = 2, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic and return its name."""
        name = unique(f"{self.test[:60]}-{label}")
        self._create(name, partitions, config or {})
        return name

    def entry(
        self,
        *,
        retry: bool = True,
        in_place: bool = False,
        dead_letter: bool = True,
        partitions: int = 2,
        **options: Any,
    ) -> Topic:
        """A Topic entry, its topics created; `options` are Retry's."""
        options.setdefault("delay", 0.05)
        return Topic(
            self.topic(partitions=partitions),
            retry=Retry(None if in_place else self.topic("retry"), **options) if retry else None,
            dead_letter=self.topic("dead", 1) if dead_letter else DISCARD,
        )

    @property
    def quick(self) -> Mapping[str, Any]:
        """What a consumer has unless told otherwise: KIP-848, for its first assignment at once, where brokers have it."""
        return settings_of("classic" if self._lacks_consumer_protocol() else "consumer")

    def _lacks_consumer_protocol(self) -> bool:
        return self.real and not has_consumer_protocol(self.servers)

    def cluster(self, settings: Mapping[str, Any] | None = None) -> Cluster:
        """The cluster with these settings, else with `quick`; skips the test where brokers lack what it is about."""
        chosen = self.quick if settings is None else settings
        if chosen.get("group.protocol") == "consumer" and self._lacks_consumer_protocol():
            pytest.skip(NO_CONSUMER_PROTOCOL)
        return Cluster(self.servers, settings=chosen)

    def consumer(
        self,
        topics: Sequence[Topic] | Topic,
        handler: Callable[[Message[Any]], object],
        *,
        executor: int | Executor = 4,
        settings: Mapping[str, Any] | None = None,
        group: str | None = None,
        raw_filter: Callable[[Any], bool] | None = None,
        **options: Any,
    ) -> Consumer:
        """A consumer that commits every 0.1 s and tells `events`; not started."""
        options.setdefault("commit_interval", 0.1)
        options.setdefault("on_event", self.events.add)
        options.setdefault("limits", Limits(drain_timeout=10.0))
        consumer = Consumer(
            self.cluster(settings),
            group_id=group or self.group,
            topics=[topics] if isinstance(topics, Topic) else topics,
            handler=handler,
            executor=executor,
            **options,
        )
        consumer.raw_filter = raw_filter
        self._stack.callback(self._end, consumer)
        return consumer

    def start(self, *arguments: Any, **options: Any) -> Consumer:
        """Make a consumer and start it."""
        consumer = self.consumer(*arguments, **options)
        consumer.start()
        self._started.append(consumer)
        return consumer

    @staticmethod
    def _end(consumer: Consumer) -> None:
        consumer.stop()
        try:
            assert consumer.join(60.0), "a consumer did not end within 60 s"
        except Exception:  # noqa: BLE001 - a test that expects the failure has looked at it already
            return

    def send(self, topic: str | Topic, value: bytes | None, **options: Any) -> tuple[int, int]:
        """Produce one record; returns partition and offset."""
        options["settings"] = {**PLAIN_PRODUCER, **options.get("settings", {})}
        return produce_one(self.servers, topic if isinstance(topic, str) else topic.name, value, **options)

    def fill(self, topic: str | Topic, values: Iterable[bytes | None], **options: Any) -> int:
        """Produce one record for each value; returns their number."""
        options["settings"] = {**PLAIN_PRODUCER, **options.get("settings", {})}
        return produce_many(self.servers, topic if isinstance(topic, str) else topic.name, values, **options)

    def read(self, topic: str) -> list[Read]:
        return read_all(self.servers, topic)

    def dead(self, topic: Topic, count: int = 1, timeout: float = WAIT) -> list[Read]:
        """Wait for so many dead letters; returns all."""
        name = topic.dead_letter
        assert isinstance(name, str)

        def there() -> bool:
            with suppress(KafkaException):  # a broker may be on its way back
                return sum(end_offsets(self.servers, name).values()) >= count
            return False

        wait_until(there, timeout, f"{count} dead letters")
        return self.read(name)

    def caught_up(self, *topics: Topic, group: str | None = None, timeout: float = WAIT) -> None:
        """Wait until the group's lag is 0 on these topics and their retry topics, and figures are as of then."""
        # Retry topics last: copies come from the others.
        names = [topic.name for topic in topics]
        names += [topic.retry.topic for topic in topics if topic.retry and topic.retry.topic]
        member = group or self.group
        seen: dict[str, object] = {}

        def without_lag(name: str) -> bool:
            try:
                seen[name] = group_lag(self.servers, member, name)
            except KafkaException as error:  # as above
                seen[name] = error
            return seen[name] == 0

        for name in names:
            try:
                wait_until(partial(without_lag, name), timeout, "no lag", every=0.05)
            except AssertionError:
                raise AssertionError(f"{member} still has a lag after {timeout:g} s: {seen}") from None
        for consumer, told in [(consumer, consumer.stats()) for consumer in self._started]:
            wait_until(
                lambda: consumer.stats() is not told or not consumer.health().alive,  # noqa: B023
                what=f"{consumer!r} tells anew how it is",
            )
