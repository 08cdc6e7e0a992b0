#!/usr/bin/env bash
# Checks the dependencies against deny.toml; installs cargo-deny first when it is missing (a few minutes, once).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    cargo install cargo-deny --locked
fi

cargo deny --locked check bans licenses sources

# The advisories live in a repository of their own. Without a way to it the rest still counts, but nobody shall think
# that they were checked.
if cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check advisories
else
    echo "deny: ADVISORIES WERE NOT CHECKED: the advisory database cannot be reached" >&2
fi
