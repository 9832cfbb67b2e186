"""What the loop has to do with transactions, beside waiting for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from retriable_kafka_client.brokers.reachability import AskBrokers
from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.core.entry import Entry
from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Transact, Transacted
from retriable_kafka_client.transactions.transactor import Transactor
from retriable_kafka_client.wire.outbox import Output, size_of

__all__ = ["Transacting"]

log = logging.getLogger("retriable_kafka_client")

SILENCE_SECONDS = 10.0  # of a transaction, until health says so


class Transacting:
    """Passes transactions and their answers on, and notes what is wrong with them. The loop's thread only.

    ``outflow`` takes how many bytes more (or fewer) of what handlers sent wait for a transaction.
    """

    def __init__(
        self, transactor: Transactor, problems: Problems, errors: ClientErrors, outflow: Callable[[int], None]
    ) -> None:
        self._transactor = transactor
        self._problems = problems
        self._errors = errors
        self._outflow = outflow
        self._sizes: dict[Entry, int] = {}  # of what each run sent, until a transaction has it

    def begin(self, timeout: float, stopped: Callable[[], bool], ask: AskBrokers) -> None:
        """Start, and block until transactions are possible: see ``Transactor.begin``."""
        self._transactor.begin(timeout, stopped, ask)

    @property
    def busy(self) -> bool:
        """Whether one is in flight."""
        return self._transactor.busy

    @property
    def asks_since(self) -> float | None:
        """When was asked whether topics can be written to, while there is no answer (monotonic)."""
        return self._transactor.asks_since

    def sent(self, runs: Iterable[tuple[Entry, tuple[Output, ...]]]) -> None:
        """These runs have succeeded, and sent something."""
        for entry, outputs in runs:
            if entry.assignment.phase is not Phase.ENDED:
                self._sizes[entry] = size_of(outputs)
                self._outflow(self._sizes[entry])

    def perform(self, transact: Transact, consumer: Any) -> None:
        """Let it begin, in the name of the group's member as it is now."""
        self._transactor.send(transact, consumer.consumer_group_metadata())

    def take(self) -> Transacted | None:
        """The answer to the one in flight; None: not yet. Raises what made transactions impossible."""
        transactor = self._transactor
        answer = transactor.poll()
        if answer is not None:
            self._note(answer)
        if transactor.problem is not None:
            self._problems.note("transactions", transactor.problem)
        elif not transactor.busy:
            self._problems.clear("transactions")
        silence = transactor.unanswered_for(time.monotonic())
        self._problems.mark(
            "transaction", "a transaction is without an answer", holds=silence > SILENCE_SECONDS
        )
        return answer

    def _note(self, answer: Transacted) -> None:
        for publication in answer.transact.publications:
            if answer.landed or publication in answer.refused:
                self._outflow(-self._sizes.pop(publication.entry, 0))
        if answer.landed:
            self._errors.group_is_well()
        elif answer.code == "GROUP_AUTHORIZATION_FAILED":
            self._errors.refused(None, answer.code)

    def ended(self) -> None:
        """Assignments have ended: what they sent and no transaction has is dropped."""
        for entry in [one for one in self._sizes if one.assignment.phase is Phase.ENDED]:
            self._outflow(-self._sizes.pop(entry))

    def leave_behind(self, group: str, partitions: int) -> None:
        """So many partitions are given away, and what is done there is not known to be in."""
        silence = self._transactor.unanswered_for(time.monotonic())
        log.warning(
            "group %s: %d partitions are given away before a transaction with what is done there is known to be in%s; unless"
            " it came through, their next owners run that again; nothing becomes visible twice",
            group,
            partitions,
            f" (one has been without an answer for {silence:.1f} s)" if silence else "",
        )

    def close(self, timeout: float) -> Transacted | None:
        """Begin nothing more, and wait so long for what is under way. What is without an answer then is given up."""
        self._transactor.close(timeout)
        return self._transactor.give_up()
