"""What a client calls from its own threads: its log and callbacks, which may neither raise nor show a secret."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError

from retriable_kafka_client.brokers.client_settings import is_secret
from retriable_kafka_client.user_functions.interrupts import is_from_signal

__all__ = ["ClientLog", "OnError", "guard", "guard_oauth", "redacting", "without_secrets"]

OnError = Callable[[KafkaError], None]

log = logging.getLogger("retriable_kafka_client.client")

_LEAST_WORD = 4  # characters: shorter words of a secret stand in too many texts


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """Return ``text`` with the values of secret settings taken out, and the words in them: the client may show a part."""
    for name, value in settings.items():
        if is_secret(name) and isinstance(value, str) and value:
            words = [word.rpartition("=")[2] for word in value.split()]
            for part in (value, *(word for word in words if len(word) >= _LEAST_WORD)):
                text = text.replace(part, "(not shown)")
    return text


class ClientLog:
    """Takes librdkafka's log lines into the logging module; never raises.

    A broker outage repeats the same few lines up to twenty times a second: of each kind one line in
    ``interval`` seconds keeps its level, the others go to DEBUG. Any of the client's threads may call.
    """

    def __init__(
        self,
        target: logging.Logger,
        *,
        interval: float = 60.0,
        highest: int = logging.CRITICAL,
        clock: Callable[[], float] = time.monotonic,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings or {}  # what is secret in them is shown at no level
        self._target = target
        self._highest = highest
        self._interval = interval
        self._clock = clock
        self._next: dict[object, float] = {}  # kind of line -> when it may stand out again; a few dozen kinds

    def log(self, level: int, message: str, *args: object) -> None:
        """Log one line; the client gives its kind ("FAIL"), the client's name and the text as ``args``."""
        try:
            shown = (without_secrets(arg, self._settings) if isinstance(arg, str) else arg for arg in args)
            self._target.log(self._level(level, args), message, *shown)
        except BaseException as error:
            if is_from_signal(error):
                raise
            log.error("the logger of the Kafka client raised %s", _where(error))

    def _level(self, level: int, args: tuple[object, ...]) -> int:
        kind = args[0] if args else ""
        text = str(args[-1]) if args else ""
        # Every client is given the cluster's settings, and says of each that is for another kind of client.
        if kind == "CONFWARN" and "will be ignored by this" in text:
            return logging.DEBUG
        level = min(level, self._highest)
        now = self._clock()
        if now < self._next.get(kind, now):
            return min(level, logging.DEBUG)
        self._next[kind] = now + self._interval
        return level


def redacting(on_error: OnError | None, settings: Mapping[str, Any]) -> OnError | None:
    """Wrap ``on_error``: the text of an error is shown to users, and may hold a part of a secret setting."""
    if on_error is None:
        return None

    def redacted(error: KafkaError) -> None:
        text = without_secrets(error.str(), settings)
        on_error(KafkaError(error.code(), text, fatal=error.fatal(), retriable=error.retriable()))

    return redacted


def _where(error: BaseException) -> str:
    """An exception's type and where it was raised: its text may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__qualname__}{place}"


def guard(name: str, callback: Callable[[Any], object]) -> Callable[[Any], None]:
    """Wrap a callback: an exception out of one, within consume(), would throw that call's messages away."""

    def guarded(report: Any) -> None:
        try:
            callback(report)
        except BaseException as error:
            if is_from_signal(error):
                raise
            log.error("the callback %s in Cluster.settings raised %s", name, _where(error))

    return guarded


def guard_oauth(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap a token callback. Here an exception is the way to say no: the client notes the failure and asks
    again.

    What it must not be given is anything but the tuple that it expects.
    """

    def guarded(config: Any) -> Any:
        try:
            answer = callback(config)
            if (
                not isinstance(answer, tuple)
                or len(answer) not in (2, 3, 4)
                or not isinstance(answer[0], str)
            ):
                raise TypeError(
                    "oauth_cb must return a tuple: token, expiry, and optionally principal, extensions"
                )
            return answer[0], float(answer[1]), *answer[2:]
        except BaseException as error:
            # The exception's text may hold the token.
            log.error("the callback oauth_cb in Cluster.settings failed: %s", type(error).__name__)
            if isinstance(error, Exception) or is_from_signal(error):
                raise
            raise RuntimeError(f"oauth_cb raised {type(error).__name__}") from None

    return guarded
