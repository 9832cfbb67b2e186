"""Sends one large message, in a process of its own, and prints by how many bytes its memory grew at most.

python -m tests.shell.sending SERVERS TOPIC bytes|file SIZE
"""

import resource
import sys
import tempfile

from retriable_kafka_client import Cluster
from retriable_kafka_client.producer.producer import Producer


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    servers, topic, kind, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with Producer(Cluster(servers), split=True) as producer, tempfile.TemporaryFile() as file:
        producer.send(topic, b"x" * 1_500_000).result(60)
        before = peak()
        if kind == "file":
            file.truncate(size)
            producer.send(topic, file).result(120)
        else:
            producer.send(topic, bytes(size - 1) + b"x").result(120)
        print(peak() - before)


if __name__ == "__main__":
    main()
