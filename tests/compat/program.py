"""A program written the 0.x way: `python program.py '{"role": "consume", "servers": …}'`.

It runs with the published 0.7.0, whose names stand in the package's root, and with `compat`. What it does stands in a
file of evidence, one JSON object a line; its log goes to stderr.
"""

import json
import logging
import os
import random
import signal
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

try:
    from retriable_kafka_client.compat import (
        BaseConsumer,
        BaseProducer,
        ConsumerConfig,
        ConsumerThread,
        ConsumeTopicConfig,
        ProducerConfig,
        consume_topics,
    )
except ImportError:
    from retriable_kafka_client import (  # type: ignore[attr-defined,no-redef]
        BaseConsumer,
        BaseProducer,
        ConsumerConfig,
        ConsumerThread,
        ConsumeTopicConfig,
        ProducerConfig,
        consume_topics,
    )


def note(path: str, event: str, **fields: Any) -> None:
    """Write one line of evidence at once."""
    line = json.dumps({"event": event, "t": time.time(), "pid": os.getpid(), **fields}) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def target(evidence: str, name: str, message: dict[str, Any]) -> None:
    """Note the run, then do what the message says."""
    note(evidence, "ran", member=name, i=message["i"], size=len(message.get("body", "")))
    time.sleep(message.get("sleep", 0.0))
    if random.random() < message.get("fail", 0.0):
        raise ValueError("as told")
    note(evidence, "done", member=name, i=message["i"])


def connection(told: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that every config has."""
    return {
        "kafka_hosts": told["servers"].split(","),
        "username": told.get("username", "somebody"),
        "password": told.get("password", "something"),
        "additional_settings": {"security.protocol": "PLAINTEXT", **told.get("settings", {})},
    }


def consumer_config(told: dict[str, Any]) -> Any:
    """Return a ConsumerConfig."""
    return ConsumerConfig(
        group_id=told["group"],
        target=partial(target, told["evidence"], told.get("name", "?")),
        topics=[
            ConsumeTopicConfig(one["base"], one.get("retry"), one.get("retries", 5), one.get("delay", 1.0))
            for one in told["topics"]
        ],
        cancel_future_wait_time=told.get("drain", 30.0),
        max_chunk_reassembly_wait_time=timedelta(seconds=told.get("chunk_wait", 900)),
        **connection(told),
    )


def consume(told: dict[str, Any]) -> None:
    """Consume until SIGTERM."""
    pool: Executor = ProcessPoolExecutor(2) if told.get("pool") == "processes" else ThreadPoolExecutor(8)
    consumer = BaseConsumer(consumer_config(told), pool, told.get("concurrency", 16))
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    note(told["evidence"], "starts", member=told.get("name", "?"))
    if told.get("thread"):
        thread = ConsumerThread(consumer)
        thread.start()
        thread.join()
    else:
        consumer.run()
    pool.shutdown()
    note(told["evidence"], "ended", member=told.get("name", "?"))


def consume_plain(told: dict[str, Any]) -> None:
    """Consume, and leave signals as they are."""
    with ThreadPoolExecutor(2) as pool:
        BaseConsumer(consumer_config(told), pool, 2).run()


def produce(told: dict[str, Any]) -> None:
    """Send numbered messages, `every` seconds apart, until SIGTERM or `count`; what is acknowledged is noted."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    config = ProducerConfig(
        topics=told["to"], split_messages=told.get("split", False), fallback_base=0.1, **connection(told)
    )
    producer = BaseProducer(config)
    i = told.get("first", 0)
    last = i + told["count"]
    while not stopped and i < last:
        large = told.get("large_each") and i % told["large_each"] == 0
        body = "x" * told["large"] if large else "small"
        message = {"i": i, "body": body, **told.get("fields", {})}
        producer.send_sync(message)
        note(told["evidence"], "sent", i=i, size=len(body))
        i += told.get("step", 1)
        time.sleep(told.get("every", 0.0))
    producer.close()
    note(told["evidence"], "sent all")


def consume_all(told: dict[str, Any]) -> None:
    """Consume with one process pool for all configs, until SIGTERM."""
    configs = [consumer_config({**told, **one}) for one in told["configs"]]
    note(told["evidence"], "starts")
    consume_topics(configs, told.get("workers", 2))
    note(told["evidence"], "ended")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    instructions = json.loads(sys.argv[1])
    if instructions.get("interruptible"):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who started us had it ignored
    roles = {
        "consume": consume,
        "consume_plain": consume_plain,
        "consume_all": consume_all,
        "produce": produce,
    }
    roles[instructions["role"]](instructions)
