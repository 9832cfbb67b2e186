"""Names as long as Kafka lets them be."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Producer

from retriable_kafka_client import Cluster, Consumer, Message, Retry, Topic
from retriable_kafka_client.testing import MockKafka
from tests.support.waiting import WAIT


def test_a_message_of_a_topic_with_the_longest_name_is_retried_under_its_id(
    mock_kafka: Callable[[Mapping[str, int]], MockKafka],
) -> None:
    """Where the brokers tell no topic id, the name stands in the message's id, which has to fit into its header."""
    base, retry, dead = "b" * 249, "r" * 249, "d" * 249
    servers = mock_kafka({base: 1, retry: 1, dead: 1}).bootstrap_servers
    ids: list[str] = []
    enough = threading.Event()

    def handler(message: Message[Any]) -> None:
        ids.append(message.id)
        if len(ids) == 2:
            enough.set()
            return
        raise ValueError

    topic = Topic(base, retry=Retry(retry, max_attempts=2, delay=0.0), dead_letter=dead)
    with Consumer(Cluster(servers), group_id="g" * 255, topics=[topic], handler=handler):
        producer = Producer({"bootstrap.servers": servers})
        producer.produce(base, b"1")
        assert producer.flush(10) == 0
        assert enough.wait(WAIT)
    assert ids[0] == ids[1]
