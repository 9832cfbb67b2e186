"""How a consumer stands with the brokers and its group: what its client does not report, and when that must be replaced."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from retriable_kafka_client.brokers.reachability import AskBrokers, BrokerReachability, GroupReachability
from retriable_kafka_client.consumer.client_errors import ClientErrors
from retriable_kafka_client.consumer.membership import Membership
from retriable_kafka_client.consumer.problems import Problems
from retriable_kafka_client.errors import NotReachable

__all__ = ["Connectivity"]


class Connectivity:
    """Whether the group has us, and whether each client finds the brokers. The loop's thread only; nothing blocks.

    ``ask`` asks the brokers with a client of its own.
    """

    def __init__(
        self, membership: Membership, ask: AskBrokers, errors: ClientErrors, problems: Problems
    ) -> None:
        self._membership = membership
        self._errors = errors
        self._problems = problems
        self._group_reachability = GroupReachability(ask)
        self._broker_reachability = BrokerReachability(ask)  # the consumer's
        self._admin_reachability = BrokerReachability(ask)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """A client with these settings is about to be made, and to join the group."""
        self._errors.begin()
        self._membership.renew(settings)
        self._membership.begin(time.monotonic())

    def belong(self) -> None:
        """The group has us, and has given us what there is for us."""
        self._errors.belong()
        self._group_reachability.end()
        self._membership.end()
        self._problems.clear("brokers", "login", "assignment", "join")

    def lost(self) -> None:
        """The group went on without us."""
        self._problems.note(
            "assignment", "partitions were lost: the group heard nothing of us in time, or nothing of it"
        )
        self._group_reachability.begin(time.monotonic())
        self._membership.begin(time.monotonic())

    def end(self) -> None:
        """The client is about to leave."""
        self._membership.end()

    def look(self, consumer: Any) -> None:
        """While we wait to be assigned: find out whether the group has us. Raises NotReachable where it has no coordinator,
        unless it had us before.
        """
        try:
            if self._membership.is_known(consumer, time.monotonic()):
                self.belong()
        except NotReachable as error:
            if not self._errors.assigned:
                raise
            self._problems.note("brokers", str(error))

    def should_replace(self, consumer: Any, topic: str | None, now: float) -> bool:
        """Whether another client should take the consumer's place; logs why.

        ``topic``: one to ask for; ``now``: monotonic.
        """
        why = "did not find back into it" if self._group_reachability.should_replace(now) else None
        if self._broker_reachability.should_replace(consumer, topic, now):
            why = "does not find the brokers"
        self._errors.reached(self._broker_reachability.had_at)
        if why is not None:
            self._problems.say(f"the client {why}, though they answer; another one takes its place")
        return why is not None

    def should_replace_admin(self, admin: Any, topic: str | None, now: float) -> bool:
        """Whether another one should take the place of the client that asks."""
        return self._admin_reachability.should_replace(admin, topic, now)
