"""Planted bugs in what becomes of answers that are long on their way. See mutations.py."""

from __future__ import annotations

from tests.simulation.member import Member
from tests.simulation.mutations import Mutation
from tests.simulation.underway import Fetch

__all__ = ["FAR_MUTATIONS"]

LATE = 3.0  # s

_counts = Member.counts


def _any_answer_counts(self: Member, fetch: Fetch) -> bool:
    return True


def _late_answers_are_thrown_away(self: Member, fetch: Fetch) -> bool:
    return fetch.answers_at < fetch.reads_at + LATE and _counts(self, fetch)


FAR_MUTATIONS = (
    Mutation(
        "take an old assignment's position for the new one's", ((Member, "counts", _any_answer_counts),)
    ),
    Mutation("throw late positions away", ((Member, "counts", _late_answers_are_thrown_away),)),
)
