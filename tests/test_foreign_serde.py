"""Deserializers of confluent-kafka are given what they expect."""

import functools
import pickle
import struct
from typing import Any

import pytest
from confluent_kafka.serialization import (
    DoubleDeserializer,
    IntegerDeserializer,
    MessageField,
    StringDeserializer,
)

from retriable_kafka_client.brokers.confluent_serde import adapted
from retriable_kafka_client.testing import make_message


class Registry:
    """Uses its context as confluent-kafka's AvroDeserializer does: subject by topic and field, schema by a header."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []

    def __call__(self, data: bytes | None, ctx: Any = None) -> str | None:
        if data is None:
            return None
        assert ctx is not None
        schema = None
        if isinstance(ctx.headers, list):
            for header in ctx.headers:
                if header[0] == "__value_schema_id":
                    schema = int(header[1])
        elif isinstance(ctx.headers, dict):
            schema = int(ctx.headers["__value_schema_id"])
        suffix = "-key" if ctx.field == MessageField.KEY else "-value"
        if ctx.field != MessageField.VALUE:
            raise ValueError(ctx.field)
        self.seen.append((ctx.topic + suffix, schema))
        return data.decode()


def by_name(data: bytes, ctx: Any) -> Any:
    """A function of the same form, which may also read what only a message has."""
    return ctx.topic, ctx.field == MessageField.VALUE, ctx.headers, ctx.attempt, ctx.key


def ours(body: bytes, message: Any) -> Any:
    """One of ours."""
    return message


@pytest.mark.parametrize(
    ("deserializer", "body", "value"),
    [
        (StringDeserializer("utf_8"), "Ω".encode(), "Ω"),
        (IntegerDeserializer(), struct.pack(">i", -7), -7),
        (DoubleDeserializer(), struct.pack(">d", 0.5), 0.5),
    ],
)
def test_the_plain_ones_read_a_message(deserializer: Any, body: bytes, value: object) -> None:
    assert make_message(body, deserializer=deserializer).value == value
    assert pickle.loads(pickle.dumps(adapted(deserializer)))(body, make_message(1)) == value


def test_those_of_a_registry_find_subject_and_schema() -> None:
    registry = Registry()
    headers = {"other": b"x", "__value_schema_id": b"17"}
    for attempt in (1, 2):
        message = make_message(b"x", deserializer=registry, topic="orders", headers=headers, attempt=attempt)
        assert message.value == "x"
    assert registry.seen == [("orders-value", 17)] * 2


@pytest.mark.parametrize("deserializer", [by_name, functools.partial(by_name)])
def test_the_name_of_the_parameter_tells_too(deserializer: Any) -> None:
    message = make_message(b"x", deserializer=deserializer, topic="orders", attempt=3, key=b"k")
    assert message.value == ("orders", True, [], 3, b"k")


def test_ours_are_given_the_message_itself() -> None:
    message = make_message(b"x", deserializer=ours)
    assert message.value is message
    assert adapted(ours) is ours


def test_a_message_will_do_where_one_calls_another() -> None:
    registry: Any = Registry()

    def calls(body: bytes, message: Any) -> Any:
        return registry(body, message)

    message = make_message(b"x", deserializer=calls, topic="orders")
    assert message.value == "x"
    assert message.field == MessageField.VALUE
    assert registry.seen == [("orders-value", None)]
