"""What one transaction sends, on a client that does as it is told."""

import time
from typing import Any, cast

from confluent_kafka import Producer

from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.copies import Publication
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.transactions.transaction_records import TransactionRecords
from retriable_kafka_client.wire.outbox import Output
from tests.core.harness import BASE, Raw, entry
from tests.support.limits import FixedLimits

LIMIT = 1_000  # bytes of a batch that each topic takes


class Client:
    """Takes records, and reports nothing."""

    def __init__(self) -> None:
        self.taken: list[bytes | None] = []

    def produce(self, _topic: str, *, value: bytes | None, **_more: Any) -> None:
        self.taken.append(value)

    def poll(self, _timeout: float) -> int:
        return 0


def publications(outputs: list[Output]) -> list[Publication]:
    assignment = Assignment(BASE, parks=False, map_units=4_095)
    return [
        Publication(entry(assignment, offset, Raw()), (output,), 0.5) for offset, output in enumerate(outputs)
    ]


def test_all_that_no_topic_takes_is_refused_in_one_transaction() -> None:
    headers = (("large", b"x" * 950),)  # they leave no chunk any room
    impossible = publications(
        [Output(topic="orders", body=b"body", headers=headers, split=True) for _ in range(5)]
    )
    fine = publications([Output(topic="orders", body=b"fine")])
    records = TransactionRecords(p.Transact((), [*impossible, *fine], ()), FixedLimits(LIMIT), time.time())
    client = Client()
    assert records.send(cast("Producer", client), time.monotonic()) is not None
    assert records.refused() == dict.fromkeys(impossible, "MSG_SIZE_TOO_LARGE")
    assert client.taken == [b"fine"]
