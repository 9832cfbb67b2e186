"""Reading what the group has committed, beside the consumer."""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from retriable_kafka_client.brokers import group_offsets
from retriable_kafka_client.brokers.group_offsets import GroupOffsets
from retriable_kafka_client.core.protocol import Place
from tests.support.waiting import wait_until


class Client:
    """Refuses what is `secret`, as brokers do without the right to describe a topic."""

    def __init__(self, *_: object) -> None:
        self.asked: list[str] = []
        self.refuses = True

    def committed(self, partitions: Sequence[TopicPartition], _timeout: float) -> list[Any]:
        self.asked += [one.topic for one in partitions]
        refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        return [
            SimpleNamespace(
                topic=one.topic,
                partition=one.partition,
                offset=7,
                metadata=None,
                error=refused if one.topic == "secret" and self.refuses else None,
            )
            for one in partitions
        ]

    def close(self) -> None:
        pass


def test_what_is_refused_again_and_again_is_asked_for_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client()
    monkeypatch.setattr(group_offsets, "open_client", lambda *_: client)
    monkeypatch.setattr(group_offsets, "AGAIN_SECONDS", 0.01)
    offsets = GroupOffsets({})
    try:
        [secret] = offsets.ask([Place("secret", 0)])
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 1.0 and secret.code is not None, 10)
        assert secret.code == "TOPIC_AUTHORIZATION_FAILED"
        assert client.asked.count("secret") <= 10  # and not a hundred times
        [public] = offsets.ask([Place("orders", 0)])  # which waits for none of it
        wait_until(lambda: public.answer == (7, ""), 10)
        client.refuses = False
        wait_until(lambda: secret.answer == (7, ""), 20)
        secret.withdrawn = True
    finally:
        offsets.close()
