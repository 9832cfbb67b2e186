"""The report of a chaos run, in Markdown: what was done, what was seen, the verdict."""

import os
import platform
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import confluent_kafka

from tests.chaos.facts import Facts
from tests.chaos.index import Index
from tests.chaos.run import Outcome
from tests.support.jars import kafka_version

__all__ = ["explained", "has_grown", "highest", "keep", "memory", "report"]


MOST_GROWTH = 1.15


def machine() -> str:
    """What it ran on."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()},"
        f" confluent-kafka {confluent_kafka.__version__}, Apache Kafka {kafka_version()}, three brokers"
    )


def explained(facts: Facts) -> Counter[str]:
    """Second runs of one record and attempt, by what excuses them ("" : nothing)."""
    index = Index(facts)
    found: Counter[str] = Counter()
    for runs in index.runs_at.values():
        by_attempt: defaultdict[int, list[int]] = defaultdict(list)
        for position, run in enumerate(runs):
            by_attempt[run.attempt].append(position)
        for positions in by_attempt.values():
            for one, other in pairwise(positions):
                found[index.excuse(runs[one], runs[other]) or "nothing"] += 1
    return found


def memory(facts: Facts) -> dict[str, tuple[float, float]]:
    """For each kind of process the highest resident memory in the first half of the time, and in the second, MiB."""
    if not facts.samples:
        return {}
    middle = (facts.samples[0].at + facts.samples[-1].at) / 2
    peaks: dict[str, tuple[float, float]] = {}
    for sample in facts.samples:
        first, second = peaks.get(sample.kind, (0.0, 0.0))
        if sample.at < middle:
            first = max(first, sample.mib)
        else:
            second = max(second, sample.mib)
        peaks[sample.kind] = (first, second)
    return peaks


def highest(facts: Facts) -> tuple[float, float]:
    """The highest memory of any process in the first half of the time, and in the second, MiB."""
    peaks = memory(facts).values()
    return max((first for first, _ in peaks), default=0.0), max((second for _, second in peaks), default=0.0)


def has_grown(facts: Facts) -> bool:
    """Whether some process took more in the second half than any had taken in the first, and a share besides."""
    first, second = highest(facts)
    return second > MOST_GROWTH * first


def report(outcome: Outcome) -> str:
    """The whole report."""
    plan, facts = outcome.plan, outcome.facts
    acked = sum(one.acked for one in facts.sent.values())
    visible = sum(one.visible for one in facts.outputs)
    kinds = Counter(fault.kind for fault in facts.faults)
    done = {run.id for run in facts.runs if run.end == "done"}
    lines = [
        f"### {plan.guarantee}, seed {plan.seed}, {plan.seconds / 60:.3g} minutes of faults",
        "",
        f"{machine()}. {plan.rate:g} messages a second, {outcome.seconds:.0f} s in all.",
        "",
        "| | |",
        "|---|---|",
        f"| messages sent, of these acknowledged | {len(facts.sent):,}, {acked:,} |",
        f"| runs, messages handled | {len(facts.runs):,}, {len(done):,} |",
        f"| outputs visible, aborted | {visible:,}, {len(facts.outputs) - visible:,} |",
        f"| dead letters | {len(facts.letters):,} |",
        (
            f"| consumer processes, assignments, commits | {len(facts.members)}, {len(facts.tenures)},"
            f" {len(facts.commits.commits):,} |"
        ),
        f"| faults | {len(facts.faults)}: {_counts(kinds)} |",
        f"| second runs, by what explains them | {_counts(explained(facts)) or 'none'} |",
        f"| lag 0 after the last fault was undone | {_lag(facts)} |",
        "",
        outcome.verdict.table(),
        "",
        "| process | peak memory, first half | second half | ratio |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {first:.0f} MiB | {second:.0f} MiB | {second / first if first else 0:.2f} |"
            for kind, (first, second) in [*sorted(memory(facts).items()), ("any", highest(facts))]
        ),
        "",
    ]
    return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counter.most_common())


def _lag(facts: Facts) -> str:
    end = facts.end
    return "never" if end.drained is None else f"{end.drained - end.healed:.0f} s"


def keep(text: str, path: Path) -> None:
    """Add it to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
