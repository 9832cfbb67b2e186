#!/usr/bin/env bash
# Lint and all tests, real Kafka included.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
scripts/java.sh
scripts/lint.sh
say "All tests; real Apache Kafka is downloaded once, then started by the tests"
# pytest ends with 5, a failure, when it found no test.
.venv/bin/python -m pytest </dev/null
