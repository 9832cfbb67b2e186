"""Three topics into one callable. They share a retry topic, each with its own delays.

python examples/several_topics.py [--bootstrap-servers HOST:PORT]
"""

import threading
from collections import Counter
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import Consumer, Message, Producer, Retry, Topic

EACH = 200


class Ledger:
    """Any callable is a handler. This one runs on several threads at once, so it has a lock."""

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, message: Message[Any]) -> None:
        if message.value["number"] % 50 == 0 and message.attempt <= 2:
            raise TimeoutError("the ledger is busy")
        with self._lock:
            # `message.topic` is where the message came from at first, also when it comes from the retry topic now.
            self.entries[message.topic] += 1


def main() -> None:
    with kafka("orders", "refunds", "vouchers", "ledger-retry", "ledger-dead-letters") as (cluster, names):
        *inputs, retry, dead_letters = names
        with Producer(cluster) as producer:
            for topic in inputs:
                for number in range(EACH):
                    producer.send(topic, {"number": number})
        ledger = Ledger()
        # A duration, or several, the last of which is repeated.
        delays: list[float | tuple[float, ...]] = [0.2, (0.2, 0.5), (0.1, 1.0, 60.0)]
        consumer = Consumer(
            cluster,
            group_id="example-ledger",
            topics=[
                Topic(name, retry=Retry(retry, delay=delay), dead_letter=dead_letters)
                for name, delay in zip(inputs, delays, strict=True)
            ],
            handler=ledger,
            executor=4,
        )
        with consumer:
            wait_until_done(consumer, EACH * len(inputs))
        for topic, count in sorted(ledger.entries.items()):
            print(f"{topic}: {count} entries")
        report(consumer, EACH * len(inputs))


if __name__ == "__main__":
    main()
