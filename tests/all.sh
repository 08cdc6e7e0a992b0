#!/usr/bin/env bash
# Runs every test, also behind a failure, and closes with a line that counts them: "N passed, N failed".
# Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# The answers once more, with one system call for each datagram: what systems other than Linux do.
if [ "$#" -eq 0 ]; then
    TEST_WITHOUT_SEGMENTATION=1 cargo test --locked --no-fail-fast --test conformance 2>&1 | tee -a "$log"
    status=$((status | PIPESTATUS[0]))
fi

# test result: ok. 16 passed; 0 failed; 0 ignored; …
read -r passed failed < <(awk '
    /^test result: / { for (at = 2; at <= NF; at++) {
        if ($at == "passed;") passed += $(at - 1)
        if ($at == "failed;") failed += $(at - 1)
    } }
    END { print passed + 0, failed + 0 }' "$log")

# What did not even build, or died in the middle, is a failure too.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
fi
if [ "$passed" -eq 0 ]; then
    status=1
fi

printf '\n%s passed, %s failed\n' "$passed" "$failed"
exit "$status"
