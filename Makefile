# Every task of the project. `make` alone prints this list.

.DEFAULT_GOAL := help
.PHONY: help run test check lint fmt clippy doc deny portable bench bench-signaling instructions fuzz model demo-shot install

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start the service with development values
	cargo run --release --locked

test: install ## install what the tests need, then run all of them
	tests/all.sh

check: lint test ## everything the continuous integration checks

lint: fmt clippy doc deny ## formatting, lints, documentation, dependencies

install: ## packages that the tests need (Debian, npm, PyPI), when missing
	tests/install.sh

fmt:
	cargo fmt --check

# The flags go to this crate alone, so that nothing of the dependencies is built twice.
clippy:
	cargo clippy --locked --all-targets -- -D warnings

# Private items are documented too: whoever reads this is about to change them.
doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items

deny:
	tests/deny.sh

ROUNDS ?= 6
SECONDS ?= 2
bench: install ## compare with the installed coturn, time the pure core, then bench-signaling: ROUNDS=6 SECONDS=2 (needs root and two cores)
	cargo bench --locked --bench relay -- --rounds $(ROUNDS) --seconds $(SECONDS)
	cargo bench --locked --bench micro
	$(MAKE) bench-signaling

SIGNALING_ROUNDS ?= 3
bench-signaling: install ## compare signaling with Socket.IO on Node: SIGNALING_ROUNDS=3 (about three minutes a round, two cores)
	cargo bench --locked --bench signaling -- --rounds $(SIGNALING_ROUNDS)

instructions: ## count the instructions of the hot path and compare with benches/micro/instructions.txt
	cargo bench --locked --bench micro -- --instructions

portable: ## check that it compiles for macOS and FreeBSD, which relay datagram by datagram (needs rustup)
	tests/portable.sh

# For each fuzzer.
DURATION ?= 60
CASES ?= 20000
fuzz: ## fuzz the pure modules, DURATION=60 s each, then CASES=20000 of each property
	fuzz/run $(DURATION)
	PROPTEST_CASES=$(CASES) cargo test --locked --lib

EVENTS ?= 1000000
model: ## play signaling on bad networks against its model, EVENTS=1000000 of them
	PASSERELLE_MODEL_EVENTS=$(EVENTS) cargo test --locked --lib signaling::tests::model

demo-shot: install ## screenshots of a running call, in demo-shots/
	cargo build --locked
	tests/demo-shot.sh
