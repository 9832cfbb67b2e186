"""A client that does not find back into its group is replaced, and only such a one."""

from concurrent.futures import Future
from typing import Any

from retriable_kafka_client.absence import PATIENCE_SECONDS, Absence


class Brokers:
    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def ask(self) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]


def test_who_is_in_the_group_or_was_not_yet_is_not_absent() -> None:
    brokers = Brokers()
    absence = Absence(brokers.ask)
    assert not absence.is_vain(1e9)
    absence.begin(0.0)
    absence.end()
    assert not absence.is_vain(1e9)
    assert brokers.asked == []


def test_it_is_vain_after_a_while_if_the_brokers_answer() -> None:
    brokers = Brokers()
    absence = Absence(brokers.ask)
    absence.begin(10.0)
    absence.begin(20.0)  # lost again, never having been back
    assert not absence.is_vain(10.0 + PATIENCE_SECONDS - 1)
    now = 10.0 + PATIENCE_SECONDS
    assert not absence.is_vain(now)
    brokers.asked[0].set_exception(TimeoutError())
    assert not absence.is_vain(now + 5)
    assert not absence.is_vain(now + 5)
    brokers.asked[1].set_result(None)
    assert absence.is_vain(now + 6)
    assert not absence.is_vain(now + 7)  # the new client has as long
    brokers_asked = len(brokers.asked)
    assert not absence.is_vain(now + 5 + PATIENCE_SECONDS)
    assert len(brokers.asked) == brokers_asked
