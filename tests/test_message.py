import json
import math
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message as Raw
from confluent_kafka.cimpl import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from retriable_kafka_client.errors import DecodeError, Reject, RetryAfter
from retriable_kafka_client.message import JSON, STDLIB_JSON, Message, PlainRecord, RawRecord, Record
from retriable_kafka_client.wire import headers as wire
from retriable_kafka_client.wire.headers import PLAIN, Chunk, Marks, Origin

STAMP = (TIMESTAMP_CREATE_TIME, 1_700_000_000_123)
WHEN = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def plain(
    body: bytes | None = b"{}", *, key: bytes | None = None, stamp: tuple[int, int] = STAMP
) -> PlainRecord:
    return PlainRecord(
        body, key, [("own", b"1"), (wire.ATTEMPT, b"junk"), ("own", None)], "orders", 3, 17, stamp
    )


def client_record() -> Raw:
    return Raw(
        topic="orders",
        partition=3,
        offset=17,
        key=None,
        value=b"{}",
        headers=[("own", b"1"), (wire.ATTEMPT, b"junk"), ("own", None)],
        timestamp=STAMP,
    )


def message(raw: RawRecord, marks: Marks = PLAIN, deserializer: Any = JSON) -> Message[Any]:
    return Message(raw, marks, "uid", deserializer)


@pytest.mark.parametrize("raw", [plain(), client_record()], ids=["plain", "client"])
def test_a_first_run_is_where_its_record_is(raw: RawRecord) -> None:
    seen = message(raw)
    assert (seen.topic, seen.partition, seen.offset, seen.timestamp) == ("orders", 3, 17, WHEN)
    assert seen.record == Record("orders", 3, 17, WHEN)
    assert seen.attempt == 1
    assert seen.id == "uid-3-17"
    assert seen.body == b"{}"
    assert seen.key is None
    assert seen.headers == (("own", b"1"), ("own", None))
    assert seen.value == {}


def test_a_plain_record_is_what_the_clients_record_says() -> None:
    assert PlainRecord.of(client_record()) == plain()
    assert len(plain(b"12345")) == 5
    assert len(plain(None)) == 0
    assert plain(b"")
    assert pickle.loads(pickle.dumps(plain())) == plain()


def test_a_retry_copy_names_its_original_and_where_it_stands() -> None:
    marks = Marks(failed=2, origin=Origin("first", 1, 5), origin_timestamp_ms=0, id="first-id")
    seen = message(plain(), marks)
    assert (seen.topic, seen.partition, seen.offset) == ("first", 1, 5)
    assert seen.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    assert seen.record == Record("orders", 3, 17, WHEN)
    assert (seen.attempt, seen.id) == (3, "first-id")


def test_a_retry_copy_without_the_originals_timestamp_has_none() -> None:
    assert message(plain(), Marks(failed=1, origin=Origin("first", 1, 5))).timestamp is None


def test_a_copy_of_0x_stands_for_itself() -> None:
    seen = message(plain(), Marks(failed=1))
    assert (seen.topic, seen.partition, seen.offset, seen.timestamp) == ("orders", 3, 17, WHEN)
    assert seen.attempt == 2


@pytest.mark.parametrize(
    "stamp", [(TIMESTAMP_NOT_AVAILABLE, 0), (TIMESTAMP_CREATE_TIME, -1), (TIMESTAMP_CREATE_TIME, 2**63 - 1)]
)
def test_what_is_no_date_is_no_timestamp(stamp: tuple[int, int]) -> None:
    seen = message(plain(stamp=stamp))
    assert seen.timestamp is None
    assert seen.record.timestamp is None


def test_a_key_that_is_the_chunk_groups_id_means_no_key() -> None:
    group = b"g" * 16
    assert message(plain(key=group), Marks(chunk=Chunk(group, 0, 1))).key is None
    assert message(plain(key=b"own"), Marks(chunk=Chunk(group, 0, 1))).key == b"own"
    assert message(plain(key=group)).key == group


def test_the_value_is_decoded_once_and_only_when_read() -> None:
    calls: list[bytes] = []

    def decode(body: bytes, given: Message[Any]) -> Any:
        calls.append(body)
        return given.headers

    seen = message(plain(b"x"), deserializer=decode)
    assert calls == []
    assert seen.value is seen.value
    assert calls == [b"x"]


@pytest.mark.parametrize("value", [{}, [], 0, "", False, None], ids=repr)
def test_falsy_values_are_values(value: object) -> None:
    calls = 0

    def decode(_body: bytes, _message: Message[Any]) -> Any:
        nonlocal calls
        calls += 1
        return value

    seen = message(plain(b"x"), deserializer=decode)
    assert (seen.value, seen.value) == (value, value)
    assert calls == 1
    assert message(plain(msgspec.json.encode(value))).value == value


