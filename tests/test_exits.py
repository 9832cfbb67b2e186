"""Programs that end without `close()`: what they have sent arrives, or one line counts what does not."""

import json
from pathlib import Path

import pytest

from retriable_kafka_client.testing import MockKafka
from tests.support.processes import Program
from tests.support.records import read_all
from tests.support.waiting import wait_until

NOWHERE = "127.0.0.1:1"  # nobody listens on it

BEGIN = """
import asyncio, json, sys, threading, time
from retriable_kafka_client import Cluster, Producer
servers, topic, own = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
cluster = Cluster(servers, settings=own)
"""

LINGER = {"linger.ms": 60_000}  # nothing is sent before somebody flushes
ENDINGS = {
    "main": "producer = Producer(cluster)\nfor i in range(100): producer.send(topic, i)",
    "exit": "producer = Producer(cluster)\nfor i in range(100): producer.send(topic, i)\nsys.exit(0)",
    "exception": "producer = Producer(cluster)\nfor i in range(100): producer.send(topic, i)\nraise ValueError",
    "dropped": """
def send():
    producer = Producer(cluster)
    for i in range(100): producer.send(topic, i)
send()
import gc; gc.collect()
""",
    "several": """
producers = [Producer(cluster) for _ in range(5)]
for i in range(100): producers[i % 5].send(topic, i)
del producers
""",
    "thread": """
producer = Producer(cluster)
producer.send(topic, 0)  # Python 3.12 starts no thread any more once the main thread has returned
def send():
    threading.main_thread().join()
    for i in range(1, 100): producer.send(topic, i)
threading.Thread(target=send).start()
""",
    "atexit": """
import atexit
producer = Producer(cluster)
producer.send(topic, 0)
atexit.register(lambda: [producer.send(topic, i) for i in range(1, 100)])
""",
    "asend": """
producer = Producer(cluster)
async def main():
    tasks = [asyncio.create_task(producer.asend(topic, i)) for i in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "split": "producer = Producer(cluster, split=True)\nfor i in range(100): producer.send(topic, i)",
    "forked": """
import multiprocessing
def send():
    producer = Producer(cluster)
    for i in range(100): producer.send(topic, i)
child = multiprocessing.get_context("fork").Process(target=send)
child.start()
child.join()
sys.exit(child.exitcode)
""",
}


def run(folder: Path, text: str, servers: str, topic: str, **settings: object) -> tuple[int, str]:
    """Run a program to its end; its exit code, and what it printed."""
    script = folder / "script.py"
    script.write_text(BEGIN + text)
    with Program(script, servers, topic, json.dumps(settings), log=folder / "log") as program:
        return program.wait(), program.output


@pytest.mark.parametrize("how", ENDINGS)
def test_what_is_queued_is_delivered_at_the_end(
    mock: MockKafka, orders: str, tmp_path: Path, how: str
) -> None:
    code, output = run(tmp_path, ENDINGS[how], mock.bootstrap_servers, orders, **LINGER)
    assert code == (1 if how == "exception" else 0)
    assert ("ValueError" in output) == (how == "exception")
    assert "not delivered" not in output
    assert "Warning" not in output
    got = wait_until(lambda: [int(one.value or b"-1") for one in read_all(mock.bootstrap_servers, orders)])
    assert got == list(range(100)) if how != "several" else sorted(got) == list(range(100))


def test_large_values_are_delivered_at_the_end(mock: MockKafka, orders: str, tmp_path: Path) -> None:
    text = """
producer = Producer(cluster, split=True, chunk_bytes=1000)
for _ in range(3): producer.send(topic, bytes(100_000))
"""
    code, output = run(tmp_path, text, mock.bootstrap_servers, orders)
    assert (code, output) == (0, "")
    assert sum(len(one.value or b"") for one in read_all(mock.bootstrap_servers, orders)) == 300_000


@pytest.mark.parametrize("how", ["send", "split", "large", "asend", "read"])
def test_one_line_counts_what_is_not_delivered(tmp_path: Path, how: str) -> None:
    text = {
        "send": """
futures = [producer.send(topic, i) for producer in (Producer(cluster), Producer(cluster)) for i in range(10)]
""",
        "split": "producer = Producer(cluster, split=True)\nfor i in range(20): producer.send(topic, i)",
        "large": """
producer = Producer(cluster, split=True, chunk_bytes=1000)
for i in range(20): producer.send(topic, bytes(10_000))
""",
        "asend": ENDINGS["asend"].replace("100", "20"),
        "read": """
producer = Producer(cluster)
for i in range(20): producer.send(topic, i).add_done_callback(lambda future: None)
""",
    }[how]
    code, output = run(tmp_path, text, NOWHERE, "orders")
    assert code == 0
    lines = [line for line in output.splitlines() if "orders" in line]
    assert len(lines) == 1, output
    assert "20" in lines[0]


def test_where_nothing_is_queued_nothing_is_waited_for_or_said(
    mock: MockKafka, orders: str, tmp_path: Path
) -> None:
    text = """
from concurrent.futures import wait
producers = [Producer(cluster, split=split) for split in (False, True)]
for producer in producers: producer.send(topic, 1).result(20)
unused = Producer(cluster)
closed = Producer(cluster)
closed.send(topic, 2)
closed.close()
"""
    code, output = run(tmp_path, text, mock.bootstrap_servers, orders)
    assert (code, output) == (0, "")
