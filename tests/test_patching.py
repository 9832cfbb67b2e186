"""Under gevent and eventlet: refused where threads are greenlets, with the remedy; and the remedy works."""

from pathlib import Path

import pytest

from retriable_kafka_client.testing import MockKafka
from tests.support.names import unique
from tests.support.processes import Program

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all({})",
    "eventlet": "import eventlet; eventlet.monkey_patch({})",
}

IMPORTS = """
import asyncio, sys, time
from concurrent.futures import ThreadPoolExecutor
from retriable_kafka_client import *
from retriable_kafka_client.compat import *
"""

BEGIN = """
servers, topic, group = sys.argv[1:4]
cluster = Cluster(servers, settings={"session.timeout.ms": 2000, "heartbeat.interval.ms": 300})
told = {"kafka_hosts": [servers], "username": "", "password": "",
    "additional_settings": {"security.protocol": "PLAINTEXT"}}
def handler(message): pass
async def coroutine(message): pass
def consumer_of(executor=4, handler=handler):
    topics = [Topic(topic, dead_letter=DISCARD)]
    return Consumer(cluster, group_id=group, topics=topics, handler=handler, executor=executor)
def refused(remedy, function, *args):
    try:
        function(*args)
    except ConfigError as error:
        assert remedy in str(error), error
    else:
        raise AssertionError(f"{function} raised nothing")
"""

REFUSED = """
config = ConsumerConfig(group, handler, [ConsumeTopicConfig(topic)], **told)
refused("thread=False", Producer, cluster)
refused("thread=False", consumer_of().run)
refused("thread=False", consumer_of().start)
refused("thread=False", cluster.check)
refused("thread=False", run_consumers, consumer_of())
refused("thread=False", BaseProducer(ProducerConfig(topics=[topic], **told)).send_sync, {})
refused("thread=False", BaseConsumer(config, ThreadPoolExecutor(1)).run)
refused("thread=False", consume_topics, [config], 1)
async def main():
    await consumer_of().run_async()
refused("thread=False", asyncio.run, main())
print("refused", flush=True)
import os; os._exit(0)
"""

WORKS = """
with Producer(cluster) as producer:
    futures = [producer.send(topic, i) for i in range(100)]
    assert len([future.result(20) for future in futures]) == 100
with consumer_of() as consumer:
    while consumer.stats().handled < 100: time.sleep(0.01)
print("handled", flush=True)
"""

POOLS = """
refused("queue=False", consumer_of(ThreadPoolExecutor(1)).start)
refused("select=False", consumer_of(AsyncExecutor(), coroutine).start)
refused("subprocess=False", consumer_of(ProcessExecutor(1)).start)
print("refused", flush=True)
"""


def outcome(mock: MockKafka, folder: Path, text: str) -> str:
    topic = unique("orders")
    mock.create_topic(topic, 1)
    script = folder / "script.py"
    script.write_text(text)
    with Program(script, mock.bootstrap_servers, topic, unique("group"), log=folder / "log") as program:
        assert program.wait(60) == 0, program.output
        return program.output


def program(library: str, flags: str, order: str, body: str) -> str:
    patch = PATCHES[library].format(flags)
    first = [patch, IMPORTS] if order == "before" else [IMPORTS, patch]
    return "\n".join([*first, BEGIN, body])


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("library", PATCHES)
def test_threads_that_are_greenlets_are_refused(
    mock: MockKafka, tmp_path: Path, library: str, order: str
) -> None:
    assert "refused" in outcome(mock, tmp_path, program(library, "", order, REFUSED))


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("library", PATCHES)
def test_the_remedy_works(mock: MockKafka, tmp_path: Path, library: str, order: str) -> None:
    assert "handled" in outcome(mock, tmp_path, program(library, "thread=False", order, WORKS))


def test_pools_that_do_not_work_on_gevent_are_refused(mock: MockKafka, tmp_path: Path) -> None:
    assert "refused" in outcome(mock, tmp_path, program("gevent", "thread=False", "before", POOLS))


def test_a_producer_made_before_the_patch_is_refused_when_it_sends(mock: MockKafka, tmp_path: Path) -> None:
    body = f"""
producer = Producer(cluster)
{PATCHES["gevent"].format("")}
refused("thread=False", producer.send, topic, 1)
print("refused", flush=True)
"""
    assert "refused" in outcome(mock, tmp_path, f"{IMPORTS}\n{BEGIN}\n{body}")
