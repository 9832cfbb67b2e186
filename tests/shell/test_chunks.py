"""Messages that come in chunks: put together, given up, read again."""

import logging
import threading
import time
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from retriable_kafka_client import Limits, Message
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import Marks
from tests.shell.chunk_records import Split, interleaved, produce_chunks
from tests.shell.chunked import random_bytes
from tests.shell.lab import Lab, Log, nothing
from tests.support.waiting import wait_until

HEADERS = (("colour", b"blue"), ("none", None), ("colour", b"red"))


def seen(message: Message[Any]) -> tuple[Any, ...]:
    return message.body, message.key, message.headers, message.attempt, message.id


def reasons(lab: Lab, topic: Any, count: int) -> list[str]:
    return sorted((dict(one.headers)[wire.DEAD_REASON] or b"").decode() for one in lab.dead(topic, count))


@pytest.mark.parametrize("sums", [True, False], ids=["with sums", "as 0.x"])
def test_chunks_are_one_message(lab: Lab, sums: bool) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    keyed = Split(random_bytes(10_000), 1_000, b"key", HEADERS, sums=sums)
    plain = Split(random_bytes(5_500, b"other"), 1_000, sums=sums)
    produce_chunks(lab.servers, entry.name, interleaved([keyed, plain]))
    lab.send(entry.name, b"small")
    lab.start(entry, lambda m: runs.add(seen(m)))
    got = {one[0]: one[1:4] for one in runs.wait(3)}
    assert got == {
        keyed.body: (b"key", HEADERS, 1),
        plain.body: (None, (), 1),
        b"small": (None, (), 1),
    }
    lab.caught_up(entry)
    assert len(runs) == 3


def test_it_is_retried_as_one_with_key_headers_and_id(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1, max_attempts=3), Log()
    message = Split(random_bytes(30_000), 7_000, b"key", HEADERS)

    def handler(m: Message[Any]) -> None:
        runs.add(seen(m))
        raise ValueError

    produce_chunks(lab.servers, entry.name, interleaved([message]))
    lab.start(entry, handler)
    got = runs.wait(3)
    assert {one[:3] for one in got} == {(message.body, b"key", HEADERS)}
    assert [one[3] for one in got] == [1, 2, 3]
    assert len({one[4] for one in got}) == 1
    (dead,) = lab.dead(entry)
    assert (dead.value, dead.key) == (message.body, b"key")
    lab.caught_up(entry)


