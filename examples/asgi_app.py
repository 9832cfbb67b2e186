"""A web application that handles messages on its own event loop, beside its requests: they share a lock and a dictionary.

python examples/asgi_app.py [--bootstrap-servers HOST:PORT]     (needs starlette and uvicorn)
"""

import asyncio
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from _common import kafka, report, wait_until_done
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from retriable_kafka_client import AsyncExecutor, Cluster, Consumer, Message, Producer, Retry, Topic

ORDERS = 500


class Shop:
    """The application. What its handlers and its requests share lives on one loop, so a plain asyncio.Lock will do."""

    def __init__(self, cluster: Cluster, topics: list[str]) -> None:
        self.cluster = cluster
        self.orders, self.retry, self.dead_letters, self.receipts = topics
        self.sold: Counter[str] = Counter()
        self.app = Starlette(
            routes=[Route("/orders", self.order, methods=["POST"]), Route("/sold", self.show)],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self.lock = asyncio.Lock()
        self.consumer = Consumer(
            self.cluster,
            group_id="example-shop",
            topics=[Topic(self.orders, retry=Retry(self.retry, delay=0.2), dead_letter=self.dead_letters)],
            handler=self.sell,
            executor=AsyncExecutor(100, loop=asyncio.get_running_loop()),
            timeout=10.0,
        )
        with Producer(self.cluster) as self.producer:
            running = asyncio.create_task(self.consumer.run_async())
            yield
            running.cancel()  # stops and drains: what runs may end, nothing new begins
            with suppress(asyncio.CancelledError):
                await running

    async def sell(self, message: Message[Any]) -> None:
        if message.value["number"] % 100 == 13 and message.attempt == 1:
            raise ConnectionError("the till is offline")
        async with self.lock:
            self.sold[message.value["item"]] += 1
        message.send(self.receipts, {"order": message.id})  # goes out only if this succeeds

    async def order(self, request: Request) -> JSONResponse:
        await asyncio.gather(*(self.producer.asend(self.orders, one) for one in await request.json()))
        return JSONResponse({"taken": True})

    async def show(self, _request: Request) -> JSONResponse:
        async with self.lock:
            return JSONResponse(dict(sorted(self.sold.items())))


def buy(server: uvicorn.Server, shop: Shop) -> None:
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    orders = [{"number": number, "item": ("tea", "milk")[number % 2]} for number in range(ORDERS)]
    urllib.request.urlopen(f"{url}/orders", json.dumps(orders).encode()).close()  # noqa: S310 - our own
    wait_until_done(shop.consumer, ORDERS)
    with urllib.request.urlopen(f"{url}/sold") as answer:  # noqa: S310
        print(f"sold: {answer.read().decode()}")


def main() -> None:
    with kafka("shop-orders", "shop-orders-retry", "shop-dead-letters", "shop-receipts") as (cluster, topics):
        shop = Shop(cluster, topics)
        server = uvicorn.Server(uvicorn.Config(shop.app, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)  # this one plays the customers
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.05)
            buy(server, shop)
        finally:
            server.should_exit = True
            thread.join()
        report(shop.consumer, ORDERS)


if __name__ == "__main__":
    main()
