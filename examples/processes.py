"""A handler that needs the processor, in two processes. One message kills its process: the others do not notice.

python examples/processes.py [--bootstrap-servers HOST:PORT]
"""

import hashlib
import os
from typing import Any

from _common import kafka, report, wait_until_done

from retriable_kafka_client import Consumer, Message, ProcessExecutor, Producer, Retry, Topic

DOCUMENTS = 200


def seal(message: Message[Any]) -> None:
    """At the top level of a module, because it must pickle. It runs in a worker process."""
    if message.value["name"] == "killer":
        os._exit(1)  # as a bug in some C code might
    hashlib.pbkdf2_hmac("sha256", message.body or b"", b"salt", 20_000)


def main() -> None:
    with (
        kafka("documents", "documents-retry", "documents-dead-letters") as (
            cluster,
            (documents, retry, dead),
        ),
        ProcessExecutor(2) as executor,
    ):
        with Producer(cluster) as producer:
            for number in range(DOCUMENTS):
                producer.send(documents, {"name": "killer" if number == 50 else f"document {number}"})
        consumer = Consumer(
            cluster,
            group_id="example-sealing",
            topics=[Topic(documents, retry=Retry(retry, max_attempts=2, delay=0.5), dead_letter=dead)],
            handler=seal,
            executor=executor,
        )
        with consumer:
            wait_until_done(consumer, DOCUMENTS)
        report(consumer, DOCUMENTS)


# Every worker process imports this module, so nothing may start outside of this block.
if __name__ == "__main__":
    main()
