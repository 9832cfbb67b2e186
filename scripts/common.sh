# Sourced by the other scripts: finding interpreters, saying what is done, installing what is missing.
# shellcheck shell=bash

# shellcheck disable=SC2034 # used by the scripts that source this one
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '==> %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# All commands that may be a Python, the preferred ones first; one a line.
python_candidates() {
    local minor
    for minor in 13 12 11 14; do
        command -v "python3.$minor" || true
    done
    command -v python3 || true
    for minor in 13 12 11 14; do
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor.*/bin/python3" | sort -rV || true
    done
}

# "3.12 /path/to/it" for each usable Python >= 3.11, one that can make a virtual environment with pip; one line for each
# minor version. Of a virtual environment on the PATH it is the Python that it was made from.
usable_pythons() {
    local candidate version python seen=" "
    while read -r candidate; do
        read -r version python < <("$candidate" -c 'import sys, ensurepip, venv
if sys.version_info >= (3, 11) and sys.implementation.name == "cpython":
    print("%d.%d" % sys.version_info[:2], sys._base_executable)' 2>/dev/null) || continue
        if [[ $seen != *" $version "* ]]; then
            seen+="$version "
            printf '%s %s\n' "$version" "$python"
        fi
    done < <(python_candidates)
}

# Installs Debian packages if this is Debian and we are root; fails without a word otherwise.
apt_install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    say "Installing $* with apt-get"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" </dev/null >/dev/null
}

# "3.12 /path/to/it", installed first where there is none.
need_python() {
    local found
    found=$(usable_pythons)
    if [[ -z $found ]]; then
        apt_install python3 python3-venv >&2 || true
        found=$(usable_pythons)
    fi
    [[ -n $found ]] || fail "Python 3.11 or later (with venv) is needed. Install it with:" \
        "sudo apt-get install python3 python3-venv  (Debian, Ubuntu)  or  brew install python@3.13  (macOS)"
    head -n 1 <<<"$found"
}

# A hash of the files that decide what a virtual environment holds.
fingerprint() {
    cat "$@" | cksum | tr ' ' '-'
}
