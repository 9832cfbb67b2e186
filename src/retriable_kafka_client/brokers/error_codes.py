"""What librdkafka's error codes mean for whoever sent or asked."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.errors import DeliveryError

__all__ = ["delivery_error", "error_name", "is_fatal", "is_retriable"]

_FATAL = frozenset((KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError.UNSUPPORTED_VERSION))


_RETRIABLE = frozenset(
    (
        *(KafkaError._ALL_BROKERS_DOWN, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT),
        *(KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT, KafkaError._QUEUE_FULL),
        *(KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._UNKNOWN_TOPIC),
        *(KafkaError._RESOLVE, KafkaError._WAIT_COORD, KafkaError._RETRY, KafkaError._INTR),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.KAFKA_STORAGE_ERROR, KafkaError.LEADER_NOT_AVAILABLE),
        *(
            KafkaError.NETWORK_EXCEPTION,
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.REPLICA_NOT_AVAILABLE,
        ),
        *(KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        *(
            KafkaError.REQUEST_TIMED_OUT,
            KafkaError.THROTTLING_QUOTA_EXCEEDED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        ),
    )
)


def delivery_error(error: KafkaError, topic: str) -> DeliveryError:
    """Return our error for a record that was not acknowledged."""
    return DeliveryError(error.name(), is_retriable(error), error.str(), topic=topic)


def error_name(error: KafkaException) -> str:
    """Return the client's name for it."""
    reason = error.args[0]
    return str(reason.name()) if isinstance(reason, KafkaError) else type(error).__name__


def is_fatal(error: KafkaError) -> bool:
    """Whether the client is of no use any more.

    A consumer's poll reports its fatal errors as ``_FATAL``, with ``fatal()`` False and the true one in the text.
    """
    return error.fatal() or error.code() in _FATAL


def is_retriable(error: KafkaError) -> bool:
    """Whether the same request may succeed later without anybody's doing."""
    return not is_fatal(error) and (error.retriable() or error.code() in _RETRIABLE)
