"""Nobody may leave partitions unread for long: not while all is well."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from retriable_kafka_client.core.phase import Phase
from retriable_kafka_client.core.protocol import Place
from tests.simulation.tenure import Violation

if TYPE_CHECKING:
    from tests.simulation.member import Member

__all__ = ["UnreadWatch"]

UNREAD_SECONDS = 35.0  # several rebalances with whole drains; a session is longer


class UnreadWatch:
    """Looks at a calm world. Times are monotonic."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since: dict[Place, float] = {}

    def look(self, places: Collection[Place], members: Iterable[Member], mono: float) -> None:
        read = {
            place
            for member in members
            if not member.gone
            for place, tenure in member.tenures.items()
            if tenure.assignment.phase is Phase.RUNNING
        }
        for place in places:
            if place in read:
                self._since.pop(place, None)
                continue
            lasted = mono - self._since.setdefault(place, mono)
            self.longest = max(self.longest, lasted)
            if lasted > UNREAD_SECONDS:
                raise Violation("V", f"{place.topic}/{place.partition} is read by nobody for {lasted:.0f} s")
