"""What ``Message.send`` takes, and what becomes of it."""

import io
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriable_kafka_client.errors import ConfigError, RetriableKafkaError
from retriable_kafka_client.message import Message
from retriable_kafka_client.testing import Output, make_message, sent
from retriable_kafka_client.wire.headers import Marks, read_marks, write_marks
from retriable_kafka_client.wire.outbox import HEADER_BYTES, OUTPUT_BYTES, identified


def sent_of(value: Any, **options: Any) -> Output:
    message = make_message({})
    message.send("out", value, **options)
    (output,) = sent(message)
    return output


def test_a_unit_test_can_look_at_what_a_handler_sent() -> None:
    def handler(message: Message[Any]) -> None:
        for line in message.value["lines"]:
            message.send("lines", line, key=message.key)

    message = make_message({"lines": [1, 2]}, key="order-1")
    assert sent(message) == ()
    handler(message)
    assert [(one.topic, one.body, one.key) for one in sent(message)] == [
        ("lines", b"1", b"order-1"),
        ("lines", b"2", b"order-1"),
    ]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"a": 1}, b'{"a":1}'),
        ("text", b'"text"'),
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        (io.BytesIO(b"of a file"), b"of a file"),
        (b"", b""),
        (None, None),
    ],
)
def test_values_are_as_for_a_producer(value: Any, body: bytes | None) -> None:
    assert sent_of(value).body == body


def test_a_value_is_serialized_at_once() -> None:
    value = {"a": 1}
    message = make_message({})
    message.send("out", value)
    value["a"] = 2
    assert sent(message)[0].body == b'{"a":1}'


def test_keys_headers_and_schedules_are_as_for_a_producer() -> None:
    output = sent_of(1, key="ä", headers=[("a", "ä"), ("a", None), ("b", b"\xff")])
    assert output.key == "ä".encode()
    assert output.headers == (("a", "ä".encode()), ("a", None), ("b", b"\xff"))
    assert output.size == 1 + 2 + (1 + 2) + 1 + (1 + 1) + 3 * HEADER_BYTES + OUTPUT_BYTES
    when = datetime.now(UTC) + timedelta(hours=1)
    assert sent_of(1, not_before=when).not_before_ms == -(-when.timestamp() * 1000 // 1)
    assert sent_of(1, not_before=datetime.now(UTC) - timedelta(hours=1)).not_before_ms is None
    before = datetime.now(UTC).timestamp()
    due_ms = sent_of(1, delay=60).not_before_ms
    assert due_ms is not None
    assert before + 60 <= due_ms / 1000


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"topic": "no such name!"}, "Message.send.topic"),
        ({"key": 5}, "Message.send.key"),
        ({"headers": {"retriable_kafka_id": b"x"}}, "Message.send.headers"),
        ({"headers": {"a": 5}}, "Message.send.headers"),
        ({"headers": {"a\0b": b"x"}}, "Message.send.headers"),
        ({"headers": {"\ud800": b"x"}}, "Message.send.headers"),  # as json.loads makes it; ended the process
        ({"not_before": datetime(2030, 1, 1)}, "Message.send.not_before"),  # noqa: DTZ001 - the point
        ({"not_before": datetime.now(UTC), "delay": 1}, "Message.send.not_before"),
        ({"delay": -1}, "Message.send.delay"),
        ({"delay": timedelta(days=366)}, "Message.send.delay"),
        ({"value": io.StringIO("text")}, "Message.send.value"),
        ({"split": 1}, "Message.send.split"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], field: str) -> None:
    message = make_message({})
    with pytest.raises(ConfigError) as caught:
        message.send(**{"topic": "out", "value": 1, **options})
    assert caught.value.field == field
    assert sent(message) == ()


def test_outputs_pickle_and_show_no_payload() -> None:
    output = sent_of(b"4711", key=b"4711", headers={"h": b"4711"}, delay=5, split=True)
    assert pickle.loads(pickle.dumps(output)) == output
    assert "4711" not in repr(output)


def test_a_message_that_no_handler_runs_sends_nothing() -> None:
    copy = pickle.loads(pickle.dumps(make_message({})))
    with pytest.raises(RetriableKafkaError, match="only while its handler runs"):
        copy.send("out", {})


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255),
    st.text(max_size=50),
)
def test_ids_go_into_the_header_and_differ(message_id: str, group: str) -> None:
    outputs = [sent_of(1)] * 12
    ids = [one.id for one in identified(outputs, message_id, group)]
    assert len(set(ids)) == 12
    assert [one.id for one in identified(outputs, message_id, group)] == ids
    assert not set(ids) & {one.id for one in identified(outputs, message_id, group + "x")}
    for name in ids:
        assert read_marks(write_marks(Marks(id=name))).id == name
