"""How consumers begin and end in programs: signals, the main thread's return, and who is told of an end."""

import asyncio
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retriable_kafka_client import (
    DISCARD,
    AsyncExecutor,
    Cluster,
    ConfigError,
    Consumer,
    ConsumerFailed,
    Topic,
    events,
    run_consumers,
)
from retriable_kafka_client.testing import MockKafka
from tests.shell.lab import Log, nothing
from tests.support.names import unique
from tests.support.processes import Program
from tests.support.records import group_lag, produce_many
from tests.support.waiting import wait_until

QUICK = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300}

BEGIN = """
import asyncio, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from retriable_kafka_client import *
servers, topic, group, gate = sys.argv[1:5]
cluster = Cluster(servers, settings={"session.timeout.ms": 2000, "heartbeat.interval.ms": 300})
def say(text): os.write(1, text.encode() + b"\\n")
def slow(message):
    say("begun")
    while not os.path.exists(gate): time.sleep(0.01)
    say("done")
async def slow_async(message):
    say("begun")
    while not os.path.exists(gate): await asyncio.sleep(0.01)
    say("done")
def consumer_of(handler, executor=1, name=group):
    topics = [Topic(topic, dead_letter=DISCARD)]
    return Consumer(cluster, group_id=name, topics=topics, handler=handler, executor=executor)
"""

COROUTINES = {
    "asyncio.run": """
async def main():
    consumer = consumer_of(slow_async, AsyncExecutor(loop=asyncio.get_running_loop()))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    await consumer.run_async()
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    say("after")
asyncio.run(main())
""",
    "threads": """
async def main():
    await consumer_of(slow).run_async()
    say("after")
asyncio.run(main())
""",
    "two": """
async def main():
    await asyncio.gather(consumer_of(slow).run_async(), consumer_of(slow, name=group + "-2").run_async())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    say("after")
asyncio.run(main())
""",
    "own handler": """
def own(number, frame): say("own")
signal.signal(signal.SIGTERM, own)
signal.signal(signal.SIGINT, own)
async def main():
    await consumer_of(slow).run_async()
    assert signal.getsignal(signal.SIGTERM) is own
    say("after")
asyncio.run(main())
""",
    "the loop's handler": """
async def main():
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, say, "own")
    await consumer_of(slow).run_async()
    say("after")
asyncio.run(main())
""",
    "uvicorn": """
import contextlib, uvicorn
from starlette.applications import Starlette
@contextlib.asynccontextmanager
async def lifespan(app):
    running = asyncio.create_task(consumer_of(slow).run_async())
    yield
    say("own")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    say("after")
uvicorn.run(Starlette(lifespan=lifespan), port=0, log_level="error", ws="none")
""",
}


class Script:
    """A program that reads one message, whose handler runs until `let_go`."""

    def __init__(self, mock: MockKafka, folder: Path) -> None:
        self.mock = mock
        self.topic = unique("orders")
        self.group = unique("group")
        self._folder = folder
        mock.create_topic(self.topic, 1)
        produce_many(mock.bootstrap_servers, self.topic, [b"1"])

    def start(self, text: str) -> Program:
        script = self._folder / "script.py"
        script.write_text(BEGIN + text)
        told = (self.mock.bootstrap_servers, self.topic, self.group, str(self._folder / "gate"))
        return Program(script, *told, log=self._folder / "log")

    def let_go(self) -> None:
        (self._folder / "gate").touch()

    def lag(self) -> int:
        return group_lag(self.mock.bootstrap_servers, self.group, self.topic)


@pytest.fixture
def script(mock: MockKafka, tmp_path: Path) -> Script:
    return Script(mock, tmp_path)


@pytest.fixture
def cluster(mock: MockKafka) -> Cluster:
    return Cluster(mock.bootstrap_servers, settings=QUICK)


def consumer_of(cluster: Cluster, topic: str, **options: Any) -> Consumer:
    options = {"handler": nothing, "executor": 1, **options}
    return Consumer(cluster, group_id=unique("group"), topics=[Topic(topic, dead_letter=DISCARD)], **options)


# Signals and the main thread's return ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", COROUTINES)
def test_a_signal_drains_what_runs_in_a_coroutine(script: Script, how: str, number: signal.Signals) -> None:
    count = 2 if how == "two" else 1
    with script.start(COROUTINES[how]) as program:
        wait_until(lambda: program.output.count("begun") == count, what=program.output)
        program.send_signal(number)
        if how in ("own handler", "the loop's handler", "uvicorn"):
            wait_until(lambda: "own" in program.output)
        script.let_go()
        code = program.wait()
        assert program.output.count("done") == count
        assert "after" in program.output, program.output
        assert code == (-number if how == "uvicorn" else 0) or (how == "uvicorn" and number == signal.SIGINT)
    assert script.lag() == 0


def test_a_second_signal_stops_a_coroutine_hard(script: Script) -> None:
    text = """
async def main():
    consumer = consumer_of(slow)
    running = asyncio.create_task(consumer.run_async())
    while "stopping" not in consumer.health().reasons: await asyncio.sleep(0.01)
    say("stopping")
    await running
    say("after")
asyncio.run(main())
"""
    with script.start(text) as program:
        wait_until(lambda: "begun" in program.output)
        program.terminate()
        wait_until(lambda: "stopping" in program.output)
        program.terminate()
        assert program.wait() == 0
        assert "after" in program.output
        assert "done" not in program.output


