"""Which Topic entry a topic belongs to: the one answer for configuration, engine, intake and loop.

An entry names its topic and its retry topic, or gives a pattern, which begins with "^" and is searched for in a topic's name
as the Kafka client does it. That client's regular expressions are not Python's, and topics appear while a consumer runs: so
what the configuration could not know is decided here, topic by topic. A topic that is not clearly one entry's is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["INTERNAL_TOPICS", "Conflict", "EntryNames", "Names", "Role", "Routing", "is_pattern"]

INTERNAL_TOPICS = frozenset(
    {"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"}
)
"""Kafka's own; a pattern never means them."""

REMEMBERED_ORIGINS = 1_000  # origins come from records; more than this are not kept


class Names(Protocol):
    """The topics of one entry."""

    @property
    def topic(self) -> str:
        """A name, or a pattern."""

    @property
    def retry_topic(self) -> str | None:
        """A name, or a pattern; None: there is none."""

    @property
    def dead_letter(self) -> str | None:
        """A name; None: there is none."""

    @property
    def formerly(self) -> Sequence[str]:
        """Other names under which copies may name where their message stood first."""


@dataclass(frozen=True, slots=True)
class EntryNames:
    """Names and nothing else."""

    topic: str
    retry_topic: str | None
    dead_letter: str | None
    formerly: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """What a topic is to a consumer."""

    route: int  # index of the entry; in a retry topic, of the one that has what says nothing of its origin
    users: tuple[int, ...] = ()  # the entries whose retry topic it is; none: a base topic

    @property
    def is_retry(self) -> bool:
        return bool(self.users)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a topic is not clearly one entry's."""

    field: str  # of the configuration, as a ConfigError names it
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} {self.value!r} {self.remedy}"


