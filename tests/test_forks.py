"""What was used before a fork says so at once in the child; what was only made works there; the parent does not notice."""

from pathlib import Path

import pytest

from retriable_kafka_client.testing import MockKafka
from tests.support.names import unique
from tests.support.processes import Program
from tests.support.records import read_all

BEGIN = """
import asyncio, multiprocessing, os, sys, threading, time
from retriable_kafka_client import *
from retriable_kafka_client import events
from retriable_kafka_client.compat import BaseProducer, ProducerConfig
servers, topic, group = sys.argv[1:4]
cluster = Cluster(servers, settings={"session.timeout.ms": 2000, "heartbeat.interval.ms": 300})
handled = []
def keep(message): handled.append(message.value)
def raises(function, *args, **options):
    try:
        function(*args, **options)
    except RetriableKafkaError as error:
        assert "before this process was forked" in str(error) and "post_fork" in str(error), error
    else:
        raise AssertionError(f"{function} raised nothing")
def consumer_of(name, executor=2, handler=keep):
    topics = [Topic(topic, dead_letter=DISCARD)]
    return Consumer(cluster, group_id=name, topics=topics, handler=handler, executor=executor)
def forked(child, how):
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(25)
        assert process.exitcode == 0, process.exitcode
        return
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    for _ in range(2500):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(pid, 9)
        raise AssertionError("the child hangs")
    assert status == 0, status
"""

PROGRAMS = {
    "producer": """
producer, split, unused = Producer(cluster), Producer(cluster, split=True), Producer(cluster)
old = BaseProducer(ProducerConfig(kafka_hosts=[servers], username="", password="", topics=[topic],
    additional_settings={"security.protocol": "PLAINTEXT"}))
old.send_sync({"old": 1})
split.send(topic, 0).result(20)
future = producer.send(topic, 1)
def child():
    for one in (producer, split):
        raises(one.send, topic, 2)
        raises(lambda: asyncio.run(one.asend(topic, 2)))
        raises(one.flush, 1)
        raises(one.close)
        raises(one.__enter__)
        assert not one.health().alive and "fork" in one.health().reasons[0]
    if not future.done():
        raises(future.result)
    raises(old.send_sync, {})
    unused.send(topic, 3)  # flushed by the child's end
with producer:
    forked(child, sys.argv[4])
    producer.send(topic, 4).result(20)
old.send_sync({"old": 2})
expected = {b"0", b"1", b"3", b"4", b'{"old": 1}', b'{"old": 2}'}
""",
    "consumer": """
def wait(count):
    while len(handled) < count: time.sleep(0.01)
consumer, unused = consumer_of(group), consumer_of(group + "-2")
with Producer(cluster) as producer:
    producer.send(topic, 1)
def child():
    for one in (consumer.run, consumer.start, consumer.__enter__, consumer.join, consumer.wait_ready, consumer.stats):
        raises(one)
    raises(lambda: asyncio.run(consumer.run_async()))
    raises(lambda: asyncio.run(consumer.wait_ready_async()))
    raises(run_consumers, consumer)
    consumer.pause(); consumer.resume(); consumer.stop()
    assert not consumer.health().alive and "fork" in consumer.health().reasons[0]
    handled.clear()
    with unused:
        wait(1)
with consumer:
    consumer.wait_ready(); wait(1)
    forked(child, sys.argv[4])
    with Producer(cluster) as producer:
        producer.send(topic, 2)
    wait(2)
    assert consumer.health().ready
expected = {b"1", b"2"}
""",
    "processes": """
import signal
def child():
    raises(pool.submit, os.getpid)
    raises(consumer_of(group, pool, handler=abs).start)
    pool.shutdown()
    assert unused.submit(int, "7").result(20) == 7
    unused.shutdown()
if __name__ == "__main__":
    pool, unused = ProcessExecutor(1), ProcessExecutor(1)
    worker = pool.submit(os.getpid).result(20)
    forked(child, sys.argv[4])
    assert pool.submit(os.getpid).result(20) == worker
    pool.shutdown()
expected = set()
""",
    "coroutines": """
async def seven(): return 7
def child():
    raises(pool.submit, seven)
    pool.shutdown()
    assert unused.submit(seven).result(20) == 7
    unused.shutdown()
pool, unused = AsyncExecutor(), AsyncExecutor()
assert pool.submit(seven).result(20) == 7
forked(child, sys.argv[4])
assert pool.submit(seven).result(20) == 7
pool.shutdown()
expected = set()
""",
}


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
@pytest.mark.parametrize("what", PROGRAMS)
def test_what_was_used_before_a_fork_says_so_in_the_child(
    mock: MockKafka, tmp_path: Path, what: str, how: str
) -> None:
    topic = unique("orders")
    mock.create_topic(topic, 1)
    script = tmp_path / "script.py"
    script.write_text(BEGIN + PROGRAMS[what] + "\nprint(sorted(expected), flush=True)\n")
    log = tmp_path / "log"
    with Program(script, mock.bootstrap_servers, topic, unique("group"), how, log=log) as program:
        assert program.wait(60) == 0, program.output
        assert "Error" not in program.output
        values = sorted({one.value for one in read_all(mock.bootstrap_servers, topic) if one.value})
        assert str(values) in program.output
