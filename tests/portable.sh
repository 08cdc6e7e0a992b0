#!/usr/bin/env bash
# Checks that the crate compiles for systems other than this one: TARGETS="x86_64-apple-darwin …". No C compiler for
# them is needed, since nothing is linked: what stands in for it makes empty files.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS=${TARGETS:-"x86_64-apple-darwin x86_64-unknown-freebsd"}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
cat > "$tools/cc" <<'SCRIPT'
#!/usr/bin/env bash
while [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done
SCRIPT
cat > "$tools/ar" <<'SCRIPT'
#!/usr/bin/env bash
for word; do case $word in *.a) printf '!<arch>\n' > "$word" ;; esac; done
SCRIPT
chmod +x "$tools/cc" "$tools/ar"
for target in $TARGETS; do
    rustup target add "$target"
    name=${target//-/_}
    env "CC_$name=$tools/cc" "CXX_$name=$tools/cc" "AR_$name=$tools/ar" RUSTFLAGS="-D warnings" \
        cargo check --locked --lib --bins --target "$target" --target-dir target/portable
done
