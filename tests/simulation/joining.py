"""A member that waits to be assigned for the first time: what it hears of the brokers, and whether that ends its run.

The shell's part (ClientErrors, Membership) without a client; the judgement is the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from retriable_kafka_client.consumer.client_errors import BEFORE_ASSIGNMENT_SECONDS
from retriable_kafka_client.consumer.membership import DOUBT_SECONDS, GONE_SECONDS
from retriable_kafka_client.core.broker_silence import Hearing, Silence
from tests.simulation.broker import Broker
from tests.simulation.tenure import Violation

__all__ = ["Joining", "Spell", "bounces"]

# What a client says of the group's coordinator, and whether any broker answers it.
UP = ("up", True)
BOUNCES = ("wait-broker-transport", True)  # its broker is on its way back
NAMELESS = ("wait-coord", True)  # the brokers do not know it
SILENT = ("query-coord", False)  # nobody answers

LATE = 2.0  # seconds: what a member hears, it hears once a round


class Joining:
    """Begins with the run, and ends with the first assignment, if only an empty one."""

    def __init__(self, name: str, mono: float) -> None:
        self._name = name
        self._since = mono
        self._silence = Silence(mono)
        self._hearing = Hearing()

    def look(self, broker: Broker, mono: float) -> str | None:
        """Why the run ends, if it does."""
        state, answering = broker.coordinator
        if answering:
            self._silence.heard(mono)
        if mono >= self._since + DOUBT_SECONDS:
            self._hearing.note(state, answering=answering, now=mono)
        why: str | None = None
        # Whenever a connection breaks or cannot be made, the client complains.
        if broker.down and self._silence.lasts(mono, BEFORE_ASSIGNMENT_SECONDS):
            why = "no broker answers"
        elif self._hearing.is_none(mono, GONE_SECONDS):
            why = "the group has no coordinator"
        lasted = mono - broker.coordinator_since
        silent = broker.coordinator == SILENT and lasted >= BEFORE_ASSIGNMENT_SECONDS - LATE
        nameless = broker.coordinator == NAMELESS and lasted >= GONE_SECONDS
        if why is not None and not silent and not nameless:
            raise Violation("join", f"{self._name} ends: {why}; for {lasted:.1f} s it is {state}")
        return why


@dataclass(frozen=True, slots=True)
class Spell:
    """How it stands with the brokers for a while."""

    coordinator: tuple[str, bool]
    seconds: float


def bounces(seed: int) -> tuple[list[Spell], bool]:
    """What the brokers do while a member waits for others to drain, and whether it must give up; empty: nothing."""
    random = Random(f"bounces {seed}")  # apart, so that worlds without stay what they are
    if random.random() >= 0.12:
        return [], False
    kind = random.choice(("rolling", "rolling", "away", "silent", "mixed", "gone", "nameless"))
    first = Spell(UP, random.uniform(1.0, 8.0))
    last = Spell(UP, random.uniform(5.0, 10.0))
    match kind:
        case "rolling":  # the coordinator's broker, and then the next one's
            turns = [
                spell
                for _ in range(3)
                for spell in (
                    Spell(BOUNCES, random.uniform(1.0, 5.0)),
                    Spell(NAMELESS, random.uniform(1.0, 6.0)),
                    Spell(UP, random.uniform(2.0, 6.0)),
                )
            ]
            return [first, *turns, last], False
        case "away":  # its broker starts for long
            return [first, Spell(BOUNCES, random.uniform(20.0, 40.0)), last], False
        case "silent":
            return [first, Spell(SILENT, random.uniform(18.5, 22.0)), last], False
        case "mixed":
            turns = [Spell(NAMELESS, random.uniform(6.0, 14.0)), Spell(SILENT, random.uniform(6.0, 14.0))]
            return [first, *turns, *turns, last], False
        case "gone":
            return [first, Spell(SILENT, 35.0), last], True
        case _:
            return [first, Spell(NAMELESS, 35.0), last], True
