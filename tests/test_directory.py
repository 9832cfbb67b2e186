"""What the brokers are asked about topics, and how often."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.asking import Asker
from retriable_kafka_client.brokers.client import admin_settings, open_client
from retriable_kafka_client.brokers.topics import TopicDirectory
from retriable_kafka_client.config import Cluster
from retriable_kafka_client.consumer.topic_checks import check
from retriable_kafka_client.core.engine import Route
from retriable_kafka_client.errors import NotReachable
from retriable_kafka_client.testing import MockKafka

Outcome = str | KafkaException
MINUTE = 60.0


def failure(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


REFUSED = failure(KafkaError.TOPIC_AUTHORIZATION_FAILED)
MISSING = failure(KafkaError.UNKNOWN_TOPIC_OR_PART)


class Admin:
    """Answers at once, or, while it is `slow`, when it is told to."""

    def __init__(self) -> None:
        self.ids: dict[str, Outcome] = {}
        self.settings: dict[str, str | KafkaException] = {}  # retention.ms
        self.slow = False
        self.described: list[list[str]] = []
        self.configured: list[list[str]] = []
        self._waiting: list[Callable[[], None]] = []

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        names = list(topics.topic_names)
        self.described.append(names)
        return self._futures(
            names,
            lambda name: _or_raise(
                self.ids.get(name, "id-" + name),
                lambda told: SimpleNamespace(topic_id=told, authorized_operations=None),
            ),
        )

    def describe_configs(self, resources: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        asked = list(resources)
        self.configured.append([one.name for one in asked])
        return self._futures(
            asked,
            lambda one: _or_raise(
                self.settings.get(one.name, "5000"),
                lambda told: {"retention.ms": SimpleNamespace(value=told)},
            ),
        )

    def _futures(self, keys: list[Any], answer: Callable[[Any], Any]) -> dict[Any, Future[Any]]:
        futures: dict[Any, Future[Any]] = {key: Future() for key in keys}

        def settle() -> None:
            for key, future in futures.items():
                try:
                    future.set_result(answer(key))
                except KafkaException as error:
                    future.set_exception(error)

        if self.slow:
            self._waiting.append(settle)
        else:
            settle()
        return futures

    def answer(self, most: int = 100) -> None:
        waiting, self._waiting = self._waiting[:most], self._waiting[most:]
        for settle in waiting:
            settle()


def _or_raise(outcome: Outcome, told: Callable[[str], Any]) -> Any:
    if isinstance(outcome, KafkaException):
        raise outcome
    return told(outcome)


class World:
    """A directory, its brokers, and a clock."""

    def __init__(self, *names: str) -> None:
        self.admin = Admin()
        admin: Any = self.admin
        self.directory = TopicDirectory(
            admin, "a-cluster", set(names), keeps=lambda name: name.endswith("retry")
        )
        self.names = names
        self.troubled: tuple[str, ...] = ()
        self.now = 1000.0

    def assign(self) -> None:
        self.directory.expire(self.names)

    def round(self, seconds: float = 0.05) -> list[str]:
        self.now += seconds
        return self.directory.refresh(lambda: self.names, self.now, troubled=self.troubled)

    def pass_time(self, seconds: float, step: float = 0.1) -> list[str]:
        changed: list[str] = []
        for _ in range(round(seconds / step)):
            changed += self.round(step)
        return changed

    def waits(self) -> bool:
        return self.directory.waits_since is not None

    def uid(self, name: str) -> str | None:
        facts = self.directory.facts(name)
        return None if facts is None else facts.uid


def test_a_thousand_topics_are_one_question_a_minute() -> None:
    names = [f"topic-{i}" for i in range(1000)]
    world = World(*names)
    world.assign()
    world.round()
    world.round()
    assert all(world.uid(name) == "id-" + name for name in names)
    assert [sorted(one) for one in world.admin.described] == [sorted(names)]
    world.pass_time(MINUTE - 1)
    assert len(world.admin.described) == 1
    world.pass_time(10 * MINUTE, step=0.5)
    assert 9 <= len(world.admin.described) - 1 <= 11
    assert world.admin.configured == []  # they keep no copies


def test_what_points_to_a_change_is_asked_for_soon() -> None:
    world = World("one", "two")
    world.assign()
    world.pass_time(10)
    world.admin.ids["two"] = "another"
    world.directory.suspect("two")
    assert world.pass_time(2) == ["two"]
    assert world.admin.described[1:] == [["two"]]
    assert world.uid("two") == "another"


def test_a_topic_made_anew_without_a_sign_is_noticed_within_a_minute() -> None:
    world = World("one")
    world.assign()
    world.pass_time(10)
    world.admin.ids["one"] = "another"
    assert world.pass_time(MINUTE) == ["one"]


def test_signs_without_end_are_asked_about_ever_more_rarely() -> None:
    world = World("one")
    world.assign()
    world.pass_time(5)
    for _ in range(3000):
        world.directory.suspect("one")
        world.round(0.1)
    assert len(world.admin.described) <= 15


def test_a_sign_while_a_question_is_under_way_is_not_lost() -> None:
    world = World("one")
    world.assign()
    world.pass_time(5)
    world.admin.slow = True
    world.directory.suspect("one")
    world.pass_time(1)
    world.directory.suspect("one")
    world.admin.answer()
    world.pass_time(3)
    assert len(world.admin.described) == 3


def test_an_answer_counts_however_late_it_is() -> None:
    world = World("one")
    world.admin.slow = True
    world.assign()
    world.pass_time(40)
    assert world.uid("one") is None
    assert len(world.admin.described) == 1
    world.admin.answer()
    world.round()
    assert world.uid("one") == "id-one"


def test_an_answer_from_before_an_assignment_does_not_count_for_it() -> None:
    world = World("one")
    world.admin.slow = True
    world.assign()
    world.pass_time(1)
    world.assign()
    world.admin.answer()
    world.round()
    assert world.uid("one") is None
    world.admin.ids["one"] = "another"
    world.admin.answer()
    world.round()
    assert world.uid("one") == "another"


def test_questions_of_a_client_that_is_replaced_are_asked_again() -> None:
    world, other = World("one-retry"), Admin()
    world.admin.slow = True
    world.assign()
    world.pass_time(1)
    given: Any = other
    world.directory.replace_admin(given)
    world.round()
    world.round()
    assert world.uid("one-retry") == "id-one-retry"
    facts = world.directory.facts("one-retry")
    assert facts is not None and facts.retention_ms == 5000


def test_settings_that_a_lost_client_was_asked_for_are_asked_for_again() -> None:
    world = World("one-retry")
    world.admin.slow = True
    world.assign()
    world.round()
    world.admin.answer(1)  # which topic it is, and not yet what it keeps
    world.pass_time(1)
    assert world.directory.facts("one-retry") is None
    other: Any = Admin()
    world.directory.replace_admin(other)
    world.pass_time(1)
    facts = world.directory.facts("one-retry")
    assert facts is not None and facts.retention_ms == 5000


def test_what_was_asked_of_two_clients_counts_as_the_first_answer_says() -> None:
    """The first one's broker hung, and goes on when another one has answered."""
    world, other = World("one-retry"), Admin()
    world.admin.slow = True
    world.assign()
    world.pass_time(4)
    assert world.waits()
    given: Any = other
    other.settings["one-retry"] = "7000"
    world.directory.replace_admin(given)
    world.pass_time(1)
    facts = world.directory.facts("one-retry")
    assert facts is not None and (facts.uid, facts.retention_ms) == ("id-one-retry", 7000)
    assert not world.waits()
    world.admin.ids["one-retry"] = "of-before"
    world.admin.answer()
    assert world.pass_time(1) == []
    assert world.directory.facts("one-retry") == facts


