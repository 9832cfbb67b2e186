"""Checks of single values: each returns what it was given, or raises ConfigError about the field that it
names.
"""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import TypeVar

from retriable_kafka_client.errors import ConfigError

__all__ = [
    "MAX_INT32",
    "check_topic",
    "check_topic_name",
    "instance",
    "integer",
    "number",
    "sealed",
    "set_fields",
    "text",
]

MAX_INT32 = 2**31 - 1

_ESCAPE = re.compile(r"\\[a-zA-Z0-9]")
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_topic_name(field_name: str, name: object) -> str:
    """Return ``name`` if Kafka takes it as a topic's name; else ConfigError about ``field_name``."""
    if not isinstance(name, str) or _TOPIC_NAME.fullmatch(name) is None or name in (".", ".."):
        remedy = 'must be a topic name: 1 to 249 of a-z A-Z 0-9 . _ -, and not "." or ".."'
        raise ConfigError(field_name, name, remedy)
    return name


def check_topic(field_name: str, name: object) -> str:
    """Return ``name`` if it is a topic's name, or a pattern (it begins with "^") that everybody reads alike.

    The classic protocol has the client's POSIX expressions, the new one the broker's RE2, and we have Python's: what these
    read differently would be found out by a topic that is missed.
    """
    if not isinstance(name, str) or not name.startswith("^"):
        return check_topic_name(field_name, name)
    if not (name.isascii() and name.isprintable()):
        raise ConfigError(field_name, name, "a regular expression for topics must be printable ASCII")
    if "(?" in name:
        raise ConfigError(
            field_name, name, 'Kafka clients have no groups that begin with "(?"; use plain (…)'
        )
    if "[:" in name or "[[" in name:
        raise ConfigError(field_name, name, "write ranges such as [0-9] or [a-z] for classes of characters")
    for found in _ESCAPE.finditer(name):
        if found[0] != "\\w" or _in_brackets(name, found.start()):
            remedy = f"Kafka clients do not read {found[0]} as Python does; write [0-9] for \\d, [a-zA-Z0-9_] for \\w"
            raise ConfigError(field_name, name, remedy)
    try:
        re.compile(name)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(field_name, name, f"is no regular expression: {error}") from None
    return name


def _in_brackets(pattern: str, at: int) -> bool:
    start = pattern.rfind("[", 0, at)
    return start >= 0 and "]" not in pattern[start + 2 : at]


Kind = TypeVar("Kind", bound=type)


def sealed(kind: Kind) -> Kind:
    """Let a frozen, slotted dataclass refuse names that are no fields of it as it refuses its fields.

    Its own check calls ``super()`` of the class that ``slots=True`` has replaced, which is a TypeError.
    """

    def refuse(_self: object, name: str, *_value: object) -> None:
        raise FrozenInstanceError(f"cannot change {name!r}: a {kind.__name__} never changes")

    for name in ("__setattr__", "__delattr__"):
        setattr(kind, name, refuse)
    return kind


def set_fields(target: object, **values: object) -> None:
    """Set the fields of a frozen dataclass from within its own constructor."""
    for name, value in values.items():
        object.__setattr__(target, name, value)


def text(field_name: str, value: object, *, secret: bool = False) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(field_name, value, "must be a text that is not empty", secret=secret)
    return value


def integer(field_name: str, value: object, low: int, high: int, high_name: str = "") -> int:
    """A whole number within the bounds; ``high_name`` says what the upper one is. A bool is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        most = f"{high_name}, which is {high}" if high_name else str(high)
        raise ConfigError(field_name, value, f"must be a whole number from {low} to {most}")
    return value


def number(field_name: str, value: object, low: float, high: float) -> float:
    """A finite number within the bounds. A bool is none."""
    # The comparison also refuses NaN.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(field_name, value, f"must be a number from {low:g} to {high:g}")
    return float(value)


def instance(field_name: str, value: object, kind: type, remedy: str, *, optional: bool = False) -> None:
    """An instance of ``kind``."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise ConfigError(field_name, value, remedy)
