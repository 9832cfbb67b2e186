"""One Kafka for all parallel workers of a test run (pytest-xdist): the process that reports starts it when one asks."""

import threading
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path

from tests.support.errors import HarnessError
from tests.support.kafka import KafkaCluster

__all__ = ["SharedKafka", "ask"]

END = "end"


class SharedKafka:
    """Belongs to the process that reports. `close()` ends the cluster, if any worker has asked for it."""

    def __init__(self) -> None:
        self._listener = Listener(family="AF_UNIX")  # in a folder that this user alone can enter
        self._cluster: KafkaCluster | None = None
        self._thread = threading.Thread(target=self._serve, name="shared kafka", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What a worker gives `ask`."""
        return str(self._listener.address)

    def _serve(self) -> None:
        while True:
            # A worker may die while it waits for the answer.
            with self._listener.accept() as worker, suppress(EOFError, OSError):
                if worker.recv() == END:
                    return
                worker.send(self._answer())

    def _answer(self) -> str | Exception:
        try:
            if self._cluster is None:
                self._cluster = KafkaCluster().start()
        except Exception as error:  # noqa: BLE001 - the worker that asked raises it
            return HarnessError(str(error))
        return self._cluster.bootstrap_servers

    def close(self, *, keep_logs: bool = False) -> Path | None:
        """The folder of the broker's log, if it was to be kept and there is one."""
        with Client(self.address) as me:
            me.send(END)
        self._thread.join()
        self._listener.close()
        if self._cluster is None:
            return None
        self._cluster.close(keep_logs=keep_logs)
        return self._cluster.log_dir if keep_logs else None


def ask(address: str) -> str:
    """For a worker: the shared cluster's bootstrap servers; it is started when nobody has asked before."""
    with Client(address) as owner:
        owner.send("servers")
        answer = owner.recv()
    if isinstance(answer, Exception):
        raise answer
    return str(answer)
