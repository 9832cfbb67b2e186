"""Transactions, from the loop's side: it gives one Transact at a time to a thread, whose calls block, and takes one answer.

Every answer is certain: where it is not known whether a commit came through, a new producer ends what the old one left
open, and then the offsets that the group has committed show it. Only the end of the consumer does not wait for that:
``give_up`` then answers that nobody knows.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka.admin import AdminClient

from retriable_kafka_client.brokers.client import transaction_settings
from retriable_kafka_client.brokers.group_offsets import GroupOffsets
from retriable_kafka_client.brokers.reachability import AskBrokers
from retriable_kafka_client.brokers.setting_values import transaction_seconds
from retriable_kafka_client.config import Cluster
from retriable_kafka_client.core.protocol import Transact, Transacted
from retriable_kafka_client.errors import ConsumerFailed, NotReachable
from retriable_kafka_client.sending.batching import BatchLimits
from retriable_kafka_client.transactions.transaction_thread import (
    Found,
    Job,
    Means,
    TransactionThread,
    is_refusal,
)

__all__ = ["Transactor"]

log = logging.getLogger("retriable_kafka_client")


# Of the time for the first producer: after that, another client is asked whether any broker answers.
ASK_SHARE = 0.3

# Until a call that does not come back is given up: longer than all time-outs of one transaction.
STUCK_SECONDS = 40.0


class Transactor:
    """The loop's thread calls it. ``begin`` starts the thread of transactions, and waits for it; ``send`` and ``poll`` never
    block.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        *,
        offsets: GroupOffsets,
        limits: BatchLimits,
        admin: Callable[[], AdminClient],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        name = f"{group}-{secrets.token_hex(8)}"
        self._means = Means(
            group=group,
            id=name,
            settings=transaction_settings(cluster, name),
            longer=lambda seconds: transaction_settings(cluster, name, seconds=seconds),
            offsets=offsets,
            limits=limits,
            admin=admin,
            wake=wake,
            clock=clock,
        )
        self._servers = cluster.bootstrap_servers
        self._thread = TransactionThread(self._means)
        self._in_flight: Transact | None = None
        self._since: float | None = None  # monotonic; when the Transact in flight was given

    @property
    def problem(self) -> str | None:
        """Why no transaction can begin at present."""
        return self._thread.problem

    def begin(self, timeout: float, stopped: Callable[[], bool], ask: AskBrokers) -> None:
        """Start, and wait until transactions are possible. Raises ConsumerFailed: they are refused, or no broker answers for
        ``timeout`` seconds. ``ask`` asks the brokers with another client: the coordinator alone may hang.
        """
        thread = self._thread
        thread.start()
        began = heard_at = ask_at = time.monotonic()
        question: Future[Any] | None = None
        warned = False
        while not thread.ready.wait(0.05) and not stopped():
            self._raise()
            refused = thread.refused
            if refused is not None and is_refusal(refused):
                raise ConsumerFailed(
                    f"the brokers refuse transactional id {self._means.id!r}: {refused.name()}"
                )
            now = time.monotonic()
            if question is None and now >= ask_at + timeout * ASK_SHARE:
                question, ask_at = ask(), now
            elif question is not None and question.done():
                heard_at = now if question.exception() is None else heard_at
                question = None
            silent = f"no transaction coordinator of {self._servers} answers"
            code = "_TIMED_OUT" if refused is None else refused.name()
            if now >= heard_at + timeout:
                raise NotReachable(f"{silent}: {code}")
            if now >= began + timeout and not warned:
                warned = True
                log.error(
                    "group %s: %s, and other brokers do: %s; it keeps trying. Look whether the brokers that have the"
                    " partitions of the topic __transaction_state are up, and whether they could make it"
                    " (transaction.state.log.replication.factor is at most their number)",
                    self._means.group,
                    silent,
                    code,
                )
        self._raise()

    @property
    def asks_since(self) -> float | None:
        """When its thread asked about topics, while there is no answer (monotonic)."""
        return self._thread.asks_since

    @property
    def busy(self) -> bool:
        """Whether a Transact is in flight."""
        return self._since is not None

    def unanswered_for(self, now: float) -> float:
        """For how many seconds the Transact in flight has been without an answer. ``now``: ``time.monotonic()``."""
        return now - self._since if self._since is not None else 0.0

    def send(self, transact: Transact, member: Any) -> None:
        """Commit it; ``member`` is the consumer's fresh group metadata."""
        self._in_flight = transact
        self._since = time.monotonic()
        self._thread.give(Job(transact, member))

    def poll(self) -> Transacted | None:
        """What has become of the Transact in flight; None while that is not known."""
        self._raise()
        if self._thread.has_answered:
            return self.give_up()
        if self._in_flight is not None and self._since is not None:
            # While it had nothing to do it came back from no call.
            moved_at = max(self._since, self._thread.moved_at)
            if time.monotonic() >= moved_at + self._patience:
                self._replace(self._in_flight)
        return None

    @property
    def _patience(self) -> float:
        more = self._thread.seconds - transaction_seconds(self._means.settings)
        return STUCK_SECONDS + 2 * more

    def _replace(self, transact: Transact) -> None:
        """The thread is held up by a call that does not come back: another one finds out how far it has come.

        Both have the same transactional ids, so whatever the first one does from now on is refused by the brokers.
        """
        log.warning(
            "group %s: the client does not come back from a transaction; another one takes its place",
            self._means.group,
        )
        self._thread.stop()
        self._thread = TransactionThread(self._means, in_doubt=transact)
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Begin nothing more, and wait at most ``timeout`` seconds for what is under way; the rest is left alone."""
        self._thread.stop()
        self._thread.join(timeout)

    def give_up(self) -> Transacted | None:
        """After ``close``: the answer to the Transact in flight, if there is one; where none came, one that says so."""
        transact, self._in_flight, self._since = self._in_flight, None, None
        if transact is None:
            return None
        answer = self._thread.take_answer()
        if answer is not None:
            return answer.judged() if isinstance(answer, Found) else answer
        return Transacted(transact=transact, landed=False, code="_DESTROY")

    def _raise(self) -> None:
        if self._thread.failure is not None:
            raise self._thread.failure
