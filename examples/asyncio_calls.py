"""An `async def` handler: thousands of calls that wait for an answer, five hundred at a time, on one event loop.

python examples/asyncio_calls.py [--bootstrap-servers HOST:PORT]
"""

import asyncio
import time
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import AsyncExecutor, Consumer, Message, Producer, Retry, RetryAfter, Topic

CALLS = 3000


async def call(message: Message[Any]) -> None:
    await asyncio.sleep(0.2)  # a request to a service elsewhere
    if message.value["customer"] == 13 and message.attempt == 1:
        raise RetryAfter(0.5)  # as the service asked for


async def produce(producer: Producer, topic: str) -> None:
    """Each `asend` returns when its record is acknowledged; gathered, they go out together."""
    await asyncio.gather(*(producer.asend(topic, {"customer": number % 100}) for number in range(CALLS)))


async def consume(consumer: Consumer) -> None:
    running = asyncio.create_task(consumer.run_async())
    await asyncio.to_thread(wait_until_done, consumer, CALLS)
    consumer.stop()
    await running  # raises what made it fail


def main() -> None:
    with (
        kafka("calls", "calls-retry", "calls-dead-letters") as (cluster, (calls, retry, dead_letters)),
        AsyncExecutor(concurrency=500) as executor,
    ):
        with Producer(cluster) as producer:
            asyncio.run(produce(producer, calls))
        consumer = Consumer(
            cluster,
            group_id="example-calling",
            topics=[Topic(calls, retry=Retry(retry), dead_letter=dead_letters)],
            handler=call,
            executor=executor,
        )
        began = time.monotonic()
        asyncio.run(consume(consumer))
        report(consumer, CALLS)
        took = time.monotonic() - began
        print(f"{CALLS} calls of 0.2 s, which is {CALLS * 0.2:.0f} s of waiting, took {took:.1f} s in all")


if __name__ == "__main__":
    main()