def test_signals_are_left_alone_where_that_is_asked_for(script: Script) -> None:
    text = COROUTINES["threads"].replace("run_async()", "run_async(signals=False)")
    with script.start(text) as program:
        wait_until(lambda: "begun" in program.output)
        program.terminate()
        assert program.wait() == -signal.SIGTERM


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise ValueError"])
@pytest.mark.parametrize("pool", ["1", "ThreadPoolExecutor(1)"])
def test_when_the_main_thread_returns_a_started_consumer_drains(script: Script, pool: str, end: str) -> None:
    text = f"""
consumer = consumer_of(slow, {pool})
consumer.start()
while not consumer.stats().in_flight: time.sleep(0.01)
def report():
    while "stopping" not in consumer.health().reasons: time.sleep(0.01)
    say("stopping")
threading.Thread(target=report, daemon=True).start()
{end}
"""
    with script.start(text) as program:
        wait_until(lambda: "stopping" in program.output, what=program.output)
        script.let_go()
        assert program.wait() == (1 if "ValueError" in end else 0)
        assert "done" in program.output
    assert script.lag() == 0


# Ends by itself --------------------------------------------------------------------------------------------


def ended(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "ended by itself" in one.getMessage()]


def test_a_consumer_that_ends_by_itself_says_so_once(
    mock: MockKafka, cluster: Cluster, orders: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Log()
    pool = ThreadPoolExecutor(1)
    consumer = consumer_of(cluster, orders, executor=pool, on_event=told.add)
    with pytest.raises(ConsumerFailed), consumer:  # noqa: PT012 - the end of the block raises
        consumer.wait_ready()
        pool.shutdown()
        produce_many(mock.bootstrap_servers, orders, [b"1"])
        wait_until(lambda: not consumer.health().alive)
        with pytest.raises(ConsumerFailed, match="executor"):
            consumer.wait_ready()
    (line,) = ended(caplog)
    assert consumer.group_id in line
    assert "executor" in line
    assert [one.levelno for one in caplog.records if one.getMessage() == line] == [logging.ERROR]
    assert told.of(events.ConsumerEnded) == [
        events.ConsumerEnded(topic="", partition=-1, error="ConsumerFailed")
    ]


@pytest.mark.parametrize("how", ["with", "start", "run_async", "run_consumers", "run"])
def test_a_missing_topic_is_logged_where_no_caller_is_told_at_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    told = Log()
    consumer = consumer_of(cluster, unique("missing"), on_event=[told.add])
    with pytest.raises(ConfigError, match="missing"):  # noqa: PT012 - five ways to run it
        match how:
            case "with":
                with consumer:
                    consumer.wait_ready()
            case "start":
                consumer.start()
                consumer.wait_ready()
            case "run_async":
                asyncio.run(consumer.run_async())
            case "run_consumers":
                run_consumers(consumer)
            case _:
                consumer.run()
    assert len(ended(caplog)) == (0 if how == "run" else 1)
    wait_until(lambda: len(told) == 1)
    assert told.items == [events.ConsumerEnded(topic="", partition=-1, error="ConfigError")]


def test_a_stop_is_no_end_by_itself(cluster: Cluster, orders: str, caplog: pytest.LogCaptureFixture) -> None:
    told = Log()
    consumer = consumer_of(cluster, orders, on_event=told.add)
    with consumer:
        consumer.wait_ready()
    assert not ended(caplog)
    assert not told.of(events.ConsumerEnded)
    with pytest.raises(ConsumerFailed, match="stopped"):
        consumer.wait_ready()


# wait_ready ------------------------------------------------------------------------------------------------


def test_wait_ready_returns_when_it_is(cluster: Cluster, orders: str) -> None:
    consumer = consumer_of(cluster, orders)
    waiting = ThreadPoolExecutor(1).submit(consumer.wait_ready)  # before the start, from another thread
    with consumer:
        assert waiting.result(30) is None
        assert consumer.health().ready


def test_wait_ready_says_why_not(cluster: Cluster, orders: str) -> None:
    consumer = consumer_of(cluster, orders)
    with pytest.raises(TimeoutError, match="not started"):
        consumer.wait_ready(0.05)
    with pytest.raises(TimeoutError, match="not started"):
        asyncio.run(consumer.wait_ready_async(0))
    with pytest.raises(ConfigError, match="timeout"):
        consumer.wait_ready(-1)
    consumer.stop()
    with pytest.raises(ConsumerFailed, match="stopped"):
        consumer.wait_ready()


def test_wait_ready_in_a_coroutine(cluster: Cluster, orders: str) -> None:
    async def main() -> None:
        async def handler(_message: Any) -> None: ...

        consumer = consumer_of(cluster, orders, handler=handler, executor=AsyncExecutor())
        running = asyncio.create_task(consumer.run_async())
        await consumer.wait_ready_async()
        assert consumer.health().ready
        consumer.stop()
        with pytest.raises(ConsumerFailed, match="stopped"):
            await consumer.wait_ready_async()
        await running

    asyncio.run(main())


# Several listeners -----------------------------------------------------------------------------------------


def test_several_listeners_are_told_and_none_keeps_another_from_it(
    cluster: Cluster, orders: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Log()
    release = threading.Event()

    def slow(_event: events.Event) -> None:
        release.wait(30)

    def bad(_event: events.Event) -> None:
        raise SystemExit

    consumer = consumer_of(cluster, orders, on_event=[slow, bad, told.add])
    with consumer:
        wait_until(lambda: told.of(events.AssignmentStarted))
        release.set()
    assert sum("on_event raised SystemExit" in one.getMessage() for one in caplog.records) == 1


@pytest.mark.parametrize("given", [5, "text", [print, 5]])
def test_what_is_no_listener_is_refused(cluster: Cluster, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"Consumer\.on_event"):
        consumer_of(cluster, "orders", on_event=given)
