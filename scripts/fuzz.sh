#!/usr/bin/env bash
# Feeds RUNS inputs (default: 100,000), found by atheris, to what parses bytes from outside; TARGET: one target alone.
# The corpus is kept in .cache/fuzz; what made a target fail, or take more than MEMORY MiB, is left in .artifacts.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
runs=${RUNS:-100000} memory=${MEMORY:-1024} one=${TARGET:-}
environment=.cache/fuzz/venv
wanted="$(fingerprint constraints.txt) $root"
if [[ ! -f $environment/.stamp || $(<"$environment/.stamp") != "$wanted" ]]; then
    rm -rf "$environment"
    # Atheris has wheels for some versions of Python only: the first that takes it.
    while read -r version python; do
        say "Making $environment with Python $version"
        "$python" -m venv "$environment"
        if "$environment/bin/python" -m pip install --quiet --only-binary=:all: -c constraints.txt \
            atheris confluent-kafka msgspec </dev/null; then
            printf '%s\n' "$wanted" >"$environment/.stamp"
            break
        fi
        rm -rf "$environment"
    done < <(usable_pythons)
fi
[[ -f $environment/.stamp ]] || fail "no Python here for which there is a wheel of atheris (Linux, Python 3.11 to 3.13)"
fuzz() { PYTHONPATH=src:. "$environment/bin/python" -m tests.fuzz "$@" </dev/null; }
if [[ -n $one ]]; then targets=("$one"); else read -r -a targets < <(fuzz --list 2>/dev/null); fi
mkdir -p .artifacts
for target in "${targets[@]}"; do
    say "$runs inputs for $target"
    mkdir -p ".cache/fuzz/$target"
    fuzz "$target" ".cache/fuzz/$target" -runs="$runs" -max_len=4096 -len_control=10 -rss_limit_mb="$memory" -timeout=10 \
        -artifact_prefix=".artifacts/fuzz-$target-" -print_final_stats=1 -verbosity=0 2>&1 | tee ".cache/fuzz/$target.log" \
        | sed -n '/Done\|number_of_executed_units\|peak_rss_mb\|Exception\|Error\|artifact_prefix/p'
done
