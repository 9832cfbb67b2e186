"""What lags say of logs that stand still, by a client and an assignment that are made for it."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from retriable_kafka_client import events as ev
from retriable_kafka_client.consumer.lag import Lags
from retriable_kafka_client.core.offset_map import OffsetMap
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.protocol import Idle, Now, Place

PLACE = Place("orders", 0)


class Client:
    """Stands in for the assigner: where the client is, and what the brokers said of the log."""

    def __init__(self, low: int, end: int, position: int = -1) -> None:
        self.marks: tuple[int, int] | None = (low, end)
        self.position = position

    def watermarks(self, place: Place) -> tuple[int, int] | None:
        return self.marks

    def positions(self, places: Any) -> dict[Place, int]:
        return {place: self.position for place in places if self.position >= 0}


class Bench:
    def __init__(self, start: int | None, low: int, end: int) -> None:
        self.told: list[ev.Event] = []
        self.asked = 0
        self.stable = end
        self.client: Any = Client(low, end)
        self.one = Assignment(PLACE, parks=False, map_units=4_095)
        self.one.restore(start, "")
        self.lags = Lags(self.told.append, self.ask)
        self.now = 1_000.0

    def ask(self, places: Any) -> dict[Place, Future[Any]]:
        self.asked += 1
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(offset=self.stable))
        return dict.fromkeys(places, answer)

    def arrive(self, *offsets: int) -> None:
        self.lags.arrived(self.client, self.one, offsets)
        self.one.progress.register(offsets)

    def look(self, seconds: float = 1.0) -> list[Idle]:
        """So many seconds later, with a look each second."""
        found: list[Idle] = []
        for _ in range(max(1, int(seconds))):
            self.now += 1.0
            found += self.lags.look(self.client, {PLACE: self.one}, Now(self.now, self.now))
        return found

    def done(self, first: int, stop: int) -> None:
        self.one.progress.tracker.admit(self.one.progress.tracker.next_offset)
        self.one.progress.tracker.complete(first, stop)

    def lag(self) -> int | None:
        return self.lags.figures(PLACE, self.one)[1]

    @property
    def remarks(self) -> list[str]:
        return list(self.lags.remarks(self.now))


def test_the_lag_is_what_was_not_read_and_what_is_not_complete() -> None:
    bench = Bench(0, 0, 10_001)
    assert bench.lag() is None
    bench.look()
    assert bench.lag() == 10_001
    bench.arrive(*range(10_001))
    bench.done(1, 10_001)
    bench.look()
    assert bench.lag() == 1
    bench.client.marks = (0, 10_011)
    bench.look()
    assert bench.lag() == 11
    bench.done(0, 1)
    bench.arrive(*range(10_001, 10_011))
    bench.done(10_001, 10_011)
    assert bench.lag() == 0 and not bench.told


def test_markers_that_were_passed_are_no_lag_though_something_before_them_is_unfinished() -> None:
    bench = Bench(0, 0, 8)
    bench.arrive(0, 1, 2)
    bench.done(1, 3)
    bench.client.position = 8
    bench.look()
    assert bench.lag() == 1


def test_what_the_offset_map_has_as_complete_is_no_lag() -> None:
    bench = Bench(0, 0, 1_000)
    restored = OffsetMap(base=0, end=900, incomplete=((0, 1), (500, 503)))
    bench.one.progress.begin(0, restored)
    bench.look()
    assert bench.lag() == 4 + 100
    bench.one.progress.register(range(600))
    assert bench.lag() == 4 + 100  # registered as incomplete now
    bench.client.marks = (0, 700)
    bench.one.progress.begin(0, restored)
    bench.look()
    assert bench.lag() == 4


def test_an_empty_log_has_no_lag_and_one_that_nothing_is_known_of_none() -> None:
    bench = Bench(None, 0, 0)
    bench.client.marks = None
    bench.look()
    assert bench.lag() is None
    bench.client.marks = (7, 7)
    bench.look()
    assert bench.lag() == 0


def test_a_transaction_that_does_not_end_is_told_once_and_again_when_it_goes_on() -> None:
    bench = Bench(10, 0, 13)
    bench.stable = 10
    bench.look(15)
    assert not bench.told and not bench.remarks and bench.asked == 0
    bench.look(45)
    (event,) = bench.told
    assert isinstance(event, ev.TransactionHangs)
    assert (event.topic, event.partition, event.position, event.held_back) == ("orders", 0, 10, 3)
    assert 1_000 <= event.since.timestamp() <= 1_003
    assert bench.lags.hanging == 1 and bench.lag() == 3
    (remark,) = bench.remarks
    assert "orders/0" in remark and "transaction" in remark and "1970-01-01 00:16:" in remark
    bench.look(600)
    assert len(bench.told) == 1 and bench.asked <= 3
    bench.client.position = 14
    bench.client.marks = (0, 14)
    bench.look()
    assert [type(one) for one in bench.told[1:]] == [ev.TransactionEnded]
    assert not bench.remarks and bench.lags.hanging == 0


def test_a_log_that_only_seems_to_hold_more_is_asked_about_ever_less_often() -> None:
    bench = Bench(10, 0, 13)
    bench.look(3_600)
    assert not bench.told and not bench.remarks and 1 <= bench.asked < 15


def test_a_partition_that_is_paused_hangs_on_nothing() -> None:
    bench = Bench(10, 0, 13)
    bench.stable, bench.one.paused = 10, True
    bench.look(120)
    assert not bench.told
    bench.one.paused = False
    bench.look(60)
    assert len(bench.told) == 1
    bench.one.paused = True
    bench.look(5)
    assert len(bench.told) == 1


def test_a_gap_below_the_logs_beginning_is_a_loss_and_one_above_it_is_none() -> None:
    bench = Bench(0, 0, 100)
    bench.arrive(0, 1, 2, 5, 9)
    bench.arrive(12, 13)
    assert not bench.told
    bench.client.marks = (51, 100)
    bench.arrive(51, 52)
    assert bench.told == [ev.RecordsLost(topic="orders", partition=0, first=14, count=37)]
    bench.arrive(60)
    bench.client.marks = (70, 100)
    bench.arrive(61, 62, 71)  # within one poll
    assert bench.told[1:] == [ev.RecordsLost(topic="orders", partition=0, first=63, count=7)]
    assert bench.lags.lost_records == 44
    assert "44 records" in bench.remarks[0]


def test_what_retention_takes_after_it_was_read_is_no_loss() -> None:
    bench = Bench(0, 0, 100)
    bench.client.marks = (40, 100)  # fetched ahead, and gone since
    bench.arrive(*range(30))
    bench.arrive(*range(30, 35), *range(36, 45))
    assert not bench.told


def test_where_all_is_gone_it_is_told_without_a_record_and_the_position_goes_on() -> None:
    bench = Bench(20, 0, 100)
    bench.look()
    bench.client.marks = (57, 57)
    told = bench.look(10)
    assert bench.told == [ev.RecordsLost(topic="orders", partition=0, first=20, count=37)]
    assert told == [Idle(PLACE, 57)]
    assert bench.lag() == 0 and bench.lags.lost_records == 37
    bench.one.progress.pass_over(57)
    assert bench.look(60) == [] and len(bench.told) == 1
    bench.client.marks = (57, 59)
    bench.arrive(57, 58)
    assert len(bench.told) == 1


def test_a_position_beyond_the_end_is_told_as_that() -> None:
    bench = Bench(500, 0, 100)
    bench.look(10)
    assert bench.told == [ev.TopicReset(topic="orders", partition=0, position=100)]
    assert bench.lag() == 0 and "beyond the end" in bench.remarks[0]
    bench.look(60)
    assert len(bench.told) == 1 and bench.asked == 0


def test_how_far_the_log_of_a_paused_partition_goes_is_asked_for_now_and_then() -> None:
    bench = Bench(0, 0, 100)
    bench.arrive(*range(100))
    bench.look()
    bench.one.paused, bench.stable = True, 5_000
    bench.look(10)
    assert bench.lag() == 100 and bench.asked == 0
    bench.look(10)
    assert bench.lag() == 5_000
    bench.stable = 6_000
    bench.look(20)
    assert bench.lag() == 6_000 and bench.asked <= 3
    bench.one.paused = False
    bench.look()
    assert bench.lag() == 100  # as the client says from now on
