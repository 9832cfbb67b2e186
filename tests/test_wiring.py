"""What cannot stand together in one consumer's topics, as far as names tell; and what is subscribed to."""

import pytest

from retriable_kafka_client import DISCARD, Cluster, ConfigError, Consumer, Discard, Retry, Topic
from retriable_kafka_client.consumer.topology import subscription


def topic(name: str, retry: str | None = None, dead: str | Discard = DISCARD) -> Topic:
    return Topic(name, retry=None if retry is None else Retry(retry), dead_letter=dead)


def consumer(*topics: Topic) -> Consumer:
    return Consumer(Cluster("localhost:1"), group_id="g", topics=topics, handler=print)


@pytest.mark.parametrize(
    ("name", "retry", "dead", "field"),
    [
        ("^orders.*", "orders-retry", "d", "Topic.name"),
        ("^orders.*", "r", "orders-dead", "Topic.name"),
        ("orders", "^ord.*", "d", "Retry.topic"),
        ("orders", "^d.*", "dead", "Retry.topic"),
        ("^a.*", "^a.*", "d", "Retry.topic"),
    ],
)
def test_one_entry_alone_is_refused_when_it_is_made(name: str, retry: str, dead: str, field: str) -> None:
    with pytest.raises(ConfigError) as failure:
        topic(name, retry, dead)
    assert failure.value.field == field and failure.value.remedy


REFUSED: dict[str, tuple[list[Topic], str]] = {
    "a pattern takes in another entry's name": ([topic("orders"), topic("^ord.*")], "Topic.name"),
    "a pattern takes in another entry's retry topic": (
        *([topic("^ord.*"), topic("b", "ord-retry")], "Topic.name"),
    ),
    "a pattern takes in another entry's dead-letter topic": (
        *([topic("^ord.*"), topic("b", None, "ord-dead")], "Topic.name"),
    ),
    "round through a pattern": (*([topic("^ord.*", None, "b"), topic("b", None, "orders")], "Topic.name"),),
    "a retry pattern takes in another entry's name": (
        *([topic("a", "^r.*"), topic("recent")], "Retry.topic"),
    ),
    "a retry pattern takes in another entry's dead-letter topic": (
        *([topic("a", "^r.*"), topic("b", None, "rest")], "Retry.topic"),
    ),
    "a retry pattern that is another entry's pattern": ([topic("a", "^r.*"), topic("^r.*")], "Retry.topic"),
    "the same pattern twice": ([topic("^ord.*"), topic("^ord.*")], "Topic.name"),
    "one retry pattern, two dead-letter topics": (
        *([topic("a", "^r.*", "d"), topic("b", "^r.*", "e")], "Topic.dead_letter"),
    ),
    "a retry topic in two patterns, two dead-letter topics": (
        *([topic("a", "^r.*", "d"), topic("b", "r-b", "e")], "Retry.topic"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("turned", [False, True])
def test_entries_that_stand_in_each_others_way(name: str, turned: bool) -> None:
    topics, field = REFUSED[name]
    with pytest.raises(ConfigError) as failure:
        consumer(*(reversed(topics) if turned else topics))
    assert failure.value.field == field and failure.value.remedy


def test_entries_that_do_not() -> None:
    consumer(
        topic("^orders-.*", "^retry-orders-.*", "dead"),
        topic("bills", "retry-bills", "dead"),
        topic("^calls-.*", "retry-calls", "dead"),
        topic("^mails-.*", "retry-calls", "dead"),
        topic("notes", "^retry-orders-.*", "dead"),
    )


def test_the_new_protocol_matches_whole_names() -> None:
    names = ["orders", "^a|^b$"]
    assert subscription(names, "classic") == names
    assert subscription(names, "consumer") == ["orders", "^.*(^a|^b$).*"]


@pytest.mark.parametrize(
    "names", ["billing", b"billing", 3, None, [""], ["a", None], ["g"], ("a", "g"), [b"a"]]
)
def test_former_groups_are_names_of_other_groups(names: object) -> None:
    with pytest.raises(ConfigError) as failure:
        Consumer(
            Cluster("localhost:1"),
            group_id="g",
            topics=[topic("orders")],
            handler=print,
            former_groups=names,  # type: ignore[arg-type]
        )
    assert failure.value.field == "Consumer.former_groups" and failure.value.remedy


def test_former_groups_may_be_any_collection() -> None:
    for names in ([], (), {"a", "b"}, ["a", "a"], ("G",)):
        Consumer(
            Cluster("localhost:1"), group_id="g", topics=[topic("orders")], handler=print, former_groups=names
        )
