"""Asking the brokers whether they are there and let us in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.client import Connection, admin_settings, open_client
from retriable_kafka_client.brokers.client_callbacks import without_secrets
from retriable_kafka_client.errors import ConfigError
from retriable_kafka_client.health import Health
from retriable_kafka_client.runtime.monkey_patching import refuse_patched
from retriable_kafka_client.runtime.native_queue import Empty, SimpleQueue

__all__ = ["check_cluster"]

# Errors after which waiting longer changes nothing: somebody answered, and refused.
_REFUSED = frozenset((KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL))


class _Said(NamedTuple):
    code: int | None  # None: the brokers let us in
    text: str
    final: bool  # nothing more will be said


def check_cluster(cluster: Connection, timeout: float) -> Health:
    """Ask for the cluster's metadata with a client of its own; blocks at most ``timeout`` seconds.

    Raises ConfigError for settings that the client refuses, and under gevent's or eventlet's
    threads; nothing for what the brokers say or do not say.

    Runs on a thread that is left to itself when the time is up: making a client can wait for a token, and
    ending one for the resolver.
    """
    refuse_patched()
    deadline = time.monotonic() + timeout
    said: SimpleQueue[_Said | ConfigError] = SimpleQueue()
    settings = cluster.connection()

    def on_error(error: KafkaError) -> None:
        said.put(_Said(error.code(), error.str(), final=error.code() in _REFUSED))

    threading.Thread(
        target=_ask, args=(cluster, timeout, on_error, said.put), name="retriable-kafka-check", daemon=True
    ).start()
    last = _Said(KafkaError._TIMED_OUT, f"no broker answered within {timeout:g} s", final=False)
    while not last.final:
        try:
            now_said = said.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        if isinstance(now_said, ConfigError):
            raise now_said
        # "All brokers are down" says less than the reason why the last of them is.
        if now_said.final or now_said.code != KafkaError._ALL_BROKERS_DOWN:
            last = now_said
    if last.code is None:
        return Health(alive=True, ready=True)
    refused = last.code in _REFUSED
    what = f"{settings['security.protocol']} at {settings['bootstrap.servers']}"
    user = settings.get("sasl.username")
    who = "" if user is None else f" for user {user!r} ({settings.get('sasl.mechanisms')})"
    kind = f"refused{who}" if refused else "not reachable"
    return Health(
        alive=refused, ready=False, reasons=(without_secrets(f"{what}: {kind}: {last.text}", settings),)
    )


def _ask(
    cluster: Connection,
    timeout: float,
    on_error: Callable[[KafkaError], None],
    answer: Callable[[_Said | ConfigError], None],
) -> None:
    end = time.monotonic() + timeout
    try:
        client = open_client(AdminClient, admin_settings(cluster, on_error=on_error))
    except ConfigError as error:
        answer(error)
        return
    # list_topics does not serve callbacks, and poll does nothing else: refusals come from the poll, on a
    # thread beside.
    asking = threading.Thread(
        target=_serve, args=(client, end), name="retriable-kafka-check-poll", daemon=True
    )
    asking.start()
    try:
        client.list_topics(timeout=max(0.001, end - time.monotonic()))
    except KafkaException as error:
        failure: KafkaError = error.args[0]
        if failure.code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
            answer(_Said(failure.code(), failure.str(), final=True))
    else:
        answer(_Said(None, "", final=True))


def _serve(client: AdminClient, end: float) -> None:
    while time.monotonic() < end:
        client.poll(0.05)
