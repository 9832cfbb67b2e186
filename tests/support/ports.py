"""TCP ports on 127.0.0.1 that stay ours until the process ends."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

from tests.support.errors import HarnessError

__all__ = ["PortLease"]

FIRST, LAST = 18_000, 32_000
"""Below Linux's ephemeral range (from 32768): no outgoing connection takes a port while a broker is down."""


class PortLease:
    """Free ports, held by file locks against every other test run on the machine until `close()`.

    The ports themselves are not bound: a broker binds them, is killed, and binds them again.
    """

    def __init__(self, count: int) -> None:
        self.ports: list[int] = []
        self._locks: list[int] = []
        folder = Path(tempfile.gettempdir()) / f"retriable-kafka-client-ports-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for port in random.sample(range(FIRST, LAST), k=2000):
            if len(self.ports) == count:
                return
            lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
            if self._take(lock, port):
                self.ports.append(port)
                self._locks.append(lock)
            else:
                os.close(lock)
        self.close()
        raise HarnessError(f"no {count} free ports between {FIRST} and {LAST}")

    @staticmethod
    def _take(lock: int, port: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with socket.socket() as probe:
            # As a broker binds: connections that linger in TIME_WAIT do not make a port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Let go of the ports."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()
