from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.brokers.topic_limits import TopicLimits


class Entry:
    def __init__(self, value: str) -> None:
        self.value = value


class Cluster:
    cluster_id = "a-cluster"


class Admin:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Future[Any]]] = []
        self.down = False

    def list_topics(self, timeout: float) -> Cluster:
        if self.down:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return Cluster()

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[Any]]:
        self.asked.append((resources[0].name, Future()))
        return {resources[0]: self.asked[-1][1]}

    def answer(self, limit: str) -> None:
        self.asked[-1][1].set_result({"max.message.bytes": Entry(limit)})


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[TopicLimits, Admin, Time]:
    admin: Any = Admin()
    clock = Time()
    return TopicLimits(lambda: admin, clock), admin, clock


def test_a_topic_is_asked_for_once() -> None:
    limits, admin, clock = make()
    assert limits.limit("orders") is None
    assert limits.pending("orders")
    assert limits.pending("orders")
    assert limits.limit("orders") is None
    admin.answer("5000")
    assert limits.limit("orders") == 5000
    clock.now += 3600
    assert not limits.pending("orders")
    assert [topic for topic, _ in admin.asked] == ["orders"]


def test_after_a_refusal_it_is_asked_for_again_and_the_old_limit_counts_meanwhile() -> None:
    limits, admin, _ = make()
    limits.pending("orders")
    admin.answer("5000")
    limits.pending("orders")
    limits.expire("orders")
    limits.expire("orders")
    assert limits.pending("orders")
    assert limits.limit("orders") == 5000
    admin.answer("3000")
    assert not limits.pending("orders")
    assert limits.limit("orders") == 3000
    assert len(admin.asked) == 2


def test_who_is_not_told_asks_again_only_a_minute_later() -> None:
    limits, admin, clock = make()
    limits.pending("orders")
    admin.asked[-1][1].set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    assert not limits.pending("orders")
    assert limits.limit("orders") is None
    clock.now += 59
    assert not limits.pending("orders")
    clock.now += 2
    assert limits.pending("orders")


def test_nobody_is_waited_for_where_nobody_answers() -> None:
    limits, admin, clock = make()
    admin.down = True
    assert not limits.pending("orders")
    admin.down = False
    assert not limits.pending("orders")
    clock.now += 61
    assert limits.pending("orders")


def test_an_answer_that_is_none_is_no_limit() -> None:
    limits, admin, _ = make()
    limits.pending("orders")
    admin.answer("many")
    assert not limits.pending("orders")
    assert limits.limit("orders") is None


def test_who_is_refused_again_and_again_asks_ever_more_rarely() -> None:
    limits, admin, clock = make()
    asked_at = []
    while clock.now < 100.0 + 3600:
        if limits.pending("orders"):
            asked_at.append(clock.now)
            admin.asked[-1][1].set_exception(
                KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
            )
            assert not limits.pending("orders")
        clock.now += 1.0
    assert [round(at - 100) for at in asked_at] == [0, 60, 180, 420, 900, 1860, 2820]


def test_where_another_client_asks_now_an_unanswered_question_is_asked_again() -> None:
    admins: Any = [Admin()]
    limits: Any = TopicLimits(lambda: admins[-1], Time())
    assert limits.pending("orders") and limits.pending("orders")
    assert limits.waits_since == 100.0
    limits.pending("refunds")
    admins[0].answer("1000")  # nobody looks for that any more
    assert limits.waits_since == 100.0
    admins.append(Admin())
    assert limits.pending("orders") and limits.pending("orders")
    assert [len(one.asked) for one in admins] == [2, 1]
    admins[1].answer("5000")
    assert limits.waits_since is None
    assert not limits.pending("orders")
    admins[0].asked[0][1].set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
    assert limits.limit("orders") == 5000
