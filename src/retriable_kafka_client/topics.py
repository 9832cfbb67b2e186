"""What the brokers say of topics: whether they exist, which incarnation they are, and whether they keep what they must.

``check`` runs once before consuming. ``Directory`` then answers from memory and asks again in the background, because a
topic that was deleted and made anew under the same name must not be read on from the old position.
"""

from __future__ import annotations

import logging
import math
import re
import time
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

from retriable_kafka_client.client import error_name, is_mock
from retriable_kafka_client.core.engine import Route
from retriable_kafka_client.core.routing import Routing, is_pattern
from retriable_kafka_client.errors import ConfigError, ConsumerFailed, NotReachable

__all__ = ["Directory", "TopicFacts", "check"]

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0  # how long a re-created topic may go unnoticed
ASK_SECONDS = 5.0  # time-out of one question
STEP_SECONDS = 0.05
SPREADING_SECONDS = 5.0  # after a topic was made: until each broker knows of it
LONGEST_UID = 200  # with partition and offset it makes a message's id, and that has to fit into its header
_REFUSED = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
_MISSING = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_ID"})


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a consumer must know of a topic that it reads."""

    uid: str  # differs when a topic of the same name is made anew, where the brokers tell
    told: bool  # by the brokers; else it is made of the cluster's id and the name
    retention_ms: int | None  # None: unlimited, or not known


def check(
    admin: AdminClient,
    routes: Sequence[Route],
    *,
    bootstrap_servers: str,
    timeout: float,
    stopped: Callable[[], bool],
    refused_by: Callable[[], str | None],
) -> Directory | None:
    """Make sure that every topic is there and keeps what is put into it; returns a directory that knows them.

    Blocks at most about ``timeout`` seconds, and a few more where a topic is missing: it may have been made a moment
    ago. None if ``stopped`` became true. Raises ConfigError for a topic that is missing, compacts or forgets too early,
    and ConsumerFailed if no broker answers or one refuses us. ``refused_by`` tells what the client last complained of.
    """
    deadline = time.monotonic() + timeout
    cluster_id, known = None, None
    while known is None:
        if stopped():
            return None
        try:
            metadata = admin.list_topics(timeout=1.0)
            cluster_id, known = str(metadata.cluster_id), set(metadata.topics)
        except KafkaException as error:
            admin.poll(0)  # for its complaints
            failure = _why_unusable(refused_by(), error, bootstrap_servers, time.monotonic() > deadline)
            if failure is not None:
                raise failure from error
    routing = Routing(routes)
    for name in sorted(known):
        conflict = routing.conflict(name)
        if conflict is not None:
            raise ConfigError(conflict.field, conflict.value, conflict.remedy)
    matched = frozenset(name for name in known if routing.role(name) is not None)
    directory = Directory(admin, cluster_id or "", known, matched)
    names = sorted(routing.names | matched)
    answers = _ask_until_there(directory, names, routing.names, stopped)
    if answers is None:
        return None
    for name in _absent(answers, routing.names):
        raise ConfigError(
            "topic",
            name,
            "does not exist; make it: kafka-topics.sh --bootstrap-server "
            f"{bootstrap_servers} --create --topic {name} --partitions 4",
        )
    unknown = [name for name, answer in answers.items() if answer.settings is None]
    if unknown:
        log.warning(
            "the brokers do not tell the settings of %s: whether they keep what is put into them cannot be checked",
            ", ".join(unknown),
        )
    for index, route in enumerate(routes):
        _check_compaction(route.dead_letter, "dead-letter", answers, bootstrap_servers)
        for name in sorted(answers):
            if routing.retry_target(index, name) == name:
                _check_retry_topic(route, name, answers, bootstrap_servers)
    for pattern in _unmatched(routes, matched):
        log.warning("no topic matches %r yet; those that appear later are read", pattern)
    return directory


def _ask_until_there(
    directory: Directory, names: Sequence[str], wanted: AbstractSet[str], stopped: Callable[[], bool]
) -> dict[str, _Answer] | None:
    """Ask for all, and for the ``wanted`` ones that are missing again for a while: not all brokers may know them yet."""
    answers = directory.ask_now(names, stopped)
    deadline = time.monotonic() + SPREADING_SECONDS
    while answers is not None and not directory.is_mock and time.monotonic() < deadline:
        absent = _absent(answers, wanted)
        if not absent:
            break
        again = directory.ask_now(absent, stopped)
        answers = None if again is None else answers | again
    return answers


def _absent(answers: Mapping[str, _Answer], wanted: AbstractSet[str]) -> list[str]:
    return [name for name, answer in answers.items() if answer.code in _MISSING and name in wanted]


def _why_unusable(
    complaint: str | None, error: KafkaException, bootstrap_servers: str, late: bool
) -> ConsumerFailed | None:
    """What to raise after the first question failed; None: it may be asked again."""
    text = f"the brokers at {bootstrap_servers} cannot be used"
    refusal = _refusal(complaint)
    if refusal is not None:
        return ConsumerFailed(f"{text}: {refusal}")
    return NotReachable(f"{text}: {complaint or error_name(error)}") if late else None


def _refusal(complaint: str | None) -> str | None:
    """What was refused, if the client's ``complaint`` is of that kind: waiting does not mend it."""
    if complaint is not None and "AUTHENTICATION" in complaint:
        return complaint
    if complaint is None or "certificate" not in complaint:
        return None
    if " alert " in complaint:
        return f"they refuse our certificate (ssl.certificate.location, ssl.key.location): {complaint}"
    return f"their certificate is not trusted (ssl.ca.location): {complaint}"


