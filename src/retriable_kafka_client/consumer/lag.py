"""How far each log goes beyond what was read of it, and what will never be read: from what the client knows anyway."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from retriable_kafka_client import events
from retriable_kafka_client.consumer.assigner import Assigner
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Idle, Now, Place
from retriable_kafka_client.message import instant

__all__ = ["Lags", "ask_stable_ends"]

LOOK_SECONDS = 0.5  # between two looks; longer where there are many partitions
LOOK_SECONDS_EACH = 0.001  # of a partition: a look costs about 2 us for each
SETTLED_SECONDS = 3.0  # without a record, until what the client has fetched ahead must have come
HANG_SECONDS = 20.0  # without a record, though there are some, until it is asked why
ASK_SECONDS = 10.0  # until it is asked again; doubled by each answer that says nothing
MOST_ASK_SECONDS = 600.0
# Between two questions where the log of a paused partition ends: nothing of it is fetched, so the client does not know.
PAUSED_SECONDS = 15.0
ASKED_SECONDS = 60.0  # until a question is given up
REMEMBERED_SECONDS = 300.0  # that a loss stays among the remarks on health

Ask = Callable[[Collection[Place]], Mapping[Place, "Future[Any]"]]


@dataclass(slots=True)
class _Watch:
    """One assignment."""

    assignment: Assignment
    end: int = -1  # one past the last record, committed or not
    read: int = -1  # what lies below was read, or is gone
    since: Now | None = None  # from when on there was more than what was read, and nothing came
    lost_to: int = -1  # what was lost below it was published
    lost: int = 0
    lost_at: float | None = None
    asked_end: int = -1  # while nothing is fetched of it: the end that the brokers named
    ask_at: float = 0.0
    patience: float = ASK_SECONDS
    hangs: bool = False
    beyond: bool = False  # what was read lies beyond the log's end


class Lags:
    """The loop's thread only; nothing blocks, and only what stands still makes it ask the brokers.

    ``publish`` takes events; ``ask`` asks where logs end for readers of what is committed.
    """

    def __init__(self, publish: Callable[[events.Event], None], ask: Ask) -> None:
        self.lost_records = 0
        self._publish = publish
        self._ask = ask
        self._watches: dict[Place, _Watch] = {}
        self._look_at = 0.0
        self._answers: dict[Place, Future[Any]] = {}
        self._asked_at = -ASKED_SECONDS

    # What others see ---------------------------------------------------------------------------------------------------

    def figures(self, place: Place, one: Assignment) -> tuple[int | None, int | None]:
        """Where the log of an assignment ends, and how much of it is unread or unfinished; None: not known."""
        watch = self._watches.get(place)
        if watch is None or watch.assignment is not one or watch.end < 0:
            return None, None
        if not one.progress.has_begun:
            return watch.end, max(0, watch.end - watch.read) if watch.read >= 0 else None
        tracker = one.progress.tracker
        end = max(watch.end, tracker.next_offset) if not watch.beyond else watch.end
        return end, tracker.unread(end, watch.read) + tracker.incomplete

    @property
    def hanging(self) -> int:
        """Partitions that a transaction holds up at present."""
        return sum(watch.hangs for watch in self._watches.values())

    def remarks(self, now: float) -> Iterator[str]:
        """What an operator should look at, though the consumer can do its work."""
        for (topic, partition), watch in self._watches.items():
            if watch.hangs and watch.since is not None:
                yield (
                    f"{topic}/{partition}: {watch.end - watch.read} records from offset {watch.read} on are held back since"
                    f" {_date(watch.since):%Y-%m-%d %H:%M:%S} UTC by a transaction of another producer that does not end"
                )
            if watch.lost_at is not None and now < watch.lost_at + REMEMBERED_SECONDS:
                yield f"{topic}/{partition}: {watch.lost} records were deleted before they were read"
            if watch.beyond:
                yield f"{topic}/{partition}: the position lies beyond the end of the log, which was cut back"

    # Looking -----------------------------------------------------------------------------------------------------------

    def arrived(self, assigner: Assigner, one: Assignment | None, offsets: Sequence[int]) -> None:
        """Records are about to be handed to the engine: notes whether some before them were deleted.

        Gaps that compaction and markers leave lie above the log's beginning. The log begins above what was to come, and
        reading goes on there: that is a loss.
        """
        following = None if one is None else one.progress.next_offset
        if one is None or following is None or offsets[-1] - following + 1 == len(offsets):
            return
        low = (assigner.watermarks(one.place) or (0, 0))[0]
        if not following < low <= offsets[-1]:
            return
        index = bisect_left(offsets, low)
        before = offsets[index - 1] + 1 if index else 0
        self._lose(one, max(following, before), low)

    def look(self, assigner: Assigner, assignments: Mapping[Place, Assignment], now: Now) -> Iterator[Idle]:
        """Now and then: take note of where all stand. Yields what is certainly never to be read where nothing is under
        way.
        """
        if now.mono < self._look_at:
            return
        self._look_at = now.mono + max(LOOK_SECONDS, LOOK_SECONDS_EACH * len(assignments))
        watches = self._watches
        for place in [place for place in watches if place not in assignments]:
            del watches[place]
        running = [place for place, one in assignments.items() if one.phase is Phase.RUNNING]
        positions = assigner.positions(running)
        suspects: list[Place] = []
        for place in running:
            one = assignments[place]
            watch = watches.get(place)
            if watch is None or watch.assignment is not one:
                watch = watches[place] = _Watch(one)
            marks = assigner.watermarks(place)
            if marks is None:
                continue
            yield from self._note(place, watch, *marks, positions.get(place, -1), now)
            if _rests(one) or (watch.since is not None and now.mono >= watch.since.mono + HANG_SECONDS):
                suspects.append(place)
        self._judge(suspects, now)

    def _note(
        self, place: Place, watch: _Watch, low: int, end: int, position: int, now: Now
    ) -> Iterator[Idle]:
        one = watch.assignment
        following = one.progress.next_offset
        if following is not None:
            read = max(following, position, watch.lost_to)
        else:
            read = max(position, low)
        rests = _rests(one)
        if not rests:
            watch.asked_end = -1
        elif watch.asked_end < 0:
            watch.asked_end, watch.ask_at, watch.patience = end, now.mono + PAUSED_SECONDS, PAUSED_SECONDS
        end = max(end, watch.asked_end)
        if read != watch.read or (low <= read == end):
            self._move(place, watch)
        elif rests or read < 0:
            watch.since = None
        elif watch.since is None:
            watch.since = now
        watch.end, watch.read = end, read
        if watch.since is None or now.mono < watch.since.mono + SETTLED_SECONDS or following is None:
            return
        if end < read and not watch.beyond:
            watch.beyond = True
            self._publish(events.TopicReset(topic=place.topic, partition=place.partition, position=end))
        elif low > read:
            # What was fetched ahead has come by now.
            self._lose(one, read, low)
            if one.progress.incomplete == 0:
                yield Idle(place, low)

    def _lose(self, one: Assignment, first: int, stop: int) -> None:
        """What stood from ``first`` up to ``stop`` is never read."""
        watch = self._watches.get(one.place)
        if watch is None or watch.assignment is not one:
            watch = self._watches[one.place] = _Watch(one)
        count = one.progress.tracker.unread(stop, max(first, watch.lost_to))
        watch.lost_to = max(watch.lost_to, stop)
        if count > 0:
            self.lost_records += count
            watch.lost += count
            watch.lost_at = time.monotonic()
            topic, partition = one.place
            self._publish(events.RecordsLost(topic=topic, partition=partition, first=first, count=count))

    # Transactions that do not end --------------------------------------------------------------------------------------

    def _judge(self, suspects: Sequence[Place], now: Now) -> None:
        """Whether it is a transaction that keeps records from us; and how far logs go of which nothing is fetched."""
        answers = self._answers
        if answers and all(answer.done() for answer in answers.values()):
            for place, answer in answers.items():
                watch = self._watches.get(place)
                with suppress(Exception):  # no answer says nothing
                    stable = int(answer.result(0).offset)
                    if watch is None:
                        pass
                    elif watch.asked_end >= 0:
                        watch.asked_end, watch.patience = max(watch.asked_end, stable), PAUSED_SECONDS
                    elif watch.since is not None and 0 <= stable <= watch.read < watch.end:
                        self._hang(place, watch)
            answers.clear()
        if answers and now.mono < self._asked_at + ASKED_SECONDS:
            return
        due = [
            place
            for place in suspects
            if now.mono >= (watch := self._watches[place]).ask_at
            and (watch.asked_end >= 0 or not (watch.hangs or watch.beyond))
        ]
        if due:
            self._asked_at = now.mono
            self._answers = dict(self._ask(due))
            for place in due:
                watch = self._watches[place]
                watch.ask_at = now.mono + watch.patience
                watch.patience = min(2 * watch.patience, MOST_ASK_SECONDS)

    def _hang(self, place: Place, watch: _Watch) -> None:
        assert watch.since is not None
        watch.hangs = True
        self._publish(
            events.TransactionHangs(
                topic=place.topic,
                partition=place.partition,
                position=watch.read,
                held_back=watch.end - watch.read,
                since=_date(watch.since),
            )
        )

    def _move(self, place: Place, watch: _Watch) -> None:
        """It goes on, or there is nothing more."""
        watch.since, watch.beyond = None, False
        if watch.asked_end < 0:
            watch.ask_at, watch.patience = 0.0, ASK_SECONDS
        if watch.hangs:
            watch.hangs = False
            self._publish(events.TransactionEnded(topic=place.topic, partition=place.partition))


def _rests(one: Assignment) -> bool:
    """Whether nothing is fetched of it."""
    return one.paused or one.on_hold


def _date(now: Now) -> datetime:
    return instant(int(now.wall * 1000)) or datetime.fromtimestamp(0, UTC)


def ask_stable_ends(admin: AdminClient, places: Collection[Place]) -> Mapping[Place, Future[Any]]:
    """Ask where these logs end for readers of what is committed; returns at once."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(*place): latest for place in places}
    try:
        found = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
    except KafkaException:
        return {}
    return {Place(one.topic, one.partition): answer for one, answer in found.items()}
