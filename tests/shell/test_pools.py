"""Pools whose workers die, on real Kafka."""

import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from retriable_kafka_client import ConsumerFailed, Limits, ProcessExecutor
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.handlers import obey
from tests.shell.lab import Lab, number
from tests.support.evidence import EvidenceWriter, read_evidence
from tests.support.records import committed
from tests.support.waiting import wait_until


@pytest.mark.parametrize("how", ["kill", "os-exit"])
def test_a_killer_ends_in_the_dead_letters_and_harms_no_innocent(
    real_lab: Lab, tmp_path: Path, how: str
) -> None:
    lab, file = real_lab, tmp_path / "evidence"
    entry = lab.entry(max_attempts=3)
    orders = [{"i": i, "do": how if i in (20, 150) else None} for i in range(200)]
    lab.fill(entry, [json.dumps(one).encode() for one in orders])
    pool = ProcessExecutor(2)
    consumer = lab.start(entry, partial(obey, EvidenceWriter(file)), executor=pool)
    letters = lab.dead(entry, 2, timeout=60)
    lab.caught_up(entry)
    wait_until(lambda: consumer.stats().handled == 198)
    assert consumer.health().ready
    consumer.stop()
    assert consumer.join(30)
    pool.shutdown()
    ran = Counter((one["i"], one["attempt"]) for one in read_evidence(file) if one["event"] == "ran")
    assert ran == {(i, a): 1 for i in range(200) for a in ((1, 2, 3) if i in (20, 150) else (1,))}
    assert {json.loads(one.value or b"")["i"] for one in letters} == {20, 150}
    for letter in letters:
        assert letter.header(wire.DEAD_REASON) == b"worker-died"
        assert number(letter.header(wire.DEAD_ATTEMPTS)) == 3
    assert entry.retry and entry.retry.topic
    assert all(wire.read_marks(one.headers).alone for one in lab.read(entry.retry.topic))
    assert Counter(one.attempt for one in lab.events.of(ev.WorkerDied)) == {1: 2, 2: 2, 3: 2}


def test_a_broken_stdlib_pool_ends_it_and_commits_nothing_unhandled(real_lab: Lab, tmp_path: Path) -> None:
    lab, file = real_lab, tmp_path / "evidence"
    entry = lab.entry()
    orders = [{"i": i, "do": "kill" if i == 70 else None} for i in range(150)]
    lab.fill(entry, [json.dumps(one).encode() for one in orders], partition=0)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        consumer = lab.start(
            entry,
            partial(obey, EvidenceWriter(file)),
            executor=pool,
            limits=Limits(window=10, drain_timeout=5.0),
        )
        with pytest.raises(ConsumerFailed, match="BrokenProcessPool"):
            consumer.join(60)
        assert not consumer.health().alive
        assert "BrokenProcessPool" in consumer.health().reasons[0]
    position = committed(lab.servers, lab.group, entry.name).get(0)
    assert position is None or position.offset <= 70

    second = ProcessExecutor(2)
    again = lab.start(entry, partial(obey, EvidenceWriter(file)), executor=second)
    wait_until(
        lambda: {one["i"] for one in read_evidence(file) if one["event"] == "done"} == set(range(150)) - {70}
    )
    again.stop()
    assert again.join(30)
    second.shutdown()


def test_an_executor_that_was_shut_down_ends_it(real_lab: Lab, tmp_path: Path) -> None:
    lab = real_lab
    entry = lab.entry()
    pool = ProcessExecutor(1)
    pool.shutdown()
    consumer = lab.consumer(entry, partial(obey, EvidenceWriter(tmp_path / "evidence")), executor=pool)
    with pytest.raises(RuntimeError, match="shut down"):
        consumer.start()
