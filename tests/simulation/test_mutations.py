"""The simulation can fail: each planted bug is found within 200 seeds."""

from __future__ import annotations

import pytest

from tests.simulation.campaign import failures, first_failure
from tests.simulation.mutations import MUTATIONS, Mutation, planted
from tests.simulation.mutations_batches import BATCH_MUTATIONS
from tests.simulation.mutations_beginnings import BEGINNING_MUTATIONS
from tests.simulation.mutations_chunks import CHUNK_MUTATIONS
from tests.simulation.mutations_far import FAR_MUTATIONS
from tests.simulation.mutations_group import GROUP_MUTATIONS
from tests.simulation.mutations_order import ORDER_MUTATIONS
from tests.simulation.mutations_stalls import STALL_MUTATIONS
from tests.simulation.mutations_transactions import TRANSACTION_MUTATIONS

SEEDS = 200
ALL = (
    MUTATIONS
    + BATCH_MUTATIONS
    + BEGINNING_MUTATIONS
    + FAR_MUTATIONS
    + GROUP_MUTATIONS
    + ORDER_MUTATIONS
    + CHUNK_MUTATIONS
    + STALL_MUTATIONS
    + TRANSACTION_MUTATIONS
)


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_planted_bug_is_found(mutation: Mutation) -> None:
    with planted(mutation):
        found = first_failure(range(mutation.first, mutation.first + SEEDS))
    assert found is not None, f"{mutation.name}: not found within {SEEDS} seeds"
    seed, text = found
    print(f"{mutation.name}: seed {seed}: {text}")
    assert not text.startswith("TypeError"), f"{mutation.name} does not fit what it replaces: {text}"
    assert failures([seed]) == [], f"seed {seed} fails without the bug, too"


def test_the_bugs_are_many_and_different() -> None:
    assert len({mutation.name for mutation in ALL}) == len(ALL) >= 15