def _unmatched(routes: Sequence[Route], names: AbstractSet[str]) -> list[str]:
    given = [name for route in routes for name in (route.topic, route.retry_topic) if name]
    return [
        one for one in dict.fromkeys(given) if is_pattern(one) and not any(re.search(one, n) for n in names)
    ]


def _check_compaction(
    name: str | None, role: str, answers: Mapping[str, _Answer], bootstrap_servers: str
) -> None:
    settings = answers[name].settings if name else None
    if name and settings is not None and "compact" in settings.get("cleanup.policy", ""):
        raise ConfigError(
            f"{role} topic",
            name,
            "is compacted, so of messages with one key only the last would survive; "
            + _alter(bootstrap_servers, name, "cleanup.policy=delete"),
        )


def _check_retry_topic(
    route: Route, name: str, answers: Mapping[str, _Answer], bootstrap_servers: str
) -> None:
    _check_compaction(name, "retry", answers, bootstrap_servers)
    if route.policy is None:
        return
    settings = answers[name].settings or {}
    retention_ms = _retention(settings)
    longest = max(
        (
            route.policy.delay.delay(attempt, 1.0)
            for attempt in range(1, min(route.policy.max_attempts, 1000))
        ),
        default=0.0,
    )
    if retention_ms is not None and retention_ms <= longest * 1000:
        enough = math.ceil(longest * 2000)
        raise ConfigError(
            "retry topic",
            name,
            f"keeps records for {retention_ms / 1000:g} s and the longest delay is {longest:g} s; "
            + _alter(bootstrap_servers, name, f"retention.ms={max(enough, 86_400_000)}"),
        )


def _alter(bootstrap_servers: str, name: str, setting: str) -> str:
    return (
        f"mend it: kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics "
        f"--entity-name {name} --add-config {setting}"
    )


def _retention(settings: Mapping[str, str]) -> int | None:
    try:
        value = int(settings["retention.ms"])
    except (KeyError, ValueError):
        return None
    if value < 0 or "delete" not in settings.get("cleanup.policy", "delete"):
        return None
    return value


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one question brought: an error code, or the topic's id and (if they may be read) its settings."""

    code: str | None
    topic_id: str | None = None
    settings: Mapping[str, str] | None = None


