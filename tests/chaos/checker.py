"""The verdict on a chaos run: each promise, decided from the facts alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos import rules_members, rules_messages
from tests.chaos.facts import Facts
from tests.chaos.index import Index, Violation

__all__ = ["PROMISES", "Verdict", "check"]

PROMISES = {
    "L": "nothing acknowledged is lost",
    "C": "a commit covers only what is complete",
    "D": "what runs twice was cut off, and no commit held it",
    "T": "what a handler sends is visible with its success, or never",
    "N": "nothing runs before its time",
    "B": "bytes out are bytes in",
    "A": "attempts are failures + 1",
    "G": "a message in chunks runs only when whole, once an assignment",
    "O": "an assignment that has ended commits nothing",
    "P": "a bad message is put aside, its neighbours do not notice",
    "V": "all is read and well once the faults are undone",
    "X": "who is asked to stop gives back what it has, and ends",
}

RULES: tuple[Callable[[Index], Iterator[Violation]], ...] = (
    rules_messages.lost,
    rules_members.commits,
    rules_messages.doubles,
    rules_messages.transactions,
    rules_messages.on_time,
    rules_messages.bytes_equal,
    rules_messages.attempts,
    rules_messages.groups,
    rules_members.ended_work,
    rules_messages.isolated,
    rules_members.recovered,
    rules_members.ended,
)

KEPT = 20  # violations of one name that are kept as witnesses


@dataclass(slots=True)
class Verdict:
    """What was found."""

    counts: Counter[str] = field(default_factory=Counter)
    """Violations of each promise."""
    names: Counter[tuple[str, str]] = field(default_factory=Counter)
    witnesses: list[Violation] = field(default_factory=list)
    """The first of each name."""

    @property
    def good(self) -> bool:
        return not self.counts

    def table(self) -> str:
        """Promise, violations, first witness: a Markdown table."""
        lines = ["| | promise | violations | first witness |", "|---|---|---|---|"]
        for promise, text in PROMISES.items():
            first = next((one for one in self.witnesses if one.promise == promise), None)
            witness = "" if first is None else f"{first.name}: {first.witness}"
            lines.append(f"| {promise} | {text} | {self.counts[promise]} | {witness} |")
        return "\n".join(lines)


def check(facts: Facts) -> Verdict:
    """Judge a run."""
    verdict = Verdict()
    index = Index(facts)
    for rule in RULES:
        for violation in rule(index):
            name = (violation.promise, violation.name)
            verdict.counts[violation.promise] += 1
            verdict.names[name] += 1
            if verdict.names[name] <= KEPT:
                verdict.witnesses.append(violation)
    return verdict
