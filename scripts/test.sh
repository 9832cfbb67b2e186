#!/usr/bin/env bash
# Lint and all tests, real Kafka included.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
scripts/java.sh
scripts/lint.sh
# pytest ends with 5, a failure, when it found no test.
say "Two tests at a time; real Apache Kafka is downloaded once, then started by the tests"
.venv/bin/python -m pytest -n 2 --dist worksteal -m "not campaign" </dev/null
say "The campaigns, one at a time: each starts several consumer processes, and its figures are printed"
.venv/bin/python -m pytest -m campaign </dev/null