def test_a_client_that_is_only_slow_may_answer_after_another_was_asked() -> None:
    world, other = World("one-retry"), Admin()
    world.admin.slow = other.slow = True
    world.assign()
    world.pass_time(4)
    given: Any = other
    world.directory.replace_admin(given)
    world.round()
    world.admin.answer()
    world.round()
    assert world.uid("one-retry") == "id-one-retry"
    # That the other one's request is lost is of no interest then.
    other.ids["one-retry"] = other.settings["one-retry"] = failure(KafkaError._TIMED_OUT)
    other.answer()
    world.round()
    assert world.uid("one-retry") == "id-one-retry"
    assert not world.directory.missing


class Listing(Admin):
    """A client that has reached a broker. Its questions go to one that may hang (`slow`)."""

    deaf = False  # all brokers hang

    def poll(self, _timeout: float) -> None:
        pass

    def list_topics(self, timeout: float) -> Any:
        assert timeout >= 1.0
        if self.deaf:
            raise failure(KafkaError._TRANSPORT)
        told = SimpleNamespace(error=None, partitions={0: None})
        return SimpleNamespace(cluster_id="a-cluster", topics=dict.fromkeys(("orders", "dead"), told))


def checked(*clients: Listing, timeout: float) -> TopicDirectory | None:
    given: Any = iter(clients)
    return check(
        Asker(lambda: next(given)),
        [Route(topic="orders", retry_topic=None, dead_letter="dead", policy=None)],
        bootstrap_servers="localhost:1",
        timeout=timeout,
        stopped=lambda: False,
        refused_by=lambda: None,
    )


