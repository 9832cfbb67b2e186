"""`rkc run`: consumers in the foreground, until a signal or a failure."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from retriable_kafka_client import Consumer, run_consumers

__all__ = ["run"]

_COUNTS = ("handled", "failed", "retried", "dead_lettered", "dropped", "filtered")


def run(consumers: Sequence[Consumer], *, log_level: str, as_json: bool) -> None:
    """Run them to their end and print what each has done. Raises what the first to fail raised."""
    logging.basicConfig(
        level=log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )  # to stderr; nothing happens when the program has set up logging itself
    try:
        if len(consumers) == 1:
            consumers[0].run()
        else:
            run_consumers(*consumers)
    except BaseException:
        if any(consumer.stats().arrived for consumer in consumers):
            _report(consumers, as_json)
        raise
    _report(consumers, as_json)


def _report(consumers: Sequence[Consumer], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"consumers": [_plain(consumer) for consumer in consumers]}))
    else:
        _print(consumers)


def _plain(consumer: Consumer) -> dict[str, object]:
    stats = consumer.stats()
    return {
        "group": consumer.group_id,
        "topics": [topic.name for topic in consumer.topics],
        **{name: getattr(stats, name) for name in _COUNTS},
    }


def _print(consumers: Sequence[Consumer]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("group")
    table.add_column("topics")
    for name in _COUNTS:
        table.add_column(name.replace("_", "-"), justify="right")
    for consumer in consumers:
        stats = consumer.stats()
        topics = ", ".join(topic.name for topic in consumer.topics)
        table.add_row(consumer.group_id, topics, *(f"{getattr(stats, name):,}" for name in _COUNTS))
    Console().print(table)
