"""How a command ends: its exit code, and the one line that says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from confluent_kafka import KafkaError, KafkaException

from retriable_kafka_client.errors import ConfigError, RetriableKafkaError

__all__ = ["Code", "CommandFailed", "told"]

_SILENT = frozenset({"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "_RESOLVE"})


class Code(IntEnum):
    """What the shell gets."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # the command line or the configuration is wrong: starting it again changes nothing
    UNREACHABLE = 3


class CommandFailed(Exception):
    """Ends the command with ``code``; ``text`` is for the user."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def told() -> Iterator[None]:
    """Turn what the library raises into one line on stderr and an exit code; anything else passes."""
    try:
        yield
    except CommandFailed as error:
        _end(error.code, str(error))
    except ConfigError as error:
        _end(Code.USAGE, str(error))
    except RetriableKafkaError as error:
        _end(Code.UNREACHABLE if _unreachable(error) else Code.FAILED, str(error))


def _end(code: Code, text: str) -> None:
    print("rkc: " + " ".join(text.split()), file=sys.stderr)
    raise SystemExit(int(code))


def _unreachable(error: RetriableKafkaError) -> bool:
    """Whether nobody answered, rather than somebody refused."""
    cause = error.__cause__
    if not isinstance(cause, KafkaException) or "AUTHENTICATION" in str(error):
        return False
    reason = cause.args[0]
    return isinstance(reason, KafkaError) and str(reason.name()) in _SILENT
