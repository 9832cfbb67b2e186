"""A consumer's engine with the real intake, and a log that anybody writes to."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

from retriable_kafka_client import Message
from retriable_kafka_client.consumer.intake import Intake
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.engine import Engine, EngineConfig, Route
from retriable_kafka_client.core.retry import Failure, Policy
from retriable_kafka_client.message import JSON, PlainRecord

__all__ = ["BASE", "GROUP", "RETRY", "Constant", "Member"]

BASE, RETRY = p.Place("orders", 0), p.Place("orders-retry", 0)
GROUP = "billing"
START = 1_800_000_000.0  # POSIX seconds


class Constant:
    """A delay."""

    def delay(self, attempt: int, chance: float) -> float:
        return 1.0


class Member:
    """Performs what the engine wants: brokers take everything, handlers succeed unless ``fails`` says otherwise.

    The log is a function of place and offset, so that a long one costs nothing.
    """

    def __init__(
        self,
        log: Callable[[p.Place, int], PlainRecord | None],
        *,
        ordering: Literal["unordered", "key", "partition"] = "unordered",
        buffer_bytes: int = 50_000,
        message_bytes: int | None = None,
        window: int = 100,
        fails: Callable[[Any], bool] = lambda _entry: False,
        validates: bool = True,
    ) -> None:
        self.handled: list[int] = []
        self.dead: list[tuple[int, str]] = []
        self.paused: set[p.Place] = set()
        self.most_assembling = 0
        self.now = p.Now(START, 0.0)
        self.committed: dict[p.Place, int] = {}
        self._log = log
        self._fails = fails
        self._validates = validates
        self._ends: dict[p.Place, int] = {BASE: 0, RETRY: 0}
        self._recall: p.Recall | None = None
        self._recalled = 0
        most = message_bytes or buffer_bytes
        retry_topic = RETRY.topic if ordering == "unordered" else None
        policy = Policy(max_attempts=3, delay=Constant())
        route = Route(topic=BASE.topic, retry_topic=retry_topic, dead_letter="dead", policy=policy)
        config = EngineConfig(
            group=GROUP,
            routes=(route,),
            in_flight=100,
            window=window,
            buffer_bytes=buffer_bytes,
            message_bytes=most,
            commit_interval=1.0,
            parking_interval=60.0,
            ordering=ordering,
        )
        intake = Intake(
            config.routing,
            group=GROUP,
            message_bytes=most,
            deserializer=JSON,
            keep=_read_all_of,
            error_text=False,
            keyed=ordering == "key",
        )
        self.engine = Engine(config, intake.read, intake)
        self.places = (BASE, RETRY) if retry_topic else (BASE,)
        self.tell(p.Assigned(self.places))
        for place in self.places:
            self.tell(p.Restored(place=place, position=0, metadata="", uid="uid"))

    def tell(self, event: p.EngineEvent) -> None:
        """Tell it, and do what it wants, until it wants nothing more."""
        events: deque[p.EngineEvent] = deque([event])
        while events:
            commands = self.engine.handle(events.popleft(), self.now)
            if self._validates:
                self.engine.validate()
            for command in commands:
                events.extend(self._perform(command))

    def _perform(self, command: p.Command) -> Iterable[p.EngineEvent]:
        match command:
            case p.Run():
                failed = [one for one in command.entries if self._fails(one)]
                done = [one for one in command.entries if not self._fails(one)]
                self.handled += [one.offset for one in done]
                failure = Failure(reason="exhausted", retry_in=1.0, error="ValueError")
                yield p.Finished(done=done, failed=[(one, failure) for one in failed])
            case p.RunBatch():
                entries = command.batch.entries()
                self.handled += [one.offset for one in entries]
                yield p.Finished(done=entries)
            case p.Produce():
                handoff = command.handoff
                if handoff.kind is p.HandOffKind.DEAD_LETTER:
                    reason = handoff.failure.reason if handoff.failure else ""
                    self.dead.append((handoff.entry.offset, reason))
                yield p.HandOffAnswered(handoff, None)
            case p.Commit():
                for one in command.progress:
                    assert one.position >= self.committed.get(one.place, 0)
                    self.committed[one.place] = one.position
                yield p.CommitAnswered(command, {})
            case p.Pause():
                self.paused.add(command.place)
            case p.Resume():
                self.paused.discard(command.place)
            case p.Recall():
                self._recall, self._recalled = command, command.first
            case p.CancelRecall():
                self._recall = None
            case _:
                pass

    def poll(self, place: p.Place, count: int) -> int:
        """Let the next records of a partition arrive, unless it is paused; how many came."""
        first = self._ends[place]
        count = 0 if place in self.paused else min(count, self.engine.poll_budget(count))
        records = [(offset, self._log(place, offset)) for offset in range(first, first + count)]
        there = [(offset, record) for offset, record in records if record is not None]
        if there:
            self._ends[place] = there[-1][0] + 1
            raws = [record for _, record in there]
            offsets = [offset for offset, _ in there]
            self.tell(p.Arrived(place, offsets, raws, raws[0].timestamp()[1], raws[-1].timestamp()[1]))
            self.most_assembling = max(self.most_assembling, self.engine.assembling_bytes)
        return len(there)

    @property
    def rereads(self) -> bool:
        """Whether there is something to be read again."""
        return self._recall is not None

    def idle(self, place: p.Place) -> None:
        """A poll came back empty at the log's end."""
        self.tell(p.Idle(place, self._ends[place]))

    def reread(self, count: int = 500) -> None:
        """Read on in what is to be read again."""
        recall = self._recall
        count = self.engine.reread_budget(count)
        if recall is None or not count:
            return
        stop = min(recall.stop, self._recalled + count)
        found = [(offset, self._log(recall.place, offset)) for offset in range(self._recalled, stop)]
        there = [(offset, record) for offset, record in found if record is not None]
        self._recalled = stop
        self.tell(p.Recalled(recall, [offset for offset, _ in there], [record for _, record in there]))
        self.most_assembling = max(self.most_assembling, self.engine.assembling_bytes)
        if stop == recall.stop and self._recall is recall:
            self._recall = None
            self.tell(p.RecallEnded(recall))

    def wait(self, seconds: float) -> None:
        self.now = p.Now(self.now.wall + seconds, self.now.mono + seconds)
        self.tell(p.Tick())


def _read_all_of(message: Message[Any]) -> bool:
    """A filter that looks at everything but the value: nothing of it may raise, whatever the record claims."""
    repr((message, message.id, message.timestamp, message.record, message.key, message.attempt))
    assert not any(name.startswith("retriable_kafka_") for name, _ in message.headers)
    return True
