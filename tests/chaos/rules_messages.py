"""What must hold of messages and their runs: L, D, T, N, B, A, G, P."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.facts import Run, Sent
from tests.chaos.index import CLOCK, Index, Violation, letter_reasons
from tests.chaos.orders import MAX_ATTEMPTS, Kind, Order, retry_delay

__all__ = ["attempts", "bytes_equal", "doubles", "groups", "isolated", "lost", "on_time", "transactions"]

LATE = 120.0  # s after the last fault was undone in which everything that is due has run


def lost(index: Index) -> Iterator[Violation]:
    """L: what was acknowledged is handled, dead-lettered or filtered, and what its handler sent is there."""
    for number, sent in index.facts.sent.items():
        if not sent.acked:
            continue
        order = sent.order
        if not index.stored_of[number]:
            yield Violation("L", "lost-write", f"id {number} was acknowledged and stands in no topic")
            continue
        if sent.spot is not None and index.ids.get(sent.spot) != number:
            found = index.ids.get(sent.spot)
            yield Violation(
                "L",
                "lost-write",
                f"id {number} was acknowledged at {tuple(sent.spot)}, where id {found} stands",
            )
            continue
        done = any(run.end == "done" for run in index.runs_of[number])
        letters = index.letters_of[number]
        if order.kind is Kind.SKIPPED:
            settled = number in index.facts.skipped
        elif order.succeeds:
            settled = done or bool(letters)
        else:
            settled = bool(letters)
        if not settled:
            yield _unsettled(index, sent)
        elif done and not letters and order.outputs:
            there = {output.part for output in index.outputs_of[number]}
            missing = set(range(order.outputs)) - there
            if missing and not (there and index.exactly_once):
                yield Violation(
                    "L", "lost-output", f"id {number} was handled, its outputs {sorted(missing)} are nowhere"
                )


def _unsettled(index: Index, sent: Sent) -> Violation:
    """A message with neither success nor letter: lost if it was committed as done, else not read to its end."""
    number = sent.order.id
    copies = sorted(index.copies_of[number], key=lambda copy: copy.failed)
    last = copies[-1] if copies else index.stored_of[number][0]
    covered = index.covered(last.spot)
    if covered is None:
        return Violation(
            "V", "unseen", f"id {number} waits at {tuple(last.spot)}, not run to its end, not committed"
        )
    runs = index.runs_at[last.spot]
    if not runs and sent.order.kind not in (Kind.POISON, Kind.PARTIAL, Kind.SKIPPED):
        return Violation(
            "L",
            "poll-skip",
            f"id {number} at {tuple(last.spot)} was committed at {covered:.3f} and never run",
        )
    return Violation(
        "L", "lost-write", f"id {number} at {tuple(last.spot)} was committed at {covered:.3f} and is nowhere"
    )


def doubles(index: Index) -> Iterator[Violation]:
    """D: what runs twice was cut off, and no commit held it; nothing is written more often than it was run."""
    seen: dict[tuple[object, int], Run] = {}
    for run in index.runs:
        key = (run.spot, run.attempt)
        first = seen.get(key)
        seen[key] = run
        if first is not None:
            found = _double(index, first, run)
            if found is not None:
                yield found
    for number, copies in index.copies_of.items():
        for attempt, count in Counter(copy.failed for copy in copies if not copy.parked).items():
            if count > sum(1 for _ in index.failed(number, attempt)):
                yield Violation("D", "duplicate-copy", f"id {number}: {count} copies after attempt {attempt}")
    for number, outputs in index.outputs_of.items():
        done = sum(run.end == "done" for run in index.runs_of[number])
        for part, count in Counter(output.part for output in outputs).items():
            if count > max(done, 1):
                yield Violation(
                    "D", "duplicate-output", f"id {number}, output {part}: {count} times, {done} runs"
                )
    for number, stored in index.stored_of.items():
        if len(stored) > 1:
            places = [tuple(one.spot) for one in stored]
            yield Violation("D", "duplicate-write", f"id {number} was sent once and stands at {places}")


def _double(index: Index, first: Run, second: Run) -> Violation | None:
    spot = tuple(first.spot)
    what = f"id {first.id}, attempt {first.attempt}, at {spot}: run by {first.member} at {first.began:.3f}"
    what += f" ({first.end or 'cut off'}) and by {second.member} at {second.began:.3f}"
    covered = index.covered(first.spot)
    tenure, again = index.tenure_of(first), index.tenure_of(second)
    # What somebody else committed after it began to own the partition, its owner could not know.
    knew = second.began if again is None or again is tenure else again.began
    if covered is not None and covered + CLOCK < knew:
        return Violation("D", "duplicate", f"{what}, committed as done at {covered:.3f}")
    if tenure is not None and tenure is again:
        order = index.order(first.id)
        if order is not None and order.split and first.attempt == 1:
            return Violation("G", "group-run-twice", f"{what}, in one assignment")
        return Violation("D", "nonmonotonic-poll", f"{what}, in one assignment")
    if index.excuse(first, second) is None:
        return Violation("D", "duplicate", f"{what}, and nothing cut the first one off")
    return None


def transactions(index: Index) -> Iterator[Violation]:
    """T: nothing of a run that failed is visible; in `exactly_once`, each effect once, and all of a message or none."""
    for name, outputs in index.outputs_by.items():
        run = index.run_named.get(name)
        first = outputs[0]
        if run is None or run.id != first.id:
            yield Violation(
                "T", "aborted-read", f"output at {tuple(first.spot)} of a run {name} that never was"
            )
        elif run.end != "done":
            how = run.end or "was cut off"
            yield Violation(
                "T", "aborted-read", f"output at {tuple(first.spot)} of id {run.id}, whose run {name} {how}"
            )
    if index.exactly_once:
        yield from _once(index)


def _once(index: Index) -> Iterator[Violation]:
    for number, outputs in index.outputs_of.items():
        times = Counter(output.part for output in outputs)
        for part, count in times.items():
            if count > 1:
                yield Violation("T", "duplicate", f"id {number}: output {part} is visible {count} times")
        order = index.order(number)
        if order is not None and times.keys() != set(range(order.outputs)):
            yield Violation(
                "T", "fractured-read", f"id {number}: of {order.outputs} outputs only {sorted(times)}"
            )
        if len({output.run for output in outputs}) > 1 and max(times.values()) == 1:
            yield Violation("T", "fractured-read", f"id {number}: its outputs are of several runs")
        run = index.run_named.get(outputs[0].run)
        if run is not None and index.covered(run.spot) is None:
            yield Violation(
                "T",
                "precommitted-read",
                f"id {number}: output is visible, {tuple(run.spot)} is not committed",
            )
    for number, copies in index.copies_of.items():
        for attempt, count in Counter(copy.failed for copy in copies if not copy.parked).items():
            if count > 1:
                yield Violation(
                    "T", "duplicate", f"id {number}: {count} copies after attempt {attempt} are visible"
                )
    for number, letters in index.letters_of.items():
        for chunk, count in Counter(letter.chunk for letter in letters).items():
            if count > 1:
                yield Violation("T", "duplicate", f"id {number}: {count} dead letters {chunk} are visible")
        if index.outputs_of.get(number):
            yield Violation("T", "fractured-read", f"id {number}: both outputs and a dead letter are visible")


def on_time(index: Index) -> Iterator[Violation]:
    """N: never before its time; and, once all is well again, not long after."""
    seen: set[tuple[int, int]] = set()
    for run in index.runs:
        due = _due(index, run)
        if due is None:
            continue
        if run.began + CLOCK < due:
            yield Violation(
                "N",
                "early",
                f"id {run.id}, attempt {run.attempt}, ran {due - run.began:.3f} s before its time",
            )
        first = (run.id, run.attempt) not in seen
        seen.add((run.id, run.attempt))
        latest = max(due, index.facts.end.healed) + LATE
        if first and run.began > latest:
            yield Violation(
                "N", "late", f"id {run.id}, attempt {run.attempt}, ran {run.began - due:.1f} s late"
            )


def _due(index: Index, run: Run) -> float | None:
    """The earliest time at which it may run; None: unknown."""
    if run.attempt == 1:
        sent = index.facts.sent.get(run.id)
        return None if sent is None else sent.at + sent.order.delay
    times = [
        (before.ended if before.end == "failed" and before.ended is not None else before.began)
        for before in index.failed(run.id, run.attempt - 1)
    ]
    return min(times) + retry_delay(run.attempt - 1) if times else None


def bytes_equal(index: Index) -> Iterator[Violation]:
    """B: what arrives is what was sent."""
    for run in index.runs:
        sent = index.facts.sent.get(run.id)
        if sent is None:
            yield Violation("B", "phantom", f"id {run.id} at {tuple(run.spot)} was never sent")
        elif run.stamp != sent.stamp:
            yield Violation(
                "B", "corrupt", f"id {run.id}, attempt {run.attempt}, at {tuple(run.spot)}: other bytes"
            )
    for letter in index.facts.letters:
        sent = index.facts.sent.get(letter.id)
        if sent is None:
            yield Violation(
                "B", "phantom", f"dead letter {tuple(letter.spot)}: id {letter.id} was never sent"
            )
        elif letter.stamp and letter.stamp != sent.stamp:
            yield Violation("B", "corrupt", f"dead letter {tuple(letter.spot)}, id {letter.id}: other bytes")
    for one in index.facts.stored:
        if one.id not in index.facts.sent:
            yield Violation("B", "phantom", f"record {tuple(one.spot)}: id {one.id} was never sent")


def attempts(index: Index) -> Iterator[Violation]:
    """A: each attempt has a failure before it, and a dead letter says how many there were."""
    for run in index.runs:
        where = f"id {run.id}, attempt {run.attempt}, by {run.member} at {run.began:.3f}"
        if run.attempt > MAX_ATTEMPTS:
            yield Violation("A", "too-many", f"{where}: {MAX_ATTEMPTS} are allowed")
        elif run.attempt > 1 and not any(
            before.began <= run.began for before in index.failed(run.id, run.attempt - 1)
        ):
            yield Violation("A", "burnt", f"{where}: attempt {run.attempt - 1} did not fail")
    for number, letters in index.letters_of.items():
        order = index.order(number)
        if order is None or order.kind is Kind.PARTIAL:
            continue
        for letter in letters:
            if letter.attempts != _attempts_of(index, order, letter.reason, letter.attempts):
                yield Violation(
                    "A",
                    "miscounted",
                    f"id {number}: its dead letter ({letter.reason}) says {letter.attempts} attempts",
                )


def _attempts_of(index: Index, order: Order, reason: str, said: int) -> int:
    if order.kind is Kind.POISON:
        return 1
    if reason in ("exhausted", "worker-died"):
        runs = max((run.attempt for run in index.failed(order.id, MAX_ATTEMPTS)), default=0)
        return runs and MAX_ATTEMPTS
    return said if any(True for _ in index.failed(order.id, said)) else 0


def groups(index: Index) -> Iterator[Violation]:
    """G: what never becomes whole never runs. (That none runs twice in an assignment is seen with the doubles.)"""
    for run in index.runs:
        order = index.order(run.id)
        if order is not None and order.kind is Kind.PARTIAL:
            yield Violation(
                "G", "partial-run", f"id {run.id} ran at {tuple(run.spot)} without all of its chunks"
            )


def isolated(index: Index) -> Iterator[Violation]:
    """P: a bad message gets a dead letter with its reason, and only a bad one does."""
    for run in index.runs:
        order = index.order(run.id)
        if order is None:
            continue
        if order.kind in (Kind.POISON, Kind.SKIPPED):
            yield Violation("P", "ran", f"id {run.id} ({order.kind}) ran at {tuple(run.spot)}")
        elif run.end == "done" and order.kind in (Kind.REJECTED, Kind.KILLER):
            yield Violation("P", "succeeded", f"id {run.id} ({order.kind}) was taken for handled")
    for number, letters in index.letters_of.items():
        order = index.order(number)
        if order is None:
            continue
        reasons = letter_reasons(order)
        worn = any(index.died_under(run) for run in index.runs_of[number])
        for letter in letters:
            if letter.reason in reasons or (worn and letter.reason in ("exhausted", "worker-died")):
                continue
            name = "wrong-reason" if reasons else "innocent"
            yield Violation(
                "P", name, f"id {number} ({order.kind}) has a dead letter: {letter.reason or 'no reason'}"
            )
