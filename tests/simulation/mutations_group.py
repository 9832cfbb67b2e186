"""Planted bugs in how a member comes into its group and leaves it. See mutations.py."""

from __future__ import annotations

from retriable_kafka_client.core.broker_silence import Hearing, Silence
from tests.simulation.member import Member
from tests.simulation.mutations import Mutation
from tests.simulation.underway import Revoke

__all__ = ["GROUP_MUTATIONS"]

_note = Hearing.note


def _says_nothing(self: Member, _revoke: Revoke) -> bool:
    return False


def _leaves_it_to_the_client(self: Member, revoke: Revoke) -> bool:
    """Closing tells the group only of a member that has partitions, and of none amid a rebalance."""
    return bool(revoke.places) and not self.world.group.rebalancing


def _counts_from_the_beginning(self: Hearing, state: str, *, answering: bool, now: float) -> None:
    """Whatever is heard meanwhile."""
    since = self._none_since
    _note(self, state, answering=answering, now=now)
    self._none_since = now if since is None else since


def _counts_while_nobody_answers(self: Hearing, state: str, *, answering: bool, now: float) -> None:
    _note(self, state, answering=True, now=now)


def _takes_the_way_back_for_none(self: Hearing, state: str, *, answering: bool, now: float) -> None:
    _note(self, "wait-coord" if state != "up" else state, answering=answering, now=now)


def _never_ends(self: Hearing, now: float, seconds: float) -> bool:
    return False


def _hears_nobody(self: Silence, at: float) -> None:
    """Any trouble, so long after the beginning, ends the run."""


GROUP_MUTATIONS = (
    Mutation("leave without a word", ((Member, "says_that_it_leaves", _says_nothing),)),
    Mutation(
        "leave it to the client to say that we leave",
        ((Member, "says_that_it_leaves", _leaves_it_to_the_client),),
    ),
    Mutation(
        "count the wait for a coordinator from its beginning",
        ((Hearing, "note", _counts_from_the_beginning),),
    ),
    Mutation("miss the coordinator while nobody answers", ((Hearing, "note", _counts_while_nobody_answers),)),
    Mutation(
        "take a coordinator on its way back for none", ((Hearing, "note", _takes_the_way_back_for_none),)
    ),
    Mutation("wait for a coordinator for ever", ((Hearing, "is_none", _never_ends),)),
    Mutation("count the silence of brokers from the start", ((Silence, "heard", _hears_nobody),)),
)
