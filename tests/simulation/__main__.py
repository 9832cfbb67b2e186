"""Run seeds: ``python -m tests.simulation --seeds 2000``; one of them in full: ``--seed 17 --trace``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.campaign import failures
from tests.simulation.tenure import Violation
from tests.simulation.trace import Trace
from tests.simulation.world import World

PIECE = 250  # seeds that one worker runs at a time


def show(seed: int, *, trace: bool) -> int:
    """Run one seed; the exit code."""
    lines = Trace()
    try:
        World(seed, trace=lines if trace else None).run()
    except Violation as violation:
        print("\n".join(lines.lines))
        print(f"seed {seed}: {violation}")
        return 1
    print("\n".join(lines.lines))
    print(f"seed {seed}: passed" + (f", trace {lines.digest}" if trace else ""))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many (default: 2000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return show(options.seed, trace=options.trace)
    started = time.perf_counter()
    stop = options.start + options.seeds
    pieces = [range(first, min(first + PIECE, stop)) for first in range(options.start, stop, PIECE)]
    failed: list[tuple[int, str]] = []
    if options.jobs == 1:
        for piece in pieces:
            failed += failures(piece)
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            for found in pool.map(failures, pieces):
                failed += found
    seconds = time.perf_counter() - started
    spent = os.times()
    busy = spent.user + spent.system + spent.children_user + spent.children_system
    for seed, text in failed:
        print(f"seed {seed}: {text}\n    python -m tests.simulation --seed {seed} --trace")
    each = busy * 1000 / max(1, options.seeds)
    print(
        f"{options.seeds} seeds from {options.start}: {len(failed)} failed, "
        f"{seconds:.0f} s, {each:.1f} ms of CPU a seed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
