"""The errors that a 0.x program catches, each of them also what this library raises in that place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.errors import ConfigError, DeliveryError

__all__ = ["DuplicateTopic", "RefusedConfig", "SendError", "delivery_failed", "refused"]


class SendError(RuntimeError):
    """A message was not taken. ``retriable``: sending it again may succeed; ``fatal``: only with a new producer."""

    def __init__(self, *args: object, retriable: bool, fatal: bool, kafka_error: KafkaError | None) -> None:
        super().__init__(*args)
        self.retriable = retriable
        self.fatal = fatal
        self.kafka_error = kafka_error


class _DeliveryFailed(SendError, KafkaException):
    """0.x raised one or the other, by who refused the record: the brokers or its own client."""

    def __init__(self, text: str, error: KafkaError) -> None:
        # The error is the first argument, as KafkaException has it.
        super().__init__(error, retriable=error.retriable(), fatal=error.fatal(), kafka_error=error)
        self._text = text

    def __str__(self) -> str:
        return self._text


class RefusedConfig(ConfigError, KafkaException):
    """A value that the library or the Kafka client does not take."""

    def __init__(self, error: ConfigError) -> None:
        Exception.__init__(self, KafkaError(KafkaError._INVALID_ARG, str(error)))  # as KafkaException has it
        self.field, self.value, self.remedy = error.field, error.value, error.remedy

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.remedy}"


class DuplicateTopic(ConfigError, AssertionError):
    """Two entries of a consumer name the same topic."""


@contextmanager
def refused() -> Iterator[None]:
    """Turn a ConfigError inside into one that is a KafkaException besides."""
    try:
        yield
    except RefusedConfig:
        raise
    except ConfigError as error:
        raise RefusedConfig(error) from None


def delivery_failed(error: DeliveryError) -> SendError:
    """Return what a 0.x program gets for a record that was not acknowledged.

    Not retriable after a time-out: the client has tried all that time, and the record may be written.
    """
    code = getattr(KafkaError, error.code, KafkaError.UNKNOWN)
    retriable = error.retriable and code != KafkaError._MSG_TIMED_OUT
    return _DeliveryFailed(
        str(error), KafkaError(code, str(error), fatal=code == KafkaError._FATAL, retriable=retriable)
    )
