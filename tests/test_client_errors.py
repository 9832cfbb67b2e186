"""What the client reports: what ends the run, what is waited out, and when it is over."""

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from retriable_kafka_client import ConsumerFailed
from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.core.broker_silence import Hearing
from retriable_kafka_client.core.protocol import Place

FATAL = (
    KafkaError(KafkaError._FATAL, "Fatal error: Broker: Static consumer fenced by other consumer"),
    KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced"),
    KafkaError(KafkaError.UNSUPPORTED_VERSION, "too old"),
    KafkaError(KafkaError.INVALID_REQUEST, "whatever", fatal=True),
)


def report(error: KafkaError, place: Place | None = None) -> Message:
    """An error that a poll brings in a record's place."""
    if place is None:
        return Message(error=error)
    return Message(topic=place.topic, partition=place.partition, error=error)


class Polls:
    def __init__(self) -> None:
        self.problems = Problems("billing")
        self.errors = ClientErrors(
            self.problems,
            group="billing",
            topics=["orders"],
            servers="somewhere",
            position_gone=lambda _topic, _partition: False,
        )

    def report(self, code: int, place: Place | None = None) -> None:
        self.errors.sift([report(KafkaError(code), place)])

    @property
    def reasons(self) -> str:
        return " ".join(self.problems.reasons())


@pytest.fixture
def polls() -> Polls:
    return Polls()


@pytest.mark.parametrize("error", FATAL, ids=lambda error: error.name())
@pytest.mark.parametrize("assigned", [False, True])
def test_every_fatal_error_ends_the_run(polls: Polls, error: KafkaError, assigned: bool) -> None:
    if assigned:
        polls.errors.belong()
    with pytest.raises(ConsumerFailed, match="fatal"):
        polls.errors.sift([report(error)])
    with pytest.raises(ConsumerFailed, match="fatal"):
        polls.errors.client(error)


def test_a_fenced_static_member_is_told_why(polls: Polls) -> None:
    with pytest.raises(ConsumerFailed, match=r"group\.instance\.id"):
        polls.errors.client(FATAL[0])


def test_a_partition_that_stands_is_in_trouble_until_it_moves(polls: Polls) -> None:
    stands, other = Place("orders", 3), Place("orders", 4)
    polls.report(KafkaError._AUTO_OFFSET_RESET, stands)
    assert "orders/3" in polls.reasons and "_AUTO_OFFSET_RESET" in polls.reasons
    polls.errors.moved(other)
    polls.errors.look(1e12)
    assert "orders/3" in polls.reasons
    polls.errors.moved(stands)
    assert not polls.reasons


def test_the_trouble_of_a_partition_ends_when_it_is_taken_away(polls: Polls) -> None:
    stands = Place("orders", 3)
    polls.report(KafkaError._AUTO_OFFSET_RESET, stands)
    polls.errors.ended([Place("orders", 4)])
    assert polls.reasons
    polls.errors.ended([stands])
    assert not polls.reasons


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (KafkaError.INCONSISTENT_GROUP_PROTOCOL, "partition.assignment.strategy"),
        (KafkaError.GROUP_MAX_SIZE_REACHED, "group.max.size"),
        (KafkaError.UNRELEASED_INSTANCE_ID, "group.instance.id"),
    ],
)
def test_a_refused_join_names_the_remedy_until_the_group_lets_us_in(
    polls: Polls, code: int, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        polls.report(code)
        polls.errors.look(0.0)
    errors: list[Any] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and named in errors[0].getMessage()
    polls.errors.look(1e12)
    assert named in polls.reasons


@pytest.mark.parametrize("code", [KafkaError.INVALID_SESSION_TIMEOUT, KafkaError.UNSUPPORTED_ASSIGNOR])
def test_a_setting_that_no_group_takes_ends_the_run(polls: Polls, code: int) -> None:
    with pytest.raises(ConsumerFailed, match=r"session\.timeout\.ms|assignor"):
        polls.report(code)


def test_only_brokers_that_do_not_answer_end_a_join(monkeypatch: pytest.MonkeyPatch, polls: Polls) -> None:
    at = 0.0
    monkeypatch.setattr("time.monotonic", lambda: at)
    polls.errors.begin()
    down = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    at = 100.0
    polls.errors.reached(90.0)
    polls.errors.client(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))
    polls.errors.client(down)
    at = 116.0
    with pytest.raises(ConsumerFailed, match="somewhere"):
        polls.errors.client(down)


def test_only_brokers_that_answer_say_that_there_is_no_coordinator() -> None:
    hearing = Hearing()
    hearing.note("query-coord", answering=False, now=0.0)
    assert not hearing.is_none(100.0, 17.0)
    hearing.note("wait-coord", answering=True, now=100.0)
    assert not hearing.is_none(116.0, 17.0)
    assert hearing.is_none(117.0, 17.0)
    hearing.note("wait-broker-transport", answering=True, now=118.0)  # it has a name, and may come back
    assert not hearing.is_none(1000.0, 17.0)
    hearing.note("query-coord", answering=True, now=1000.0)
    hearing.note("up", answering=True, now=1010.0)
    assert not hearing.is_none(1020.0, 17.0)
