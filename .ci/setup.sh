#!/usr/bin/env bash
# Makes .venv with the newest Python >= 3.11 of this machine and installs the project into it.
set -euo pipefail
cd "$(dirname "$0")/.."

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

newest_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null && is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed and none is on the PATH." \
        "On Debian 12, Ubuntu 24.04 or newer: sudo apt-get install python3 python3-venv" >&2
    return 1
}

# Debian ships Python without ensurepip; the package is named after the version.
provide_venv() {
    local python=$1 package
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package, which Debian keeps apart from Python"
        apt-get -q update
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$package"
    else
        echo "error: $python cannot make virtual environments." \
            "Type: sudo apt-get install $package" >&2
        return 1
    fi
}

if ! { [ -x .venv/bin/python ] && is_new_enough .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(newest_python)
    provide_venv "$python"
    rm -rf .venv
    "$python" -m venv .venv
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
# --group arrived with pip 25.1.
.venv/bin/python -m pip install --quiet 'pip>=25.1'
# Python before 3.12 puts an old setuptools, with known vulnerabilities, into each environment.
if .venv/bin/python -c 'import setuptools' 2>/dev/null; then
    .venv/bin/python -m pip install --quiet --upgrade setuptools
fi
.venv/bin/python -m pip install --quiet --editable . --group dev
# An editable install has no bytecode yet; without it every start would compile the package again.
.venv/bin/python -m compileall -q durable_worker
