"""When the loop counts as having stood still."""

from types import SimpleNamespace
from typing import Any

from retriable_kafka_client.consumer.stalls import Stalls
from retriable_kafka_client.core.protocol import Place


def make() -> Stalls:
    runner: Any = SimpleNamespace(running=lambda: SimpleNamespace(busy=()))
    stalls = Stalls(runner)
    stalls.begin(10.0, 100.0)
    return stalls


def test_a_loop_that_does_not_come_round_has_stood_still() -> None:
    stalls = make()
    assert not stalls.turn(104.0)
    assert stalls.turn(110.0)
    assert stalls.suspects([Place("orders", 0)], 111.0) == ([], 6.0)


def test_to_wait_for_the_brokers_is_not_to_stand_still() -> None:
    stalls = make()
    stalls.waited(109.0)  # for the last commit of what was given away
    assert not stalls.turn(110.0)
    assert stalls.suspects([Place("orders", 0)], 111.0) == ((), 0.0)
