"""Facts of topics, asked for in the background: which incarnation they are, whether we may read them, what they keep."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)

from retriable_kafka_client.brokers.client import is_mock
from retriable_kafka_client.brokers.error_codes import error_name

__all__ = ["MISSING", "Answer", "TopicDirectory", "TopicFacts", "is_compacted", "retention_of"]

REFRESH_SECONDS = 60.0  # how long a re-created topic may go unnoticed to which nothing points
SOON_SECONDS = 0.5  # from one question to the next, where something does; doubled each time, up to
LONGEST_SECONDS = 60.0
MISSING_SECONDS = 10.0  # the same for a topic that is not there
LONGEST_REFUSED_SECONDS = 960.0  # between two questions for settings that we may not see
TOGETHER_SECONDS = 30.0  # what would be asked for within this time goes with what is
STEP_SECONDS = 0.05
LONGEST_UID = 200  # with partition and offset it makes a message's id, and that has to fit into its header
NO_ID = "A" * 22  # what brokers answer that know of no topic ids
_REFUSED = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
_UNHEARD = frozenset(
    ("_TIMED_OUT", "_TIMED_OUT_QUEUE", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_DESTROY")
)
MISSING = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_ID"})


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a consumer must know of a topic that it reads."""

    uid: str  # in ids of messages: the topic's id as it was when first asked for, else ``fallback_uid``
    topic_id: str | None  # differs when a topic of the same name is made anew; None: the brokers do not say
    fallback_uid: str  # made of the cluster's id and the name
    retention_ms: int | None  # None: unlimited, or not known


def is_compacted(settings: Mapping[str, str]) -> bool:
    """Whether the topic keeps only the last record of each key."""
    return "compact" in settings.get("cleanup.policy", "")


