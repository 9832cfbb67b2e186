"""Run a function for every message of some Kafka topics, and lose none."""

from retriable_kafka_client.config import DISCARD, Cluster, Discard, Exponential, Limits, Retry, Topic
from retriable_kafka_client.consumer.consumer import Consumer, run_consumers
from retriable_kafka_client.errors import (
    ConfigError,
    ConsumerFailed,
    DecodeError,
    DeliveryError,
    NotReachable,
    QueueFull,
    Reject,
    RetriableKafkaError,
    RetryAfter,
)
from retriable_kafka_client.health import Health
from retriable_kafka_client.message import JSON, STDLIB_JSON, Message, Record
from retriable_kafka_client.producer.delivery import Delivery
from retriable_kafka_client.producer.producer import Producer
from retriable_kafka_client.stats import PartitionStats, Stats
from retriable_kafka_client.workers.executor import AsyncExecutor, ProcessExecutor

__all__ = [
    "DISCARD",
    "JSON",
    "STDLIB_JSON",
    "AsyncExecutor",
    "Cluster",
    "ConfigError",
    "Consumer",
    "ConsumerFailed",
    "DecodeError",
    "Delivery",
    "DeliveryError",
    "Discard",
    "Exponential",
    "Health",
    "Limits",
    "Message",
    "NotReachable",
    "PartitionStats",
    "ProcessExecutor",
    "Producer",
    "QueueFull",
    "Record",
    "Reject",
    "RetriableKafkaError",
    "Retry",
    "RetryAfter",
    "Stats",
    "Topic",
    "run_consumers",
]
