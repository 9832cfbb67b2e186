#!/usr/bin/env bash
# Makes .venv with the library (editable), its extras and the development tools; does nothing when it is up to date.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

stamp=.venv/.stamp
wanted=$(fingerprint pyproject.toml constraints.txt)
# The checkout's path belongs to it: a virtual environment that was copied along points to the old place.
if [[ -f $stamp && $(<"$stamp") == "$wanted $root" && -x .venv/bin/python ]] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi
read -r version python < <(need_python)
[[ -n ${python:-} ]] || exit 1
say "Making .venv with Python $version ($python)"
rm -rf .venv
"$python" -m venv .venv
say "Installing the library and its development tools into .venv (a minute, the first time only)"
tools=$(.venv/bin/python -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"])')
# shellcheck disable=SC2086 # one word for each tool
.venv/bin/python -m pip install --quiet -c constraints.txt $tools -e '.[cli]' </dev/null
printf '%s\n' "$wanted $root" >"$stamp"
