"""Planting violations into good facts."""

from collections.abc import Callable
from dataclasses import replace

from tests.campaign.commits import CommitLog, Committed
from tests.campaign.evidence import Spot
from tests.chaos.facts import Facts, Member, Run
from tests.chaos.orders import Order

__all__ = [
    "GUARANTEES",
    "PLANTS",
    "Plant",
    "Unfit",
    "again",
    "clean",
    "plant",
    "recommit",
    "recommit_with",
    "runs",
    "spot_of_nothing",
    "stopped",
]

GUARANTEES = ("at_least_once", "exactly_once")

Plant = Callable[[Facts], None]
PLANTS: list[tuple[str, str, str, Plant]] = []


class Unfit(LookupError):
    """This run has nothing to plant it in."""


def plant(promise: str, name: str, guarantee: str = "") -> Callable[[Plant], Plant]:
    """Take note of a violation to plant, and how it is to be named; in one guarantee only, if it is of that one."""

    def note(function: Plant) -> Plant:
        PLANTS.extend((promise, name, one, function) for one in ((guarantee,) if guarantee else GUARANTEES))
        return function

    return note


def runs(facts: Facts, wanted: Callable[[Run, Order], bool]) -> list[Run]:
    """The runs of such a kind; Unfit when there are none."""
    found = [run for run in facts.runs if wanted(run, facts.sent[run.id].order)]
    if not found:
        raise Unfit
    return found


def clean(facts: Facts) -> Run:
    """A first and only run, successful, of a plain message that sent something and was acknowledged."""
    often: dict[int, int] = {}
    for run in facts.runs:
        often[run.id] = often.get(run.id, 0) + 1
    return runs(
        facts,
        lambda run, order: (
            often[run.id] == 1
            and run.end == "done"
            and order.outputs > 0
            and not order.split
            and order.topic in ("orders", "bills")
            and facts.sent[run.id].acked
        ),
    )[0]


def spot_of_nothing(topic: str) -> Spot:
    return Spot(topic, 0, 1_000_000)


def recommit(facts: Facts, change: Callable[[Committed], Committed | None]) -> None:
    """Change commits, or leave some out."""
    facts.commits = CommitLog([new for old in facts.commits.commits if (new := change(old)) is not None])


def recommit_with(facts: Facts, commit: Committed) -> None:
    """One more commit."""
    facts.commits = CommitLog([*facts.commits.commits, commit])


def stopped(facts: Facts) -> Member:
    """A member that was asked to stop."""
    return next(one for one in reversed(list(facts.members.values())) if one.asked is not None)


def again(facts: Facts, run: Run, **changes: object) -> Run:
    """The same run once more, in the same process."""
    second = replace(run, name=(run.name[0], run.name[1], 100_000), **changes)  # type: ignore[arg-type]
    facts.runs.append(second)
    return second
