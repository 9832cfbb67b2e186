#!/usr/bin/env bash
# The campaigns: minutes of work each, by several consumer processes on real Kafka; one at a time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
scripts/java.sh
say "The campaigns, one at a time: each starts several consumer processes, and its figures are printed"
.venv/bin/python -m pytest -m campaign </dev/null
