"""What a 0.x program configures: plain dataclasses that it may copy and change until they are used.

A producer's are read when it sends (the connection's when it sends first), a consumer's when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from confluent_kafka import Message

__all__ = ["CommonConfig", "ConsumeTopicConfig", "ConsumerConfig", "ProducerConfig"]


@dataclass(kw_only=True)
class CommonConfig:
    """Where the brokers are, and how to be let in.

    ``additional_settings`` are librdkafka's own names and win over the defaults (SASL_SSL, SCRAM-SHA-512);
    those that the library must own are ignored with a warning.
    """

    kafka_hosts: list[str]
    username: str
    password: str = field(repr=False)
    additional_settings: dict[str, Any] = field(default_factory=dict, repr=False)  # may hold secrets


@dataclass
class ProducerConfig(CommonConfig):
    """What a BaseProducer sends to, how often it tries again, and after how many seconds.

    The first time after ``fallback_base`` seconds, each further one after ``fallback_factor`` times as long.
    """

    topics: list[str]
    retries: int = 3
    fallback_factor: float = 2.0
    fallback_base: float = 5.0
    split_messages: bool = False


@dataclass
class ConsumeTopicConfig:
    """A topic to handle, and what follows failures: ``retries`` more runs, each ``fallback_delay`` seconds later.

    Not in 0.x: with ``dead_letter_topic`` what cannot be handled goes there and is not dropped.
    """

    base_topic: str
    retry_topic: str | None = None
    retries: int = 5
    fallback_delay: float = 15.0
    dead_letter_topic: str | None = None


@dataclass
class ConsumerConfig(CommonConfig):
    """What a BaseConsumer consumes, and the function it calls with each decoded message.

    Not in 0.x: ``buffer_bytes`` bounds the memory for messages, and so the largest one.
    """

    group_id: str
    target: Callable[[dict[str, Any]], Any]
    topics: list[ConsumeTopicConfig] = field(default_factory=list)
    cancel_future_wait_time: float = 30.0
    filter_function: Callable[[Message], bool] | None = None
    max_chunk_reassembly_wait_time: timedelta = timedelta(minutes=15)
    buffer_bytes: int = 64 * 1024 * 1024