class Directory:
    """Facts of topics, asked for in the background. Only the loop's thread calls it; nothing but ``ask_now`` blocks."""

    def __init__(
        self,
        admin: AdminClient,
        cluster_id: str,
        known: AbstractSet[str],
        matched: AbstractSet[str] = frozenset(),
    ) -> None:
        self.matched = matched  # of these, the ones that are read
        self.is_mock = is_mock(cluster_id)
        self.admin = admin  # may be replaced
        self._cluster_id = cluster_id
        self._known = known  # topics that the cluster listed at first
        self._facts: dict[str, TopicFacts] = {}
        self._asked_at: dict[str, float] = {}
        self._readable: dict[str, float] = {}  # when the question was asked that told so last
        self._questions: dict[str, tuple[Future[Any], Future[Any]]] = {}
        self._missing: set[str] = set()
        self._stale: set[str] = set()  # known from before a partition of it was given to us

    @property
    def missing(self) -> frozenset[str]:
        """Topics that did not exist when last asked for."""
        return frozenset(self._missing)

    def any_name(self) -> str | None:
        """A topic of the cluster, one that is read if there is any."""
        return next(iter(self._facts), None) or min(self._known, default=None)

    def readable_since(self, name: str, moment: float) -> bool:
        """Whether a question asked after ``moment`` (monotonic) told that the topic is there and we may read it."""
        return self.is_mock or self._readable.get(name, -math.inf) > moment

    def facts(self, name: str) -> TopicFacts | None:
        """What is known of the topic; None until an answer is in."""
        return None if name in self._stale else self._facts.get(name)

    def expire(self, names: Iterable[str]) -> None:
        """A partition of these is about to begin: what is known may be of a topic that is gone."""
        if not self.is_mock:
            for name in names:
                self._stale.add(name)
                self._questions.pop(name, None)  # asked before it was given to us

    def ask_now(self, names: Iterable[str], stopped: Callable[[], bool]) -> dict[str, _Answer] | None:
        """Ask and wait for the answers; None if ``stopped`` became true."""
        answers: dict[str, _Answer] = {}
        for name in names:
            if self.is_mock:
                self._untold(name)
                answers[name] = _Answer(None if name in self._known else "UNKNOWN_TOPIC_OR_PART")
            else:
                self._ask(name)
        while self._questions:
            if stopped():
                return None
            answers |= self._collect()
            time.sleep(STEP_SECONDS)
        return answers

    def refresh(self, names: Iterable[str], now: float, *, urgent: Iterable[str] = ()) -> list[str]:
        """Ask for what was not asked for lately, and take in what has been answered; returns whose id has changed."""
        before = dict(self._facts)
        self._collect()
        if self.is_mock:
            for name in names:
                self._untold(name)  # it may have appeared since
        else:
            hurried = set(urgent)
            for name in names:
                pause = 0.5 if name in hurried or name in self._missing else REFRESH_SECONDS
                pause = 0.0 if name in self._stale and name not in self._missing else pause
                if name not in self._questions and now >= self._asked_at.get(name, -math.inf) + pause:
                    self._asked_at[name] = now
                    self._ask(name)
        return [
            name for name, facts in self._facts.items() if name in before and before[name].uid != facts.uid
        ]

    def _ask(self, name: str) -> None:
        described = self.admin.describe_topics(
            TopicCollection([name]), include_authorized_operations=True, request_timeout=ASK_SECONDS
        )[name]
        resource = ConfigResource(ResourceType.TOPIC, name)
        configured = self.admin.describe_configs([resource], request_timeout=ASK_SECONDS)[resource]
        self._questions[name] = (described, configured)

    def _collect(self) -> dict[str, _Answer]:
        answers: dict[str, _Answer] = {}
        for name, (described, configured) in list(self._questions.items()):
            if described.done() and configured.done():
                del self._questions[name]
                answers[name] = self._answer(name, described, configured)
        return answers

    def _answer(self, name: str, described: Future[Any], configured: Future[Any]) -> _Answer:
        try:
            topic = described.result()
        except KafkaException as error:
            code = error_name(error)
            if code in _MISSING:
                self._missing.add(name)
            elif code in _REFUSED:
                self._untold(name)
            return _Answer(code)
        topic_id = str(topic.topic_id)
        self._stale.discard(name)
        self._missing.discard(name)
        # Brokers that are older than the question leave it open.
        if not topic.authorized_operations or AclOperation.READ in topic.authorized_operations:
            self._readable[name] = self._asked_at.get(name, -math.inf)
        try:
            settings = {key: str(entry.value) for key, entry in configured.result().items()}
        except KafkaException:
            settings = None
        retention = _retention(settings) if settings is not None else None
        before = self._facts.get(name)
        if before is None or before.told:
            self._facts[name] = TopicFacts(topic_id, True, retention)
        else:
            # One uid for a whole run: the right to look came later, which is no new topic.
            self._facts[name] = replace(before, retention_ms=retention)
        return _Answer(None, topic_id, settings)

    def _untold(self, name: str) -> None:
        """The brokers do not say which incarnation it is: a re-created topic cannot be told from the old one."""
        self._stale.discard(name)
        uid = f"{self._cluster_id}.{name}"
        if len(uid) > LONGEST_UID:
            uid = f"{self._cluster_id}.{sha256(name.encode()).hexdigest()}"
        self._facts.setdefault(name, TopicFacts(uid, False, None))