def test_a_null_body_is_none_and_not_decoded() -> None:
    seen = message(plain(None), deserializer=None)
    assert seen.value is None
    assert seen.body is None
    assert seen.decode_error is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000, b"1" * 5000 + b"x", b"NaN", b'"\\ud800"'],
    ids=["empty", "cut", "not-utf8", "deep", "digits", "nan", "surrogate"],
)
def test_what_cannot_be_decoded_raises_each_time_and_is_remembered(body: bytes) -> None:
    seen = message(plain(body))
    with pytest.raises(DecodeError) as first:
        _ = seen.value
    with pytest.raises(DecodeError) as second:
        _ = seen.value
    assert first.value is second.value is seen.decode_error
    assert len(str(first.value)) < 200


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 5000, b"\xff"], ids=["deep", "digits", "not-utf8"])
def test_the_standard_librarys_troubles_are_decode_errors_too(body: bytes) -> None:
    with pytest.raises(DecodeError):
        _ = message(plain(body), deserializer=STDLIB_JSON).value


def test_a_decode_error_holds_no_payload() -> None:
    def decode(body: bytes, _message: Message[Any]) -> Any:
        raise ValueError(body.decode())

    with pytest.raises(DecodeError) as caught:
        _ = message(plain(b"card 4711"), deserializer=decode).value
    assert "4711" not in str(caught.value) + repr(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [Reject("old version"), RetryAfter(5), MemoryError()])
def test_a_deserializers_verdict_passes_and_is_not_a_decode_error(error: Exception) -> None:
    def decode(_body: bytes, _message: Message[Any]) -> Any:
        raise error

    seen = message(plain(b"x"), deserializer=decode)
    with pytest.raises(type(error)):
        _ = seen.value
    assert seen.decode_error is None


def test_messages_pickle() -> None:
    marks = Marks(failed=1, origin=Origin("first", 1, 5))
    copy = pickle.loads(pickle.dumps(message(client_record(), marks)))
    assert (copy.topic, copy.attempt, copy.value, copy.record) == (
        "first",
        2,
        {},
        Record("orders", 3, 17, WHEN),
    )


def test_no_repr_holds_payload_key_or_header() -> None:
    raw = PlainRecord(b"4711", b"4711", [("h", b"4711")], "orders", 0, 1, STAMP)
    assert "4711" not in repr(raw) + repr(message(raw))
    assert repr(message(raw)) == "<Message orders/0/1 attempt 1>"


@pytest.mark.parametrize("codec", [JSON, STDLIB_JSON], ids=repr)
def test_the_codecs_go_both_ways_and_are_one_object_in_every_process(codec: Any) -> None:
    value = {"a": [1, 2.5, None, True, "ä"]}
    assert codec(codec(value), message(plain())) == value
    assert json.loads(codec(value)) == value
    assert pickle.loads(pickle.dumps(codec)) is codec


def test_integers_of_any_length_are_exact_with_both_codecs() -> None:
    given = message(plain())
    for codec in (JSON, STDLIB_JSON):
        for number in (2**53 + 1, 2**64 + 1, -(2**70), 10**4_299):
            assert codec(codec({"amount": number}), given) == {"amount": number}


def test_where_the_codecs_differ() -> None:
    given = message(plain())
    assert math.isnan(STDLIB_JSON(STDLIB_JSON(math.nan), given))
    assert STDLIB_JSON(b"1e400", given) == math.inf
    assert STDLIB_JSON(STDLIB_JSON("\ud800"), given) == "\ud800"
    for value in (math.nan, math.inf):
        assert JSON(value) == b"null"
    for body in (b"NaN", b"Infinity", b"1e400", b'"\\ud800"', b"\xef\xbb\xbf1", b"9" * 4_301):
        with pytest.raises(ValueError, match=r"JSON|range|truncated|Integer"):
            JSON(body, given)
    with pytest.raises(ValueError, match="surrogates"):
        JSON("\ud800")
    with pytest.raises(TypeError, match="Decimal"):
        STDLIB_JSON(Decimal(1))
    assert JSON({Decimal("1.5"): b"ab"}) == b'{"1.5":"YWI="}'


def test_classes_of_the_users_own_are_written_as_what_they_are_made_of() -> None:
    class Name(str):
        __slots__ = ()

    class Count(int):
        pass

    class Share(float):
        pass

    assert JSON({"a": [Name("x"), Count(3), Share(0.5)]}) == b'{"a":["x",3,0.5]}'
    with pytest.raises(TypeError, match="type object cannot be written as JSON; pass a serializer"):
        JSON({"a": object()})
