"""Which topics may stand together in one consumer: no message may come back to where it came from by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from retriable_kafka_client.config import DISCARD, Topic, names_of
from retriable_kafka_client.core.routing import Routing, is_pattern
from retriable_kafka_client.errors import ConfigError

__all__ = ["check_former_groups", "check_ordering", "check_topics", "subscription"]


def check_topics(topics: object) -> tuple[Topic, ...]:
    """Return a consumer's topics as a tuple. Raises ConfigError for what is no list of Topic, and for circles."""
    if not isinstance(topics, Sequence) or isinstance(topics, (str, bytes)) or not topics:
        raise ConfigError("Consumer.topics", topics, "must be a list of at least one Topic")
    for index, topic in enumerate(topics):
        if not isinstance(topic, Topic):
            raise ConfigError(f"Consumer.topics[{index}]", topic, "must be a Topic")
    given = tuple(topics)
    _check_names(given)
    _check_retry_topics(given)
    _check_former_names(given)
    _check_circles(given)
    _check_patterns(given)
    return given


def check_ordering(ordering: object, topics: tuple[Topic, ...]) -> None:
    """Refuse an ``ordering`` that does not exist, and retry topics where handling is ordered. Raises ConfigError."""
    if ordering not in ("unordered", "key", "partition"):
        raise ConfigError("Consumer.ordering", ordering, "must be 'unordered', 'key' or 'partition'")
    for topic in topics:
        if ordering != "unordered" and topic.retry is not None and topic.retry.topic is not None:
            raise ConfigError(
                "Retry.topic",
                topic.retry.topic,
                f"must be left out with ordering={ordering!r}: what goes through a retry topic comes back behind the "
                "messages that it stood before; Retry(max_attempts=…, delay=…) retries in place",
            )


def check_former_groups(names: object, group: str) -> tuple[str, ...]:
    """Return the names that ``group`` had before, each once. Raises ConfigError for what is none."""
    field = "Consumer.former_groups"
    if isinstance(names, (str, bytes)) or not isinstance(names, Collection):
        raise ConfigError(field, names, "must be a list of group names; a single one goes into a list, too")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(field, name, "must hold group names, texts that are not empty")
        if name == group:
            raise ConfigError(
                field, name, "is the group_id itself, whose copies are run anyway; leave it out"
            )
    return tuple(dict.fromkeys(names))


def _check_former_names(topics: Sequence[Topic]) -> None:
    """Raise ConfigError where two entries with one retry topic claim the copies of one topic."""
    claimed: dict[tuple[str | None, str], str] = {}
    for topic in topics:
        retry = None if topic.retry is None else topic.retry.topic
        for name in (topic.name, *topic.formerly):
            other = claimed.setdefault((retry, name), topic.name)
            if retry is not None and other != topic.name:
                raise ConfigError(
                    "Topic.formerly",
                    name,
                    f"stands for {topic.name!r} and for {other!r}, which share the retry topic {retry!r}: whose copies"
                    " those are cannot be told; leave it out in one, or give them retry topics of their own",
                )


def _check_patterns(topics: Sequence[Topic]) -> None:
    """Raise ConfigError where a pattern takes in a topic that stands by name somewhere else."""
    conflict = Routing([names_of(topic) for topic in topics]).first_conflict()
    if conflict is not None:
        raise ConfigError(conflict.field, conflict.value, conflict.remedy)


def subscription(topics: Sequence[str], protocol: str) -> list[str]:
    """What to subscribe to. ``protocol``: the client's ``group.protocol``.

    In the classic protocol the client searches a topic's name for the pattern; in the new one the broker does it, and
    matches whole names.
    """
    if protocol.lower() == "classic":
        return list(topics)
    return [f"^.*({topic}).*" if is_pattern(topic) else topic for topic in topics]


def _check_names(topics: tuple[Topic, ...]) -> None:
    seen: set[str] = set()
    for topic in topics:
        if topic.name in seen:
            raise ConfigError("Topic.name", topic.name, "stands in two entries; give each topic once")
        seen.add(topic.name)


def _check_retry_topics(topics: tuple[Topic, ...]) -> None:
    names = {topic.name for topic in topics}
    dead_letter_of: dict[str, object] = {}
    for topic in topics:
        if topic.retry is None or topic.retry.topic is None:
            continue
        retry_topic = topic.retry.topic
        if retry_topic in names:
            raise ConfigError(
                "Retry.topic", retry_topic, "is handled as a topic of its own; give retries another one"
            )
        if dead_letter_of.setdefault(retry_topic, topic.dead_letter) != topic.dead_letter:
            raise ConfigError(
                "Topic.dead_letter",
                topic.dead_letter,
                f"must be the same for all topics that share the retry topic {retry_topic!r}",
            )
    for topic in topics:
        if topic.dead_letter in dead_letter_of:
            raise ConfigError(
                "Topic.dead_letter", topic.dead_letter, "is a retry topic; dead letters would run again"
            )


def _check_circles(topics: tuple[Topic, ...]) -> None:
    onward = {topic.name: topic.dead_letter for topic in topics if topic.dead_letter is not DISCARD}
    for start in onward:
        path = [start]
        while (following := onward.get(path[-1])) is not None:
            path.append(str(following))
            if following == start:
                raise ConfigError(
                    "Topic.dead_letter",
                    start,
                    f"dead letters would go round in a circle: {' -> '.join(path)}",
                )
            if len(path) > len(onward) + 1:
                break
