"""What the client calls from within a poll: callbacks that never raise, and do nothing once the client is being closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException

from retriable_kafka_client.core.protocol import Place

__all__ = ["Callbacks"]

OnPartitions = Callable[[Sequence[Place]], None]


class Callbacks:
    """The callbacks of one client.

    A callback that raises would make the client throw away the records of its poll. So the exception is kept, and the loop
    raises it after the poll. All of this happens on the loop's thread, but for the callbacks of a client that is being
    closed: those may come on the thread that closes it.
    """

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._failure: BaseException | None = None  # the last one

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Return ``callback`` as one that never raises."""

        def call(*args: Any) -> None:
            if self._closing.is_set():
                return
            try:
                callback(*args)
            except BaseException as error:  # noqa: BLE001 - raised by `raise_failure`
                self._failure = error

        return call

    def of_rebalance(self, act: OnPartitions, settle: OnPartitions) -> Callable[..., None]:
        """Return ``act`` as a guarded callback of rebalances. Once the client is being closed, ``settle`` is called instead:
        it only gives the client the answer that it waits for.
        """
        act = self.guarded(act)

        def call(_client: Any, partitions: Sequence[Any]) -> None:
            places = [Place(one.topic, one.partition) for one in partitions]
            if self._closing.is_set():
                with suppress(KafkaException, RuntimeError):
                    settle(places)
            else:
                act(places)

        return call

    def raise_failure(self) -> None:
        """Raise what a callback would have raised. Outside polls."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """The client is about to be closed: no callback may reach the core from now on."""
        self._closing.set()
