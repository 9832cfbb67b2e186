"""One run over everything hostile: neighbours are handled, each record ends where it should, the consumer lives."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import TopicPartition

from retriable_kafka_client import Limits, Message, Retry, Topic
from retriable_kafka_client import events as ev
from retriable_kafka_client.wire import headers as wire
from tests.shell.hostile import RECORDS as FIRST
from tests.shell.hostile import UNREADABLE, Hostile
from tests.shell.hostile_more import MORE
from tests.shell.lab import Lab, Log, number
from tests.shell.raw_records import produce_raw
from tests.support.kafka import Kafka
from tests.support.records import Header, Read, committed
from tests.support.waiting import wait_until

RECORDS = (*FIRST, *MORE)
CASE = "case"  # the header that names the record


def case_of(headers: Sequence[Header]) -> str:
    return next((value or b"").decode() for name, value in headers if name == CASE)


class Run:
    """What became of every record, put on the base topic and on the retry topic, each between neighbours."""

    def __init__(self, lab: Lab) -> None:
        limits = {"max.message.bytes": "2000000", "retention.ms": "-1"}
        retry_topic = lab.topic("retry", 2, limits)
        retry = Retry(retry_topic, max_attempts=2, delay=0.05)
        self.entry = Topic(
            lab.topic("orders", 2, limits), retry=retry, dead_letter=lab.topic("dead", 1, limits)
        )
        self.runs = Log()
        self.lab = lab
        sent = {"base": self._send(self.entry.name, "base"), "retry": self._send(retry_topic, "retry")}
        self.consumer = lab.start(self.entry, self._handle)
        neighbours = sum(sent.values()) // 2
        self._waiting = sum(one.end == "waits" for one in RECORDS) * 2
        wait_until(lambda: sum(1 for name, _, _ in self.runs if name.startswith("neighbour")) == neighbours)
        wait_until(self._settled, 60, "everything has ended")
        self.letters = lab.read(str(self.entry.dead_letter))

    def _send(self, topic: str, where: str) -> int:
        count = 0
        for index, one in enumerate(RECORDS):
            headers = [*one.headers, (CASE, f"{where}: {one.name}".encode())]
            more = {"settings": {"message.max.bytes": 2_000_000}}
            self.lab.send(topic, one.value, key=one.key, headers=headers, partition=index % 2, **more)
            count += 1 + self._neighbour(topic, f"{where} {one.name}", index % 2)
        for index, (name, pairs) in enumerate(UNREADABLE):
            produce_raw(self.lab.servers, topic, index % 2, json.dumps(f"{where}: {name}").encode(), pairs)
            count += 1 + self._neighbour(topic, f"{where} {name}", index % 2)
        return count

    def _neighbour(self, topic: str, name: str, partition: int) -> int:
        self.lab.send(topic, b"1", headers=[(CASE, f"neighbour of {name}".encode())], partition=partition)
        return 1

    def _handle(self, message: Message[Any]) -> None:
        name = case_of(message.headers)
        assert not any(header.startswith(wire.PREFIX) for header, _ in message.headers)
        value = message.value
        self.runs.add((name, message.attempt, value))
        # Nothing of it may raise, whatever the record claims.
        repr(
            (
                message,
                message.id,
                message.timestamp,
                message.record,
                message.key,
                message.topic,
                message.offset,
            )
        )
        if any(f"{where}: {one.name}" == name for where in ("base", "retry") for one in RECORDS if one.fails):
            raise ValueError

    def _settled(self) -> bool:
        partitions = self.consumer.stats().partitions.values()
        return (
            sum(one.incomplete for one in partitions) == self._waiting and not self.consumer.stats().in_flight
        )


@pytest.fixture(scope="module")
def run(kafka: Kafka) -> Iterator[Run]:
    with Lab(kafka.bootstrap_servers, kafka.create_topic, "hostile", real=True) as lab:
        yield Run(lab)


def letter_of(run: Run, where: str, name: str) -> Read | None:
    found = [
        one for one in run.letters if any(pair == (CASE, f"{where}: {name}".encode()) for pair in one.headers)
    ]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("where", ["base", "retry"])
@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.name)
def test_each_ends_where_it_should(run: Run, where: str, record: Hostile) -> None:
    end = record.ending(retry=where == "retry")
    runs = [(attempt, value) for name, attempt, value in run.runs if name == f"{where}: {record.name}"]
    letter = letter_of(run, where, record.name)
    if end in ("handled", "passed over", "waits"):
        assert letter is None
        assert len(runs) == (1 if end == "handled" else 0)
        return
    assert letter is not None
    assert letter.header(wire.DEAD_REASON) == end.encode()
    claimed = next((number(v) for n, v in record.headers if n == wire.ATTEMPT and v and len(v) == 8), 0)
    if end == "exhausted":
        assert len(runs) == (2 if claimed == 0 else 1)
        assert number(letter.header(wire.DEAD_ATTEMPTS)) == min(max(2, claimed + 1), 2**31 - 1)
    else:
        assert not runs
    key = None if record.key == b"g" * 16 else record.key  # 0.x put the chunk group there
    assert (letter.value, letter.key) == (record.value, key)
    own = [pair for pair in record.headers if not pair[0].startswith(wire.PREFIX)]
    assert [pair for pair in letter.headers if not pair[0].startswith(wire.PREFIX)][: len(own)] == own
    topic = run.entry.name if where == "base" else run.entry.retry.topic  # type: ignore[union-attr]
    origin = (letter.header(wire.ORIGIN) or b"").decode()
    assert origin.startswith(f"{topic}/") or "origin" in record.name
    # Whoever reads the dead letters as a base topic gets a message to handle.
    marks = wire.read_marks(letter.headers)
    assert marks.failed == 0 and marks.not_before_ms is None and not marks.alone


@pytest.mark.parametrize("where", ["base", "retry"])
@pytest.mark.parametrize("name", [name for name, _ in UNREADABLE])
def test_headers_that_cannot_be_read_do_not_end_it(run: Run, where: str, name: str) -> None:
    (letter,) = [one for one in run.letters if one.value == json.dumps(f"{where}: {name}").encode()]
    assert letter.header(wire.DEAD_REASON) == b"malformed-header"
    pairs = next(pairs for one, pairs in UNREADABLE if one == name)
    own = [pair for pair in letter.headers if not pair[0].startswith(wire.PREFIX)]
    assert own == [("good" if header == b"good" else "\ufffd", value) for header, value in pairs]


def test_neighbours_do_not_notice(run: Run) -> None:
    names = [name for name, attempt, _ in run.runs if name.startswith("neighbour") and attempt == 1]
    assert len(names) == len(set(names)) == 2 * (len(RECORDS) + len(UNREADABLE))
    health = run.consumer.health()
    assert health.alive and health.ready, health
    stats = run.consumer.stats()
    assert stats.dead_lettered == len(run.letters)
    assert sum(one.waiting for one in stats.partitions.values()) == 2


def test_there_are_at_least_a_hundred_kinds() -> None:
    names = Counter(one.name for one in RECORDS)
    assert len(names) >= 100 and max(names.values()) == 1


# Commit metadata ---------------------------------------------------------------------------------------------------


def test_foreign_commit_metadata_is_ignored_with_an_event(real_lab: Lab) -> None:
    lab, runs = real_lab, Log()
    entry = Topic(lab.topic(partitions=12), dead_letter=lab.topic("dead", 1))
    for partition in range(12):
        lab.fill(entry, [b"%d" % (100 * partition + i) for i in range(20)], partition=partition)
    genuine = _genuine_metadata(lab, entry)
    metadata = {
        1: "somebody else's",
        2: "rkc",
        3: "rkc2s" + "A" * 60,
        4: genuine,  # of another partition
        5: genuine[:-1],
        6: genuine[:5] + "!" * 20,
        7: genuine[:20] + ("B" if genuine[20] == "A" else "A") + genuine[21:],
        8: "rkc2w" + "\u3400" * 4000,
        9: "\U0001f4a9" * 2000,
        10: "rkc9s" + genuine[5:],
        11: "{" + '"a": 1' * 100,
    }
    client = Client({"bootstrap.servers": lab.servers, "group.id": lab.group, "enable.auto.commit": False})
    at = [TopicPartition(entry.name, partition, 5, text) for partition, text in metadata.items()]
    at.append(TopicPartition(entry.name, 0, 7, genuine))  # its own, beside another offset
    client.commit(offsets=at, asynchronous=False)
    client.close()
    consumer = lab.start(entry, lambda m: runs.add(int(m.body or b"")))
    lab.caught_up(entry)
    wanted = [*range(7, 20)] + [100 * p + i for p in range(1, 12) for i in range(5, 20)]
    assert sorted(runs) == wanted
    ignored = {one.partition: one.reason for one in lab.events.of(ev.OffsetMapIgnored)}
    assert set(ignored) == set(range(12))
    assert (ignored[0], ignored[1], ignored[4], ignored[10]) == ("base", "not-ours", "binding", "version")
    assert consumer.stats().restored == 0
    assert consumer.health().ready


def _genuine_metadata(lab: Lab, entry: Topic) -> str:
    """The metadata of partition 0 at offset 5, with some offsets above it done."""
    import threading

    gate, group = threading.Event(), f"{lab.group}-genuine"
    try:

        def handler(m: Message[Any]) -> None:
            if m.body == b"5":
                gate.wait(60)

        consumer = lab.start(entry, handler, group=group, limits=Limits(drain_timeout=0.1))
        wait_until(lambda: consumer.stats().handled == 239)
        consumer.stop()
        assert consumer.join(30)
    finally:
        gate.set()
    found = committed(lab.servers, group, entry.name)[0]
    assert found.offset == 5 and found.metadata.startswith("rkc2")
    return found.metadata
