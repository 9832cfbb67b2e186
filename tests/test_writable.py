"""How often the brokers are asked whether a topic can be written to."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.brokers.writable import Writable


class Admin:
    """Says no with `code`, if there is one."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.asked = 0

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        self.asked += 1
        futures: dict[str, Future[Any]] = {name: Future() for name in topics.topic_names}
        for future in futures.values():
            if self.code is None:
                future.set_result(SimpleNamespace(authorized_operations=None))
            else:
                future.set_exception(KafkaException(KafkaError(self.code)))
        return futures


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked_within(writable: Writable, admin: Admin, clock: Time, seconds: int) -> int:
    before = admin.asked
    for _ in range(seconds):
        writable.refusals(["orders"])
        clock.now += 1.0
    return admin.asked - before


@pytest.mark.parametrize(
    ("code", "name", "longest"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "TOPIC_AUTHORIZATION_FAILED", 60),
        (KafkaError.TOPIC_EXCEPTION, "TOPIC_EXCEPTION", 10),
    ],
)
def test_a_topic_that_is_refused_again_and_again_is_asked_for_ever_more_rarely(
    code: int, name: str, longest: int
) -> None:
    admin: Any = Admin()
    clock = Time()
    writable = Writable(lambda: admin, clock)
    admin.code = code
    assert asked_within(writable, admin, clock, 120) <= 16
    assert asked_within(writable, admin, clock, 10 * longest) <= 11
    assert writable.refusals(["orders"]) == {"orders": name}
    admin.code = None
    clock.now += longest
    assert writable.refusals(["orders"]) == {}
    clock.now += 60
    admin.code = code
    assert asked_within(writable, admin, clock, 4) >= 2  # it begins anew


class Hung:
    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        return {name: Future() for name in topics.topic_names}


def test_where_another_client_asks_now_an_unanswered_question_is_asked_again() -> None:
    admins: list[Any] = [Hung()]
    clock = Time()
    writable: Any = Writable(lambda: admins[-1], clock)
    assert writable.refusals(["orders"]) == {}  # the transaction shall find out
    assert writable.waits_since == 100.0
    clock.now += 5
    admin = Admin()
    admin.code = KafkaError.TOPIC_AUTHORIZATION_FAILED
    admins.append(admin)
    assert writable.refusals(["orders"]) == {"orders": "TOPIC_AUTHORIZATION_FAILED"}
    assert writable.waits_since is None
