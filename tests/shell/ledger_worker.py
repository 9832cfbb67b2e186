"""The example with SQLite as a consumer that a test kills: `python -m tests.shell.ledger_worker '{"servers": …}'`."""

import json
import runpy
import sys
import time
from collections.abc import Callable
from typing import Any

from retriable_kafka_client import Cluster, Consumer, Message, Retry, Topic
from tests.support.processes import REPOSITORY

__all__ = ["ledger", "main"]


def ledger(path: str, receipts: str) -> Any:
    """The example's handler."""
    examples = REPOSITORY / "examples"
    sys.path.insert(0, str(examples))  # its neighbours
    try:
        return runpy.run_path(str(examples / "exactly_once_sqlite.py"))["Ledger"](path, receipts)
    finally:
        sys.path.remove(str(examples))


def slowly(handler: Callable[[Message[Any]], None], message: Message[Any]) -> None:
    """So that there is always something to kill between the database and Kafka."""
    handler(message)
    time.sleep(0.01)


def main(told: dict[str, Any]) -> None:
    """Consume until told to stop."""
    handler = ledger(told["database"], told["receipts"])
    Consumer(
        Cluster(
            told["servers"],
            settings={"session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 20},
        ),
        group_id=told["group"],
        topics=[Topic(told["topic"], retry=Retry(told["retry"], delay=0.05), dead_letter=told["dead"])],
        handler=lambda message: slowly(handler, message),
        executor=4,
        guarantee="exactly_once",
        commit_interval=0.2,
    ).run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
