"""Which entry a topic belongs to, and when that cannot be told."""

import pytest

from retriable_kafka_client.core.routing import Conflict, EntryNames, Role, Routing


def entry(topic: str, retry: str | None = None, dead: str | None = "dead") -> EntryNames:
    return EntryNames(topic, retry, dead)


ORDERS = entry("^orders-.*", "^retry-orders-.*")
BILLS = entry("bills", "retry-bills")


def test_names_and_patterns() -> None:
    routing = Routing([ORDERS, BILLS, entry("^ord$|^late")])
    assert routing.role("orders-a") == Role(0)
    assert routing.role("bills") == Role(1)
    assert routing.role("later") == routing.role("ord") == Role(2)
    assert routing.role("retry-orders-a") == Role(0, (0,))
    assert routing.role("retry-bills") == Role(1, (1,))
    for name in ("orders", "my-orders-a", "bills2", "dead", "order"):
        assert routing.role(name) is None and routing.conflict(name) is None
    assert [routing.is_retry_topic(one) for one in ("bills", "retry-bills", "retry-orders-", "x")] == [
        *(False, True, True, False)
    ]
    assert routing.names == {"bills", "retry-bills", "dead"}
    assert routing.has_names and not Routing([ORDERS]).has_names


def test_a_pattern_is_searched_as_the_client_does_it() -> None:
    assert Routing([entry("^a|b")]).role("xb") == Role(0)


def test_kafkas_own_topics_are_nobodys() -> None:
    routing = Routing([entry("^.*", dead=None)])
    assert routing.role("anything") == Role(0)
    assert routing.role("__consumer_offsets") is None and routing.conflict("__consumer_offsets") is None


def test_the_origin_tells_whose_a_copy_is() -> None:
    routing = Routing([entry("^a-.*", "retry"), entry("b", "retry"), entry("c", "other")])
    assert routing.role("retry") == Role(0, (0, 1))
    assert routing.of_origin("retry", "a-1") == 0
    assert routing.of_origin("retry", "b") == 1
    assert routing.of_origin("retry", "retry") == 0  # a job that was sent there
    assert routing.of_origin("retry", "c") is None  # its copies go elsewhere
    assert routing.of_origin("retry", "other") is None
    assert routing.of_origin("b", "b") is None  # no retry topic
    assert routing.of_origin("nowhere", "b") is None


def test_an_origin_that_two_entries_claim_is_nobodys() -> None:
    routing = Routing([entry("^a.*", "retry"), entry("^.*b$", "retry")])
    assert [routing.of_origin("retry", one) for one in ("ax", "xb", "ab")] == [0, 1, None]


def test_any_number_of_origins_is_answered_alike() -> None:
    routing = Routing([entry("^a", "retry"), entry("b", "retry")])
    for number in range(3_000):
        assert routing.of_origin("retry", f"a{number}") == 0
        assert routing.of_origin("retry", f"x{number}") is None
        assert routing.of_origin("retry", "b") == 1


def test_where_copies_go() -> None:
    routing = Routing([entry("a", "^r-.*"), entry("b", "r2"), entry("c")])
    assert routing.retry_target(0, "r-1") == "r-1"  # back to where the record came from
    assert routing.retry_target(0, "a") is None
    assert routing.retry_target(0, "r2") is None  # another entry's
    assert routing.retry_target(1, "b") == routing.retry_target(1, "r2") == "r2"
    assert routing.retry_target(2, "c") is None


CONFLICTS: dict[str, tuple[list[EntryNames], str, str, str]] = {
    "a pattern takes in its retry topic": (
        *([entry("^orders.*", "orders-retry")], "orders-retry"),
        *("Topic.name", "its copies would run as new messages; make the pattern narrower"),
    ),
    "a pattern takes in another's retry topic": (
        *([entry("^orders.*"), entry("b", "orders-b")], "orders-b"),
        *("Topic.name", "is a retry topic"),
    ),
    "a pattern takes in what a retry pattern takes in": (
        *([entry("^orders-.*", "^.*-retry$")], "orders-x-retry"),
        *("Topic.name", "is a retry topic"),
    ),
    "a pattern takes in its dead-letter topic": (
        *([entry("^orders.*", dead="orders-dead")], "orders-dead"),
        *("Topic.name", "dead letters would run again; make the pattern narrower"),
    ),
    "a pattern takes in another's dead-letter topic": (
        *([entry("^orders.*"), entry("b", dead="orders-dead")], "orders-dead"),
        *("Topic.name", "is a dead-letter topic"),
    ),
    "a retry pattern takes in a topic": (
        *([entry("orders", "^ord.*")], "orders"),
        *("Retry.topic", "is handled as a topic of its own; give retries another one"),
    ),
    "a retry pattern takes in a dead-letter topic": (
        *([entry("orders", "^retry.*", "retry-dead")], "retry-dead"),
        *("Retry.topic", "is a dead-letter topic"),
    ),
    "two patterns take in one topic": (
        *([entry("^orders-.*"), entry("^.*-eu$")], "orders-eu"),
        *("Topic.name", "and so does '^.*-eu$'"),
    ),
    "a name and a pattern": (
        *([entry("orders"), entry("^ord.*")], "orders"),
        *("Topic.name", "which entry is to handle it cannot be told; make the patterns narrower"),
    ),
    "one retry topic, two dead-letter topics": (
        *([entry("a", "^r-.*"), entry("b", "r-b", "other")], "r-b"),
        *("Retry.topic", "with different dead-letter topics; give them the same one"),
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_is_not_clearly_one_entrys_is_nobodys(name: str) -> None:
    entries, topic, field, remedy = CONFLICTS[name]
    for given_so in (entries, entries[::-1]):
        routing = Routing(given_so)
        found = routing.conflict(topic)
        assert isinstance(found, Conflict) and routing.role(topic) is None
        assert found.field == field
        assert found.value.startswith("^") and repr(topic) in found.remedy
        assert not routing.is_retry_topic(topic) and routing.of_origin(topic, topic) is None
    first = Routing(entries).conflict(topic)
    assert first is not None and remedy in first.remedy and remedy in str(first)


def test_what_names_alone_tell() -> None:
    conflict = Routing([entry("^orders.*", "orders-retry")]).first_conflict()
    assert conflict is not None and conflict.value == "^orders.*"
    assert Routing([entry("^a.*"), entry("^.*a$")]).first_conflict() is None  # no such topic stands by name
    # A chain of dead letters is no circle.
    assert Routing([entry("a", dead="b"), entry("b", dead="c")]).first_conflict() is None


def test_a_copy_may_name_its_topic_as_it_was_called_before() -> None:
    primary = EntryNames("primary.orders", "retry", "dead", ("orders", "sales"))
    other = EntryNames("refunds", "retry", "dead")
    routing = Routing([other, primary])
    assert [routing.of_origin("retry", name) for name in ("primary.orders", "orders", "sales")] == [1, 1, 1]
    assert routing.of_origin("retry", "refunds") == 0
    assert routing.of_origin("retry", "nobody") is None
    assert routing.names == {"primary.orders", "refunds", "retry", "dead"}  # nothing of the others is read


def test_who_is_called_so_now_goes_before_who_was_before() -> None:
    routing = Routing(
        [EntryNames("primary.orders", "retry", "dead", ("orders",)), EntryNames("^orders$", "retry", "dead")]
    )
    assert routing.of_origin("retry", "orders") == 1
