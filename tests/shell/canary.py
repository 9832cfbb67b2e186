"""A program that fails in every way, with secrets and payloads in every text; `test_canaries.py` reads what it shows.

It writes all that it can see of the library to stdout and logs at DEBUG to stderr; `done` is its last word.
"""

import asyncio
import concurrent.futures
import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from retriable_kafka_client import (
    AsyncExecutor,
    Cluster,
    Consumer,
    Limits,
    Message,
    ProcessExecutor,
    Producer,
    Reject,
    Retry,
    Topic,
)
from retriable_kafka_client.testing import MockKafka, make_message
from tests.shell.chunk_records import Split, produce_chunks

# In pieces, so that a traceback's source line holds none.
PAYLOAD = "payload-" + "canary\nERROR forged line\x1b[31m\x1b]0;title\x07"
PASSWORD = "password-" + "canary"
KEY_PASSWORD = "key-" + "canary"
TOKEN = "token-" + "canary"

SETTINGS: dict[str, Any] = {
    "sasl.password": PASSWORD,
    "ssl.key.password": KEY_PASSWORD,
    "sasl.oauthbearer.config": f"principal=admin scope=all {TOKEN}",
    "reconnect.backoff.max.ms": 100,
}

gate = threading.Event()


class Odd(Exception):
    """Shows more than anybody wants."""

    def __str__(self) -> str:
        return PAYLOAD

    def __repr__(self) -> str:
        raise ValueError(PAYLOAD)


def raises(message: Message[Any]) -> None:
    raise ValueError(f"{message.value}{message.body!r}{PASSWORD}") from Odd()


def raises_oddly(_message: Message[Any]) -> None:
    raise Odd


def exits(_message: Message[Any]) -> None:
    raise SystemExit(PAYLOAD)


def rejects(message: Message[Any]) -> None:
    raise Reject(message.value)


def swallows(message: Message[Any]) -> None:
    message.send(str(message.value), message.value)  # no topic's name


def sends(message: Message[Any]) -> None:
    message.send("nowhere", message.value, key=PAYLOAD, headers={"name": PAYLOAD})


def dies(_message: Message[Any]) -> None:
    os._exit(7)


def overruns(message: Message[Any]) -> None:
    gate.wait(20)
    raise ValueError(message.value)


async def raises_late(message: Message[Any]) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise ValueError(message.value) from Odd()


async def leaves_a_task(message: Message[Any]) -> None:
    raise LookupError(message.value)


def refuses_to_decode(body: bytes, _message: Message[Any]) -> Any:
    raise ValueError(body.decode())


def refuses_to_filter(message: Message[Any]) -> bool:
    raise KeyError(message.body)


def says(_event: object) -> None:
    raise RuntimeError(PAYLOAD)


def begins_badly() -> None:
    raise RuntimeError(PASSWORD)


def show(*things: object) -> None:
    for thing in things:
        print(repr(thing), str(thing), flush=True)
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            print(process.cmdline(), flush=True)
        except psutil.Error:  # it has ended meanwhile
            continue


def shown(call: Callable[[], object]) -> None:
    """The traceback as a program shows it that does not catch."""
    try:
        show(call())
    except BaseException:  # noqa: BLE001 - whatever it is, it is shown
        traceback.print_exc()


HANDLERS: Sequence[tuple[Callable[[Message[Any]], Any], dict[str, Any]]] = (
    (raises, {}),
    (raises_oddly, {}),
    (exits, {}),
    (rejects, {}),
    (swallows, {}),
    (sends, {}),
    (overruns, {"timeout": 0.2}),
    (raises, {"deserializer": refuses_to_decode}),
    (raises, {"filter": refuses_to_filter}),
    (raises, {"on_event": says}),
    (raises, {"executor": lambda: concurrent.futures.ThreadPoolExecutor(2)}),
    (raises, {"executor": lambda: ProcessExecutor(1)}),
    (dies, {"executor": lambda: ProcessExecutor(1)}),
    (raises_late, {"executor": AsyncExecutor, "timeout": 0.2}),
    (leaves_a_task, {"executor": AsyncExecutor}),
)


def names(prefix: str) -> list[str]:
    """The topics that it wants."""
    return [f"{prefix}{kind}{number}" for number in range(len(HANDLERS)) for kind in "trd"]


