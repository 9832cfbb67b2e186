"""Topics that were made anew while we read them, and positions whose records are gone: what follows for the client."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from confluent_kafka.admin import AdminClient

from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.consumer.topic_checks import TopicDirectory
from retriable_kafka_client.core.engine import Engine
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Arrived, Place, Start, TopicChanged
from retriable_kafka_client.core.routing import Routing

__all__ = ["TopicWatch"]

SILENCE_SECONDS = 0.3  # in less, no topic is deleted and made anew


class TopicWatch:
    """Keeps the directory asking where something points to a change. The loop's thread only; nothing blocks.

    A client moves no partition that it consumes (see ``Assigner``). So where one must be read from elsewhere, the client is
    ``outdated``: the loop replaces it.
    """

    def __init__(
        self,
        directory: TopicDirectory,
        engine: Engine,
        routing: Routing,
        topics: Collection[str],
        problems: Problems,
    ) -> None:
        """``topics``: the names and patterns that the consumer was given; ``engine`` is only asked."""
        self.directory = directory
        self.outdated = False  # the present client would read on in a log that is gone
        self.renewed: set[str] = set()  # topics that were made anew while we ran
        self._engine = engine
        self._routing = routing
        self._topics = topics
        self._problems = problems
        # Positions that are gone, with auto.offset.reset=error: what would begin up to them begins at the beginning.
        self._gone: dict[Place, int] = {}
        self._epochs: dict[Place, int | None] = {}  # of the leaders, when a record came last
        self._heard_at: dict[str, float] = {}  # when a topic's records came last (monotonic)
        self._was_in_doubt = False  # whether the brokers could be used

    # What happens ------------------------------------------------------------------------------------------------------

    def client_opened(self) -> None:
        """A new client takes the place of the one before."""
        self.outdated = False

    def assigned(self, places: Sequence[Place]) -> None:
        """These are ours: what is known of their topics may be of others that are gone."""
        self.directory.expire(place.topic for place in places)

    def ended(self, places: Sequence[Place]) -> None:
        """These assignments are over."""
        for place in places:
            self._epochs.pop(place, None)

    def given_away(self, places: Sequence[Place]) -> None:
        """These go to others, who find out for themselves where to begin."""
        for place in places:
            self._gone.pop(place, None)

    def arrived(self, arrived: Arrived, now: float) -> None:
        """Records may be of a topic that was made anew: after a silence, or where the leader has another epoch."""
        place = arrived.place
        if self._gone:
            self._gone.pop(place, None)
        epoch = arrived.raws[0].leader_epoch()
        if self._epochs.setdefault(place, epoch) != epoch:
            self._epochs[place] = epoch
            self.directory.suspect(place.topic)
        if now > self._heard_at.get(place.topic, now) + SILENCE_SECONDS:
            self.directory.suspect(place.topic)
        self._heard_at[place.topic] = now

    def position_gone(self, topic: str, partition: int) -> bool:
        """The records at the position of a partition are gone: in a retry topic it goes on at the beginning, whatever
        ``auto.offset.reset`` says. False: that setting decides.
        """
        if not self._routing.is_retry_topic(topic):
            return False
        place = Place(topic, partition)
        one = self._engine.assignments.get(place)
        following = None if one is None else one.progress.next_offset
        if following is not None:
            self._gone[place] = following
            self.outdated = True
        return True

    # What follows ------------------------------------------------------------------------------------------------------

    def start(self, start: Start) -> Start:
        """Where this partition begins, by what is known of its log now."""
        gone = start.offset is not None and start.offset <= self._gone.get(start.place, -1)
        return replace(start, earliest=True) if gone else start

    def refresh(self, complained_of: Collection[str], now: float) -> Iterator[TopicChanged]:
        """Ask what is to be asked, and return which assignments are of topics that were made anew.

        ``complained_of``: topics of which polls have reported errors; ``now``: monotonic.
        """
        in_problems = self._problems.topics()
        self._note_signs(complained_of)
        changed = self.directory.refresh(
            lambda: {place.topic for place in self._engine.assignments}, now, troubled=in_problems
        )
        for name in changed:
            self.renewed.add(name)
            yield from self._changed(name)
        self._note_missing(in_problems)

    def _note_signs(self, complained_of: Collection[str]) -> None:
        for name in complained_of:
            self.directory.suspect(name)
        in_doubt = self._problems.known("brokers")
        if self._was_in_doubt and not in_doubt:
            self.directory.suspect_all()
        self._was_in_doubt = in_doubt

    def _changed(self, name: str) -> Iterator[TopicChanged]:
        facts = self.directory.facts(name)
        assert facts is not None
        for place, one in list(self._engine.assignments.items()):
            if place.topic == name and one.uid and one.phase is not Phase.DRAINING:
                self.outdated = True
                yield TopicChanged(place=place, uid=facts.uid, retention_ms=facts.retention_ms)

    def _note_missing(self, in_problems: Collection[str]) -> None:
        missing, given = self.directory.missing, self._topics
        for name in missing.intersection(given).difference(in_problems):
            self._problems.note(f"topic {name}", f"topic {name} does not exist")
        for name in in_problems:
            left = name in missing and name not in given  # that only a pattern names may go as it came
            if left or self.directory.readable_since(name, self._problems.noted_at(f"topic {name}")):
                self._problems.clear(f"topic {name}")

    def replace_admin(self, admin: AdminClient) -> None:
        """Another client answers from now on."""
        self.directory.replace_admin(admin)
