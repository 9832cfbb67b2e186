"""A record whose own time is no date has none on any run, wherever its copies stand."""

import pytest

from retriable_kafka_client.testing import MockKafka
from retriable_kafka_client.wire import headers as wire
from tests.shell.lab import Lab, Log

BEYOND_9999 = 253_402_300_800_000


@pytest.mark.parametrize("stamp_ms", [-1, BEYOND_9999, 2**62], ids=["minus-one", "year-10000", "far"])
@pytest.mark.parametrize("size", [10, 3_000_000], ids=["small", "in-chunks"])
def test_a_time_that_is_no_date_is_none_on_every_run(
    shared_mock: MockKafka, stamp_ms: int, size: int
) -> None:
    with Lab(
        shared_mock.bootstrap_servers, lambda t, n, _: shared_mock.create_topic(t, n), "t", real=False
    ) as lab:
        entry, runs = lab.entry(max_attempts=4, partitions=1), Log()

        def fail(message: object) -> None:
            runs.add((message.attempt, message.timestamp))  # type: ignore[attr-defined]
            raise ValueError

        body = b'"' + b"x" * size + b'"'
        lab.send(entry, body, timestamp_ms=stamp_ms, settings={"message.max.bytes": 10_000_000})
        lab.start(entry, fail)
        assert runs.wait(4) == [(1, None), (2, None), (3, None), (4, None)]
        assert all(wire.ORIGIN_TIMESTAMP not in dict(letter.headers) for letter in lab.dead(entry))
