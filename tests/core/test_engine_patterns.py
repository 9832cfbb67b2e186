"""Routes by pattern, as the engine sees them."""

import pytest

from retriable_kafka_client import events as ev
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine, EngineConfig, Route
from retriable_kafka_client.core.retry import Policy
from tests.core.harness import After, Bench, Raw, due_in, failure, only, produced, read, run, told


def bench(*routes: Route) -> Bench:
    made = Bench()
    config = EngineConfig(
        group="group",
        routes=routes,
        in_flight=100,
        window=100,
        buffer_bytes=1_000_000,
        commit_interval=1.0,
        parking_interval=60.0,
    )
    made.engine = Engine(config, read)
    return made


def route(topic: str, retry: str | None = None, dead: str | None = "dead") -> Route:
    policy = Policy(max_attempts=3, delay=After(1.0)) if retry else None
    return Route(topic=topic, retry_topic=retry, dead_letter=dead, policy=policy)


def test_a_copy_goes_back_to_the_retry_topic_that_it_came_from() -> None:
    one = bench(route("orders", "^retry-.*"))
    place = p.Place("retry-a", 0)
    one.assign(place)
    (entry,) = run(one.arrive(place, (0, due_in(one, -1.0, failed=1))))
    sent = one.fail(entry)
    assert (sent.kind, sent.target, sent.marks.failed) == (p.HandOffKind.RETRY, "retry-a", 2)


@pytest.mark.parametrize("dead", ["dead", None])
def test_from_a_base_topic_there_is_no_retry_topic_by_pattern(dead: str | None) -> None:
    one = bench(route("orders", "^retry-.*", dead))
    place = p.Place("orders", 0)
    one.assign(place)
    (entry,) = one.plain(place, 0)
    commands = one.tell(p.Finished(failed=[(entry, failure())]))
    (event,) = told(commands, ev.NoRetryTopic)
    assert (event.topic, event.offset, event.attempt, event.pattern) == ("orders", 0, 1, "^retry-.*")
    if dead is None:
        (dropped,) = told(commands, ev.MessageDropped)
        assert dropped.reason == "exhausted"
    else:
        (sent,) = produced(commands)
        assert (sent.kind, sent.target, sent.attempts) == (p.HandOffKind.DEAD_LETTER, dead, 1)
        assert sent.failure is not None and sent.failure.reason == "exhausted"


def test_what_would_not_be_retried_anyway_is_told_as_usual() -> None:
    one = bench(route("orders", "^retry-.*"))
    place = p.Place("orders", 0)
    one.assign(place)
    (entry,) = one.plain(place, 0)
    commands = one.tell(p.Finished(failed=[(entry, failure(retry_in=None))]))
    assert produced(commands) and not told(commands, ev.NoRetryTopic)


def test_topics_by_pattern_park_if_they_are_retry_topics() -> None:
    one = bench(route("^orders-.*", "^retry-.*"))
    places = [p.Place("orders-a", 0), p.Place("retry-b", 0)]
    one.assign(*places)
    assert [one.assignment(place).parks for place in places] == [False, True]


def test_a_topic_that_two_entries_claim_is_not_read() -> None:
    one = bench(route("^orders-.*"), route("^.*-eu$"))
    clear, unclear, other = p.Place("orders-us", 0), p.Place("orders-eu", 0), p.Place("nobodys", 0)
    commands = one.tell(p.Assigned([clear, unclear, other]))
    assert [command.places for command in only(commands, p.FetchCommitted)] == [[clear]]
    reasons = {event.topic: event.reason for event in told(commands, ev.TopicUnclear)}
    assert reasons == one.engine.unclear and set(reasons) == {"orders-eu", "nobodys"}
    assert "make the patterns narrower" in reasons["orders-eu"]
    assert "write the pattern plainer" in reasons["nobodys"]
    # What is polled of it all the same is not taken in, and nothing is committed for it.
    assert run(one.arrive(unclear, (0, Raw()))) == []
    assert run(one.arrive(other, (0, Raw()))) == []
    assert one.commit() is None
    one.tell(p.Revoking([unclear, other]))
    assert one.engine.drained([unclear, other])
    assert not one.engine.last_progress([unclear, other])
    one.tell(p.Ended([unclear, other], "revoked"))
    assert not one.engine.unclear


def test_kafkas_own_topics_are_passed_over_without_a_word() -> None:
    one = bench(route("^.*", dead=None))
    assert one.tell(p.Assigned([p.Place("__consumer_offsets", 0)])) == []
    assert not one.engine.unclear


def test_only_unclear_topics_ask_for_nothing() -> None:
    one = bench(route("^orders-.*"), route("^.*-eu$"))
    assert not only(one.tell(p.Assigned([p.Place("orders-eu", 0)])), p.FetchCommitted)
