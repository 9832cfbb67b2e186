"""A member whose join takes long, since an older one drains, while the way to the coordinator breaks now and then."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from retriable_kafka_client import Cluster, Consumer, Limits, Message
from retriable_kafka_client import events as ev
from tests.chaos.proxy import Links
from tests.shell.lab import Lab, Log, as_json, settings_of
from tests.support.kafka import KafkaCluster
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.campaign]

LONG_SECONDS = 27.0  # since the start: longer than anybody may take to say that no broker answers
CUT_SECONDS = 4.0


def test_a_coordinator_that_bounces_does_not_end_a_member_that_waits_for_others_to_drain(
    own_kafka: Callable[..., KafkaCluster],
) -> None:
    """With one broker, which coordinates: its connections to the younger member break, and it is soon back."""
    with Links(1) as links:
        kafka = own_kafka(sasl_fronts=links.ports)
        link = links[1]
        link.lead_to(kafka.broker(1).sasl_port)
        with Lab(kafka.bootstrap_servers, kafka.create_topic, "long-join", real=True) as lab:
            entry, runs, gate = lab.entry(), Log(), threading.Event()

            def handler(message: Message[Any]) -> None:
                runs.add(message.value)
                if message.value == "slow":
                    gate.wait(120)

            # Before the younger one is let in, the older one gives all up, and drains.
            settings, limits = settings_of("range"), Limits(drain_timeout=100.0)
            older = lab.start(entry, handler, settings=settings, limits=limits)
            older.wait_ready(60)
            lab.send(entry, as_json("slow"))
            runs.wait(1, "under way")
            younger = Consumer(
                Cluster(
                    kafka.sasl_bootstrap_servers,
                    username="alice",
                    password=kafka.users["alice"],
                    security_protocol="SASL_PLAINTEXT",
                    settings=settings,
                ),
                group_id=lab.group,
                topics=[entry],
                handler=handler,
            )
            with younger:
                try:
                    joins_since = time.monotonic()

                    def passed(seconds: float) -> None:
                        until = time.monotonic() + seconds
                        wait_until(
                            lambda: time.monotonic() >= until or not younger.health().alive, seconds + 60
                        )

                    for bounce in range(2):
                        passed(LONG_SECONDS if bounce == 0 else CUT_SECONDS)
                        link.cut()
                        passed(CUT_SECONDS)
                        link.heal()
                    passed(CUT_SECONDS)
                    assert time.monotonic() >= joins_since + LONG_SECONDS
                    assert younger.health().alive and not younger.health().ready
                    assert not lab.events.of(ev.AssignmentEnded)  # the older one still drains
                finally:
                    gate.set()
                younger.wait_ready(60)
                assert younger.stats().partitions
                older.wait_ready(60)
                lab.fill(entry, [as_json(number) for number in range(20)])
                runs.wait(21)
                lab.caught_up(entry)
