"""Deserializers of confluent-kafka, which are given a SerializationContext where ours are given the message."""

from __future__ import annotations

import inspect
from typing import Any, cast

from confluent_kafka.serialization import Deserializer as ConfluentDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from retriable_kafka_client.message import Deserializer, Message

__all__ = ["AnyDeserializer", "adapted"]

AnyDeserializer = Deserializer | ConfluentDeserializer
"""One of ours, or one of theirs."""


class _Context(SerializationContext):
    """What confluent-kafka's deserializers read, the headers as a list; and everything that a Message has."""

    def __init__(self, message: Message[Any]) -> None:
        super().__init__(message.topic, MessageField.VALUE, list(message.headers))
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_message"], name)

    def __repr__(self) -> str:
        return f"<context of {self._message!r}>"


class _Adapted:
    """A deserializer of theirs as one of ours. Pickles if theirs does."""

    __slots__ = ("__wrapped__",)

    def __init__(self, theirs: Any) -> None:
        self.__wrapped__ = theirs

    def __call__(self, body: bytes, message: Message[Any]) -> Any:
        return self.__wrapped__(body, _Context(message))


def adapted(deserializer: Any) -> Deserializer:
    """The deserializer, or what calls it with a SerializationContext if it is one of confluent-kafka's, or its second
    parameter is called ``ctx`` as theirs is.
    """
    if isinstance(deserializer, ConfluentDeserializer) or _takes_context(deserializer):
        return _Adapted(deserializer)
    return cast("Deserializer", deserializer)


def _takes_context(deserializer: Any) -> bool:
    try:
        names = list(inspect.signature(deserializer).parameters)
    except (TypeError, ValueError):  # not every callable says
        return False
    return names[1:2] == ["ctx"]
