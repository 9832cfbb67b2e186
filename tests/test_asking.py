"""Another client takes the place of one whose question stays unanswered."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.brokers.asking import Asker, Listed
from tests.support.waiting import wait_until

TOPICS = SimpleNamespace(cluster_id="a-cluster")


class Client:
    """Lists when the brokers let it."""

    def __init__(self, brokers: "Brokers") -> None:
        self._brokers = brokers

    def list_topics(self, timeout: float) -> Any:
        assert timeout >= 1.0
        answer = self._brokers.answer(self)
        if isinstance(answer, KafkaException):
            raise answer
        return answer


class Brokers:
    def __init__(self) -> None:
        self.made: list[Client] = []
        self.answers: dict[int, Any] = {}  # by the number of the client
        self._changed = threading.Condition()

    def make(self) -> Any:
        client = Client(self)
        with self._changed:
            self.made.append(client)
        return client

    def let(self, number: int, answer: Any = TOPICS) -> None:
        with self._changed:
            self.answers[number] = answer
            self._changed.notify_all()

    def answer(self, client: Client) -> Any:
        with self._changed:
            number = self.made.index(client)
            assert self._changed.wait_for(lambda: number in self.answers, 30)
            return self.answers[number]


@pytest.fixture
def brokers() -> Any:
    made = Brokers()
    yield made
    for number in range(len(made.made)):
        made.let(number)  # so that no thread is left


def listed(asker: Asker, now: float, since: float | None) -> Listed:
    found: list[Listed] = []

    def there() -> bool:
        one = asker.look(now, since)
        found.extend([] if one is None else [one])
        return bool(found)

    wait_until(there)
    return found[0]


def test_a_question_that_is_answered_keeps_its_client(brokers: Brokers) -> None:
    asker: Any = Asker(brokers.make)
    asker.list_topics(0.0, 25.0)
    brokers.let(0)
    assert listed(asker, 0.1, 0.0).metadata is TOPICS
    for now in range(1, 100):
        assert asker.look(now, None) is None
        assert asker.look(now + 0.5, now) is None  # what is under way is not old
    assert len(brokers.made) == 1


def test_where_nothing_is_answered_another_client_is_asked_and_the_first_answer_counts(
    brokers: Brokers,
) -> None:
    asker: Any = Asker(brokers.make)
    first = asker.client
    asker.list_topics(0.0, 25.0)
    assert asker.look(2.9, 0.0) is None and len(brokers.made) == 1
    asker.look(3.1, 0.0)
    wait_until(lambda: len(brokers.made) == 2)
    asker.look(5.0, 0.0)
    assert len(brokers.made) == 2 and asker.client is first
    brokers.let(1)
    found = listed(asker, 5.1, 0.0)
    made: Any = brokers.made[1]
    assert found.client is made and asker.client is made
    # The next question of the new client has as much time again.
    assert asker.look(6.0, 5.2) is None and len(brokers.made) == 2


def test_a_first_client_that_is_only_slow_may_answer_after_others_were_asked(brokers: Brokers) -> None:
    asker: Any = Asker(brokers.make)
    first = asker.client
    asker.list_topics(0.0, 25.0)
    asker.look(3.1, 0.0)
    wait_until(lambda: len(brokers.made) == 2)
    brokers.let(0)
    assert listed(asker, 4.0, 0.0).client is first is asker.client


def test_clients_in_vain_are_made_ever_more_rarely_and_at_least_every_ten_seconds(brokers: Brokers) -> None:
    asker: Any = Asker(brokers.make)
    brokers.let(1, KafkaException(KafkaError(KafkaError._TRANSPORT)))
    asked_at = 0.0
    for made, pause in enumerate((3.0, 6.0, 10.0, 10.0, 10.0), 2):
        assert asker.look(asked_at + pause - 0.1, 0.0) is None
        asker.look(asked_at + pause, 0.0)
        wait_until(lambda: len(brokers.made) >= made)  # noqa: B023
        assert len(brokers.made) == made
        asked_at += pause
