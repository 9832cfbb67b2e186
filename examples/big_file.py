"""A file of 50 MB (4 MB on the embedded broker) through a topic that takes 1 MB: sent with progress, received whole.

python examples/big_file.py [--bootstrap-servers HOST:PORT]
"""

import hashlib
import io
import random
import tempfile
from typing import IO, Any

from _common import kafka, report, servers, wait_until_done

from retriable_kafka_client import Consumer, Message, Producer, Retry, Topic

MEGABYTE = 1_000_000
# The embedded broker keeps no more than 5 MB of a partition.
SIZE = (50 if servers() else 4) * MEGABYTE


class Progress:
    """A file that says how far it has been read: the producer reads a piece when there is room to send it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.told = 0

    def read(self, size: int = -1) -> bytes:
        part = self.file.read(size)
        share = 100 * self.file.tell() // SIZE
        if share // 10 > self.told // 10:
            self.told = share
            print(f"sent: {share} %")
        return part

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def receive(message: Message[Any]) -> None:
    if message.attempt == 1:
        raise ConnectionError("the store does not answer")  # it is retried as a whole, in chunks again
    body = message.body or b""
    wanted = dict(message.headers)["sha256"] or b""
    assert hashlib.sha256(body).hexdigest() == wanted.decode()
    print(f"received: {len(body) // MEGABYTE} MB, attempt {message.attempt}, as they were sent")


def main() -> None:
    topics = kafka("files", "files-retry", "files-dead-letters")
    with topics as (cluster, (files, retry, dead_letters)), tempfile.TemporaryFile() as file:
        chance, digest = random.Random(0), hashlib.sha256()
        for _ in range(SIZE // MEGABYTE):
            part = chance.randbytes(MEGABYTE)
            digest.update(part)
            file.write(part)
        file.seek(0)
        with Producer(cluster, split=True) as producer:
            # The file is the producer's until the delivery is there.
            delivery = producer.send(
                files, Progress(file), key="photos", headers={"sha256": digest.hexdigest()}
            ).result(60)
            print(f"in {delivery.topic}, partition {delivery.partition}, from offset {delivery.offset} on")
        consumer = Consumer(
            cluster,
            group_id="example-files",
            topics=[Topic(files, retry=Retry(retry, delay=0.5), dead_letter=dead_letters)],
            handler=receive,
            executor=2,
        )
        with consumer:
            wait_until_done(consumer, 1)
        report(consumer, 1)


if __name__ == "__main__":
    main()
