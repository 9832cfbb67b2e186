"""`python -m tests.chaos --minutes 3 --seed 1 --guarantee at_least_once`: a chaos run and its report.

Ends with 1 when a promise was broken, and keeps the evidence then.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.report import has_grown, keep, report
from tests.chaos.run import Plan, run_chaos

LONG = 600.0  # s from which on memory is compared, too


def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description="Chaos on three brokers, with a checker.")
    parser.add_argument("--minutes", type=float, default=3.0, help="of load and faults (default: 3)")
    parser.add_argument("--seed", type=int, help="decides everything that is done (default: any)")
    parser.add_argument("--guarantee", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--rate", type=float, default=150.0, help="messages a second (default: 150)")
    parser.add_argument("--keep", type=Path, help="folder for evidence and logs, kept in any case")
    parser.add_argument("--report", type=Path, help="add the report to this file")
    told = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if told.seed is None else told.seed
    plan = Plan(seconds=told.minutes * 60, seed=seed, guarantee=told.guarantee, rate=told.rate)
    folder = told.keep or Path(tempfile.mkdtemp(prefix="retriable-kafka-client-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcome = run_chaos(
        plan, folder, lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)
    )
    text = report(outcome)
    print(text)
    if told.report is not None:
        keep(text, told.report)
    # In a short run, halves differ by what happens to fall into them.
    grown = plan.seconds >= LONG and has_grown(outcome.facts)
    good = outcome.verdict.good and not grown
    if good and told.keep is None:
        shutil.rmtree(folder)
        return 0
    print(f"evidence and logs: {folder}")
    for violation in outcome.verdict.witnesses:
        print(f"{violation.promise} {violation.name}: {violation.witness}")
    if grown:
        print("R memory: a process took more in the second half than any may")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
