"""Commits of which it is not known whether they came through, and requests that were sent twice."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client import Limits, Message
from retriable_kafka_client import events as ev
from retriable_kafka_client.consumer import loop, session
from retriable_kafka_client.transactions import transactional_producer as transactional
from retriable_kafka_client.transactions import transactor as transaction
from tests.shell.lab import Lab, Log, as_json
from tests.shell.test_exactly_once import ONCE, numbers
from tests.support.waiting import wait_until

Handler = Callable[[Message[Any]], None]


def passing(runs: Log, out: str) -> Handler:
    def handler(message: Message[Any]) -> None:
        i = message.value["i"]
        runs.add((i, message.attempt))
        message.send(out, {"i": i})
        time.sleep(0.01)
        if i % 10 == 0 and message.attempt == 1:
            raise ValueError

    return handler


@pytest.mark.parametrize("came_through", [False, True])
def test_an_unknown_commit_is_found_out(
    real_lab: Lab, monkeypatch: pytest.MonkeyPatch, came_through: bool
) -> None:
    lab, runs, made = real_lab, Log(), Log()

    class Unsure(confluent_kafka.Producer):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__(settings)
            made.add(settings["transactional.id"])
            self.commits = 0

        def commit_transaction(self, *args: Any) -> None:
            self.commits += 1
            unknown = self.commits == 3
            if came_through or not unknown:
                super().commit_transaction(*args)
            if unknown:
                raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(transactional, "Producer", Unsure)
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    lab.fill(entry, [as_json({"i": i}) for i in range(300)])
    lab.start(entry, passing(runs, out), **ONCE)
    lab.caught_up(entry, timeout=60)
    assert len(made) > 1
    assert len(set(made.items)) == 1  # the same id, so that what the old one left is ended
    assert numbers(lab.read(out)) == dict.fromkeys(range(300), 1)
    assert runs.counts() == {(i, 1): 1 for i in range(300)} | {(i, 2): 1 for i in range(0, 300, 10)}
    aborted = [one.code for one in lab.events.of(ev.TransactionAborted)]
    assert bool(aborted) is not came_through


@pytest.mark.parametrize("where", ["initialising", "offsets", "before the commit", "after the commit"])
def test_a_client_that_does_not_come_back_is_replaced(
    real_lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """And what it does when it comes back after all is refused."""
    lab, runs, made, gate, freed, commits = real_lab, Log(), Log(), threading.Event(), Log(), Log()

    class Stuck(confluent_kafka.Producer):
        def __init__(self, settings: dict[str, Any]) -> None:
            super().__init__(settings)
            made.add(settings["transactional.id"])
            self.first = len(made) == 1
            self.calls = 0

        def hold(self) -> None:
            self.calls += 1
            if self.first and self.calls == 3:
                freed.add(gate.wait(120))

        def init_transactions(self, *args: Any) -> None:
            if where == "initialising" and len(made) == 2:
                freed.add(gate.wait(120))
            super().init_transactions(*args)

        def send_offsets_to_transaction(self, *args: Any) -> None:
            if where == "offsets":
                self.hold()
            super().send_offsets_to_transaction(*args)

        def commit_transaction(self, *args: Any) -> None:
            if where == "before the commit":
                self.hold()
            super().commit_transaction(*args)
            if where == "after the commit":
                self.hold()
            commits.add(1)
            time.sleep(0.02 if where == "initialising" else 0)  # as long as a second request would take

    def is_clean(_client: object) -> bool:
        return len(commits) != 3

    if where == "initialising":
        monkeypatch.setattr(transactional.TransactionalProducer, "_is_clean", is_clean)
    monkeypatch.setattr(transactional, "Producer", Stuck)
    monkeypatch.setattr(transaction, "STUCK_SECONDS", 3.0)
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    lab.fill(entry, [as_json({"i": i}) for i in range(300)])
    lab.start(entry, passing(runs, out), **ONCE)
    lab.caught_up(entry, timeout=90)
    assert not freed
    assert numbers(lab.read(out)) == dict.fromkeys(range(300), 1)
    gate.set()
    freed.wait(1)
    lab.send(entry, as_json({"i": 300}))
    lab.caught_up(entry)
    wait_until(lambda: numbers(lab.read(out)) == dict.fromkeys(range(301), 1))
    assert runs.counts() == {(i, 1): 1 for i in range(301)} | {(i, 2): 1 for i in range(0, 301, 10)}


@pytest.mark.parametrize("sign", ["EndTxn", "req_timeouts"])
def test_a_request_that_was_sent_twice_costs_the_producer_its_trust(
    real_lab: Lab, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    lab, runs, made = real_lab, Log(), Log()

    class SentTwice(confluent_kafka.Producer):
        def __init__(self, settings: dict[str, Any]) -> None:
            self.commits = 0
            told = settings["stats_cb"]

            def doctored(text: str) -> None:
                statistics = json.loads(text)
                if self.commits >= 3 and len(made) == 1:
                    for broker in statistics["brokers"].values():
                        if sign == "req_timeouts":
                            broker["req_timeouts"] = 1
                        elif broker["req"].get("EndTxn"):
                            broker["req"]["EndTxn"] += 1
                told(json.dumps(statistics))

            super().__init__(settings | {"stats_cb": doctored})
            made.add(self)

        def commit_transaction(self, *args: Any) -> None:
            super().commit_transaction(*args)
            self.commits += 1
            time.sleep(0.02)  # as long as a second request would take

    monkeypatch.setattr(transactional, "Producer", SentTwice)
    entry, out = lab.entry(max_attempts=2), lab.topic("out")
    lab.fill(entry, [as_json({"i": i}) for i in range(300)])
    lab.start(entry, passing(runs, out), **ONCE)
    lab.caught_up(entry, timeout=60)
    assert len(made) == 2
    assert made.items[0].commits == 3  # not one more
    assert numbers(lab.read(out)) == dict.fromkeys(range(300), 1)
    assert set(runs.counts().values()) == {1}


@pytest.mark.parametrize("where", ["initialising", "offsets", "the commit", "the abort"])
def test_a_stop_tells_of_a_transaction_that_it_does_not_wait_for(
    real_lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    lab, runs, held = real_lab, Log(), Log()
    broken, gate = threading.Event(), threading.Event()

    class Stuck(confluent_kafka.Producer):
        def hold(self, here: str) -> None:
            if where == here and broken.is_set():
                held.add(here)
                gate.wait(120)
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

        def init_transactions(self, *args: Any) -> None:
            self.hold("initialising")
            super().init_transactions(*args)

        def send_offsets_to_transaction(self, *args: Any) -> None:
            self.hold("offsets")
            if where == "the abort" and broken.is_set():
                raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE))
            super().send_offsets_to_transaction(*args)

        def abort_transaction(self, *args: Any) -> None:
            self.hold("the abort")
            super().abort_transaction(*args)

        def commit_transaction(self, *args: Any) -> None:
            self.hold("the commit")
            super().commit_transaction(*args)
            time.sleep(0.02)  # as long as a second request would take

    monkeypatch.setattr(transactional, "Producer", Stuck)
    monkeypatch.setattr(session, "LAST_COMMIT_SECONDS", 0.3)
    for module in (loop, session):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.3)
    if where == "initialising":
        monkeypatch.setattr(
            transactional.TransactionalProducer, "_is_clean", lambda _client: not broken.is_set()
        )
    entry, out = lab.entry(partitions=1), lab.topic("out")

    def handler(message: Message[Any]) -> None:
        runs.add(message.value["i"])
        message.send(out, message.value)

    consumer = lab.start(entry, handler, limits=Limits(drain_timeout=0.2), **ONCE)
    lab.fill(entry, [as_json({"i": 0})])
    wait_until(lambda: consumer.stats().handled == 1)
    broken.set()
    lab.fill(entry, [as_json({"i": i}) for i in range(1, 6)])
    wait_until(lambda: held and len(runs) == 6)
    consumer.stop()
    assert consumer.join(30)
    told = [one for one in lab.events if isinstance(one, ev.CommitFailed | ev.AssignmentEnded)]
    failed, ended = [one for one in told if one.topic == entry.name]
    assert isinstance(failed, ev.CommitFailed) and isinstance(ended, ev.AssignmentEnded)
    assert (failed.partition, failed.code, ended.reason) == (0, "_TIMED_OUT", "stopped")
    (aborted,) = lab.events.of(ev.TransactionAborted)
    assert (aborted.code, aborted.topic, aborted.partition) == ("_DESTROY", "", -1)
    lines = [one.message for one in caplog.records if "given away before a transaction" in one.message]
    assert len(lines) == 1 and lab.group in lines[0]
    assert numbers(lab.read(out)) == {0: 1}
    gate.set()
