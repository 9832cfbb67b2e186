#!/usr/bin/env bash
# Runs the core's tests on every Python >= 3.11 of this machine but the one of .venv, each in its own environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
main=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
count=0
while read -r version python; do
    [[ $version != "$main" ]] || continue
    environment=.cache/core-$version
    wanted=$(fingerprint constraints.txt)
    if [[ ! -f $environment/.stamp || $(<"$environment/.stamp") != "$wanted $root" ]]; then
        say "Making $environment"
        rm -rf "$environment"
        "$python" -m venv "$environment"
        # The core is pure, but the package's root imports the client and the JSON codec.
        "$environment/bin/python" -m pip install --quiet -c constraints.txt \
            pytest pytest-xdist hypothesis psutil confluent-kafka msgspec </dev/null
        printf '%s\n' "$wanted $root" >"$environment/.stamp"
    fi
    # That the simulation finds planted bugs is its own property, no Python's.
    say "core tests on Python $version"
    "$environment/bin/python" -m pytest -q -n 2 --dist worksteal tests/core tests/simulation \
        --ignore tests/simulation/test_mutations.py -p no:cacheprovider </dev/null
    count=$((count + 1))
done < <(usable_pythons)
say "core tests passed on $main (with all others) and $count other Python versions"
