"""Reading a part of a log again, with a client of its own."""

import pytest

from retriable_kafka_client import Cluster, Limits
from retriable_kafka_client.client import consumer_settings
from retriable_kafka_client.core.protocol import Place, Recall, Recalled, RecallEnded
from retriable_kafka_client.recall import Recaller
from retriable_kafka_client.testing import MockKafka
from tests.support.records import produce_many
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("stop", "reached"), [(3, True), (5, True), (6, False)])
def test_what_the_log_does_not_show_is_not_said_to_be_passed(stop: int, reached: bool) -> None:
    with MockKafka({"films": 1}) as kafka:
        produce_many(kafka.bootstrap_servers, "films", [b"%d" % number for number in range(5)])
        recaller = Recaller(consumer_settings(Cluster(kafka.bootstrap_servers), Limits(), "group"))
        told: list[Recalled | RecallEnded] = []

        def ended() -> bool:
            told.extend(recaller.poll(100))
            return bool(told) and isinstance(told[-1], RecallEnded)

        recaller.begin(Recall(Place("films", 0), 1, stop))
        wait_until(ended, 20)
        recaller.close()
    end = told.pop()
    assert isinstance(end, RecallEnded) and end.reached is reached
    assert [offset for one in told if isinstance(one, Recalled) for offset in one.offsets] == list(
        range(1, min(stop, 5))
    )
