"""What is refused, by name and with the remedy; no broker is asked."""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from retriable_kafka_client import (
    DISCARD,
    AsyncExecutor,
    Cluster,
    ConfigError,
    Consumer,
    ProcessExecutor,
    Retry,
    Topic,
    run_consumers,
)

NOWHERE = Cluster("localhost:1")
ORDERS = Topic("orders", dead_letter=DISCARD)


def consumer(**options: Any) -> Consumer:
    given: dict[str, Any] = {"group_id": "g", "topics": [ORDERS], "handler": print} | options
    return Consumer(given.pop("cluster", NOWHERE), **given)


NOT: dict[str, tuple[Callable[[], object], Sequence[str]]] = {
    "guarantee": (lambda: consumer(guarantee="at_most_once"), ("Consumer.guarantee", "'exactly_once'")),
    "timeout": (lambda: consumer(timeout=0), ("Consumer.timeout", "more than 0")),
    "loop": (lambda: AsyncExecutor(loop=object()), ("AsyncExecutor.loop", "must be an event loop")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NOT)
def test_what_cannot_be_is_refused_by_name(name: str) -> None:
    make, words = NOT[name]
    with pytest.raises(ConfigError) as failure:
        make()
    assert all(word in str(failure.value) for word in words)
    assert failure.value.field == words[0]


async def coroutine(*_given: object) -> None: ...


def generator(_message: object) -> Any:
    yield


def plain(_message: object) -> None: ...


def topic(name: str, retry: str | None, dead: str) -> Topic:
    return Topic(name, retry=None if retry is None else Retry(retry), dead_letter=dead)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "an order that is none": (lambda: consumer(ordering="keys"), "Consumer.ordering"),
    "an order that is no text": (lambda: consumer(ordering=None), "Consumer.ordering"),
    "a retry topic in order of keys": (
        lambda: consumer(ordering="key", topics=[topic("a", "a-retry", "dead")]),
        "Retry.topic",
    ),
    "a retry topic in order of partitions": (
        lambda: consumer(ordering="partition", topics=[ORDERS, topic("a", "a-retry", "dead")]),
        "Retry.topic",
    ),
    "no topics": (lambda: consumer(topics=[]), "Consumer.topics"),
    "topics as a text": (lambda: consumer(topics="orders"), "Consumer.topics"),
    "a topic's name": (lambda: consumer(topics=["orders"]), "Consumer.topics[0]"),
    "the same topic twice": (lambda: consumer(topics=[ORDERS, ORDERS]), "Topic.name"),
    "retry topic is the topic": (lambda: topic("a", "a", "d"), "Retry.topic"),
    "dead letters into the topic": (lambda: topic("a", None, "a"), "Topic.dead_letter"),
    "dead letters into the retry topic": (lambda: topic("a", "r", "r"), "Topic.dead_letter"),
    "retry topic handled besides": (
        lambda: consumer(topics=[topic("a", "b", "d"), topic("b", None, "d")]),
        "Retry.topic",
    ),
    "dead letters into another's retry topic": (
        lambda: consumer(topics=[topic("a", "r", "d"), topic("b", None, "r")]),
        "Topic.dead_letter",
    ),
    "a circle": (
        lambda: consumer(topics=[topic("a", None, "b"), topic("b", None, "a")]),
        "Topic.dead_letter",
    ),
    "a longer circle": (
        lambda: consumer(topics=[topic("a", None, "b"), topic("b", "r", "c"), topic("c", None, "a")]),
        "Topic.dead_letter",
    ),
    "one retry topic, two dead-letter topics": (
        lambda: consumer(topics=[topic("a", "r", "d"), topic("b", "r", "e")]),
        "Topic.dead_letter",
    ),
    "no group": (lambda: consumer(group_id=""), "Consumer.group_id"),
    "group of another type": (lambda: consumer(group_id=5), "Consumer.group_id"),
    "cluster of another type": (lambda: consumer(cluster="localhost"), "Consumer.cluster"),
    "handler that is none": (lambda: consumer(handler=None), "Consumer.handler"),
    "filter that is none": (lambda: consumer(filter=5), "Consumer.filter"),
    "on_event that is none": (lambda: consumer(on_event="x"), "Consumer.on_event"),
    "deserializer that is none": (lambda: consumer(deserializer=None), "Consumer.deserializer"),
    "no threads": (lambda: consumer(executor=0), "Consumer.executor"),
    "True threads": (lambda: consumer(executor=True), "Consumer.executor"),
    "executor of another type": (lambda: consumer(executor="16"), "Consumer.executor"),
    "commit_interval of nothing": (lambda: consumer(commit_interval=0), "Consumer.commit_interval"),
    "unknown guarantee": (lambda: consumer(guarantee="at_most_once"), "Consumer.guarantee"),
    "limits of another type": (lambda: consumer(limits=None), "Consumer.limits"),
    "error_text of another type": (lambda: consumer(error_text="yes"), "Consumer.error_text"),
    "an order of another type": (lambda: consumer(ordering=[]), "Consumer.ordering"),
    "a filter that must be awaited": (lambda: consumer(filter=coroutine), "Consumer.filter"),
    "a deserializer that must be awaited": (
        lambda: consumer(deserializer=coroutine),
        "Consumer.deserializer",
    ),
    "an on_event that must be awaited": (lambda: consumer(on_event=coroutine), "Consumer.on_event"),
    "an async handler on threads": (lambda: consumer(handler=coroutine), "Consumer.handler"),
    "a generator as handler": (
        lambda: consumer(handler=generator, executor=ThreadPoolExecutor(1)),
        "Consumer.handler",
    ),
    "a function on an event loop": (
        lambda: consumer(handler=plain, executor=AsyncExecutor()),
        "Consumer.handler",
    ),
    "nothing to run": (run_consumers, "run_consumers.consumers"),
    "no consumer to run": (lambda: run_consumers([consumer()]), "run_consumers.consumers"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_named(name: str) -> None:
    make, field = WRONG[name]
    with pytest.raises(ConfigError) as failure:
        make()
    assert failure.value.field == field
    assert failure.value.remedy


def test_a_chain_of_dead_letters_is_no_circle() -> None:
    consumer(topics=[topic("a", "r", "b"), topic("b", None, "c"), topic("c", None, "d")])


def does_not_pickle() -> Consumer:
    return consumer(handler=lambda _message: None, executor=ProcessExecutor(1))


def test_a_handler_that_does_not_pickle_is_refused_before_anything_starts() -> None:
    made = does_not_pickle()
    with pytest.raises(ConfigError, match=r"Consumer\.handler"):
        made.start()
    assert not made.health().alive
    with pytest.raises(ConfigError, match=r"Consumer\.handler"):
        made.join(timedelta(seconds=10))
    with pytest.raises(RuntimeError, match="once"):
        made.run()


def test_one_that_cannot_begin_ends_those_that_were_to_run_with_it() -> None:
    first, wrong = consumer(), does_not_pickle()
    with pytest.raises(ConfigError, match=r"Consumer\.handler"):
        run_consumers(first, wrong)
    assert first.join(30)
    again = consumer()
    with pytest.raises(RuntimeError, match="once"):
        run_consumers(again, again)
    assert again.join(30)


def test_a_constructor_asks_nobody() -> None:
    """Whoever listens there hears nothing before run()."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(0.5)
        made = consumer(cluster=Cluster(f"127.0.0.1:{server.getsockname()[1]}"))
        with pytest.raises(TimeoutError):
            pool.submit(server.accept).result()
        assert made.health().reasons == ("not started",)
        assert made.stats().arrived == 0
        made.stop()
        assert made.join(0)
