"""What the consumer's client reports: what ends the run, what the brokers refuse, and what passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka import Message as RawMessage

from retriable_kafka_client.brokers.error_codes import is_fatal, is_fenced_member, is_retriable
from retriable_kafka_client.brokers.join_refusals import LASTING, REMEDIES
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.core.broker_silence import Silence
from retriable_kafka_client.core.protocol import Place
from retriable_kafka_client.core.routing import is_pattern
from retriable_kafka_client.errors import ConsumerFailed, NotReachable

__all__ = ["BEFORE_ASSIGNMENT_SECONDS", "ClientErrors"]

log = logging.getLogger("retriable_kafka_client")

BEFORE_ASSIGNMENT_SECONDS = 25.0  # without brokers, until run() gives up
POLL_SECONDS = 30.0  # after a passing error was reported last, until it counts as over

# With these the client says that it can use no broker.
_UNREACHABLE = frozenset(("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_AUTHENTICATION", "_SSL"))

_ERROR: Callable[[Any], Any] = RawMessage.error


class ClientErrors:
    """Judges each error. What passes is noted among the problems; what does not is raised, and ends the run.

    The loop's thread only.
    """

    def __init__(
        self,
        problems: Problems,
        *,
        group: str,
        topics: Collection[str],
        servers: str,
        assigned: bool = False,
        position_gone: Callable[[str, int], bool] = lambda _topic, _partition: False,
    ) -> None:
        """``assigned``: there is no assignment to wait for. ``position_gone`` is called where the records at the position of
        a partition are gone, and says whether it is read from its beginning.
        """
        self._assigned = assigned
        self._problems = problems
        self._group = group
        self._topics = topics
        self._servers = servers
        self._position_gone = position_gone
        self._silence = Silence(time.monotonic())
        self._passing: set[str] = set()  # problems that are over when nobody reports them any more
        self._complained_of: set[str] = set()

    @property
    def assigned(self) -> bool:
        """Whether the group had us once: from then on refusals are waited out."""
        return self._assigned

    def belong(self) -> None:
        """The group has us."""
        self._assigned = True

    def begin(self) -> None:
        """A new client is made: it has the whole time to reach the brokers."""
        self._silence = Silence(time.monotonic())

    def reached(self, at: float) -> None:
        """The client had a broker then (monotonic)."""
        self._silence.heard(at)

    def sift(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Judge what is an error, and return the records. Raises ConsumerFailed for errors that end the run."""
        if not any(map(_ERROR, batch)):
            return batch
        for raw in batch:
            if raw.error() is not None:
                self._record(raw)
        return [raw for raw in batch if raw.error() is None]

    def _record(self, raw: Any) -> None:
        error: KafkaError = raw.error()
        code = str(error.name())
        topic = raw.topic()
        if code == "_PARTITION_EOF":
            return
        if topic:
            self._complained_of.add(topic)
        _raise_fatal(error)
        if code == "_AUTO_OFFSET_RESET" and topic and self._position_gone(topic, raw.partition()):
            return
        if code == "_MAX_POLL_EXCEEDED":
            log.error("group %s: the loop did not poll in time and lost its partitions", self._group)
        elif code in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_ID") and topic:
            # What only a pattern names may go as it came, and a pattern may match nothing.
            if topic in self._topics and not is_pattern(topic):
                self._problems.note(f"topic {topic}", f"topic {topic}: {code}")
        elif code.endswith("AUTHORIZATION_FAILED"):
            self.refused(f"topic {topic}" if topic and code.startswith("TOPIC") else None, code)
        elif code in REMEDIES:
            self._not_let_in(code)
        else:
            partition = raw.partition()
            named = bool(topic) and partition is not None and partition >= 0
            key = _of(Place(topic, partition)) if named else "poll"
            self._problems.note(key, f"{key if named else 'polling'} reports {code}")
            if not named or is_retriable(error):
                self._passing.add(key)

    def _not_let_in(self, code: str) -> None:
        reason = f"the group {self._group} does not let us in: {code}: {REMEDIES[code]}"
        if code in LASTING and not self._assigned:
            raise ConsumerFailed(reason)
        self._problems.note("join", reason)

    def moved(self, place: Place) -> None:
        """The partition brought records."""
        if self._problems:
            self._problems.clear("brokers", "login", _of(place))

    def ended(self, places: Iterable[Place]) -> None:
        """These partitions are ours no longer."""
        if self._problems:
            self._problems.clear(*map(_of, places))

    def take_topics(self) -> set[str]:
        """Topics that polls have reported errors of, since the last call."""
        if not self._complained_of:
            return self._complained_of
        topics, self._complained_of = self._complained_of, set()
        return topics

    def client(self, error: KafkaError) -> None:
        """An error of the client as a whole: its callback ``error_cb``.

        Raises ConsumerFailed, or NotReachable where no broker has answered for ``BEFORE_ASSIGNMENT_SECONDS``.
        """
        code = str(error.name())
        _raise_fatal(error)
        if code.endswith("AUTHORIZATION_FAILED"):
            self.refused(None, code)
        elif code == "_ALL_BROKERS_DOWN":
            self._problems.note("brokers", f"the brokers cannot be used: {code}")
        elif code in ("_AUTHENTICATION", "_SSL"):
            self._problems.note("login", f"the brokers do not let us in: {code}: {error.str()}")
        # A join may take as long as others drain; only brokers that do not answer end the run.
        silent = self._silence.lasts(time.monotonic(), BEFORE_ASSIGNMENT_SECONDS)
        if not self._assigned and code in _UNREACHABLE and silent:
            raise NotReachable(f"the brokers at {self._servers} cannot be used: {code}: {error.str()}")

    def refused(self, what: str | None, code: str) -> None:
        """The brokers refuse us ``what`` (None: the group). Before the first assignment ConsumerFailed; later a problem."""
        what = what or f"group {self._group}"
        if not self._assigned:
            raise ConsumerFailed(f"the brokers refuse {what}: {code}")
        self._problems.note(what, f"the brokers refuse {what}: {code}")

    def look(self, now: float) -> None:
        """End the problems that polls have not reported for 30 s. ``now``: monotonic."""
        for key in [one for one in self._passing if now >= self._problems.noted_at(one) + POLL_SECONDS]:
            self._passing.discard(key)
            self._problems.clear(key)

    @property
    def group_in_doubt(self) -> bool:
        """Whether something is wrong that an answer of the group's coordinator would show to be over."""
        return self._problems.known("brokers", "login", f"group {self._group}")

    def group_is_well(self) -> None:
        """The group's coordinator answered."""
        self._problems.clear("brokers", "login", f"group {self._group}")


def _of(place: Place) -> str:
    return f"partition {place.topic}/{place.partition}"


def _raise_fatal(error: KafkaError) -> None:
    if not is_fatal(error):
        return
    reason = f"the Kafka consumer met a fatal error: {error.name()}: {error.str()}"
    if is_fenced_member(error):
        reason += "; another member of the group has the same group.instance.id: give each member its own"
    raise ConsumerFailed(reason)
