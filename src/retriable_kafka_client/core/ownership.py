"""Which partitions are ours: from the moment when one is given to us until it is taken away, or its log is another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retriable_kafka_client import events
from retriable_kafka_client.core import notices
from retriable_kafka_client.core import protocol as p
from retriable_kafka_client.core.accounts import Load
from retriable_kafka_client.core.assembly import Assembly
from retriable_kafka_client.core.assignments import Assignments
from retriable_kafka_client.core.commits import Commits
from retriable_kafka_client.core.engine_config import EngineConfig
from retriable_kafka_client.core.exactly_once import Transactions
from retriable_kafka_client.core.lanes import Lanes
from retriable_kafka_client.core.outcomes import Outcomes
from retriable_kafka_client.core.partition import Assignment
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.suspects import Suspects
from retriable_kafka_client.core.throttle import Throttle

__all__ = ["Ownership", "OwnershipEvent"]

OwnershipEvent = p.Assigned | p.Restored | p.Located | p.Revoking | p.Ended | p.TopicChanged


class Ownership:
    """Makes assignments and ends them. Every verb returns what is to be done, in order."""

    def __init__(
        self,
        config: EngineConfig,
        load: Load,
        assignments: Assignments,
        *,
        commits: Commits,
        transactions: Transactions | None,
        outcomes: Outcomes,
        assembly: Assembly,
        throttle: Throttle,
        suspects: Suspects,
    ) -> None:
        self._config = config
        self._routing = config.routing
        self._load = load
        self._assignments = assignments
        self._commits = commits
        self._transactions = transactions
        self._outcomes = outcomes
        self._assembly = assembly
        self._throttle = throttle
        self._suspects = suspects
        self._unclear: dict[str, str] = {}

    @property
    def unclear(self) -> Mapping[str, str]:
        """Topics that were given to us and are not read, because they are not clearly one entry's; with the reason."""
        return self._unclear

    def is_uncommitted(self, assignment: Assignment) -> bool:
        """In transactions: whether something of it is done and not known to be in. Else its last commit says."""
        transactions = self._transactions
        return transactions is not None and bool(
            assignment.accounts.sending or not transactions.settled((assignment,))
        )

    def handle(self, event: OwnershipEvent, now: p.Now) -> list[p.Command]:
        """Take note of ``event``."""
        match event:
            case p.Assigned():
                return self.assigned(event.places)
            case p.Restored():
                return self.restored(event)
            case p.Located():
                return self.located(event)
            case p.Revoking():
                return self.drain(event.places, now)
            case p.Ended():
                return self.ended(event)
            case p.TopicChanged():
                return self.topic_changed(event)

    # Beginning ---------------------------------------------------------------------------------------------------------

    def assigned(self, places: Sequence[p.Place]) -> list[p.Command]:
        """These are ours: what is committed of them is asked for."""
        out: list[p.Command] = []
        for place in places:
            assert self._assignments.get(place) is None, f"{place} is assigned already"
            self._assignments.put(self._assignment(place))
        self._find_unclear()
        clear = [place for place in places if self._routing.role(place.topic) is not None]
        for place in places:
            reason = self._routing.unclear(place.topic)
            if reason is not None:  # it stays as it is, and nothing of it is read
                event = events.TopicUnclear(topic=place.topic, partition=place.partition, reason=reason)
                out.append(p.Notify(event))
        if clear:
            out.append(p.FetchCommitted(clear))
        return out

    def _find_unclear(self) -> None:
        topics = {place.topic for place in self._assignments.by_place}
        found = {topic: self._routing.unclear(topic) for topic in topics}
        self._unclear = {topic: reason for topic, reason in found.items() if reason is not None}

    def _assignment(self, place: p.Place) -> Assignment:
        ordering = self._config.ordering
        return Assignment(
            place,
            parks=self._routing.is_retry_topic(place.topic),
            map_units=self._commits.map_units,
            least_units=self._config.least_map_units if self._transactions is None else 0,
            load=self._load,
            lanes=Lanes(by_key=ordering == "key") if ordering != "unordered" else None,
            on_hold=self._throttle.on_hold,
            chunks=self._assembly.assembler(),
            solo=self._config.solo,
            mark=self._suspects.mark,
        )

    def restored(self, event: p.Restored) -> list[p.Command]:
        """It is known where the partition stands, and what its topic is: it begins."""
        assignment = self._assignments.get(event.place)
        if assignment is None or assignment.phase is not Phase.STARTING:
            return []
        assignment.identify(event)
        if event.position is None and self._begins_at_end(assignment):
            return [p.Locate(event.place, assignment, end=True)]
        assignment.restore(event.position, event.metadata)
        self._suspects.settle(assignment, assignment.begin)
        problem = assignment.restore_problem
        if self._transactions is not None and event.position is not None and problem is None:
            assignment.progress.keep_committed(event.position, event.metadata)
        out: list[p.Command] = []
        if problem is not None:
            out.append(p.Notify(notices.map_ignored(assignment, problem)))
        out.append(p.Notify(notices.started(assignment, event.position)))
        return [*out, *self._start(assignment)]

    def _begins_at_end(self, assignment: Assignment) -> bool:
        """Whether it begins, without a position, at the log's end."""
        return self._config.reset == "latest" and not assignment.earliest

    def located(self, event: p.Located) -> list[p.Command]:
        """A first position is committed at once: else the next owner would find none, and might begin behind what comes."""
        assignment, position = self._assignments.get(event.locate.place), event.position
        if assignment is None or assignment is not event.locate.token:
            return []
        out: list[p.Command] = []
        progress = assignment.progress
        if assignment.phase is Phase.STARTING:
            if position is None:
                assignment.restore(None, "")
            else:
                assignment.begin_at(position)
            started = p.Notify(notices.started(assignment, position))
            out = [started, *self._start(assignment, locate=False)]
        elif assignment.phase is Phase.RUNNING and position is not None and not progress.has_begun:
            self._assignments.touch(assignment)
            progress.pass_over(position)
        if progress.dirty:
            self._commits.hurry()
            if self._transactions is not None:
                self._transactions.commit_soon()
        return out

    def _start(self, assignment: Assignment, *, locate: bool = True) -> list[p.Command]:
        self._assignments.touch(assignment)
        earliest = assignment.earliest and assignment.begin is None
        out: list[p.Command] = [p.Start(assignment.place, assignment.begin, earliest=earliest)]
        if locate and assignment.begin is None and (earliest or self._config.reset == "earliest"):
            out.append(p.Locate(assignment.place, assignment))
        if self._throttle.on_hold:
            assignment.pause()
            out.append(p.Pause(assignment.place))
        return out

    # Another log -------------------------------------------------------------------------------------------------------

    def topic_changed(self, event: p.TopicChanged) -> list[p.Command]:
        """The topic behind the partition is another one: what we know of the old one does not hold for it."""
        old = self._assignments.get(event.place)
        if old is None or old.phase not in (Phase.STARTING, Phase.RUNNING) or old.uid in ("", event.uid):
            return []  # of what is to begin, where it stands is asked for after what the topic is
        out = self.reset(old, event.uid, event.retention_ms, None)
        return [*out, *self._start(self._assignments.by_place[event.place])]

    def reset(
        self, old: Assignment, topic_id: str | None, retention_ms: int | None, position: int | None
    ) -> list[p.Command]:
        """The log is another one: another assignment takes the old one's place. ``topic_id``: if that is another one."""
        out = [p.Withdraw(), *self._end(old, "reset")]
        new = self._assignment(old.place)
        new.succeed(old, topic_id, retention_ms)
        self._assignments.put(new)
        self._assignments.touch(new)
        out.append(p.Notify(notices.reset(new, position)))
        return out

    # The end -----------------------------------------------------------------------------------------------------------

    def drain(self, places: Sequence[p.Place], now: p.Now) -> list[p.Command]:
        """Hand out nothing more of these; what runs may finish."""
        out: list[p.Command] = []
        draining = self._assignments.of(places)
        for assignment in draining:
            self._assignments.touch(assignment)
            out += self._assembly.cancel(assignment)
            assignment.drain()
            self._outcomes.hurry(assignment, now)
        if draining:
            out.append(p.Withdraw())
            if self._transactions is not None:
                self._transactions.hurry(now)
        return out

    def ended(self, event: p.Ended) -> list[p.Command]:
        """These are ours no more."""
        out: list[p.Command] = []
        ending = self._assignments.of(event.places)
        undrained = [assignment for assignment in ending if assignment.phase is Phase.RUNNING]
        for assignment in undrained:
            assignment.drain()
        if undrained:
            out.append(p.Withdraw())
        for assignment in ending:
            self._assignments.remove(assignment)
            out += self._end(assignment, event.reason)
        self._find_unclear()
        if event.suspects:
            self._suspects.note(event.suspects)
            out += [p.Notify(notices.stuck(suspect, event.stood)) for suspect in event.suspects]
        return out

    def _end(self, assignment: Assignment, reason: str) -> list[p.Command]:
        topic, partition = assignment.place
        unfinished = assignment.messages + len(assignment.chunks.groups)
        given_away = reason in ("revoked", "stopped")
        out = [*self._assembly.cancel(assignment)]
        if given_away and self.is_uncommitted(assignment):
            out.append(p.Notify(events.CommitFailed(topic=topic, partition=partition, code="_TIMED_OUT")))
        self._outcomes.forget(assignment)
        assignment.end()
        running = assignment.accounts.in_flight
        if given_away and running:
            out.append(p.Notify(events.DrainOverrun(topic=topic, partition=partition, running=running)))
        over = events.AssignmentEnded(topic=topic, partition=partition, reason=reason, unfinished=unfinished)
        return [*out, p.Notify(over)]
