#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: Debian packages, the npm packages of tests/js, the Python packages
# of tests/py. Does nothing, quickly, when all is there.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'install: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "not root and no sudo: cannot run $*" >&2
        return 1
    fi
}

# wants COMMAND PACKAGE…: notes the packages unless the command is there.
missing=()
wants() {
    local command=$1
    shift
    command -v "$command" >/dev/null || PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("$@")
}

wants turnutils_uclient coturn
wants nft nftables
wants ip iproute2
wants unshare util-linux
wants prlimit util-linux
wants ethtool ethtool
wants tcpdump tcpdump
wants chromium chromium fonts-dejavu-core
wants firefox-esr firefox-esr
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    missing+=(postgresql)
fi
wants node nodejs
wants npm npm
wants python3 python3
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
fi

if [ "${#missing[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        say "these are missing and this is no Debian: ${missing[*]}" >&2
        exit 1
    fi
    say "apt-get install ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    # The tests want coturn's client. Its service would sit on port 3478.
    if [[ " ${missing[*]} " == *" coturn "* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now coturn || say "coturn's service could not be stopped"
    fi
    # The tests start PostgreSQL servers of their own.
    if [[ " ${missing[*]} " == *" postgresql "* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now postgresql || say "PostgreSQL's service could not be stopped"
    fi
fi

if [ -f js/package-lock.json ] && ! [ js/node_modules/.package-lock.json -nt js/package-lock.json ]; then
    say "npm ci"
    npm --prefix js ci --no-audit --no-fund
    touch js/node_modules/.package-lock.json
fi

if ! cmp -s py/requirements.txt py/.venv/installed.txt; then
    say "pip install"
    python3 -m venv --clear py/.venv
    py/.venv/bin/pip install --quiet --disable-pip-version-check -r py/requirements.txt
    cp py/requirements.txt py/.venv/installed.txt
fi
