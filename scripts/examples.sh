#!/usr/bin/env bash
# Runs every program in examples/ on the embedded mock broker; each must end by itself, well.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
shopt -s nullglob
programs=(examples/[!_]*.py)
[[ ${#programs[@]} -gt 0 ]] || fail "no example found"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in "${programs[@]}"; do
    say "example $program"
    # `timeout` is GNU's; the tests' machines have it.
    if ! timeout --kill-after=10 120 .venv/bin/python "$program" </dev/null >"$log" 2>&1; then
        cat "$log"
        fail "$program failed or did not end within 120 s"
    fi
    tail -n 1 "$log"
done
say "${#programs[@]} examples ended well"
