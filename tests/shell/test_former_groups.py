"""A group that was given another name: whose retry copies it runs, and what is told of the others."""

import logging
from collections import Counter
from typing import Any

import pytest

from retriable_kafka_client import Message, Topic
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import Chunk, Marks, write_marks
from tests.shell.lab import Lab, Log, as_json, raiser
from tests.support.waiting import wait_until

CHUNKED = b"c" * 16


def leave(lab: Lab, topic: Topic, group: str | None) -> None:
    """What a group may leave in a retry topic: a copy, a parked one, one in two chunks."""
    assert topic.retry is not None and topic.retry.topic is not None
    target, where = topic.retry.topic, {"partition": 0}
    lab.send(
        target, as_json("copy"), headers=write_marks(Marks(failed=1, not_before_ms=1, group=group)), **where
    )
    parked = Marks(failed=2, not_before_ms=1, parked_ms=1, group=group)
    lab.send(target, as_json("parked"), headers=write_marks(parked), **where)
    for index, body in enumerate((b'"chu', b'nked"')):
        marks = Marks(failed=1, not_before_ms=1, group=group, chunk=Chunk(CHUNKED, index, 2))
        lab.send(target, body, headers=write_marks(marks), **where)


def test_what_a_former_group_left_runs_and_is_the_new_ones(lab: Lab) -> None:
    entry, old = lab.entry(max_attempts=3), f"{lab.group}-before"
    failing = lab.start(entry, raiser(ValueError), group=old)
    lab.send(entry, as_json("failed"), partition=0)
    wait_until(lambda: failing.stats().retried > 0)
    failing.stop()
    assert failing.join(30)
    dead_before = failing.stats().dead_lettered
    leave(lab, entry, old)
    leave(lab, entry, None)  # 0.x
    runs = Log()

    def handler(message: Message[Any]) -> None:
        runs.add((message.value, message.attempt))
        raise ValueError

    consumer = lab.start(entry, handler, former_groups=["never-was", old])
    letters = lab.dead(entry, dead_before + 6 + (dead_before == 0))
    assert Counter(value for value, _ in runs)["parked"] == 2
    assert {("copy", 2), ("copy", 3), ("parked", 3), ("chunked", 2), ("chunked", 3)} <= set(runs)
    assert consumer.stats().foreign == 0 and not lab.events.of(ev.ForeignCopies)
    assert {one.header(wire.GROUP) for one in letters[dead_before:]} == {lab.group.encode()}


def test_without_it_each_group_is_told_of_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "retriable_kafka_client")
    entry, runs = lab.entry(), Log()
    for group in ("billing", "billing", "other\nline \x1b[2J" + "g" * 5_000):
        leave(lab, entry, group)
    consumer = lab.start(entry, runs.add)
    wait_until(lambda: consumer.stats().foreign == 12)
    lab.caught_up(entry)
    assert len(runs) == 0 and consumer.health().ready
    told = lab.events.of(ev.ForeignCopies)
    assert [one.group[:7] for one in told] == ["billing", "other\nl"] and len(told[1].group) == 255
    assert entry.retry is not None
    assert {(one.topic, one.partition) for one in told} == {(entry.retry.topic, 0)} and told[0].offset == 0
    lines = [one.getMessage() for one in caplog.records if "former_groups" in one.getMessage()]
    assert len(lines) == 2 and "'billing'" in lines[0] and str(entry.retry.topic) in lines[0]
    assert all("\n" not in line and "\x1b" not in line and len(line) < 2_000 for line in lines)
