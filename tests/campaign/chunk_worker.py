"""A program with one consumer of chunked messages: `python -m tests.campaign.chunk_worker '{"servers": …}'`.

It notes each run: key, the body's digest and size, own headers, attempt and id,
and the most memory that the process has had.
"""

import hashlib
import json
import logging
import resource
import sys
from typing import Any

from retriable_kafka_client import Cluster, Consumer, Limits, Message, Retry, Topic, events
from tests.support.evidence import EvidenceWriter

__all__ = ["main"]


def main(told: dict[str, Any]) -> None:
    """Consume until signalled."""
    evidence = EvidenceWriter(told["evidence"])

    def handler(message: Message[Any]) -> None:
        body = message.body or b""
        evidence.write(
            "run",
            key=(message.key or b"").decode(),
            digest=hashlib.sha256(body).hexdigest(),
            size=len(body),
            headers=[[name, (value or b"").decode()] for name, value in message.headers],
            attempt=message.attempt,
            id=message.id,
            peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        if int(message.key or b"0") % 7 == 0 and message.attempt == 1:
            raise ValueError
        evidence.write("done", key=(message.key or b"").decode())

    def tell(event: events.Event) -> None:
        if isinstance(event, events.ChunksGivenUp | events.MessageDeadLettered):
            evidence.write("told", kind=type(event).__name__, reason=event.reason, offset=event.offset)

    consumer = Consumer(
        Cluster(told["servers"], settings={"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}),
        group_id=told["group"],
        topics=[Topic(told["topic"], retry=Retry(told["retry"], delay=0.2), dead_letter=told["dead"])],
        handler=handler,
        executor=4,
        commit_interval=0.2,
        limits=Limits(buffer_bytes=told["buffer"], message_bytes=told["message"], drain_timeout=10.0),
        on_event=tell,
    )
    evidence.write("ready")
    consumer.run()
    stats = consumer.stats()
    evidence.write("ended", assembled=stats.assembled, recalled=stats.recalled, handled=stats.handled)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(json.loads(sys.argv[1]))
