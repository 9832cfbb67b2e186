"""Two consumers, each with its own group and handler, on one pool of threads in one process.

python examples/shared_pool.py [--bootstrap-servers HOST:PORT]
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import DISCARD, Cluster, Consumer, Message, Producer, Topic, run_consumers

ORDERS = 500


def send_invoice(message: Message[Any]) -> None:
    time.sleep(0.001 * (message.value["number"] % 5))  # the mail server


def count_sales(message: Message[Any]) -> None:
    if message.value["number"] == 7:
        raise ValueError("not countable")  # one attempt, and its topic says DISCARD: dropped, and counted


def stop_when_done(invoicing: Consumer, statistics: Consumer) -> None:
    try:
        wait_until_done(invoicing, ORDERS)
        wait_until_done(statistics, ORDERS)
    finally:
        invoicing.stop()
        statistics.stop()


def consumers(cluster: Cluster, orders: str, dead_letters: str, pool: ThreadPoolExecutor) -> list[Consumer]:
    """Both groups read the same topic, each at its own pace."""
    return [
        Consumer(
            cluster,
            group_id="example-invoicing",
            topics=[Topic(orders, dead_letter=dead_letters)],
            handler=send_invoice,
            executor=pool,
        ),
        Consumer(
            cluster,
            group_id="example-statistics",
            topics=[Topic(orders, dead_letter=DISCARD)],
            handler=count_sales,
            executor=pool,
        ),
    ]


def main() -> None:
    with (
        kafka("orders", "orders-dead-letters") as (cluster, (orders, dead_letters)),
        ThreadPoolExecutor(8) as pool,  # ours: the consumers do not shut it down
    ):
        with Producer(cluster) as producer:
            for number in range(ORDERS):
                producer.send(orders, {"number": number})
        both = consumers(cluster, orders, dead_letters, pool)
        threading.Thread(target=stop_when_done, args=both, daemon=True).start()
        run_consumers(*both)  # blocks until all have ended; Ctrl-C ends them too
        for consumer in both:
            report(consumer, ORDERS)


if __name__ == "__main__":
    main()
