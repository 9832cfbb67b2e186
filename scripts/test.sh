#!/usr/bin/env bash
# Lint and all tests but the campaigns, real Kafka included.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
scripts/java.sh
scripts/lint.sh
mkdir -p .artifacts
computing=(tests/core tests/fuzz tests/simulation)
log=.artifacts/computing.log
say "${computing[*]}: two tests at a time, which yield to the others; their output comes at the end"
nice -n 10 .venv/bin/python -m pytest -n 2 --dist worksteal -m "not campaign" "${computing[@]}" \
    -o cache_dir=.cache/pytest-computing </dev/null >"$log" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null || true' EXIT
say "All others: four at a time, for they mostly wait; real Apache Kafka is downloaded once, then started by the tests"
failed=0
.venv/bin/python -m pytest -n 4 --dist worksteal -m "not campaign" "${computing[@]/#/--ignore=}" </dev/null || failed=$?
say "${computing[*]}"
wait "$beside" || failed=$?
trap - EXIT
cat "$log"
# pytest ends with 5, a failure, when it found no test.
exit "$failed"
