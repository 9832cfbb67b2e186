"""What the brokers say of topics: whether they exist, which incarnation they are, and whether they keep what they must.

``check`` runs once before consuming. ``TopicDirectory`` then answers from memory. It asks again in the background, now and
then and when something points to a change: a topic that was deleted and made anew under the same name must not be read on
from the old position.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from confluent_kafka import KafkaException

from retriable_kafka_client.brokers.asking import Asker, Listed
from retriable_kafka_client.brokers.error_codes import error_name
from retriable_kafka_client.brokers.topics import (
    MISSING,
    Answer,
    TopicDirectory,
    TopicFacts,
    is_compacted,
    retention_of,
)
from retriable_kafka_client.core.engine import Route
from retriable_kafka_client.core.routing import Routing, is_pattern
from retriable_kafka_client.errors import ConfigError, ConsumerFailed, NotReachable

__all__ = ["TopicDirectory", "TopicFacts", "check"]

log = logging.getLogger("retriable_kafka_client.topics")

STEP_SECONDS = 0.05
SPREADING_STEP_SECONDS = 0.25
SPREADING_SECONDS = 5.0  # after a topic was made: until each broker knows of it


def check(
    asker: Asker,
    routes: Sequence[Route],
    *,
    bootstrap_servers: str,
    timeout: float,
    stopped: Callable[[], bool],
    refused_by: Callable[[], str | None],
) -> TopicDirectory | None:
    """Make sure that every topic is there and keeps what is put into it; returns a directory that knows them.

    Blocks until that is known, and a few seconds more where a topic is missing: it may have been made a moment
    ago. None if ``stopped`` became true. Raises ConfigError for a topic that is missing, compacts or forgets too early,
    and ConsumerFailed if no broker answers anything for ``timeout`` seconds, or one refuses us. ``refused_by`` returns what
    the client complained of last.
    """
    listed = _list_topics(asker, bootstrap_servers, timeout, stopped, refused_by)
    if listed is None:
        return None
    metadata = listed.metadata
    cluster_id, known = str(metadata.cluster_id), set(metadata.topics)
    routing = Routing(routes)
    for name in sorted(known):
        conflict = routing.conflict(name)
        if conflict is not None:
            raise ConfigError(conflict.field, conflict.value, conflict.remedy)
    matched = frozenset(name for name in known if routing.role(name) is not None)
    directory = TopicDirectory(asker.client, cluster_id, known, matched, routing.is_retry_topic)
    directory.partitions = {
        name: len(one.partitions) for name, one in metadata.topics.items() if one.error is None
    }
    names = sorted(routing.names | matched)
    letters = {route.dead_letter for route in routes if route.dead_letter is not None}
    kept = {name for name in names if name in letters or routing.is_retry_topic(name)}
    answers = _Questions(asker, directory, stopped, timeout).until_there(names, kept, routing.names)
    if answers is None:
        return None
    unheard = directory.unanswered(names)
    if unheard:
        raise NotReachable(
            f"the brokers at {bootstrap_servers} cannot be used: they do not answer what topics there are"
            f" ({', '.join(unheard[:5])})"
        )
    for name in _absent(answers, routing.names):
        raise ConfigError(
            "topic",
            name,
            "does not exist; make it: kafka-topics.sh --bootstrap-server "
            f"{bootstrap_servers} --create --topic {name} --partitions 4",
        )
    unknown = [name for name in sorted(kept) if answers[name].settings is None]
    if unknown:
        log.warning(
            "the brokers do not show the settings of %s: whether they keep what is put into them cannot be checked",
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


def _list_topics(
    asker: Asker,
    bootstrap_servers: str,
    timeout: float,
    stopped: Callable[[], bool],
    refused_by: Callable[[], str | None],
) -> Listed | None:
    """What the cluster lists; None if ``stopped`` became true. An answer may take all of ``timeout``."""
    began = time.monotonic()
    asker.list_topics(began, timeout)
    while not stopped():
        asker.client.poll(STEP_SECONDS)  # for its complaints
        now = time.monotonic()
        listed = asker.look(now, began)
        if listed is not None:
            return listed
        failed = asker.failure
        if failed is not None and not isinstance(failed, KafkaException):
            raise failed
        failure = _why_unusable(refused_by(), failed, bootstrap_servers, now > began + timeout)
        if failure is not None:
            raise failure from failed
    return None


class _Questions:
    """Asking about topics, and waiting for the answers: as long as any broker answers anything."""

    def __init__(
        self, asker: Asker, directory: TopicDirectory, stopped: Callable[[], bool], timeout: float
    ) -> None:
        self._asker = asker
        self._directory = directory
        self._stopped = stopped
        self._timeout = timeout

    def until_there(
        self, names: Sequence[str], kept: Collection[str], wanted: AbstractSet[str]
    ) -> dict[str, Answer] | None:
        """Ask for all, and for the ``wanted`` ones that are missing again for a while: not all brokers may know them yet."""
        answers = self._ask(names, kept)
        spread_by = time.monotonic() + SPREADING_SECONDS
        while answers is not None and not self._directory.is_mock and time.monotonic() < spread_by:
            absent = _absent(answers, wanted)
            if not absent:
                break
            time.sleep(SPREADING_STEP_SECONDS)
            again = self._ask(absent, [name for name in absent if name in kept])
            answers = None if again is None else answers | again
        return answers

    def _ask(self, names: Sequence[str], kept: Collection[str]) -> dict[str, Answer] | None:
        """None if ``stopped`` became true."""
        directory, asker = self._directory, self._asker
        began = time.monotonic()
        directory.ask(names, kept, began)
        logged = False
        while not self._stopped():
            now = time.monotonic()
            directory.ask_again(names, now)
            unheard = directory.unanswered(names)
            # Some brokers that look like Kafka answer no question about settings.
            if not unheard and (directory.waits_since is None or now > began + self._patience):
                return directory.answers(names)
            if now > max(began, asker.heard_at or 0.0) + self._patience:
                return directory.answers(names)
            if asker.look(now, began if unheard else directory.waits_since) is not None:
                directory.replace_admin(asker.client)
            if unheard and not logged and now > began + self._timeout:
                logged = True
                log.warning("a broker hangs and does not answer what %s is; it is asked again", unheard[0])
            time.sleep(STEP_SECONDS)
        return None

    @property
    def _patience(self) -> float:
        # Brokers that are slow are not out of reach.
        return self._timeout + 4 * self._asker.took


def _absent(answers: Mapping[str, Answer], wanted: AbstractSet[str]) -> list[str]:
    return [name for name, answer in answers.items() if answer.code in MISSING and name in wanted]


def _why_unusable(
    complaint: str | None, error: KafkaException | None, bootstrap_servers: str, late: bool
) -> ConsumerFailed | None:
    """What to raise while the first question has no answer; None: it may still come, or be asked again."""
    text = f"the brokers at {bootstrap_servers} cannot be used"
    why = "_TIMED_OUT" if error is None else error_name(error)
    refusal = _refusal(complaint)
    if refusal is not None:
        return ConsumerFailed(f"{text}: {refusal}")
    return NotReachable(f"{text}: {complaint or why}") if late else None


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
    name: str | None, role: str, answers: Mapping[str, Answer], bootstrap_servers: str
) -> None:
    settings = answers[name].settings if name else None
    if name and settings is not None and is_compacted(settings):
        raise ConfigError(
            f"{role} topic",
            name,
            "is compacted, so of messages with one key only the last would survive; "
            + _alter(bootstrap_servers, name, "cleanup.policy=delete"),
        )


def _check_retry_topic(
    route: Route, name: str, answers: Mapping[str, Answer], bootstrap_servers: str
) -> None:
    _check_compaction(name, "retry", answers, bootstrap_servers)
    if route.policy is None:
        return
    settings = answers[name].settings or {}
    retention_ms = retention_of(settings)
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
