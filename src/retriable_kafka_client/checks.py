"""Checks of single values: each returns what it was given, or raises ConfigError about the field that it
names.
"""

from __future__ import annotations

import re

from retriable_kafka_client.errors import ConfigError

__all__ = ["MAX_INT32", "check_topic_name", "instance", "integer", "number", "set_fields", "text"]

MAX_INT32 = 2**31 - 1

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_topic_name(field_name: str, name: object) -> str:
    """Return ``name`` if Kafka takes it as a topic's name; else ConfigError about ``field_name``."""
    if not isinstance(name, str) or _TOPIC_NAME.fullmatch(name) is None or name in (".", ".."):
        remedy = 'must be a topic name: 1 to 249 of a-z A-Z 0-9 . _ -, and not "." or ".."'
        raise ConfigError(field_name, name, remedy)
    return name


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
