"""What a handler sends: collected while it runs, published only once it has succeeded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.wire.checks import check_topic_name
from retriable_kafka_client.wire.headers import Headers
from retriable_kafka_client.wire.outgoing import (
    SendRequest,
    Serializer,
    body_of,
    due_ms,
    key_of,
    own_headers_of,
)

__all__ = ["HEADER_BYTES", "OUTPUT_BYTES", "Output", "identified", "output_of", "size_of"]

# Measured: 600 bytes for an output of 29 bytes with two headers, until it is acknowledged.
OUTPUT_BYTES = 450
HEADER_BYTES = 170  # each one, also of records that are read: a record of 1 MB can have 200,000 of them

_WHERE = "Message.send"
_MAX_ID = 255  # what the header holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One record that a handler sends. Plain values: it crosses from worker processes."""

    topic: str
    body: bytes | None = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    headers: Headers = field(default=(), repr=False)  # the sender's own
    not_before_ms: int | None = None  # POSIX; None: at once
    id: str = ""  # the same whenever the same message is handled again; empty until the handler has ended
    split: bool = False  # into chunks, if it is above its topic's limit

    @property
    def size(self) -> int:
        """Bytes that holding it costs: body, key, headers, and our own records of it."""
        headers = sum(len(name) + len(value or b"") + HEADER_BYTES for name, value in self.headers)
        return len(self.body or b"") + len(self.key or b"") + headers + OUTPUT_BYTES


def output_of(
    request: SendRequest,
    *,
    split: bool,
    serializer: Serializer,
) -> Output:
    """Check and serialize what was given to ``Message.send``; a file is read to its end. Raises ConfigError, and what
    the serializer and the file raise.
    """
    given: object = split
    if not isinstance(given, bool):
        raise ConfigError(f"{_WHERE}.split", given, "must be True or False")
    own = own_headers_of(request.headers, where=_WHERE) if request.headers else ()
    return Output(
        topic=check_topic_name(f"{_WHERE}.topic", request.topic),
        body=body_of(request.value, serializer, where=_WHERE),
        key=key_of(request.key, where=_WHERE),
        headers=tuple((name, text.encode() if isinstance(text, str) else text) for name, text in own),
        not_before_ms=due_ms(request.not_before, request.delay, where=_WHERE),
        split=split,
    )


def identified(outputs: Sequence[Output], message_id: str, group: str) -> tuple[Output, ...]:
    """Give each output its id: from the message's, the group's and its place among them.

    The group counts because two groups may handle one message and send to one topic.
    """
    mark = hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return tuple(
        replace(output, id=_fitted(f"{message_id}-{mark}-{number}")) for number, output in enumerate(outputs)
    )


def size_of(outputs: Sequence[Output]) -> int:
    """Bytes that holding them costs."""
    return sum(output.size for output in outputs)


def _fitted(name: str) -> str:
    """An id grows with each hop from handler to handler: one that is too long becomes its digest."""
    return name if len(name) <= _MAX_ID else hashlib.sha256(name.encode()).hexdigest()
