"""What the offset tracker costs per message, with few and with many offsets tracked behind a stuck head.

python benchmarks/offsets.py

Each figure is one register + admit + complete, in slices of 100, the best of some rounds. "done" is a head
that does not end while everything behind it is complete; "open" one with as many incomplete offsets behind
it (with a budget that admits them). The ratio compares 1,000,000 tracked offsets with 1,000 and should be
near 1.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from retriable_kafka_client.core.offset_map import Binding, decode, encode
from retriable_kafka_client.core.offsets import Tracker

SLICE = 100
WINDOW = 10_000
MESSAGES = 200_000
ROUNDS = 5


def stuck(tracked: int, *, done: bool) -> Tracker:
    """Return a tracker whose first offset is incomplete, with ``tracked`` offsets behind it."""
    tracker = Tracker(0, budget_units=4_095 if done else 1_000_000)
    tracker.register(0, tracked)
    tracker.admit(1)
    if done:
        for first in range(1, tracked, 1_000):
            stop = min(first + 1_000, tracked)
            tracker.admit(stop)
            tracker.complete(first, stop)
    elif tracker.admit(tracked) != tracked:
        raise RuntimeError("the budget is too small for this benchmark")
    return tracker


def in_order(tracker: Tracker) -> None:
    start = tracker.next_offset
    for first in range(start, start + MESSAGES, SLICE):
        tracker.register(first, first + SLICE)
        tracker.admit(first + SLICE)
        tracker.complete(first, first + SLICE)


def shuffled(tracker: Tracker) -> None:
    order = list(range(0, WINDOW, SLICE))
    random.Random(1).shuffle(order)
    start = tracker.next_offset
    for window in range(start, start + MESSAGES, WINDOW):
        for first in range(window, window + WINDOW, SLICE):
            tracker.register(first, first + SLICE)
            tracker.admit(first + SLICE)
        for first in order:
            tracker.complete(window + first, window + first + SLICE)


def scattered(tracker: Tracker) -> None:
    """One by one instead of in slices: the worst case."""
    order = list(range(WINDOW))
    random.Random(1).shuffle(order)
    start = tracker.next_offset
    for window in range(start, start + MESSAGES, WINDOW):
        for first in range(window, window + WINDOW, SLICE):
            tracker.register(first, first + SLICE)
            tracker.admit(first + SLICE)
        for first in order:
            tracker.complete(window + first, window + first + 1)


def measure(work: Callable[[Tracker], None], tracked: int, *, done: bool) -> float:
    """Return microseconds per message."""
    best = float("inf")
    for _ in range(ROUNDS):
        tracker = stuck(tracked, done=done)
        started = time.perf_counter()
        work(tracker)
        best = min(best, time.perf_counter() - started)
    return best / MESSAGES * 1e6


def codec() -> None:
    tracker = Tracker(0, budget_units=4_095)
    tracker.register(0, 20_000)
    tracker.admit(20_000)
    for offset in range(1, 20_000, 2):
        tracker.complete(offset, offset + 1)
    started = time.perf_counter()
    offsets = tracker.offset_map()
    collected = time.perf_counter()
    text = encode(offsets, binding=Binding(b"benchmark", b"1"), budget_units=4_095)
    encoded = time.perf_counter()
    decode(text, base=0, binding=Binding(b"benchmark", b"1"))
    decoded = time.perf_counter()
    print(
        f"10,000 alternating offsets, {len(text)} units: collect {(collected - started) * 1e3:.1f} ms,"
        f" encode {(encoded - collected) * 1e3:.1f} ms, decode {(decoded - encoded) * 1e3:.1f} ms"
    )


def main() -> None:
    print(f"{'µs per message':28}{'1,000':>10}{'1,000,000':>12}{'ratio':>8}")
    for work in (in_order, shuffled, scattered):
        for done in (True, False):
            few, many = (measure(work, tracked, done=done) for tracked in (1_000, 1_000_000))
            name = f"{work.__name__}, {'done' if done else 'open'}"
            print(f"{name:28}{few:10.3f}{many:12.3f}{many / few:8.2f}")
    codec()


if __name__ == "__main__":
    main()
