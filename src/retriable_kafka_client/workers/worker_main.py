"""The worker process's side of the ProcessExecutor, and what the two sides say to each other."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import current_process, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Lock
from typing import Any

from retriable_kafka_client.core.protocol import Outcome
from retriable_kafka_client.user_functions.results import refuse_unfinished
from retriable_kafka_client.workers.job import (
    ENOUGH_BYTES,
    HandlerSpec,
    Item,
    load,
    run_item,
    sent_bytes,
)

__all__ = [
    "PROCESS_NAME",
    "Board",
    "Call",
    "InitializerFailed",
    "OutcomeSent",
    "Raised",
    "Ready",
    "Returned",
    "RunSlice",
    "SliceFinished",
    "Unloadable",
    "being_imported_by_worker",
    "serve",
]

PROCESS_NAME = "rkc-worker-process"
_WATCH_SECONDS = 1.0


class Board:
    """Places in the memory that a worker shares with its parent; their values are those of the current batch.

    CLAIMED and LIMIT change under the lock: the worker may begin a message only below LIMIT, and the parent
    takes the rest back by lowering LIMIT to CLAIMED. SENT and DONE are the worker's: it sends what came of a
    message, unless that is a plain success, then counts it in SENT, then the message in DONE. So whoever reads
    DONE, then SENT, and has received SENT outcomes, knows how every message below DONE ended. After a death,
    the messages from DONE to CLAIMED (one at most) are in doubt.
    """

    CLAIMED = 0
    LIMIT = 1
    DONE = 2
    SENT = 3
    SIZE = 4


# Parent to worker -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunSlice:
    """Work a slice off. Answered by OutcomeSent … SliceFinished, or by Unloadable."""

    pickled_spec: bytes
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function; ``pickled`` is (function, args, kwargs). Answered by Returned or Raised."""

    pickled: bytes


# Worker to parent -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """Up, and the initializer is through."""


@dataclass(frozen=True, slots=True)
class InitializerFailed:
    """The last word of a worker whose initializer raised."""

    error: str  # the exception's type; where it was raised stands on the worker's stderr


@dataclass(frozen=True, slots=True)
class OutcomeSent:
    """Message ``index`` of the batch failed, or sent something; reported as soon as it has ended."""

    index: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SliceFinished:
    """The batch is worked off, up to LIMIT, or so far that enough has been sent: see ENOUGH_BYTES."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Unloadable:
    """The handler's module cannot be imported in the worker, or the like; the batch was not begun."""

    error: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What a call returned."""

    pickled: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """What a call raised."""

    pickled: bytes


_serving = False


def being_imported_by_worker() -> bool:
    """Whether this code runs because a new worker process imports the program's main module."""
    return current_process().name == PROCESS_NAME and not _serving


def serve(connection: Connection, lock: Lock, board: Any, initializer: Callable[[], object] | None) -> None:
    """Work off what the parent sends until it hangs up or ends. The worker process's main function."""
    global _serving  # noqa: PLW0603 - one for each process, as it should be
    _serving = True
    # The parent decides when to end: a Ctrl-C in the terminal, or a service manager, signals the whole group.
    # No SIG_IGN, which programs that a handler starts would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _left_to_the_parent)
    threading.Thread(target=_end_with_parent, name="rkc-watch-parent", daemon=True).start()
    try:
        if not _initialized(connection, initializer):
            return
        connection.send(Ready())
        while True:
            order = connection.recv()
            if isinstance(order, RunSlice):
                _work_off(order, connection, lock, board)
            else:
                connection.send(_called(order))
            del order  # a worker that waits keeps no payload alive
    except (EOFError, OSError):
        return  # the parent hung up


def _left_to_the_parent(_number: int, _frame: object) -> None:
    pass


def _end_with_parent() -> None:
    """End this process with its parent even while a handler runs: nobody hears what comes of it."""
    parent, pid = parent_process(), os.getppid()
    assert parent is not None
    # A process that the parent forked may hold the sentinel open. Where the system gives orphans another parent, getppid()
    # shows it all the same.
    while not wait([parent.sentinel], _WATCH_SECONDS) and os.getppid() == pid:
        pass
    os._exit(1)


def _initialized(connection: Connection, initializer: Callable[[], object] | None) -> bool:
    try:
        if initializer is not None:
            refuse_unfinished(initializer(), "the initializer")
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the parent gets to know it
        _print_without_text(error)
        connection.send(InitializerFailed(type(error).__qualname__))
        return False
    return True


def _print_without_text(error: BaseException) -> None:
    """Where it was raised, on stderr. Its text may hold a secret, unless it is about what cannot be imported."""
    text = f": {error}" if isinstance(error, ImportError | AttributeError) else ""
    trace = "".join(traceback.format_tb(error.__traceback__))
    sys.stderr.write(f"Traceback:\n{trace}{type(error).__qualname__}{text}\n")
    sys.stderr.flush()


def _work_off(batch: RunSlice, connection: Connection, lock: Lock, board: Any) -> None:
    started = time.monotonic()
    try:
        spec: HandlerSpec = load(batch.pickled_spec)
    except BaseException as error:  # noqa: BLE001 - importing a module can raise anything
        _print_without_text(error)
        connection.send(Unloadable(type(error).__qualname__))
        return
    sent = 0
    for index, item in enumerate(batch.items):
        with lock:
            if index >= board[Board.LIMIT]:
                break
            board[Board.CLAIMED] = index + 1
        outcome = run_item(item, spec)
        if outcome is not None:
            connection.send(OutcomeSent(index, outcome))
            board[Board.SENT] += 1
        board[Board.DONE] = index + 1
        sent += sent_bytes(outcome)
        if sent > ENOUGH_BYTES:
            break
    connection.send(SliceFinished(time.monotonic() - started))


def _called(call: Call) -> Returned | Raised:
    try:
        function, args, kwargs = pickle.loads(call.pickled)  # noqa: S301 - from our own parent
        return Returned(pickle.dumps(function(*args, **kwargs)))
    except BaseException as error:  # noqa: BLE001 - it belongs to the future
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # noqa: S301 - some exceptions pickle, but cannot be unpickled
        except BaseException:  # noqa: BLE001 - whatever a foreign __reduce__ or __init__ raises
            pickled = pickle.dumps(RuntimeError(f"the call raised {type(error).__qualname__}"))
        return Raised(pickled)
