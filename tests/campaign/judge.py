"""The judge: decides from evidence and commits alone what went wrong in a campaign."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.campaign.commits import CommitLog
from tests.campaign.evidence import End, Run, Spot

__all__ = ["Kill", "Lateness", "Outage", "Verdict", "judge", "judge_times"]

CLOCK = 0.005  # s; the broker's commit times are whole milliseconds of the same clock
RECOVERY = 90.0  # s after an outage within which groups may still fall apart because of it


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was ended with SIGKILL at this time."""

    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which the broker did not answer."""

    began: float
    ended: float


@dataclass(slots=True)
class Verdict:
    """What the judge found."""

    handled: int = 0  # ids with a run that succeeded
    runs: int = 0
    doubles: int = 0  # runs of a record that had been begun before
    finished_doubles: int = 0  # of these, the ones whose earlier run had come to its end
    commits: int = 0
    complaints: list[str] = field(default_factory=list)
    """What no promise allows; empty when all is well."""

    def complain(self, what: str, cases: Sequence[object]) -> None:
        if cases:
            self.complaints.append(f"{len(cases)} {what}: {', '.join(map(str, cases[:5]))}")


def judge(
    expected: Iterable[int],
    runs: Sequence[Run],
    log: CommitLog,
    *,
    kills: Sequence[Kill] = (),
    outages: Sequence[Outage] = (),
    ends: Sequence[End] = (),
    every_run: bool = True,
) -> Verdict:
    """Judge a campaign.

    - Every expected id has a run that succeeded, and no other id has any run.
    - A record runs again only if the run before was cut off, and only if no commit that was written before the
      second run began says that the record is done. Cut off means: its process was killed after it began and the
      next run is another process's after the kill; or its assignment ended because of an outage.
    - A further attempt has no more records than the attempt before has failed runs.
    - No commit's position lies below an earlier one's, and (with `every_run`: each record is run, none is parked) no
      commit covers a record without a run that had ended.
    """
    verdict = Verdict(runs=len(runs), commits=len(log.commits))
    wanted = set(expected)
    done = {run.id for run in runs if run.ended is not None and not run.failed}
    verdict.handled = len(wanted & done)
    verdict.complain("ids were never handled", sorted(wanted - done))
    verdict.complain("ids were never sent", sorted({run.id for run in runs} - wanted))
    by_spot: defaultdict[Spot, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.began):
        by_spot[run.spot].append(run)
    blame = _Blame(log, kills, outages, ends)
    unexplained: list[str] = []
    for spot, again in by_spot.items():
        for first, second in pairwise(again):
            verdict.doubles += 1
            verdict.finished_doubles += first.ended is not None
            problem = blame.problem(first, second)
            if problem is not None:
                unexplained.append(f"{tuple(spot)} (id {first.id}): {problem}")
    verdict.complain("doubles without a reason", unexplained)
    verdict.complain("attempts with more records than failures", _copies(runs))
    verdict.complain("commit positions fell", log.falls)
    if every_run:
        verdict.complain("records were committed before they were done", _early_commits(log, by_spot))
    return verdict


class _Blame:
    """Finds what explains a second run."""

    def __init__(
        self, log: CommitLog, kills: Sequence[Kill], outages: Sequence[Outage], ends: Sequence[End]
    ) -> None:
        self._log = log
        self._kills = kills
        self._outages = outages
        self._ends: defaultdict[tuple[int, str, int], list[End]] = defaultdict(list)
        for end in ends:
            self._ends[end.pid, end.topic, end.partition].append(end)

    def problem(self, first: Run, second: Run) -> str | None:
        covered = self._log.covered_at(first.spot)
        if covered is not None and covered < second.began:
            return f"committed as done at {covered:.3f}, run again at {second.began:.3f}"
        if self._killed(first, second) or self._cut_off(first):
            return None
        return (
            f"run by {first.pid} at {first.began:.3f} and by {second.pid} at {second.began:.3f}, "
            "and nothing cut the first one off"
        )

    def _killed(self, first: Run, second: Run) -> bool:
        return any(
            kill.pid == first.pid and second.pid != first.pid and first.began <= kill.at <= second.began
            for kill in self._kills
        )

    def _cut_off(self, first: Run) -> bool:
        ends = self._ends[first.pid, first.spot.topic, first.spot.partition]
        return any(
            end.at >= first.began and outage.began <= end.at <= outage.ended + RECOVERY
            for end in ends
            for outage in self._outages
        )


def _copies(runs: Sequence[Run]) -> list[str]:
    records: defaultdict[tuple[int, int], set[Spot]] = defaultdict(set)
    failures: Counter[tuple[int, int]] = Counter()
    for run in runs:
        records[run.id, run.attempt].add(run.spot)
        if run.failed or run.ended is None:  # its outcome may have been a failure
            failures[run.id, run.attempt] += 1
    return [
        f"id {one}, attempt {attempt}: {len(spots)} records"
        for (one, attempt), spots in records.items()
        if attempt > 1 and len(spots) > failures[one, attempt - 1]
    ]


def _early_commits(log: CommitLog, by_spot: dict[Spot, list[Run]]) -> list[str]:
    early: list[str] = []
    for spot, at in log.covered:
        ended = [run.ended for run in by_spot.get(spot, ()) if run.ended is not None]
        if not ended or min(ended) > at + CLOCK:
            early.append(f"{tuple(spot)} at {at:.3f}")
    return early


@dataclass(slots=True)
class Lateness:
    """How messages with a not-before ran."""

    due: int = 0  # that came due while somebody looked
    ran: int = 0  # of these
    worst: float = 0.0  # seconds late
    complaints: list[str] = field(default_factory=list)


def judge_times(
    due_at: dict[int, float],
    runs: Sequence[Run],
    *,
    until: float,
    within: float,
    excused: Sequence[Outage] = (),
) -> Lateness:
    """Judge when messages ran: none before it was due, each that was due `within` seconds before `until` in that time.

    `excused`: times without a consumer; what came due then is due at such a time's end.
    """
    found = Lateness()
    first: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: run.began):
        first.setdefault(run.id, run)
    early, late, missing = [], [], []
    for one, due in due_at.items():
        ran = first.get(one)
        if ran is not None and ran.began < due:
            early.append(f"id {one} by {due - ran.began:.3f} s")
        for gap in excused:
            if gap.began <= due < gap.ended:
                due = gap.ended  # noqa: PLW2901 - the same message, due later
        if due + within > until:
            continue
        found.due += 1
        if ran is None:
            missing.append(f"id {one}, due {until - due:.1f} s before the end")
            continue
        found.ran += 1
        found.worst = max(found.worst, ran.began - due)
        if ran.began - due > within:
            late.append(f"id {one} by {ran.began - due:.1f} s")
    for what, cases in (("ran early", early), ("ran late", late), ("were due and did not run", missing)):
        if cases:
            found.complaints.append(f"{len(cases)} {what}: {', '.join(cases[:5])}")
    return found
