"""The interface of the 0.x releases over this one: what a 0.x program imported from the package's root.

``docs/moving-from-0x.md`` says what is different.
"""

from retriable_kafka_client.compat.config import (
    CommonConfig,
    ConsumerConfig,
    ConsumeTopicConfig,
    ProducerConfig,
)
from retriable_kafka_client.compat.connection import HealthCheckClient
from retriable_kafka_client.compat.consumer import BaseConsumer
from retriable_kafka_client.compat.errors import SendError
from retriable_kafka_client.compat.orchestrate import ConsumerThread, consume_topics
from retriable_kafka_client.compat.producer import BaseProducer

__all__ = [
    "BaseConsumer",
    "BaseProducer",
    "CommonConfig",
    "ConsumeTopicConfig",
    "ConsumerConfig",
    "ConsumerThread",
    "HealthCheckClient",
    "ProducerConfig",
    "SendError",
    "consume_topics",
]