def consumers(cluster: Cluster, prefix: str, common: Mapping[str, Any]) -> Iterator[Consumer]:
    for number, (handler, given) in enumerate(HANDLERS):
        options = {"on_event": show, **common, **given}
        if "executor" in options:
            options["executor"] = options["executor"]()
        base, retry, dead = (f"{prefix}{kind}{number}" for kind in "trd")
        topic = Topic(base, retry=Retry(retry, max_attempts=2, delay=0.05), dead_letter=dead)
        limits = Limits(drain_timeout=1.0, chunk_wait=1.0)
        yield Consumer(
            cluster, group_id=f"{prefix}g{number}", topics=[topic], handler=handler, limits=limits, **options
        )


def run(servers: str, prefix: str = "", **common: Any) -> None:
    cluster = Cluster(servers, settings=SETTINGS | {"debug": "conf,security"})
    show(cluster, make_message(PAYLOAD, key=PAYLOAD.encode(), headers=[("a", PAYLOAD.encode())]))
    with Producer(cluster) as producer:
        first = f"{prefix}t0"
        for number in range(len(HANDLERS)):
            base = f"{prefix}t{number}"
            producer.send(base, PAYLOAD, key=PAYLOAD, headers={"name": PAYLOAD}).result(30)
            producer.send(base, PAYLOAD.encode(), headers={"retriable": PAYLOAD}).result(30)
            whole = Split(PAYLOAD.encode() * 3, len(PAYLOAD), PAYLOAD.encode())
            produce_chunks(servers, base, [(whole, 0), (whole, 2)])
        shown(lambda: producer.send(first, PAYLOAD * 100_000).result(30))
        shown(lambda: producer.send(first, {"a": Odd()}))
        shown(lambda: producer.send(first, 1, headers={"retriable_kafka_x": PAYLOAD}))
        producer.send(first, PAYLOAD * 100_000)  # nobody reads its failure
        show(producer, producer.health())
    gc.collect()
    for consumer in consumers(cluster, prefix, common):
        consumer.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            stats = consumer.stats()
            if stats.dead_lettered >= 2 and stats.given_up:
                break
            if any("refuse" in one for one in consumer.health().reasons):
                break
            time.sleep(0.05)
        show(consumer, consumer.stats(), consumer.health())
        consumer.stop()
        gate.set()
        shown(lambda consumer=consumer: consumer.join(20))  # type: ignore[misc]


def refuse() -> None:
    """What never comes to run."""
    nowhere = "127.0.0.1:1"
    oauth = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
    unsecured = {"enable.sasl.oauthbearer.unsecure.jwt": True}
    for make in (
        lambda: Cluster(nowhere, username="alice", password=PASSWORD, security_protocol="NONE"),
        lambda: Cluster(nowhere, username="alice", password=[PASSWORD]),  # type: ignore[arg-type]
        lambda: Cluster(nowhere, password=PASSWORD),
        lambda: Cluster(nowhere, settings={"sasl.password": PASSWORD.encode()}),
        lambda: Cluster(nowhere, settings=[("sasl.password", PASSWORD)]),  # type: ignore[arg-type]
        lambda: Cluster(nowhere, settings={"ssl.key.pem": PASSWORD}, security_protocol="SSL").check(1),
        lambda: Cluster(nowhere, settings=SETTINGS | {"no.such.setting": 1}).check(1),
        lambda: Cluster(nowhere, settings=SETTINGS | unsecured, **oauth).check(2),
        lambda: Cluster(nowhere, settings=SETTINGS | {"oauth_cb": oauth_cb}, **oauth).check(2),
        lambda: Cluster(nowhere, settings=SETTINGS | {"error_cb": error_cb}).check(1),
    ):
        shown(make)
    cluster = Cluster(nowhere, settings=SETTINGS | unsecured | {"debug": "all"}, **oauth)
    topic = Topic("t", dead_letter="d")
    failing = Consumer(cluster, group_id="g", topics=[topic], handler=raises)
    threading.Timer(3.0, failing.stop).start()
    shown(failing.run)
    broken = ProcessExecutor(1, initializer=begins_badly)
    shown(lambda: broken.submit(begins_badly).result(20))
    broken.shutdown()


def oauth_cb(_config: str) -> Any:
    raise RuntimeError(TOKEN)


def error_cb(_error: object) -> None:
    raise RuntimeError(TOKEN)


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    print("PAYLOAD is at", Path(__file__).name)
    if sys.argv[1:]:
        servers, prefix = sys.argv[1:]
        run(servers, prefix, guarantee="exactly_once")
    else:
        refuse()
        with MockKafka(dict.fromkeys(names(""), 1)) as kafka:
            run(kafka.bootstrap_servers)
    print("done", flush=True)


if __name__ == "__main__":
    main()
