#!/usr/bin/env bash
# Build .venv with the project and its tools; needs nothing but Python 3.11+ and, as root, apt.
set -eu
python=${PYTHON:-python3}
fail() { echo "omview: $1" >&2; echo "  hint: $2" >&2; exit 1; }

command -v "$python" >/dev/null || fail "there is no $python here" "apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old: omview needs Python 3.11 or newer" "make venv PYTHON=/path/to/python3.11"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "this Python cannot make virtual environments (no ensurepip)" "as root: apt-get install $package"
    echo "installing $package ..."
    { apt-get -qq update && apt-get -qq -y install --no-install-recommends "$package"; } </dev/null >/dev/null ||
        fail "apt-get could not install $package" "look at: apt-get install $package"
fi

pip() { .venv/bin/python -m pip "$@"; }
pip --version >/dev/null 2>&1 || { rm -rf .venv; "$python" -m venv .venv; } # a half-made one is made anew
echo "installing omview and its tools into .venv ..."
# Dependency groups came with pip 25.1; Debian 12 ships 23.  -qq: errors only, no word on this machine's settings.
pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1' &&
    pip install -qq --disable-pip-version-check -e . --group dev ||
    fail "pip could not install the dependencies" "is there a network, and does pip reach its index?"