class _Pattern:
    """A name or a pattern."""

    __slots__ = ("_expression", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._expression = re.compile(text) if is_pattern(text) else None

    def matches(self, name: str) -> bool:
        return self.text == name if self._expression is None else self._expression.search(name) is not None

    @property
    def is_name(self) -> bool:
        return self._expression is None


class Routing:
    """Answers from names alone. Not thread-safe: whoever needs one makes one."""

    def __init__(self, entries: Sequence[Names]) -> None:
        self._entries = tuple(entries)
        self._topics = tuple(_Pattern(entry.topic) for entry in self._entries)
        self._retries = tuple(
            None if entry.retry_topic is None else _Pattern(entry.retry_topic) for entry in self._entries
        )
        self._dead = frozenset(entry.dead_letter for entry in self._entries if entry.dead_letter)
        self._roles: dict[str, Role | Conflict | None] = {}
        self._origins: dict[tuple[str, str], int | None] = {}

    @property
    def names(self) -> frozenset[str]:
        """All topics that stand in the entries by name, dead-letter topics among them."""
        read = {one.text for one in (*self._topics, *self._retries) if one is not None and one.is_name}
        return frozenset(read | self._dead)

    @property
    def has_names(self) -> bool:
        """Whether any topic that is read stands in the entries by name."""
        return any(one is not None and one.is_name for one in (*self._topics, *self._retries))

    def role(self, topic: str) -> Role | None:
        """What ``topic`` is; None: not clearly one entry's, so nothing of it is to be run."""
        found = self._look_up(topic)
        return found if isinstance(found, Role) else None

    def conflict(self, topic: str) -> Conflict | None:
        """Why entries stand in each other's way about ``topic``; None also where it is nobody's."""
        found = self._look_up(topic)
        return found if isinstance(found, Conflict) else None

    def unclear(self, topic: str) -> str | None:
        """Why nothing of ``topic``, which the client was given, is read; None: it is read, or is Kafka's own."""
        found = self._look_up(topic)
        if isinstance(found, Conflict):
            return str(found)
        if found is not None or topic in INTERNAL_TOPICS:
            return None
        return "the Kafka client finds a pattern in its name that Python's re does not find; write the pattern plainer"

    def first_conflict(self) -> Conflict | None:
        """Why the entries cannot stand together, as far as names alone show."""
        return next(filter(None, map(self.conflict, sorted(self.names))), None)

    def is_retry_topic(self, topic: str) -> bool:
        role = self.role(topic)
        return role is not None and role.is_retry

    def of_origin(self, retry_topic: str, origin: str) -> int | None:
        """The entry of a copy in ``retry_topic`` whose first record stood in ``origin``; None: nobody's."""
        key = (retry_topic, origin)
        if key not in self._origins:
            if len(self._origins) >= REMEMBERED_ORIGINS:
                self._origins.clear()
            self._origins[key] = self._of_origin(retry_topic, origin)
        return self._origins[key]

    def retry_target(self, route: int, read_from: str) -> str | None:
        """Where the next attempt's copy of a message goes that was read from this topic; None: nowhere."""
        retry = self._retries[route]
        if retry is None or retry.is_name:
            return None if retry is None else retry.text
        role = self.role(read_from)
        return read_from if role is not None and route in role.users else None

    # Inside ------------------------------------------------------------------------------------------------------------

    def _look_up(self, topic: str) -> Role | Conflict | None:
        if topic not in self._roles:
            self._roles[topic] = None if topic in INTERNAL_TOPICS else self._decide(topic)
        return self._roles[topic]

    def _decide(self, topic: str) -> Role | Conflict | None:
        bases = tuple(index for index, one in enumerate(self._topics) if one.matches(topic))
        users = tuple(
            index for index, one in enumerate(self._retries) if one is not None and one.matches(topic)
        )
        if not bases and not users:
            return None
        conflict = self._conflict(topic, bases, users)
        if conflict is not None:
            return conflict
        return Role(users[0], users) if users else Role(bases[0])

    def _conflict(self, topic: str, bases: Sequence[int], users: Sequence[int]) -> Conflict | None:
        base_patterns = [self._topics[index].text for index in bases if not self._topics[index].is_name]
        retries = [one for one in (self._retries[index] for index in users) if one is not None]
        retry_patterns = [one.text for one in retries if not one.is_name]
        if users and base_patterns:
            return Conflict(
                "Topic.name",
                base_patterns[0],
                f"matches {topic!r}, which is a retry topic: its copies would run as new messages; make the pattern"
                " narrower, or name the retry topic otherwise",
            )
        if users and bases:
            named = retry_patterns[0] if retry_patterns else topic
            return Conflict(
                "Retry.topic",
                named,
                f"takes in {topic!r}, which is handled as a topic of its own; give retries another one",
            )
        if topic in self._dead and base_patterns:
            return Conflict(
                "Topic.name",
                base_patterns[0],
                f"matches {topic!r}, which is a dead-letter topic: dead letters would run again; make the pattern"
                " narrower, or name the dead-letter topic otherwise",
            )
        if topic in self._dead and retry_patterns:
            return Conflict(
                "Retry.topic",
                retry_patterns[0],
                f"matches {topic!r}, which is a dead-letter topic: dead letters would run again; make the pattern"
                " narrower, or name the dead-letter topic otherwise",
            )
        if len(bases) > 1:
            others = ", ".join(repr(self._topics[index].text) for index in bases[1:])
            return Conflict(
                "Topic.name",
                base_patterns[0] if base_patterns else topic,
                f"takes in {topic!r}, and so does {others}: which entry is to handle it cannot be told; make the"
                " patterns narrower",
            )
        dead_letters = {self._entries[index].dead_letter for index in users}
        if len(dead_letters) > 1:
            return Conflict(
                "Retry.topic",
                retry_patterns[0] if retry_patterns else topic,
                f"takes in {topic!r} for entries with different dead-letter topics; give them the same one, or retry"
                " topics of their own",
            )
        return None

    def _of_origin(self, retry_topic: str, origin: str) -> int | None:
        role = self.role(retry_topic)
        if role is None or not role.is_retry:
            return None
        if origin == retry_topic:  # a job that was sent there: it says nothing of an origin
            return role.route
        found = [index for index in role.users if self._topics[index].matches(origin)]
        if not found:
            found = [index for index in role.users if origin in self._entries[index].formerly]
        return found[0] if len(found) == 1 else None


def is_pattern(name: str) -> bool:
    """Whether it is a regular expression rather than a topic's name."""
    return name.startswith("^")
