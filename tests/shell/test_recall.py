"""Reading a part of a log again, with a client of its own."""

import pytest
from confluent_kafka import KafkaError

from retriable_kafka_client import Cluster, Limits
from retriable_kafka_client.brokers.client import consumer_settings
from retriable_kafka_client.consumer import chunk_rereader as recall
from retriable_kafka_client.consumer.chunk_rereader import ChunkRereader
from retriable_kafka_client.core.protocol import Place, Recall, Recalled, RecallEnded
from retriable_kafka_client.testing import MockKafka
from tests.support.records import produce_many
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("stop", "reached"), [(3, True), (5, True), (6, False)])
def test_what_the_log_does_not_show_is_not_said_to_be_passed(stop: int, reached: bool) -> None:
    with MockKafka({"films": 1}) as kafka:
        produce_many(kafka.bootstrap_servers, "films", [b"%d" % number for number in range(5)])
        rereader = ChunkRereader(consumer_settings(Cluster(kafka.bootstrap_servers), Limits(), "group"))
        told: list[Recalled | RecallEnded] = []

        def ended() -> bool:
            told.extend(rereader.poll(100))
            return bool(told) and isinstance(told[-1], RecallEnded)

        rereader.begin(Recall(Place("films", 0), 1, stop))
        wait_until(ended, 20)
        rereader.close()
    end = told.pop()
    assert isinstance(end, RecallEnded) and end.reached is reached
    assert [offset for one in told if isinstance(one, Recalled) for offset in one.offsets] == list(
        range(1, min(stop, 5))
    )


class Fatal:
    """What a poll of a client brings that is of no use any more: it names no partition."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._FATAL)

    def topic(self) -> None:
        return None

    def partition(self) -> None:
        return None


class Client:
    def __init__(self) -> None:
        self.closed = False

    def assign(self, _partitions: object) -> None:
        pass

    def unassign(self) -> None:
        pass

    def consume(self, _most: int, _timeout: float) -> list[Fatal]:
        return [Fatal()]

    def close(self) -> None:
        self.closed = True


def test_a_client_that_met_a_fatal_error_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Client] = []

    def open_one(_kind: object, _settings: object) -> Client:
        made.append(Client())
        return made[-1]

    monkeypatch.setattr(recall, "open_client", open_one)
    rereader = ChunkRereader(consumer_settings(Cluster("localhost:1"), Limits(), "group"))
    asked = Recall(Place("films", 0), 1, 5)
    rereader.begin(asked)
    assert rereader.poll(100) == [RecallEnded(asked, reached=False)]
    rereader.begin(asked)
    assert len(made) == 2
    wait_until(lambda: made[0].closed, 5)
    rereader.close()
