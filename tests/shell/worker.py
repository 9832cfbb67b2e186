"""A program with one consumer, for tests that kill or signal it: `python -m tests.shell.worker '{"servers": …}'`.

Handlers note in a file of evidence what they run; events go there too, as {"event": "told", "kind": "Committed", …},
and health as {"event": "health", "reasons": […]}.
"""

import json
import logging
import signal
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from typing import Any

from retriable_kafka_client import Cluster, Consumer, Limits, ProcessExecutor, Retry, Topic
from retriable_kafka_client.events import Event
from tests.shell.handlers import in_its_time, slow_or_quick
from tests.support.evidence import EvidenceWriter

__all__ = ["main"]


def tell(evidence: EvidenceWriter, event: Event) -> None:
    evidence.write("told", kind=type(event).__name__, **asdict(event))


def watch(evidence: EvidenceWriter, consumer: Consumer) -> None:
    """Note each change of its health: what a test outside cannot see otherwise."""
    last = None
    while True:
        health = consumer.health()
        if health.reasons != last:
            last = health.reasons
            evidence.write("health", ready=health.ready, reasons=last)
        time.sleep(0.02)


def main(told: dict[str, Any]) -> None:
    """Consume until signalled; `signals: "own"` handles SIGTERM itself, `ordering` retries in place."""
    evidence = EvidenceWriter(told["evidence"])
    ordered = "ordering" in told
    retry = Retry(None if ordered else told["retry"], delay=0.1)
    handler = partial(in_its_time, evidence) if ordered else partial(slow_or_quick, evidence, told["gate"])
    consumer = Consumer(
        Cluster(told["servers"], settings=told["settings"]),
        group_id=told["group"],
        topics=[Topic(told["topic"], retry=retry, dead_letter=told["dead"])],
        handler=handler,
        ordering=told.get("ordering", "unordered"),
        executor=ProcessExecutor(2) if told.get("processes") else 4,
        commit_interval=0.2,
        limits=Limits(drain_timeout=told.get("drain", 10.0)),
        on_event=partial(tell, evidence),
    )
    threading.Thread(target=watch, args=(evidence, consumer), daemon=True).start()
    own = told.get("signals") == "own"
    if own:
        signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    consumer.run(signals=not own)
    evidence.write("ended", handled=consumer.stats().handled)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(json.loads(sys.argv[1]))
