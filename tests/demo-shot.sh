#!/usr/bin/env bash
# Starts the built server with development values on free ports, and has two browsers call each other while pictures are
# taken. They end up in demo-shots/.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server=
stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

program=$PWD/target/debug/passerelle
(
    cd "$work"
    export PASSERELLE__LISTEN__UDP='["127.0.0.1:0"]' PASSERELLE__LISTEN__METRICS='["127.0.0.1:0"]'
    export PASSERELLE__LOG__FORMAT=json PASSERELLE__DRAIN__TIMEOUT=1s
    exec "$program" run --http 127.0.0.1:0 >"$work/log" 2>&1
) &
server=$!

address=
for _ in $(seq 200); do
    address=$(sed -n 's/.*"listener":"http","address":"\([^"]*\)".*/\1/p' "$work/log" 2>/dev/null || true)
    [ -z "$address" ] || break
    sleep 0.05
done
if [ -z "$address" ]; then
    cat "$work/log" >&2
    exit 1
fi

node tests/js/demo-shot.mjs "http://$address/" demo-shots
