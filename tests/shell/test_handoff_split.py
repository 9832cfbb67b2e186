"""Copies and handlers' outputs that are too large for their topics, on real Kafka."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest

from retriable_kafka_client import DISCARD, Cluster, Limits, Message, Reject, Topic
from retriable_kafka_client.brokers.client import admin_settings, open_client, producer_settings
from retriable_kafka_client.brokers.topic_limits import TopicLimits
from retriable_kafka_client.consumer.handoff_producer import HandOffProducer
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.handoff import dead_letter, retry_copy
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.retry import Failure
from retriable_kafka_client.events import REASON_EXHAUSTED
from retriable_kafka_client.message import PlainRecord
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import PLAIN, Chunk, Marks
from retriable_kafka_client.wire.outbox import Output
from tests.shell.chunked import random_bytes, sent
from tests.shell.lab import Lab
from tests.support.kafka import Kafka
from tests.support.limits import FixedLimits
from tests.support.names import Topics
from tests.support.records import read_all
from tests.support.waiting import WAIT, wait_until

NOW_MS = 1_800_000_000_000
GROUP = bytes(range(16))
FAILURE = Failure(reason=REASON_EXHAUSTED, retry_in=1.0, error="ValueError", text="no")
LIMITS = Limits()


class Post:
    """A sender and what it answered."""

    def __init__(self, sender: HandOffProducer) -> None:
        self.sender = sender
        self.answers: list[Any] = []

    def wait(self, count: int) -> list[Any]:
        """Serve it until it has answered so often."""

        def answered() -> bool:
            self.answers += self.sender.poll()
            return len(self.answers) >= count

        wait_until(answered, what=f"{count} answers")
        return self.answers


@pytest.fixture
def make(kafka: Kafka) -> Iterator[Callable[..., Post]]:
    senders: list[HandOffProducer] = []

    def opened(limits: Any = None, buffer_bytes: int = LIMITS.buffer_bytes) -> Post:
        cluster = Cluster(kafka.bootstrap_servers)
        told = limits or TopicLimits(cache(lambda: open_client(_admin, admin_settings(cluster))))
        settings = producer_settings(cluster, Limits(buffer_bytes=buffer_bytes), hand_off=True)
        senders.append(HandOffProducer(settings, lambda: NOW_MS / 1000, told))
        return Post(senders[-1])

    yield opened
    for sender in senders:
        sender.close(0.0)


def _admin(settings: dict[str, Any]) -> Any:
    from confluent_kafka.admin import AdminClient

    return AdminClient(settings)


def limited(topics: Topics, limit: int, label: str = "target") -> str:
    return topics(label, 3, {"max.message.bytes": str(limit)})


def record(
    body: bytes | None, key: bytes | None = b"k", headers: Sequence[Any] = (("own", b"h"),)
) -> PlainRecord:
    return PlainRecord(body, key, headers, "orders", 1, 7, (1, NOW_MS - 5000))


def entry(raw: Any, marks: Marks = PLAIN) -> Entry:
    assignment = Assignment(p.Place("orders", 1), parks=False, map_units=4000)
    assignment.uid = "uid"
    return Entry(assignment, 7, len(raw), raw, marks, 0)


def retry(one: Entry, target: str) -> p.HandOff:
    return retry_copy(one, FAILURE, target, "billing", NOW_MS, NOW_MS + 60_000)


def dead(one: Entry, target: str) -> p.HandOff:
    return dead_letter(one, FAILURE, target, "billing", 6)


class Joined:
    """A whole message that came in chunks."""

    def __init__(self, chunks: Sequence[bytes], key: bytes) -> None:
        self._chunks = chunks
        self._first = record(b"", key)

    def pieces(self) -> Sequence[bytes]:
        return self._chunks

    def value(self) -> bytes:
        return b"".join(self._chunks)

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def test_a_retry_copy_is_answered_once_and_says_on_every_chunk_what_0x_reads(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, body, post = limited(topics, 50_000), random_bytes(700_000), make()
    copy = retry(entry(record(body)), target)
    post.sender.send(copy)
    assert post.wait(1) == [p.HandOffAnswered(copy, None)]
    (message,) = sent(kafka.bootstrap_servers, target)
    assert (message.key, message.body, message.headers) == (b"k", body, (("own", b"h"),))
    assert message.records == 15
    assert 49_000 < message.largest <= 50_000
    seconds = (NOW_MS + 60_000) // 1000
    for headers in message.every:
        assert headers[wire.ATTEMPT] == (1).to_bytes(8)
        assert headers[wire.TIMESTAMP] == seconds.to_bytes(8)
        assert (headers[wire.ORIGIN], headers[wire.ID]) == (b"orders/1/7", b"uid-1-7")
        assert (headers[wire.GROUP], headers[wire.TOTAL_SIZE]) == (b"billing", (700_000).to_bytes(8))
        assert headers[wire.ORIGIN_TIMESTAMP] == (NOW_MS - 5000).to_bytes(8)


def test_a_dead_letter_says_its_reason_on_every_chunk(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, body, post = limited(topics, 10_000), random_bytes(100_000), make()
    post.sender.send(dead(entry(record(body, key=None)), target))
    assert [answer.code for answer in post.wait(1)] == [None]
    (message,) = sent(kafka.bootstrap_servers, target)
    assert (message.key, message.body) == (None, body)
    assert {headers[wire.DEAD_REASON] for headers in message.every} == {b"exhausted"}


def test_a_copy_that_fits_goes_whole(kafka: Kafka, topics: Topics, make: Callable[..., Post]) -> None:
    target, post = limited(topics, 5_000_000), make()
    bodies = [random_bytes(4_900_000), random_bytes(200_000), b"", None]
    for body in bodies:
        post.sender.send(retry(entry(record(body)), target))
        post.wait(1)
        assert post.answers.pop().code is None
    found = [(message.body, message.records) for message in sent(kafka.bootstrap_servers, target)]
    # The first may have gone before the topic's limit was known.
    assert found[0] == (bodies[0], 1)
    assert found[1:] == [(body, 1) for body in bodies[1:]]


def test_a_message_that_came_in_chunks_goes_in_others(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, post = limited(topics, 100_000), make()
    chunks = [random_bytes(300_000, b"1"), random_bytes(300_000, b"2"), b"end"]
    marks = Marks(chunk=Chunk(GROUP, 0, 3))
    post.sender.send(retry(entry(Joined(chunks, GROUP), marks), target))
    post.sender.send(dead(entry(Joined(chunks, b"own key"), marks), target))
    assert [answer.code for answer in post.wait(2)] == [None, None]
    one, two = sorted(sent(kafka.bootstrap_servers, target), key=lambda it: it.key or b"")
    assert (one.key, two.key) == (None, b"own key")
    assert one.body == two.body == b"".join(chunks)
    groups = {message.marks.chunk.group for message in (one, two) if message.marks.chunk}
    assert len(groups | {GROUP}) == 3
    assert wire.DEAD_CHUNK not in two.every[0]


def test_a_chunk_whose_group_never_became_whole_stays_one_if_it_can(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    large, small, post = limited(topics, 500_000), limited(topics, 50_000, "small"), make()
    part = entry(record(random_bytes(300_000), key=GROUP), Marks(chunk=Chunk(GROUP, 2, 5, 900_000)))
    post.sender.send(dead(part, large))
    post.sender.send(dead(part, small))
    assert [answer.code for answer in post.wait(2)] == [None, None]
    (kept,) = read_all(kafka.bootstrap_servers, large)
    assert wire.read_marks(kept.headers).chunk == Chunk(GROUP, 2, 5, 900_000)
    assert (kept.key, kept.header(wire.DEAD_CHUNK)) == (GROUP, f"{GROUP.hex()}/2/5".encode())
    (message,) = sent(kafka.bootstrap_servers, small)
    assert (message.body, message.records, message.key) == (random_bytes(300_000), 7, GROUP)
    assert message.every[0][wire.DEAD_CHUNK] == f"{GROUP.hex()}/2/5".encode()


def test_what_is_refused_is_sent_again_in_halves_as_a_group_of_its_own(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, body, post = limited(topics, 100_000), random_bytes(3_000_000), make(FixedLimits(1_000_000))
    post.sender.send(retry(entry(record(body)), target))
    post.sender.send(retry(entry(record(body[:150_000], key=b"smaller")), target))
    assert [answer.code for answer in post.wait(2)] == [None, None]
    found = {message.key: message for message in sent(kafka.bootstrap_servers, target, incomplete=True)}
    assert (found[b"k"].body, found[b"smaller"].body) == (body, body[:150_000])
    assert (found[b"k"].records, found[b"smaller"].records) == (49, 2)


def test_what_no_chunk_is_small_enough_for_is_refused(topics: Topics, make: Callable[..., Post]) -> None:
    target, post = limited(topics, 1000), make(FixedLimits(1_000_000))
    copy = retry(entry(record(random_bytes(30_000))), target)
    post.sender.send(copy)
    assert post.wait(1) == [p.HandOffAnswered(copy, "MSG_SIZE_TOO_LARGE")]


def test_copies_whose_batch_is_too_large_go_alone(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, post = limited(topics, 20_000), make()
    for i in range(300):
        post.sender.send(retry(entry(record(random_bytes(1500, b"%d" % i))), target))
    assert {answer.code for answer in post.wait(300)} == {None}
    bodies = sorted(message.body or b"" for message in sent(kafka.bootstrap_servers, target))
    assert bodies == sorted(random_bytes(1500, b"%d" % i) for i in range(300))


def test_many_large_copies_and_a_small_queue(kafka: Kafka, topics: Topics, make: Callable[..., Post]) -> None:
    whole, split = limited(topics, 6_000_000, "whole"), limited(topics, 1_000_000, "split")
    post = make(buffer_bytes=2 << 20)
    for i in range(12):
        body = random_bytes(5_000_000, b"%d" % i)
        post.sender.send(retry(entry(record(body, key=b"%d" % i)), (whole, split)[i % 2]))
    assert {answer.code for answer in post.wait(12)} == {None}
    found = {
        message.key: message.body
        for topic in (whole, split)
        for message in sent(kafka.bootstrap_servers, topic)
    }
    assert found == {b"%d" % i: random_bytes(5_000_000, b"%d" % i) for i in range(12)}


# What handlers send ----------------------------------------------------------------------------------------


def publication(*outputs: Output) -> p.Publication:
    return p.Publication(entry=entry(record(b"cause")), outputs=outputs, chance=0.5)


def test_a_publication_is_answered_when_all_of_it_is_there(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    one, two, post = limited(topics, 50_000), limited(topics, 1_000_000, "second"), make()
    large = random_bytes(400_000)
    told = publication(
        Output(topic=one, body=large, key=b"k", headers=(("own", b"h"),), id="id-0", split=True),
        Output(topic=one, body=None, key=b"t", id="id-1"),
        Output(topic=two, body=b"later", not_before_ms=NOW_MS + 500, id="id-2"),
    )
    post.sender.publish(told)
    assert post.wait(1) == [p.Published(told, None)]
    tomb, split = sorted(sent(kafka.bootstrap_servers, one), key=lambda it: it.records)
    assert (split.body, split.key, split.headers, split.marks.id) == (large, b"k", (("own", b"h"),), "id-0")
    assert (tomb.body, tomb.key, tomb.marks) == (None, b"t", Marks(id="id-1"))
    (later,) = sent(kafka.bootstrap_servers, two)
    assert later.marks == Marks(id="id-2", not_before_ms=NOW_MS + 500)


def test_a_refused_output_is_told_when_the_others_are_there(
    kafka: Kafka, topics: Topics, make: Callable[..., Post]
) -> None:
    target, post = limited(topics, 50_000), make()
    told = publication(
        Output(topic=target, body=random_bytes(60_000), id="too-large"),
        Output(topic=target, body=b"fits", id="fits"),
    )
    post.sender.publish(told)
    assert post.wait(1) == [p.Published(told, "MSG_SIZE_TOO_LARGE")]
    assert [message.body for message in sent(kafka.bootstrap_servers, target)] == [b"fits"]


def test_a_topic_that_is_not_there_holds_nobody_up(topics: Topics, make: Callable[..., Post]) -> None:
    target, post = limited(topics, 50_000), make()
    missing = publication(
        Output(topic=topics.name("missing"), body=random_bytes(2_000_000), id="a", split=True),
        Output(topic=topics.name("missing-too"), body=b"x", id="b"),
    )
    post.sender.publish(missing)
    copies = [retry(entry(record(random_bytes(200_000))), target) for _ in range(3)]
    for copy in copies:
        post.sender.send(copy)
    answers = post.wait(4)
    assert [answer.handoff for answer in answers[:3]] == copies
    # By whichever of its two topics is known to be missing first.
    assert answers[3].publication is missing
    assert answers[3].code in ("_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART")


# A consumer ------------------------------------------------------------------------------------------------


def test_a_dead_letter_topic_may_take_less_than_the_base_topic(real_lab: Lab) -> None:
    base = real_lab.topic()
    small = real_lab.topic("dead", 1, {"max.message.bytes": "40000"})
    body = random_bytes(880_000)  # 23 chunks while headers and batch take less than 1,739 of the 40,000 bytes

    def refuse(message: Message[Any]) -> None:
        if message.key == b"bad":
            raise Reject("as it should be")

    real_lab.start([Topic(base, dead_letter=small)], refuse)
    real_lab.send(base, body, key=b"bad", headers=[("own", b"h")])
    real_lab.send(base, b"{}", key=b"good")
    wait_until(lambda: len(read_all(real_lab.servers, small)) >= 23, WAIT, "23 chunks")
    real_lab.caught_up(Topic(base, dead_letter=DISCARD))
    (letter,) = sent(real_lab.servers, small)
    assert (letter.body, letter.key, letter.headers) == (body, b"bad", (("own", b"h"),))
    assert letter.records == 23
    assert {headers[wire.DEAD_ERROR_TEXT] for headers in letter.every} == {b"as it should be"}