def test_order_duplicates_and_a_slow_sender_do_not_matter(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(random_bytes(6_000), 1_000)
    lab.start(entry, lambda m: runs.add(m.body))
    for index in (0, 1, 1, 3, 2, 0):
        produce_chunks(lab.servers, entry.name, [(message, index)])
    lab.send(entry.name, b"between")
    produce_chunks(lab.servers, entry.name, [(message, 5), (message, 4), (message, 4), (message, 5)])
    assert set(runs.wait(2)) == {message.body, b"between"}
    lab.caught_up(entry)
    assert len(runs) == 2


def test_a_lost_chunk_is_waited_for_and_then_given_up(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """At the log's end, by the clock; the chunks that came go to the dead-letter topic as they are."""
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(b"abcdef" * 100, 150, b"key", HEADERS)
    lab.start(entry, lambda m: runs.add(m.body), limits=Limits(chunk_wait=1.0))
    produce_chunks(lab.servers, entry.name, [(message, 0), (message, 1), (message, 3)])
    lab.send(entry.name, b"next")
    with caplog.at_level(logging.WARNING, "retriable_kafka_client"):
        dead = lab.dead(entry, 3)
    assert [one.value for one in dead] == [message.chunk(index)[0] for index in (0, 1, 3)]
    for one, index in zip(dead, (0, 1, 3), strict=True):
        headers = dict(one.headers)
        assert headers[wire.DEAD_REASON] == b"incomplete"
        marks = wire.read_marks([pair for pair in one.headers if pair[0] in wire_chunk_names()])
        assert marks.chunk is not None
        assert (marks.chunk.group, marks.chunk.index, marks.chunk.count) == (message.group, index, 4)
        assert one.key == b"key"
        assert wire.own_headers(one.headers) == HEADERS
    lab.caught_up(entry)
    assert runs.items == [b"next"]
    (given_up,) = lab.events.of(ev.ChunksGivenUp)
    assert (given_up.topic, given_up.offset, given_up.reason) == (entry.name, 0, "incomplete")
    assert (given_up.chunks, given_up.expected) == (3, 4)
    assert any(entry.name in record.getMessage() for record in caplog.records)
    # What comes too late has the same reason.
    produce_chunks(lab.servers, entry.name, [(message, 2)])
    assert reasons(lab, entry, 4) == ["incomplete"] * 4
    lab.caught_up(entry)


def wire_chunk_names() -> tuple[str, ...]:
    return wire.CHUNK_GROUP, wire.CHUNK_INDEX, wire.CHUNK_COUNT, wire.TOTAL_SIZE, wire.CHECKSUM


def test_a_busy_neighbour_keeps_no_message_from_being_given_up(lab: Lab) -> None:
    entry, done = lab.entry(partitions=2), threading.Event()
    message = Split(b"abcdef" * 100, 150)
    produce_chunks(lab.servers, entry.name, [(message, 0)], partition=1)
    lab.start(entry, nothing, limits=Limits(chunk_wait=1.0))

    def busy() -> None:
        while not done.is_set():
            lab.fill(entry.name, [b"x"] * 50, partition=0)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert reasons(lab, entry, 1) == ["incomplete"]
    finally:
        done.set()
        thread.join()


def test_the_rest_of_a_message_whose_beginning_is_gone_ends_at_once(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(b"abcdef" * 100, 150)
    produce_chunks(lab.servers, entry.name, [(message, index) for index in (2, 3)])
    lab.send(entry.name, b"next")
    lab.start(entry, lambda m: runs.add(m.body))
    assert reasons(lab, entry, 2) == ["orphan", "orphan"]
    lab.caught_up(entry)
    assert runs.items == [b"next"]


def test_a_message_whose_first_half_a_dead_member_committed(real_lab: Lab) -> None:
    """As 0.x does, whose members commit what they have not put together."""
    lab = real_lab
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(b"abcdef" * 100, 150)
    produce_chunks(lab.servers, entry.name, interleaved([message]))
    lab.send(entry.name, b"next")
    dead = KafkaConsumer({"bootstrap.servers": lab.servers, "group.id": lab.group})
    dead.commit(offsets=[TopicPartition(entry.name, 0, 2)], asynchronous=False)
    dead.close()
    lab.start(entry, lambda m: runs.add(m.body))
    assert reasons(lab, entry, 2) == ["orphan", "orphan"]
    lab.caught_up(entry)
    assert runs.items == [b"next"]


def test_a_message_whose_first_half_retention_took(real_lab: Lab) -> None:
    lab = real_lab
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(b"abcdef" * 100, 150)
    produce_chunks(lab.servers, entry.name, interleaved([message]))
    lab.send(entry.name, b"next")
    admin = AdminClient({"bootstrap.servers": lab.servers})
    for answer in admin.delete_records([TopicPartition(entry.name, 0, 2)]).values():
        answer.result(30)
    lab.start(entry, lambda m: runs.add(m.body))
    assert reasons(lab, entry, 2) == ["orphan", "orphan"]
    lab.caught_up(entry)
    assert runs.items == [b"next"]


def test_what_is_not_what_its_sender_says_is_not_run(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    good, bad, long = (Split(random_bytes(600, seed), 150) for seed in (b"1", b"2", b"3"))
    forged = [(bad, 0), (bad, 1), (bad, 2), (Split(b"x" * 600, 150, group=bad.group), 3)]
    produce_chunks(lab.servers, entry.name, forged)
    short = [(long, 0), (long, 1), (long, 2), (Split(b"x" * 599, 150, group=long.group), 3)]
    produce_chunks(lab.servers, entry.name, [*short, *interleaved([good])])
    lab.start(entry, lambda m: runs.add(m.body))
    assert reasons(lab, entry, 8) == ["corrupt"] * 8
    lab.caught_up(entry)
    assert runs.items == [good.body]


def test_a_message_that_is_too_large_is_dead_lettered_by_its_real_size(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    fits, large = Split(random_bytes(3_000), 500), Split(random_bytes(3_001), 500)
    produce_chunks(lab.servers, entry.name, interleaved([fits, large]))
    limits = Limits(buffer_bytes=20_000, message_bytes=3_000)
    lab.start(entry, lambda m: runs.add(m.body), limits=limits)
    assert reasons(lab, entry, 7) == ["too-large"] * 7
    lab.caught_up(entry)
    assert runs.items == [fits.body]


def test_claims_cost_nothing(lab: Lab) -> None:
    """Messages of two thousand million chunks, and one that says two totals."""
    entry, runs = lab.entry(partitions=1), Log()
    for index in range(50):
        marks = Marks(chunk=wire.Chunk(b"%016d" % index, 0, 2**31 - 1, 2**63 - 1))
        lab.send(entry.name, b"x", headers=wire.write_marks(marks))
    split = Split(b"abcdef" * 100, 150, sums=False)
    contradiction = Split(b"abcdef" * 150, 150, sums=False, group=split.group)
    produce_chunks(lab.servers, entry.name, [(split, 0), (contradiction, 0), (split, 1), (contradiction, 1)])
    produce_chunks(lab.servers, entry.name, [(split, 2), (split, 3)])
    consumer = lab.start(entry, lambda m: runs.add(m.body), limits=Limits(chunk_wait=3.0))
    assert runs.wait(1) == [split.body]
    assert consumer.stats().assembling_bytes < 100_000
    assert set(reasons(lab, entry, 52)) == {"incomplete"}
    lab.caught_up(entry)


def test_more_than_the_budget_holds_is_read_again(lab: Lab) -> None:
    """Twelve messages side by side, of which a third fits; more chunks than one poll brings."""
    entry, runs = lab.entry(partitions=1), Log()
    messages = [Split(random_bytes(100_000, b"%d" % index), 1_000, b"%d" % index) for index in range(12)]
    produce_chunks(lab.servers, entry.name, interleaved(messages))
    limits = Limits(buffer_bytes=800_000, message_bytes=500_000)
    consumer = lab.start(entry, lambda m: runs.add((m.key, m.body)), limits=limits)
    assert set(runs.wait(12)) == {(one.key, one.body) for one in messages}
    lab.caught_up(entry)
    assert len(runs) == 12
    assert consumer.stats().recalled > 0
    assert not lab.events.of(ev.ChunksGivenUp)


def test_a_message_larger_than_half_of_the_budget(lab: Lab) -> None:
    """Two side by side, each larger than the share of what is put together."""
    entry, runs = lab.entry(partitions=1), Log()
    messages = [Split(random_bytes(400_000, b"%d" % index), 10_000) for index in range(2)]
    produce_chunks(lab.servers, entry.name, interleaved(messages))
    consumer = lab.start(entry, lambda m: runs.add(m.body), limits=Limits(buffer_bytes=640_000))
    assert set(runs.wait(2)) == {one.body for one in messages}
    lab.caught_up(entry)
    assert consumer.stats().recalled > 0


def test_a_filter_sees_the_whole_message_once(lab: Lab) -> None:
    entry, runs, asked = lab.entry(partitions=1), Log(), Log()
    wanted, unwanted = Split(b"wanted" * 100, 150, b"yes"), Split(b"other." * 100, 150, b"no")
    produce_chunks(lab.servers, entry.name, interleaved([wanted, unwanted]))

    def keep(message: Message[Any]) -> bool:
        asked.add(message.body)
        return message.key == b"yes"

    lab.start(entry, lambda m: runs.add(m.body), filter=keep)
    assert runs.wait(1) == [wanted.body]
    lab.caught_up(entry)
    assert sorted(asked.items) == sorted([wanted.body, unwanted.body])


def test_it_runs_when_it_is_due(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    due_ms = int(time.time() * 1000) + 1_500
    message = Split(b"abcdef" * 100, 150, marks=Marks(not_before_ms=due_ms))
    produce_chunks(lab.servers, entry.name, interleaved([message]))
    lab.start(entry, lambda m: runs.add((m.body, time.time() * 1000)))
    ((body, at),) = runs.wait(1)
    assert body == message.body
    assert at >= due_ms


def test_the_next_owner_begins_an_unfinished_message_anew(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(random_bytes(6_000), 1_000)
    produce_chunks(lab.servers, entry.name, [(message, index) for index in range(4)])
    lab.send(entry.name, b"between")
    first = lab.start(entry, lambda m: runs.add(m.body))
    runs.wait(1)
    first.stop()
    assert first.join(30)
    produce_chunks(lab.servers, entry.name, [(message, index) for index in (4, 5)])
    lab.start(entry, lambda m: runs.add(m.body))
    assert runs.wait(2) == [b"between", message.body]
    lab.caught_up(entry)
    assert len(runs) == 2


def test_in_order_it_has_the_place_of_its_first_chunk(lab: Lab) -> None:
    entry, runs = lab.entry(in_place=True, partitions=1), Log()
    message = Split(random_bytes(6_000), 1_000, b"a")
    produce_chunks(lab.servers, entry.name, [(message, index) for index in range(4)])
    for body, key in ((b"1", b"a"), (b"2", b"b"), (b"3", b"a")):
        lab.send(entry.name, body, key=key)
    lab.start(entry, lambda m: runs.add(m.body), ordering="key")
    assert runs.wait(1) == [b"2"]
    produce_chunks(lab.servers, entry.name, [(message, index) for index in (4, 5)])
    assert runs.wait(4) == [b"2", message.body, b"1", b"3"]


def test_in_order_what_is_given_up_lets_the_next_one_go(lab: Lab) -> None:
    entry, runs = lab.entry(in_place=True, partitions=1), Log()
    message = Split(random_bytes(6_000), 1_000, b"a")
    produce_chunks(lab.servers, entry.name, [(message, index) for index in range(4)])
    lab.send(entry.name, b"1", key=b"a")
    lab.start(entry, lambda m: runs.add(m.body), ordering="key", limits=Limits(chunk_wait=1.0))
    assert runs.wait(1) == [b"1"]
    lab.caught_up(entry)


def test_a_paused_consumer_gives_nothing_up(lab: Lab) -> None:
    entry, runs = lab.entry(partitions=1), Log()
    message = Split(random_bytes(6_000), 1_000)
    produce_chunks(lab.servers, entry.name, [(message, index) for index in range(4)])
    consumer = lab.start(entry, lambda m: runs.add(m.body), limits=Limits(chunk_wait=2.0))
    wait_until(lambda: consumer.stats().assembling_bytes > 4_000)
    consumer.pause()
    began = time.monotonic()
    produce_chunks(lab.servers, entry.name, [(message, index) for index in (4, 5)])
    wait_until(lambda: time.monotonic() > began + 3.0, what="the wait to be over")
    consumer.resume()
    assert runs.wait(1) == [message.body]
    assert not lab.events.of(ev.ChunksGivenUp)
