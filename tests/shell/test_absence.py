"""A client that does not find back, to the brokers or into its group, is replaced, and only such a one."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from retriable_kafka_client import Limits
from retriable_kafka_client import events as ev
from retriable_kafka_client.brokers.client import admin_settings, open_client, producer_settings
from retriable_kafka_client.brokers.reachability import (
    PATIENCE_SECONDS,
    REACH_SECONDS,
    BrokerReachability,
    GroupReachability,
)
from retriable_kafka_client.brokers.topic_limits import TopicLimits
from retriable_kafka_client.consumer import session
from retriable_kafka_client.consumer.connectivity import Connectivity
from retriable_kafka_client.consumer.handoff_producer import HandOffProducer
from retriable_kafka_client.testing import MockKafka
from tests.shell.lab import Lab, Log, settings_of
from tests.shell.test_handoff_split import entry, record, retry
from tests.support.waiting import wait_until


class Brokers:
    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def ask(self) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]


def test_who_is_in_the_group_or_was_not_yet_is_not_absent() -> None:
    brokers = Brokers()
    absence = GroupReachability(brokers.ask)
    assert not absence.should_replace(1e9)
    absence.begin(0.0)
    absence.end()
    assert not absence.should_replace(1e9)
    assert brokers.asked == []


def test_it_is_vain_after_a_while_if_the_brokers_answer() -> None:
    brokers = Brokers()
    absence = GroupReachability(brokers.ask)
    absence.begin(10.0)
    absence.begin(20.0)  # lost again, never having been back
    assert not absence.should_replace(10.0 + PATIENCE_SECONDS - 1)
    now = 10.0 + PATIENCE_SECONDS
    assert not absence.should_replace(now)
    brokers.asked[0].set_exception(TimeoutError())
    assert not absence.should_replace(now + 5)
    assert not absence.should_replace(now + 5)
    brokers.asked[1].set_result(None)
    assert absence.should_replace(now + 6)
    assert not absence.should_replace(now + 7)  # the new client has as long
    brokers_asked = len(brokers.asked)
    assert not absence.should_replace(now + 5 + PATIENCE_SECONDS)
    assert len(brokers.asked) == brokers_asked


class Client:
    """Answers like a client that has a broker, or has none."""

    has_broker = True

    def list_topics(self, topic: str, timeout: float) -> None:
        assert timeout == 0
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT if self.has_broker else KafkaError._TRANSPORT))


def test_a_client_has_its_time_to_find_the_brokers_that_others_reach() -> None:
    """After an outage every client waits for its next try to connect: none is replaced for that."""
    brokers, client = Brokers(), Client()
    reach = BrokerReachability(brokers.ask)

    def passes(begin: int, end: int) -> bool:
        return any(reach.should_replace(client, "t", float(now)) for now in range(begin, end))

    assert not passes(0, 60)
    assert brokers.asked == []
    client.has_broker = False
    assert not passes(60, 70)
    brokers.asked[0].set_exception(TimeoutError())  # the outage
    assert not passes(70, 90)
    brokers.asked[1].set_result(None)  # its end
    assert not passes(90, 100)
    client.has_broker = True
    assert not passes(100, 200)
    client.has_broker = False
    assert not passes(200, 210)
    brokers.asked[2].set_result(None)
    assert not passes(210, 210 + int(REACH_SECONDS))
    assert passes(210 + int(REACH_SECONDS), 240 + int(REACH_SECONDS))  # the question took some seconds, too
    assert len(brokers.asked) == 3


def test_a_client_has_longer_where_others_take_long_to_reach_the_brokers() -> None:
    brokers, client = Brokers(), Client()
    client.has_broker = False
    reach = BrokerReachability(brokers.ask)
    assert not any(reach.should_replace(client, "t", float(now)) for now in range(30))
    brokers.asked[0].set_result(None)
    assert not any(
        reach.should_replace(client, "t", float(now)) for now in range(30, 60 + int(REACH_SECONDS))
    )

    absence = GroupReachability(brokers.ask)
    absence.begin(0.0)
    assert not absence.should_replace(PATIENCE_SECONDS)
    brokers.asked[-1].set_result(None)
    assert not absence.should_replace(PATIENCE_SECONDS + 20.0)


def test_who_is_not_looked_at_for_long_begins_anew() -> None:
    brokers, client = Brokers(), Client()
    client.has_broker = False
    reach = BrokerReachability(brokers.ask)
    assert not any(reach.should_replace(client, "t", float(now)) for now in range(10))
    brokers.asked[0].set_result(None)
    assert not reach.should_replace(client, "t", 9.5)
    assert not reach.should_replace(client, "t", 1000.0)
    assert len(brokers.asked) == 1


# librdkafka's fault needs two of its threads to meet. Without recovery it forgets the brokers just as thoroughly.
FORGETFUL: dict[str, Any] = {
    "metadata.recovery.strategy": "none",
    "topic.metadata.refresh.interval.ms": 200,
    "statistics.interval.ms": 100,
}


class Told:
    """What a client's statistics say."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.fetches: list[int] = []

    def __call__(self, told: str) -> None:
        brokers = json.loads(told)["brokers"].values()
        self.known = {one["nodeid"] for one in brokers if one["nodeid"] > 0}
        self.fetches.append(sum(one["req"].get("Fetch", 0) for one in brokers))

    @property
    def rests(self) -> bool:
        """It fetches nothing: a mock partition without a leader would crash."""
        return len(self.fetches) > 3 and self.fetches[-1] == self.fetches[-4]


