#!/usr/bin/env bash
# Runs every program in benchmarks/, one after the other: they compete for the same cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
shopt -s nullglob
programs=(benchmarks/[!_]*.py)
[[ ${#programs[@]} -gt 0 ]] || fail "no benchmark found"
for program in "${programs[@]}"; do
    say "$program"
    .venv/bin/python "$program" </dev/null
done
