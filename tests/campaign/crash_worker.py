"""A consumer that kills itself within a transaction: `python -m tests.campaign.crash_worker '{"servers": …}'`.

The product knows nothing of it: the class that it makes its transactional producers of is replaced from outside. With
`"step": ["offsets", 2]` the process ends by SIGKILL right after it has added the offsets to its second transaction.
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from typing import Any
from unittest.mock import patch

import confluent_kafka

from retriable_kafka_client import Cluster, Consumer, Message, Retry, Topic
from retriable_kafka_client.transactions import transactional_producer as transactional
from tests.support.evidence import EvidenceWriter

__all__ = ["STEPS", "main"]

STEPS = (
    *("initialising", "initialised", "begun", "produced", "all-produced", "offsets", "committing"),
    *("within-commit", "committed", "next"),
)


class Death:
    """Counts the passes of each step, and ends the process at the one that was asked for."""

    def __init__(self, evidence: EvidenceWriter, step: str, number: int) -> None:
        self._evidence = evidence
        self._step = step
        self._left = number

    def at(self, step: str) -> bool:
        """Whether this is the step. Counts."""
        if step != self._step:
            return False
        self._left -= 1
        return self._left == 0

    def strike(self) -> None:
        self._evidence.write("killed", step=self._step)
        os.kill(os.getpid(), signal.SIGKILL)

    def passes(self, step: str) -> None:
        if self.at(step):
            self.strike()


def dying(death: Death) -> type:
    """A producer class that dies as asked."""

    class Dying(confluent_kafka.Producer):
        def init_transactions(self, *args: Any) -> None:
            death.passes("initialising")
            super().init_transactions(*args)
            death.passes("initialised")

        def begin_transaction(self) -> None:
            death.passes("next")
            super().begin_transaction()
            death.passes("begun")

        def produce(self, *args: Any, **options: Any) -> None:
            super().produce(*args, **options)
            death.passes("produced")

        def send_offsets_to_transaction(self, *args: Any) -> None:
            death.passes("all-produced")
            super().send_offsets_to_transaction(*args)
            death.passes("offsets")

        def commit_transaction(self, *args: Any) -> None:
            death.passes("committing")
            if death.at("within-commit"):
                threading.Timer(0.002, death.strike).start()
            super().commit_transaction(*args)
            death.passes("committed")

    return Dying


def work(evidence: EvidenceWriter, out: str, message: Message[Any]) -> None:
    """Send one record; each seventh fails at first, each 31st always."""
    i = message.value
    evidence.write("ran", i=i, attempt=message.attempt)
    message.send(out, i)
    time.sleep(0.01)
    if i % 31 == 3 or (i % 7 == 1 and message.attempt == 1):
        raise ValueError


def main(told: dict[str, Any]) -> None:
    """Consume until killed or told to stop."""
    evidence = EvidenceWriter(told["evidence"])
    step, number = told.get("step") or ("", 1)
    patch.object(transactional, "Producer", dying(Death(evidence, step, number))).start()
    Consumer(
        Cluster(
            told["servers"],
            settings={
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 300,
                "fetch.wait.max.ms": 20,
            },
        ),
        group_id=told["group"],
        topics=[
            Topic(
                told["topic"],
                retry=Retry(told["retry"], max_attempts=2, delay=0.05),
                dead_letter=told["dead"],
            )
        ],
        handler=partial(work, evidence, told["out"]),
        executor=4,
        guarantee="exactly_once",
        commit_interval=0.2,
    ).run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