@pytest.fixture
def lab_and_kafka() -> Iterator[tuple[Lab, MockKafka]]:
    with MockKafka() as kafka:

        def create(name: str, partitions: int, _config: object) -> None:
            kafka.create_topic(name, partitions)

        with Lab(kafka.bootstrap_servers, create, "forgetful", real=False) as lab:
            yield lab, kafka


def test_a_consumer_that_knows_of_no_broker_gets_another_client(lab_and_kafka: tuple[Lab, MockKafka]) -> None:
    """As after a single broker's pause: for an instant the cluster names none, and then it is too late."""
    lab, kafka = lab_and_kafka
    told, runs = Told(), Log()
    topic = lab.entry(retry=False)
    consumer = lab.consumer(
        topic, lambda m: runs.add(m.body), settings={**settings_of("classic"), **FORGETFUL, "stats_cb": told}
    )
    consumer.pause()
    consumer.start()
    wait_until(lambda: len(lab.events.of(ev.AssignmentStarted)) == 2 and told.known == {1} and told.rests)
    kafka.hide(lab.group)
    wait_until(lambda: not told.known)
    kafka.add_broker(lab.group)
    lab.send(topic, b"1")
    consumer.resume()
    # Out of its group it would be replaced as well, but later.
    assert runs.wait(1, timeout=PATIENCE_SECONDS - 5) == [b"1"]
    lab.caught_up(topic, timeout=60.0)


def test_a_sender_whose_client_finds_no_broker_gets_another_client(
    lab_and_kafka: tuple[Lab, MockKafka],
) -> None:
    """As long as nobody else reaches them either, the copy waits; then it is given back, and goes again."""
    lab, kafka = lab_and_kafka
    target, brokers, answers = lab.topic("retry"), Brokers(), list[Any]()
    settings = producer_settings(lab.cluster(), Limits(), hand_off=True)
    limits = TopicLimits(lambda: open_client(AdminClient, admin_settings(lab.cluster())), mock=True)
    sender = HandOffProducer(settings, time.time, limits, brokers.ask)

    def answered(count: int) -> bool:
        answers.extend(sender.poll())
        return len(answers) >= count

    def send(body: bytes) -> None:
        sender.send(retry(entry(record(body)), target))

    send(b"1")
    wait_until(lambda: answered(1))
    kafka.down()
    send(b"2")
    wait_until(lambda: answered(2) or brokers.asked, 60.0)
    brokers.asked[0].set_exception(TimeoutError())
    wait_until(lambda: answered(2) or len(brokers.asked) == 2)
    assert len(answers) == 1
    brokers.asked[1].set_result(None)
    wait_until(lambda: answered(2), 60.0)
    kafka.up()
    send(b"2")  # as the engine does with what was refused
    wait_until(lambda: answered(3))
    assert [one.code for one in answers] == [None, "_TRANSPORT", None]
    assert [one.value for one in lab.read(target)] == [b"1", b"2"]
    assert len(brokers.asked) == 2
    sender.close(0.0)


def test_a_new_client_commits_though_the_old_one_left_a_commit_unanswered(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, mute, vain = Log(), threading.Event(), threading.Event()

    class Forgetful(Consumer):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__(settings)
            clients.add(self)

        def commit(self, *args: Any, **options: Any) -> Any:
            if mute.is_set():
                mute.clear()
                return None
            return super().commit(*args, **options)

    def should_replace(*_: object) -> bool:
        was_set = vain.is_set()
        vain.clear()
        return was_set

    monkeypatch.setattr(session, "KafkaConsumer", Forgetful)
    monkeypatch.setattr(Connectivity, "should_replace", should_replace)
    runs, entry = Log(), lab.entry(retry=False, partitions=1)
    lab.start(entry, lambda m: runs.add(m.value))
    lab.send(entry, b"1")
    lab.caught_up(entry)
    mute.set()
    lab.send(entry, b"2")
    wait_until(lambda: len(runs) == 2 and not mute.is_set())
    vain.set()
    wait_until(lambda: len(clients) == 2, 60, "a new client")
    lab.send(entry, b"3")
    runs.wait(3)
    lab.caught_up(entry)
    assert runs.counts() == {1: 1, 2: 1, 3: 1}
