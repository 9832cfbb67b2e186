"""What librdkafka's error codes mean for whoever sent or asked."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.errors import DeliveryError

__all__ = [
    "delivery_error",
    "error_name",
    "is_end_of_log",
    "is_fatal",
    "is_fenced_member",
    "is_retriable",
    "is_too_large",
    "no_broker",
    "no_report",
    "purged",
    "too_large",
    "unreadable",
]

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


def is_too_large(error: KafkaError | None) -> bool:
    """Whether a record, or a request that it was in, is above what the topic or the client takes."""
    return error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def is_end_of_log(error: KafkaError) -> bool:
    """Whether it is no error, but the end of the log that is read."""
    return error.code() == KafkaError._PARTITION_EOF


def is_fenced_member(error: KafkaError) -> bool:
    """Whether another consumer has taken the place of this static member."""
    return error.code() == KafkaError.FENCED_INSTANCE_ID or "fenced" in error.str().lower()


# What the library itself says of a record, in the client's terms: whoever sent it gets one kind of error.


def too_large(text: str) -> KafkaError:
    """A record that was not sent, because no topic would take it."""
    return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, text)


def unreadable(text: str) -> KafkaError:
    """A value that could not be read from its file."""
    return KafkaError(KafkaError._FS, text)


def no_report() -> KafkaError:
    """The client did not report in time what became of a record."""
    return KafkaError(KafkaError._TIMED_OUT)


def no_broker() -> KafkaError:
    """The client has lost the brokers, and is replaced."""
    return KafkaError(KafkaError._TRANSPORT)


def purged(text: str) -> KafkaError:
    """A record that was dropped before it was sent."""
    return KafkaError(KafkaError._PURGE_QUEUE, text)
