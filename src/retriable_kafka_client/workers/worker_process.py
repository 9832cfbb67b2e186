"""One worker process as its parent sees it."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from retriable_kafka_client.workers.worker_main import PROCESS_NAME, Board, InitializerFailed, serve

__all__ = ["MAIN_GUARD", "WorkerEnded", "WorkerProcess"]

_LOOK_SECONDS = 1.0  # how often to ask for the process itself, should others hold its pipes open
_GRACE_SECONDS = 5.0  # for a worker that is to end by itself
_LOCK_SECONDS = 0.005  # a worker holds the lock for a microsecond, or it is dead or stopped

MAIN_GUARD = (
    "A program that uses a ProcessExecutor must start its consumers under `if __name__ == '__main__':`,"
    " because every worker process imports the main module"
)


class WorkerEnded(Exception):
    """The worker process is gone. ``hopeless``: the next one would end the same way."""

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


class WorkerProcess:
    """A worker process, its pipe, and the memory and lock that it shares. One keeper thread owns it.

    ``claimed``, ``done`` and ``sent`` may be read, and ``recall`` called, from any thread.
    """

    def __init__(self, initializer: Callable[[], object] | None) -> None:
        context = multiprocessing.get_context("spawn")  # never fork: librdkafka's threads do not survive it
        self._connection, theirs = context.Pipe()
        self._lock = context.Lock()
        self._board: Any = context.RawArray(ctypes.c_longlong, Board.SIZE)
        # Not daemonic, so that handlers may start processes. The pool ends it; once this process is gone, it ends itself.
        self._process = context.Process(
            target=serve, args=(theirs, self._lock, self._board, initializer), name=PROCESS_NAME, daemon=False
        )
        try:
            self._process.start()
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()

    def check(self) -> None:
        """Raises WorkerEnded if the process has ended."""
        if not self._process.is_alive():
            raise WorkerEnded(self._epitaph())

    def await_ready(self) -> None:
        """Wait until the worker can take work. Raises WorkerEnded."""
        try:
            reply = self.receive()
        except WorkerEnded as ended:
            raise WorkerEnded(
                f"{ended} before it was ready; what it printed on stderr says why. {MAIN_GUARD}"
            ) from ended
        if isinstance(reply, InitializerFailed):
            text = f"its initializer raised {reply.error}; the traceback stands on stderr"
            raise WorkerEnded(text, hopeless=True)

    def begin(self, count: int) -> None:
        """Prepare for a batch of ``count``. Only while the worker has nothing to do."""
        board = self._board
        board[Board.CLAIMED] = board[Board.DONE] = board[Board.SENT] = 0
        board[Board.LIMIT] = count

    def send(self, order: object) -> None:
        """Raises WorkerEnded. Waits while the worker does not read."""
        try:
            self._connection.send(order)
        except OSError as error:
            raise WorkerEnded(self._epitaph()) from error

    def receive(self) -> Any:
        """The worker's next word. Raises WorkerEnded once it is gone and everything it said is read."""
        connection, process = self._connection, self._process
        try:
            while True:
                ready = wait([connection, process.sentinel], _LOOK_SECONDS)
                ended = process.sentinel in ready or not process.is_alive()
                if connection in ready or (ended and connection.poll()):
                    return connection.recv()
                if ended:
                    break
        except Exception as error:  # EOF, or what a handler's own writing into the pipe made of it
            raise WorkerEnded(self._epitaph()) from error
        raise WorkerEnded(self._epitaph())

    @property
    def claimed(self) -> int:
        """Messages of the batch that were begun."""
        return int(self._board[Board.CLAIMED])

    @property
    def done(self) -> int:
        """Messages of the batch that ended. Read it before ``sent``."""
        return int(self._board[Board.DONE])

    @property
    def sent(self) -> int:
        """Outcomes sent."""
        return int(self._board[Board.SENT])

    def recall(self) -> int | None:
        """Let the worker begin no further message of the batch; returns how many it has begun.

        None: the worker holds the lock and does not let go, because it was stopped or killed at that instant.
        """
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return None
        try:
            claimed = self.claimed
            self._board[Board.LIMIT] = claimed
        finally:
            self._lock.release()
        return claimed

    def kill(self) -> None:
        """End the process at once. Any thread."""
        self._process.kill()

    def disown(self) -> None:
        """This is a forked child, and the process is none of its own: multiprocessing would wait for it at the end."""
        getattr(multiprocessing.process, "_children", set()).discard(self._process)

    def end(self) -> None:
        """Let the worker end by itself, and kill it after a few seconds."""
        self._connection.close()
        self._process.join(_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        # No close(): when the interpreter ends, multiprocessing may be joining it at this moment.

    def _epitaph(self) -> str:
        self._process.join(_GRACE_SECONDS)
        code = self._process.exitcode
        if code is None:
            return "a worker process hung up"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"a worker process {how}"
