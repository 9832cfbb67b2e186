"""How a consumer stands with the brokers and its group: what the client does not tell, and when it must be replaced."""

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
    """The loop's thread only; nothing blocks. ``ask`` asks the brokers with another client."""

    def __init__(self, group: str, ask: AskBrokers, errors: ClientErrors, problems: Problems) -> None:
        self._group = group
        self._errors = errors
        self._problems = problems
        self._group_reachability = GroupReachability(ask)
        self._broker_reachability = BrokerReachability(ask)  # the consumer's
        self._admin_reachability = BrokerReachability(ask)
        self._membership: Membership

    def begin(self, settings: Mapping[str, Any]) -> None:
        """A client is about to be made with these settings, and to join the group."""
        self._errors.begin()
        self._membership = Membership(self._group, settings)
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
        """While we wait to be assigned: whether the group has us. NotReachable: it has no coordinator, and never had us."""
        try:
            if self._membership.is_known(consumer, time.monotonic()):
                self.belong()
        except NotReachable as error:
            if not self._errors.assigned:
                raise
            self._problems.note("brokers", str(error))

    def should_replace(self, consumer: Any, topic: str | None, now: float) -> bool:
        """Whether another client should take the consumer's place; says so."""
        vain = "did not find back into it" if self._group_reachability.should_replace(now) else None
        if self._broker_reachability.should_replace(consumer, topic, now):
            vain = "does not find the brokers"
        self._errors.reached(self._broker_reachability.had_at)
        if vain is not None:
            self._problems.say(f"the client {vain}, though they answer; another one takes its place")
        return vain is not None

    def should_replace_admin(self, admin: Any, topic: str | None, now: float) -> bool:
        """Whether another one should take the place of the client that asks."""
        return self._admin_reachability.should_replace(admin, topic, now)