def test_a_broker_that_hangs_does_not_keep_a_consumer_from_starting() -> None:
    hung, well = Listing(), Listing()
    hung.slow = True
    directory = checked(hung, well, timeout=25.0)
    assert directory is not None
    facts = directory.facts("orders")
    assert facts is not None and facts.uid == "id-orders"
    # What the dead-letter topic keeps was asked again, too.
    assert [sorted(one) for one in well.described] == [["dead", "orders"]]
    assert well.configured == [["dead"]]
    assert directory.waits_since is None


def test_a_question_that_was_lost_is_asked_again() -> None:
    client = Listing()
    client.ids["orders"] = failure(KafkaError._TRANSPORT)
    heal = threading.Timer(0.3, lambda: client.ids.pop("orders"))
    heal.start()
    directory = checked(client, timeout=25.0)
    heal.join()
    assert directory is not None
    facts = directory.facts("orders")
    assert facts is not None and facts.uid == "id-orders"


def test_where_no_broker_answers_any_more_the_run_ends() -> None:
    hung, deaf = Listing(), Listing()
    hung.slow, deaf.deaf = True, True
    with pytest.raises(NotReachable, match="what topics there are"):
        checked(hung, deaf, deaf, timeout=4.0)


def test_settings_that_may_not_be_seen_are_hardly_asked_for_again() -> None:
    world = World("orders-retry")
    world.admin.settings["orders-retry"] = REFUSED
    for _ in range(120):  # rebalances
        world.assign()
        world.pass_time(30, step=0.5)
        assert world.uid("orders-retry") == "id-orders-retry"
    assert len(world.admin.configured) <= 9  # in an hour


def test_a_topic_that_may_not_be_described_is_hardly_asked_for_again() -> None:
    world = World("orders")
    world.admin.ids["orders"] = REFUSED
    world.assign()
    world.troubled = ("orders",)
    world.pass_time(600, step=0.5)
    assert world.uid("orders") == "a-cluster.orders"
    assert len(world.admin.described) <= 18


def test_a_missing_topic_that_is_back_is_found_within_some_seconds() -> None:
    world = World("orders")
    world.admin.ids["orders"] = MISSING
    world.assign()
    world.pass_time(300)
    assert world.directory.missing == {"orders"}
    assert len(world.admin.described) <= 40
    del world.admin.ids["orders"]
    world.pass_time(10.5)
    assert world.uid("orders") == "id-orders" and not world.directory.missing


def test_brokers_without_topic_ids_that_learn_them_change_nothing() -> None:
    world = World("orders")
    world.admin.ids["orders"] = "A" * 22
    world.assign()
    world.pass_time(1)
    assert world.uid("orders") == "a-cluster.orders"
    world.admin.ids["orders"] = "a-real-one"
    assert world.pass_time(3 * MINUTE) == []
    assert world.uid("orders") == "a-cluster.orders"
    # From then on a topic that is made anew is noticed.
    world.admin.ids["orders"] = "another"
    assert world.pass_time(3 * MINUTE) == ["orders"]
    assert world.uid("orders") == "another"


def test_brokers_without_topic_ids_do_not_make_topics_one() -> None:
    world = World("orders", "refunds")
    world.admin.ids |= {"orders": "A" * 22, "refunds": "A" * 22}
    world.assign()
    world.pass_time(1)
    assert (world.uid("orders"), world.uid("refunds")) == ("a-cluster.orders", "a-cluster.refunds")


@pytest.mark.parametrize("round_trip", [0.12, 1.2])
def test_slow_brokers_are_not_out_of_reach(round_trip: float) -> None:
    with MockKafka({"orders": 2}) as mock:
        mock.set_round_trip(round_trip)
        directory = check(
            Asker(lambda: open_client(AdminClient, admin_settings(Cluster(mock.bootstrap_servers)))),
            [Route(topic="orders", retry_topic=None, dead_letter=None, policy=None)],
            bootstrap_servers=mock.bootstrap_servers,
            timeout=25.0,
            stopped=lambda: False,
            refused_by=lambda: None,
        )
    assert directory is not None and directory.facts("orders") is not None


def test_asking_for_a_topic_by_name_does_not_bring_it_back() -> None:
    """The mock makes topics by itself, as brokers do whose auto.create.topics.enable is true."""
    with MockKafka({"orders": 1}) as mock:
        admin = open_client(AdminClient, admin_settings(Cluster(mock.bootstrap_servers)))
        assert set(admin.list_topics(timeout=10).topics) == {"orders"}
        told = admin.list_topics("deleted", timeout=10).topics
        assert told["deleted"].error is not None
        assert set(admin.list_topics(timeout=10).topics) == {"orders"}
