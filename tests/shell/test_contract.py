"""What a consumer does, on the mock cluster and on real Kafka alike."""

import asyncio
import contextvars
import logging
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka.serialization import StringDeserializer

from retriable_kafka_client import (
    STDLIB_JSON,
    DecodeError,
    Exponential,
    Limits,
    Message,
    Reject,
    Retry,
    RetryAfter,
    Topic,
)
from retriable_kafka_client import events as ev
from retriable_kafka_client.producer.producer import Producer
from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log, as_json, number, raiser
from tests.support.records import Read
from tests.support.waiting import wait_until

HOUR_MS = 3_600_000


class Weird(BaseException):
    """No Exception."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def has(record: Read, name: str) -> bool:
    return any(key == name for key, _ in record.headers)


# Success ---------------------------------------------------------------------------------------------------------


def test_every_message_is_handled_once(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.fill(entry, [as_json({"i": i}) for i in range(500)])
    consumer = lab.start(entry, lambda m: log.add((m.value["i"], m.attempt)))
    log.wait(500, "messages")
    lab.caught_up(entry)
    consumer.stop()
    assert consumer.join(30)
    assert log.counts() == {(i, 1): 1 for i in range(500)}
    stats = consumer.stats()
    assert (stats.handled, stats.arrived, stats.failed, stats.in_flight) == (500, 500, 0, 0)
    assert entry.retry and entry.retry.topic and isinstance(entry.dead_letter, str)
    assert lab.read(entry.retry.topic) == lab.read(entry.dead_letter) == []


def test_a_message_shows_what_the_sender_sent(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    headers = [("a", b"1"), ("a", None), ("ä", b"\xff\x00"), ("retriable_kafka_future", b"x")]
    place = lab.send(entry, b'{"n": 1}', key=b"\x00key", headers=headers, timestamp_ms=now_ms() - HOUR_MS)
    seen: Log = log

    def handler(m: Message[Any]) -> None:
        seen.add((m.value, m.body, m.key, m.headers, m.topic, m.partition, m.offset, m.timestamp, m.record))

    lab.start(entry, handler)
    value, body, key, own, topic, partition, offset, timestamp, record = log.wait(1)[0]
    assert (value, body, key) == ({"n": 1}, b'{"n": 1}', b"\x00key")
    assert own == (("a", b"1"), ("a", None), ("ä", b"\xff\x00"))
    assert (topic, (partition, offset)) == (entry.name, place)
    assert (record.topic, record.partition, record.offset, record.timestamp) == (topic, *place, timestamp)
    assert abs(datetime.now(UTC) - timestamp - timedelta(hours=1)) < timedelta(minutes=1)


# Failures --------------------------------------------------------------------------------------------------------


def test_a_failure_is_retried_after_its_delay_and_dead_lettered_at_last(lab: Lab) -> None:
    entry, runs = lab.entry(max_attempts=3, delay=(0.3, 0.7)), Log()
    born_ms = now_ms() - HOUR_MS
    own = (("trace", b"\x01"), ("none", None))
    place = lab.send(entry, b'{"a": 1}', key=b"k", headers=own, timestamp_ms=born_ms)
    began_ms = now_ms()

    def handler(m: Message[Any]) -> None:
        runs.add((time.time(), m.attempt, m.id, m.timestamp, (m.topic, m.partition, m.offset), m.record))
        assert (m.value, m.key, m.headers) == ({"a": 1}, b"k", own)
        raise KeyError("secret text")

    consumer = lab.start(entry, handler)
    dead = lab.dead(entry)
    lab.caught_up(entry)
    consumer.stop()
    assert consumer.join(30)

    times, attempts, ids, stamps, places, records = zip(*runs.items, strict=True)
    assert attempts == (1, 2, 3)
    assert 0.3 <= times[1] - times[0] < 5 and 0.7 <= times[2] - times[1] < 5
    assert len(set(ids)) == 1 and len(ids[0]) <= 255
    origin = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=born_ms)
    assert set(stamps) == {origin} and set(places) == {(entry.name, *place)}

    assert entry.retry and entry.retry.topic
    copies = sorted(lab.read(entry.retry.topic), key=lambda one: number(one.header(wire.ATTEMPT)))
    assert [one.topic for one in records] == [entry.name, entry.retry.topic, entry.retry.topic]
    assert [(one.partition, one.offset) for one in records[1:]] == [
        (one.partition, one.offset) for one in copies
    ]
    for index, copy in enumerate(copies):
        assert (copy.value, copy.key, copy.headers[:2]) == (b'{"a": 1}', b"k", own)
        assert copy.timestamp_ms >= began_ms  # stamped now
        assert records[index + 1].timestamp.timestamp() * 1000 == pytest.approx(copy.timestamp_ms)
        marks = wire.read_marks(copy.headers)
        assert (marks.failed, marks.group, marks.id) == (index + 1, lab.group, ids[0])
        assert marks.origin == wire.Origin(entry.name, *place)
        assert marks.origin_timestamp_ms == born_ms
        assert marks.not_before_ms is not None
        assert marks.not_before_ms >= times[index] * 1000 + (300, 700)[index]
        assert number(copy.header(wire.TIMESTAMP)) * 1000 >= marks.not_before_ms  # 0.x never runs it early

    (letter,) = dead
    assert (letter.value, letter.key, letter.headers[:2]) == (b'{"a": 1}', b"k", own)
    assert letter.timestamp_ms >= began_ms
    assert letter.header(wire.DEAD_REASON) == b"exhausted"
    assert letter.header(wire.DEAD_ERROR) == b"KeyError"
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 3
    assert began_ms <= number(letter.header(wire.DEAD_TIME)) <= now_ms()
    assert letter.header(wire.ORIGIN) == f"{entry.name}/{place[0]}/{place[1]}".encode()
    assert letter.header(wire.ID) == ids[0].encode()
    assert letter.header(wire.GROUP) == lab.group.encode()
    assert number(letter.header(wire.ORIGIN_TIMESTAMP)) == born_ms
    for absent in (wire.DEAD_ERROR_TEXT, wire.ATTEMPT, wire.TIMESTAMP, wire.ALONE, wire.PARKED):
        assert not has(letter, absent)
    stats = consumer.stats()
    assert (stats.handled, stats.failed, stats.retried, stats.dead_lettered) == (0, 3, 2, 1)


def test_retry_after_sets_its_own_delay_and_counts_as_an_attempt(lab: Lab) -> None:
    entry, runs = lab.entry(max_attempts=3, delay=3600), Log()
    lab.send(entry, b"1")

    def handler(m: Message[Any]) -> None:
        runs.add((time.time(), m.attempt))
        raise RetryAfter(0.2 if m.attempt == 1 else timedelta(milliseconds=400))

    lab.start(entry, handler)
    (letter,) = lab.dead(entry)
    times, attempts = zip(*runs.items, strict=True)
    assert attempts == (1, 2, 3)
    assert 0.2 <= times[1] - times[0] < 5 and 0.4 <= times[2] - times[1] < 5
    assert letter.header(wire.DEAD_REASON) == b"exhausted"
    assert letter.header(wire.DEAD_ERROR) == b"retriable_kafka_client.errors.RetryAfter"


@pytest.mark.parametrize("error_text", [False, True])
def test_reject_goes_straight_to_the_dead_letters_with_its_reason(lab: Lab, error_text: bool) -> None:
    entry = lab.entry()
    lab.send(entry, b"1")
    lab.start(entry, raiser(Reject("ünwanted")), error_text=error_text)
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_REASON) == b"rejected"
    assert letter.header(wire.DEAD_ERROR_TEXT) == "ünwanted".encode()
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 1


@pytest.mark.parametrize("error_text", [False, True])
def test_an_exceptions_text_is_kept_only_where_asked_for(
    lab: Lab, error_text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entry = lab.entry(max_attempts=1)
    lab.send(entry, as_json("payload-41"), key=b"key-41", headers=[("h", b"header-41")])
    consumer = lab.start(entry, raiser(ValueError("text-41")), error_text=error_text)
    (letter,) = lab.dead(entry)
    consumer.stop()
    assert consumer.join(30)
    if error_text:
        assert letter.header(wire.DEAD_ERROR_TEXT) == b"text-41"
    else:
        assert not has(letter, wire.DEAD_ERROR_TEXT)
        assert "text-41" not in caplog.text
    for secret in ("payload-41", "key-41", "header-41"):
        assert secret not in caplog.text + repr(lab.events.items)


def test_errors_to_give_up_on_are_not_retried(lab: Lab) -> None:
    entry, runs = lab.entry(give_up_on=(LookupError,)), Log()
    lab.send(entry, b"1")

    def handler(m: Message[Any]) -> None:
        runs.add(m.attempt)
        raise KeyError("a LookupError")

    lab.start(entry, handler)
    (letter,) = lab.dead(entry)
    assert runs.items == [1]
    assert letter.header(wire.DEAD_REASON) == b"given-up"
    assert letter.header(wire.DEAD_ERROR) == b"KeyError"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_even_exits_out_of_a_handler_are_failed_attempts(lab: Lab, error: type[BaseException]) -> None:
    entry = lab.entry(retry=False)
    lab.send(entry, b"1")
    consumer = lab.start(entry, raiser(error))
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_ERROR).endswith(error.__name__.encode())  # type: ignore[union-attr]
    assert consumer.health().ready


def test_without_retry_there_is_one_attempt(lab: Lab) -> None:
    entry = lab.entry(retry=False)
    lab.send(entry, b"1")
    consumer = lab.start(entry, raiser(ValueError("no")))
    (letter,) = lab.dead(entry)
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 1
    lab.caught_up(entry)
    assert consumer.stats().failed == 1


def test_discard_drops_counts_and_tells(lab: Lab) -> None:
    entry = lab.entry(dead_letter=False, max_attempts=2)
    lab.send(entry, b"1")
    lab.send(entry, b"not json")
    consumer = lab.start(entry, lambda m: 1 // 0 if m.value else None)
    wait_until(lambda: consumer.stats().dropped == 2, what=repr(consumer.stats()))
    lab.caught_up(entry)
    told = {(one.reason, one.attempts, one.error) for one in lab.events.of(ev.MessageDropped)}
    assert told == {
        ("exhausted", 2, "ZeroDivisionError"),
        ("undecodable", 1, "msgspec.DecodeError"),
    }


def test_a_far_off_retry_holds_up_nothing_behind_it(lab: Lab) -> None:
    entry, runs = lab.entry(), Log()
    lab.fill(entry, [as_json(i) for i in range(20)], partition=0)

    def handler(m: Message[Any]) -> None:
        if m.attempt == 1:
            raise RetryAfter(3600 if m.value % 2 == 0 else 0.2)
        runs.add(m.value)

    consumer = lab.start(entry, handler)
    assert sorted(runs.wait(10)) == list(range(1, 20, 2))
    wait_until(lambda: sum(one.waiting for one in consumer.stats().partitions.values()) == 10)
    consumer.stop()
    assert consumer.join(10)  # a stop waits for nothing that is not due
    assert consumer.health().reasons == ("stopped",)


def test_jitter_spreads_and_never_undercuts(lab: Lab) -> None:
    entry, runs = lab.entry(delay=Exponential(0.2, jitter=0.5), max_attempts=2), Log()
    lab.fill(entry, [as_json(i) for i in range(30)])

    def handler(m: Message[Any]) -> None:
        runs.add((m.attempt, m.value, time.time()))
        raise ValueError

    lab.start(entry, handler)
    runs.wait(60)
    first = {value: at for attempt, value, at in runs if attempt == 1}
    second = {value: at for attempt, value, at in runs if attempt == 2}
    waits = [second[value] - first[value] for value in first]
    assert min(waits) >= 0.1
    assert entry.retry and entry.retry.topic
    delays = []
    for copy in lab.read(entry.retry.topic):
        marks = wire.read_marks(copy.headers)
        assert marks.not_before_ms is not None and marks.first_failure_ms is not None
        delays.append(marks.not_before_ms - marks.first_failure_ms)
    assert len(set(delays)) > 5 and min(delays) >= 100 and max(delays) <= 302


# Payloads --------------------------------------------------------------------------------------------------------


def test_falsy_values_are_handled_like_any_other(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    payloads: list[bytes | None] = [b"{}", b"[]", b"0", b'""', b"null", b"false", b"0.0", None]
    lab.fill(entry, payloads, partition=0)

    def handler(m: Message[Any]) -> None:
        log.add((m.body, m.value, m.attempt))
        if m.attempt == 1:
            raise ValueError

    consumer = lab.start(entry, handler)
    wait_until(lambda: consumer.stats().handled == 8, what=repr(consumer.stats()))
    values = [{}, [], 0, "", None, False, 0.0, None]
    wanted = [(p, v, a) for a in (1, 2) for p, v in zip(payloads, values, strict=True)]
    assert sorted(map(repr, log)) == sorted(map(repr, wanted))
    assert entry.retry and entry.retry.topic
    assert Counter(one.value for one in lab.read(entry.retry.topic)) == Counter(payloads)


def test_an_empty_body_cannot_be_decoded_but_may_be_left_unread(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"", key=b"read")
    lab.send(entry, b"", key=b"unread")

    def handler(m: Message[Any]) -> None:
        log.add((m.key, m.body, m.value if m.key == b"read" else None))

    lab.start(entry, handler)
    (letter,) = lab.dead(entry)
    assert (letter.key, letter.value) == (b"read", b"")
    assert letter.header(wire.DEAD_REASON) == b"undecodable"
    assert log.wait(1) == [(b"unread", b"", None)]


BROKEN = [b"not json", b"\xff\xfe", b"[" * 100_000, b"NaN", b'"\\ud800"', b"1" * 5000 + b"x", b"{} {}"]


@pytest.mark.parametrize("swallow", [False, True])
def test_undecodable_payloads_are_dead_lettered_at_once(lab: Lab, swallow: bool) -> None:
    entry, log = lab.entry(give_up_on=(DecodeError,)), Log()
    lab.fill(entry, [*BROKEN, b'"fine"'])

    def handler(m: Message[Any]) -> None:
        try:
            log.add(m.value)
        except DecodeError:
            if not swallow:
                raise

    consumer = lab.start(entry, handler, error_text=True)
    letters = lab.dead(entry, len(BROKEN))
    lab.caught_up(entry)
    assert sorted(one.value or b"" for one in letters) == sorted(BROKEN)
    for letter in letters:
        assert letter.header(wire.DEAD_REASON) == b"undecodable"
        assert number(letter.header(wire.DEAD_ATTEMPTS)) == 1
    assert log.items == ["fine"]
    assert consumer.stats().retried == 0


def test_the_stdlibs_json_reads_what_0x_writes(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"[NaN, " + b"1" * 4000 + b"]")
    lab.start(entry, lambda m: log.add(m.value), deserializer=STDLIB_JSON)
    ((nan, large),) = log.wait(1)
    assert nan != nan and large == int("1" * 4000)  # noqa: PLR0124 - the property of NaN


def test_an_own_deserializer_sees_the_message_and_decides(lab: Lab) -> None:
    entry, log, calls = lab.entry(), Log(), Log()

    def deserializer(body: bytes, m: Message[Any]) -> Any:
        calls.add(m.key)
        if m.key == b"bad":
            raise RuntimeError("not mine")
        if m.key == b"reject":
            raise Reject("old version")
        return body.decode() + dict(m.headers)["suffix"].decode()  # type: ignore[union-attr]

    def handler(m: Message[Any]) -> None:
        log.add((m.value, m.value))

    for key in (b"good", b"bad", b"reject", b"tombstone"):
        lab.send(entry, None if key == b"tombstone" else b"b", key=key, headers=[("suffix", b"!")])
    lab.start(entry, handler, deserializer=deserializer)
    letters = {one.key: one for one in lab.dead(entry, 2)}
    assert letters[b"bad"].header(wire.DEAD_REASON) == b"undecodable"
    assert letters[b"reject"].header(wire.DEAD_REASON) == b"rejected"
    assert sorted(map(repr, log.wait(2))) == ["('b!', 'b!')", "(None, None)"]
    assert calls.counts() == {b"good": 1, b"bad": 1, b"reject": 1}  # once each, never for a null body


@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_filter_that_cannot_decode_now_is_a_failed_attempt(lab: Lab, swallow: bool, in_place: bool) -> None:
    down = threading.Event()

    def decode(body: bytes, message: Message[Any]) -> Any:
        if not down.is_set():
            raise ConnectionRefusedError
        return int(body)

    def keep(message: Message[Any]) -> bool:
        try:
            return bool(message.value == 1)
        except OSError:
            if swallow:
                return False
            raise
        finally:
            if message.attempt == 2:
                down.set()

    entry, log = lab.entry(in_place=in_place), Log()
    lab.fill(entry, [b"1", b"2"])
    consumer = lab.start(entry, lambda m: log.add((m.value, m.attempt > 1)), filter=keep, deserializer=decode)
    lab.caught_up(entry)
    wait_until(lambda: len(log) + consumer.stats().filtered == 2, what=repr(consumer.stats()))
    assert consumer.stats().dead_lettered == 0
    assert log.items == [(1, True)] or not log.items


@pytest.mark.parametrize("wanted", [False, True])
def test_a_filter_that_cannot_decode_a_backlog_now_is_asked_again_for_all_of_it(
    lab: Lab, wanted: bool
) -> None:
    entry, log, count = lab.entry(in_place=True), Log(), 1_500

    def decode(body: bytes, message: Message[Any]) -> Any:
        if message.attempt < 3:
            raise ConnectionRefusedError
        return int(body)

    def keep_value(message: Message[Any]) -> bool:
        return message.value >= 0 and wanted

    lab.fill(entry, [b"%d" % number for number in range(count)])
    consumer = lab.start(
        entry,
        lambda m: log.add(m.value),
        filter=keep_value,
        deserializer=decode,
        limits=Limits(in_flight=20),
    )
    lab.caught_up(entry)
    wait_until(lambda: len(log) + consumer.stats().filtered == count, what=repr(consumer.stats()))
    assert sorted(log.items) == (list(range(count)) if wanted else [])


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Weird],
    ids=lambda e: e.__name__,
)
def test_even_exits_out_of_a_filter_or_deserializer_fail_one_message(
    lab: Lab, error: type[BaseException]
) -> None:
    def keep(message: Message[Any]) -> bool:
        if message.body == b"1":
            raise error
        return True

    def decode(body: bytes, _message: Message[Any]) -> Any:
        if body == b"2":
            raise error
        return int(body)

    entry, log = lab.entry(), Log()
    lab.fill(entry, [b"1", b"2", b"3"])
    consumer = lab.start(entry, lambda m: log.add(m.value), filter=keep, deserializer=decode)
    letters = {one.value: one for one in lab.dead(entry, 2)}
    lab.caught_up(entry)
    assert letters[b"1"].header(wire.DEAD_REASON) == b"filter-failed"
    assert letters[b"1"].header(wire.DEAD_ERROR).endswith(error.__name__.encode())  # type: ignore[union-attr]
    assert letters[b"2"].header(wire.DEAD_REASON) == b"undecodable"
    assert log.items == [3]
    assert consumer.health().ready


def test_a_deserializer_of_confluent_kafka_will_do(lab: Lab) -> None:
    entry, log = lab.entry(), Log()
    lab.send(entry, b"no json")
    lab.start(entry, lambda m: log.add(m.value), deserializer=StringDeserializer("utf_8"))
    assert log.wait(1) == ["no json"]


def bug(_message: Message[Any]) -> None:
    raise NameError("card 4711")


@pytest.mark.parametrize("discard", [False, True])
def test_a_bug_in_a_handler_is_told_with_its_place(
    lab: Lab, discard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    entry = lab.entry(dead_letter=not discard, max_attempts=3, delay=0.01)
    lab.fill(entry, [as_json(i) for i in range(40)])
    consumer = lab.start(entry, bug)
    wait_until(lambda: consumer.stats().dropped + consumer.stats().dead_lettered == 40)
    consumer.stop()
    assert consumer.join(30)
    place = f"{__name__}:{bug.__code__.co_firstlineno + 1} bug"
    lines = [one for one in caplog.records if "NameError" in one.getMessage()]
    warnings = [one.getMessage() for one in lines if one.levelno == logging.WARNING]
    assert warnings
    assert all(place in one.getMessage() for one in lines)
    assert any(("dropped" if discard else "dead-lettered") in one for one in warnings)
    assert "4711" not in caplog.text
    kind = ev.MessageDropped if discard else ev.MessageDeadLettered
    assert {(one.error, one.place) for one in lab.events.of(kind)} == {("NameError", place)}
    if not discard:
        assert {one.header(wire.DEAD_PLACE) for one in lab.dead(entry, 40)} == {place.encode()}


def test_a_filter_has_a_context_of_its_own_each_time(lab: Lab) -> None:
    seen: contextvars.ContextVar[int] = contextvars.ContextVar("seen")
    found = Log()

    def keep(message: Message[Any]) -> bool:
        found.add(seen.get(-1))
        seen.set(message.offset)
        return True

    entry = lab.entry()
    lab.fill(entry, [b"1"] * 20)
    token = seen.set(-2)
    lab.start(entry, lambda m: None, filter=keep)
    seen.reset(token)
    found.wait(20)
    assert found.items == [-2] * 20


def test_a_filter_that_returns_a_coroutine_keeps_nothing(lab: Lab) -> None:
    async def keep(_message: Message[Any]) -> bool:
        return True

    entry, log = lab.entry(), Log()
    lab.send(entry, b"1")
    lab.start(entry, lambda m: log.add(m.value), filter=lambda m: keep(m))  # noqa: PLW0108 - hides it
    (letter,) = lab.dead(entry)
    assert letter.header(wire.DEAD_REASON) == b"filter-failed"
    assert letter.header(wire.DEAD_ERROR) == b"retriable_kafka_client.workers.job.AwaitableReturned"
    assert not log.items


def test_the_filter_decides_before_the_handler(lab: Lab) -> None:
    entry, log, asked = lab.entry(), Log(), Log()

    def keep(m: Message[Any]) -> bool:
        asked.add((m.key, threading.current_thread().name.startswith("rkc-worker")))
        if m.key == b"raise":
            raise LookupError("secret")
        return m.key != b"drop"

    for key in (b"keep", b"drop", b"raise"):
        lab.send(entry, as_json(key.decode()), key=key)
    consumer = lab.start(entry, lambda m: log.add(m.value), filter=keep)
    (letter,) = lab.dead(entry)
    assert letter.key == b"raise"
    assert letter.header(wire.DEAD_REASON) == b"filter-failed"
    assert letter.header(wire.DEAD_ERROR) == b"LookupError"
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 0
    assert not has(letter, wire.DEAD_ERROR_TEXT)
    assert log.wait(1) == ["keep"]
    lab.caught_up(entry)
    assert sorted(asked.items) == [(b"drop", False), (b"keep", False), (b"raise", False)]
    wait_until(lambda: consumer.stats().filtered == 1)


# Topics ----------------------------------------------------------------------------------------------------------


def test_several_topics_share_a_handler_a_retry_topic_and_dead_letters(lab: Lab) -> None:
    retry, dead, runs = lab.topic("retry"), lab.topic("dead"), Log()
    entries = [
        Topic(lab.topic(str(n)), retry=Retry(retry, max_attempts=n, delay=0.05 * n), dead_letter=dead)
        for n in (1, 2, 3)
    ]
    for entry in entries:
        lab.send(entry, as_json(entry.name))

    def handler(m: Message[Any]) -> None:
        assert m.value == m.topic
        runs.add((m.topic, m.attempt))
        raise ValueError

    lab.start(entries, handler)
    letters = lab.dead(entries[0], 3)
    lab.caught_up(*entries)
    wanted = [(entry.name, n) for entry in entries for n in range(1, entry.retry.max_attempts + 1)]  # type: ignore[union-attr]
    assert runs.counts() == Counter(wanted)
    attempts = {one.value: number(one.header(wire.DEAD_ATTEMPTS)) for one in letters}
    assert attempts == {as_json(entry.name): entry.retry.max_attempts for entry in entries}  # type: ignore[union-attr]


def test_groups_that_share_a_retry_topic_leave_each_other_alone(lab: Lab) -> None:
    entry, failing, fine = lab.entry(max_attempts=3), Log(), Log()
    lab.fill(entry, [as_json(i) for i in range(20)])
    other = f"{lab.group}-other"

    def fail(m: Message[Any]) -> None:
        failing.add((m.value, m.attempt))
        raise ValueError

    lab.start(entry, fail)
    second = lab.start(entry, lambda m: fine.add((m.value, m.attempt)), group=other)
    lab.dead(entry, 20)
    lab.caught_up(entry)
    lab.caught_up(entry, group=other)
    assert failing.counts() == {(i, a): 1 for i in range(20) for a in (1, 2, 3)}
    assert fine.counts() == {(i, 1): 1 for i in range(20)}
    wait_until(lambda: second.stats().foreign == 40, what=repr(second.stats()))
    assert second.stats().handled == 20


def test_a_job_sent_to_a_retry_topic_runs_when_it_is_due(lab: Lab) -> None:
    first = lab.entry(max_attempts=2)
    assert first.retry and first.retry.topic and isinstance(first.dead_letter, str)
    second = Topic(lab.topic("second"), retry=Retry(first.retry.topic), dead_letter=first.dead_letter)
    runs = Log()

    def handler(m: Message[Any]) -> None:
        runs.add((time.time(), m.value, m.attempt, m.topic, m.id))
        if m.value == "fails":
            raise ValueError

    with Producer(lab.cluster({})) as producer:
        began = time.time()
        due = datetime.now(UTC) + timedelta(seconds=0.8)
        producer.send(first.retry.topic, "at", not_before=due, key="k").result(30)
        producer.send(first.retry.topic, "after", delay=0.6).result(30)
        producer.send(first.retry.topic, "fails").result(30)
    lab.start([first, second], handler)
    (letter,) = lab.dead(first)
    runs.wait(4)
    lab.caught_up(first)
    by_value = {one[1]: one for one in runs if one[2] == 1}
    assert by_value["at"][0] >= due.timestamp() and by_value["after"][0] >= began + 0.6
    assert {one[3] for one in runs} == {first.retry.topic}
    fails = [one for one in runs if one[1] == "fails"]
    assert [one[2] for one in fails] == [1, 2] and fails[0][4] == fails[1][4]
    assert number(letter.header(wire.DEAD_ATTEMPTS)) == 2
    assert letter.header(wire.ORIGIN).startswith(first.retry.topic.encode() + b"/")  # type: ignore[union-attr]
