"""How a command ends: its exit code, and the one line that says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from retriable_kafka_client.errors import ConfigError, NotReachable, RetriableKafkaError

__all__ = ["Code", "CommandFailed", "exits"]


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
def exits() -> Iterator[None]:
    """Turn what the library raises into one line on stderr and an exit code; anything else passes."""
    try:
        yield
    except CommandFailed as error:
        _end(error.code, str(error))
    except ConfigError as error:
        _end(Code.USAGE, str(error))
    except NotReachable as error:
        _end(Code.UNREACHABLE, str(error))
    except RetriableKafkaError as error:
        _end(Code.FAILED, str(error))


def _end(code: Code, text: str) -> None:
    print("rkc: " + " ".join(text.split()), file=sys.stderr)
    raise SystemExit(int(code))
