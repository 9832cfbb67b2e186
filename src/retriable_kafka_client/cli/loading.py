"""From `MODULE:CONSUMER` on the command line to the Consumer that it names."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from retriable_kafka_client import Consumer
from retriable_kafka_client.cli.ending import Code, CommandFailed
from retriable_kafka_client.errors import RetriableKafkaError

__all__ = ["load_consumers"]


def load_consumers(targets: Sequence[str]) -> list[Consumer]:
    """Import what ``targets`` name, also from the current directory.

    Raises CommandFailed for what cannot be found or is no Consumer, and what the modules raise of the library's own.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    consumers: list[Consumer] = []
    for target in targets:
        consumer = _load(target)
        if any(consumer is other for other in consumers):
            raise CommandFailed(Code.USAGE, f"{target}: is named twice; a consumer runs once")
        consumers.append(consumer)
    return consumers


def _load(target: str) -> Consumer:
    name, colon, path = target.partition(":")
    if not colon or not name or not path or name.startswith("."):
        raise CommandFailed(
            Code.USAGE, f"{target}: must be MODULE:CONSUMER, as in billing:consumer or shop.billing:consumer"
        )
    found: object = _import(name)
    for step in path.split("."):
        if not hasattr(found, step):
            raise CommandFailed(Code.USAGE, f"{target}: {name} has no {path}{_offer(found)}")
        found = getattr(found, step)
    if not isinstance(found, Consumer):
        kind = type(found).__name__
        raise CommandFailed(Code.USAGE, f"{target}: is a {kind} and not a Consumer")
    return found


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except RetriableKafkaError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CommandFailed(
                Code.USAGE,
                f"no module named {name!r}, neither in the current directory nor among what is installed",
            ) from None
        raise CommandFailed(Code.FAILED, _import_failure(name, error)) from error
    except Exception as error:
        raise CommandFailed(Code.FAILED, _import_failure(name, error)) from error


def _import_failure(name: str, error: Exception) -> str:
    """What went wrong in a module, with the place: the module is the user's, and so is the mistake."""
    frames = list(traceback.extract_tb(error.__traceback__))
    here = os.getcwd()
    frames = [frame for frame in frames if frame.filename.startswith(here)] or frames
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"importing {name} failed: {type(error).__name__}: {error}{place}"


def _offer(module: object) -> str:
    names = (
        [name for name, value in vars(module).items() if isinstance(value, Consumer)]
        if hasattr(module, "__dict__")
        else []
    )
    return f"; it has {', '.join(names)}" if names else ""
