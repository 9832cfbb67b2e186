"""A blocking handler on sixteen threads. What fails is tried again later, and at last put aside.

python examples/threads.py [--bootstrap-servers HOST:PORT]
"""

import time
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import Consumer, Exponential, Message, Producer, Reject, Retry, Topic

ORDERS = 1000


def bill(message: Message[Any]) -> None:
    order = message.value
    time.sleep(0.005)  # a call to the bank
    if order["amount"] < 0:
        raise Reject("a negative amount")  # trying again would not help
    if order["number"] % 100 == 0 and message.attempt == 1:
        raise ConnectionError("the bank does not answer")


def main() -> None:
    with kafka("orders", "orders-retry", "orders-dead-letters") as (cluster, (orders, retry, dead_letters)):
        with Producer(cluster) as producer:
            for number in range(1, ORDERS + 1):
                amount = -1 if number == 666 else number / 4
                producer.send(orders, {"number": number, "amount": amount}, key=f"customer-{number % 7}")
        consumer = Consumer(
            cluster,
            group_id="example-billing",
            topics=[Topic(orders, retry=Retry(retry, delay=Exponential(0.5)), dead_letter=dead_letters)],
            handler=bill,
            executor=16,
        )
        with consumer:  # runs in a thread; the end of the block drains, commits and leaves the group
            wait_until_done(consumer, ORDERS)
        report(consumer, ORDERS)


if __name__ == "__main__":
    main()