def retention_of(settings: Mapping[str, str]) -> int | None:
    """Milliseconds for which the topic keeps records; None: without limit, or not known."""
    try:
        value = int(settings["retention.ms"])
    except (KeyError, ValueError):
        return None
    if value < 0 or "delete" not in settings.get("cleanup.policy", "delete"):
        return None
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What the questions about a topic brought: an error code, or its settings, if they may be read."""

    code: str | None = None
    settings: Mapping[str, str] | None = None


@dataclass(slots=True)
class _Topic:
    """When one topic is asked for. Times are monotonic."""

    ask_at: float = 0.0  # the next time; infinite while a question is under way
    asked_at: float = -math.inf  # the last time
    pause: float = SOON_SECONDS  # from one question to the next, where something points to a change
    hurried: bool = False  # something does
    again: bool = False  # something did while a question was under way
    stale: bool = False  # what is known is from before a partition of it was given to us
    missing: bool = False  # it did not exist when last asked for
    readable: float = -math.inf  # when the last question was asked that found we may read it
    settings_at: float = -math.inf  # before, its settings are not asked for again
    settings_pause: float = REFRESH_SECONDS


@dataclass(slots=True)
class _Question:
    """One request for many topics. What is no longer of interest is taken out of ``futures``."""

    asked_at: float
    client: AdminClient  # kept, since without it there would be no answer
    futures: dict[str, Future[Any]]

    def take(self) -> dict[str, Future[Any]]:
        """Remove and return what has been answered."""
        done = {name: future for name, future in self.futures.items() if future.done()}
        for name in done:
            del self.futures[name]
        return done


class TopicDirectory:
    """Facts of topics, asked for in the background. Only the loop's thread calls it; nothing blocks.

    All times are ``time.monotonic()``, in seconds. What brokers refuse is no exception here, but a code in ``answers``.

    All topics are asked for in one request: when a partition is given to us, soon after something has pointed to a change
    (``suspect``), and else once a minute. The settings of those that ``keep`` copies are asked for when they begin. A
    question that is under way is kept until its answer comes, however long that takes. What is refused again and again is
    asked for ever more rarely.
    """

    def __init__(
        self,
        admin: AdminClient,
        cluster_id: str,
        known: AbstractSet[str],
        matched: AbstractSet[str] = frozenset(),
        keeps: Callable[[str], bool] = lambda _name: False,
    ) -> None:
        self.matched = matched  # of these, the ones that are read
        self.partitions: Mapping[str, int] = {}  # how many each topic had that the cluster listed at first
        self.is_mock = is_mock(cluster_id)
        self._admin = admin
        self.cluster_id = cluster_id
        self._known = known  # topics that the cluster listed at first
        self._keeps = keeps  # whether a topic's settings count while we run
        self._facts: dict[str, TopicFacts] = {}
        self._settings: dict[str, Mapping[str, str] | None] = {}  # None: we may not see them
        self._topics: defaultdict[str, _Topic] = defaultdict(_Topic)
        self._described: list[_Question] = []
        self._configured: list[_Question] = []
        self._codes: dict[str, str | None] = {}  # what asking for a topic brought last
        self._changed: set[str] = set()  # made anew, and not reported yet by ``refresh``
        self._look_at = 0.0  # before, nothing is to be asked for

    # What is known -----------------------------------------------------------------------------------------------------

    @property
    def missing(self) -> frozenset[str]:
        """Topics that did not exist when last asked for."""
        return frozenset(name for name, one in self._topics.items() if one.missing)

    def any_name(self) -> str | None:
        """A topic of the cluster, one that is read if there is any."""
        return next(iter(self._facts), None) or min(self._known, default=None)

    def readable_since(self, name: str, moment: float) -> bool:
        """Whether a question asked after ``moment`` (monotonic) found that the topic is there and we may read it."""
        return self.is_mock or (name in self._topics and self._topics[name].readable > moment)

    def facts(self, name: str) -> TopicFacts | None:
        """What is known of the topic; None until an answer is in."""
        known = self._facts.get(name)
        if known is None or (name in self._topics and self._topics[name].stale):
            return None
        if self.is_mock or not self._keeps(name):
            return known
        if name not in self._settings:
            return None  # they are on their way
        settings = self._settings[name]
        return replace(known, retention_ms=None if settings is None else retention_of(settings))

    def batch_bytes(self) -> dict[str, int]:
        """How large a batch each topic takes, in bytes, of those whose settings we may see."""
        sizes = {
            name: (settings or {}).get("max.message.bytes", "") for name, settings in self._settings.items()
        }
        return {name: int(text) for name, text in sizes.items() if text.isdecimal()}

    # What points to a change -------------------------------------------------------------------------------------------

    def expire(self, names: Iterable[str]) -> None:
        """A partition of these is about to begin: what is known may be of a topic that is gone."""
        for name in dict.fromkeys(names):
            if self.is_mock:
                self._go_without_id(name)
                continue
            one = self._topics[name]
            one.stale, one.ask_at, one.pause = True, 0.0, SOON_SECONDS
            for question in self._described:
                question.futures.pop(name, None)  # asked before it was given to us
        self._look_at = 0.0

    def suspect(self, name: str) -> None:
        """Something points to a change of this topic, perhaps that it was made anew: ask soon."""
        if self.is_mock:
            return
        one = self._topics[name]
        if one.ask_at == math.inf:
            one.again = True
        else:
            one.hurried = True
            one.ask_at = min(one.ask_at, one.asked_at + one.pause)
            self._look_at = min(self._look_at, one.ask_at)

    def suspect_all(self) -> None:
        """We may have missed something, of whichever topic."""
        for name in list(self._topics):
            self.suspect(name)

    def replace_admin(self, admin: AdminClient) -> None:
        """Another client asks from now on. What has no answer yet is asked again, and the first answer counts."""
        self._admin = admin
        for name in {name for question in self._described for name in question.futures}:
            self._topics[name].ask_at = 0.0
        unset = {name for question in self._configured for name in question.futures}
        for name in unset:
            self._topics[name].settings_at = 0.0
        self._configure(sorted(unset), time.monotonic())
        self._look_at = 0.0

    # Asking ------------------------------------------------------------------------------------------------------------

    def ask(self, names: Iterable[str], kept: Iterable[str], now: float) -> None:
        """Ask for these, and for the settings of those that are ``kept``."""
        asked = list(names)
        if self.is_mock:
            for name in asked:
                self._go_without_id(name)
                self._codes[name] = None if name in self._known else "UNKNOWN_TOPIC_OR_PART"
            return
        for name in asked:
            self._codes.pop(name, None)
        self._describe(asked, now)
        self._configure(list(kept), now)

    def ask_again(self, names: Iterable[str], now: float) -> None:
        """Take in what has been answered, and ask for those of which the question was lost."""
        if self.is_mock:
            return
        self._collect(now)
        self._describe([name for name in names if self._topics[name].ask_at <= now], now)

    def unanswered(self, names: Iterable[str]) -> list[str]:
        """Of these, the ones of which no broker has said whether they are there."""
        return [name for name in names if self._codes.get(name, "_TIMED_OUT") in _UNHEARD]

    def answers(self, names: Iterable[str]) -> dict[str, Answer]:
        """What is known of each; without an answer it has the code ``_TIMED_OUT``."""
        return {name: Answer(self._codes.get(name, "_TIMED_OUT"), self._settings.get(name)) for name in names}

    @property
    def waits_since(self) -> float | None:
        """When the oldest question was asked that is under way; None: none is."""
        return min((one.asked_at for one in (*self._described, *self._configured)), default=None)

    def refresh(
        self, names: Callable[[], Iterable[str]], now: float, *, troubled: Iterable[str] = ()
    ) -> list[str]:
        """Take in what has been answered, and ask for what is to be asked for; returns which topics were made anew.

        ``names`` are the topics that we read; ``troubled``: those of which something is wrong.
        """
        if self.is_mock:
            return []
        if self._described or self._configured:
            self._collect(now)
        for name in troubled:
            self.suspect(name)
        if now >= self._look_at:
            self._look(sorted({*names(), *troubled}), now)
        anew = [name for name in self._changed if self.facts(name) is not None]
        self._changed.difference_update(anew)
        return anew

    def _look(self, names: Sequence[str], now: float) -> None:
        """Ask for what is due, and in the same request for what would be before long."""
        # Nobody reads the others any more; those that are missing may come back.
        for name in [name for name in self._topics.keys() - set(names) if not self._topics[name].missing]:
            del self._topics[name]
        if any(self._topics[name].ask_at <= now for name in names):
            self._describe(
                [name for name in names if self._topics[name].ask_at <= now + TOGETHER_SECONDS], now
            )
        self._look_at = min((self._topics[name].ask_at for name in names), default=math.inf)

    def _describe(self, names: Sequence[str], now: float) -> None:
        if not names:
            return
        for name in names:
            one = self._topics[name]
            one.pause = min(LONGEST_SECONDS, one.pause * 2) if one.hurried else SOON_SECONDS
            one.ask_at, one.asked_at, one.hurried, one.again = math.inf, now, False, False
        futures: Mapping[str, Future[Any]] = self._admin.describe_topics(
            TopicCollection(list(names)), include_authorized_operations=True
        )
        self._described.append(_Question(now, self._admin, dict(futures)))
        self._configure([name for name in names if self._topics[name].stale and self._keeps(name)], now)

    def _configure(self, names: Iterable[str], now: float) -> None:
        asked = [name for name in names if now >= self._topics[name].settings_at]
        if not asked:
            return
        for name in asked:
            self._topics[name].settings_at = math.inf
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in asked]
        futures: Mapping[ConfigResource, Future[Any]] = self._admin.describe_configs(resources)
        self._configured.append(
            _Question(now, self._admin, {resource.name: future for resource, future in futures.items()})
        )

    # Answers -----------------------------------------------------------------------------------------------------------

    def _collect(self, now: float) -> None:
        for question in self._described:
            for name, future in question.take().items():
                if _counts(name, future, self._described):
                    self._take_description(name, future, question.asked_at, now)
        for question in self._configured:
            for name, future in question.take().items():
                if _counts(name, future, self._configured):
                    self._take_settings(name, future, now)
        self._described = [question for question in self._described if question.futures]
        self._configured = [question for question in self._configured if question.futures]

    def _take_description(self, name: str, future: Future[Any], asked_at: float, now: float) -> None:
        one = self._topics[name]
        was_missing = one.missing
        try:
            topic = future.result()
        except KafkaException as error:
            code = error_name(error)
            self._codes[name] = code
            one.missing = code in MISSING or (was_missing and code not in _REFUSED)
            if code in _REFUSED:
                self._go_without_id(name)
                one.ask_at = asked_at + LONGEST_SECONDS
            else:
                one.hurried = True  # so that the pauses grow
                one.ask_at = asked_at + min(one.pause, MISSING_SECONDS)
        else:
            self._codes[name] = None
            one.missing = False
            one.ask_at = asked_at + REFRESH_SECONDS
            # Brokers that are older than the question leave it open.
            if not topic.authorized_operations or AclOperation.READ in topic.authorized_operations:
                one.readable = asked_at
            self._take_id(name, str(topic.topic_id))
            one.stale = False
        if one.missing != was_missing:
            one.pause = SOON_SECONDS
        if one.again:
            one.hurried = True
            one.ask_at = min(one.ask_at, asked_at + one.pause)
        self._look_at = min(self._look_at, max(now, one.ask_at))

    def _take_id(self, name: str, topic_id: str) -> None:
        before = self._facts.get(name)
        if topic_id == NO_ID:
            self._go_without_id(name)
            return
        fallback = self._fallback_uid(name)
        if before is not None and before.topic_id is None:
            # The ids of messages stay as they are for a whole run. And the topic is not new: its brokers are.
            self._facts[name] = replace(before, topic_id=topic_id)
        elif before is None or before.topic_id != topic_id:
            self._facts[name] = TopicFacts(topic_id, topic_id, fallback, None)
            if before is not None:
                self._changed.add(name)
                self._settings.pop(name, None)
                self._topics[name].settings_at = 0.0
                if self._keeps(name):
                    self._configure([name], time.monotonic())

    def _take_settings(self, name: str, future: Future[Any], now: float) -> None:
        one = self._topics[name]
        try:
            self._settings[name] = {key: str(entry.value) for key, entry in future.result().items()}
            one.settings_pause = REFRESH_SECONDS
        except KafkaException as error:
            self._settings.setdefault(name, None)
            if error_name(error) in MISSING:
                one.settings_at = 0.0
                return
            one.settings_pause = min(2 * one.settings_pause, LONGEST_REFUSED_SECONDS)
        one.settings_at = now + one.settings_pause

    def _go_without_id(self, name: str) -> None:
        """Take cluster and name for its id: a topic that is made anew then looks like the old one."""
        if not self.is_mock:
            self._topics[name].stale = False
        if name not in self._facts:
            uid = self._fallback_uid(name)
            self._facts[name] = TopicFacts(uid, None, uid, None)

    def _fallback_uid(self, name: str) -> str:
        uid = f"{self.cluster_id}.{name}"
        return uid if len(uid) <= LONGEST_UID else f"{self.cluster_id}.{sha256(name.encode()).hexdigest()}"


def _counts(name: str, answer: Future[Any], questions: Sequence[_Question]) -> bool:
    """Whether it is the answer; what else was asked for ``name`` is then of no interest. A failure on the way is none while
    the same is asked elsewhere.
    """
    others = [question for question in questions if name in question.futures]
    error = answer.exception()
    if others and isinstance(error, KafkaException) and error_name(error) in _UNHEARD:
        return False
    for question in others:
        del question.futures[name]
    return True
