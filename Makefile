# The two commands that matter: `make run` and `make test`. Each installs what is missing; README.md says what that is.

# One target directory and one profile for everything, so that RocksDB and DataFusion are compiled once, outside the clone.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/millpond/target
export CARGO_TERM_COLOR ?= auto

MILLPOND := $(CARGO_TARGET_DIR)/release/millpond
# the systems of the demo, such as SYSTEM="music freelance"; empty: all
SYSTEM ?=

.PHONY: help run build test check crash kills cases bench soak web setup fmt

help:
	@echo "make run     install what is missing, build, and run the demo (SYSTEM=music for one system, ARGS=...)"
	@echo "make test    install what is missing, build, and run every test"
	@echo "make check   format, lints, quick tests: under three minutes when warm"
	@echo "make crash   cut the power of a server ten thousand times: half an hour and more (CRASHES=...)"
	@echo "make bench   the benches, against Apache Kafka, Flink and Spark too: three quarters of an hour (BENCH_ONLY=..., benches/settings.rs)"
	@echo "make kills   kill -9 servers with views, joins, merges and a lake on HDFS, 300 times each (KILLS=...)"
	@echo "make cases   compute 100,000 random views again (CASES=...)"
	@echo "make soak    an hour under half of the most it takes: what grows, and Apache Kafka beside it (BENCH_SOAK_MINUTES=...)"
	@echo "make web     the page's third-party parts (npm ci)"
	@echo "make setup   only install what is missing for a build"

run: build
	exec $(MILLPOND) demo $(SYSTEM) $(ARGS)

build: setup web
	cargo build --release --locked --bin millpond

# What the tests run against is fetched while the code is compiled.
test: setup web
	@tests/support/setup & clients=$$!; cargo test --release --locked --workspace --no-run; compiled=$$?; \
		wait $$clients && exit $$compiled
	cargo test --release --locked --workspace --no-fail-fast $(ARGS)

check: setup web
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo test --release --locked --workspace --lib --bins
	cargo test --release --locked --test tidy

# a part of `make test`, with many more crash points: a fifth of them are kill -9
CRASHES ?= 10000
crash: setup web
	tests/support/setup
	MILLPOND_CRASHES=$(CRASHES) cargo test --release --locked --test suite -- --nocapture faults::power $(ARGS)

# the cases of `make test` that kill a server, with many more kills: streams, joins, a loaded system, a lake on HDFS
KILLS ?= 300
kills: setup web
	tests/support/setup
	MILLPOND_KILLS=$(KILLS) cargo test --release --locked --test suite -- --nocapture --test-threads 1 \
		a_derived_stream_survives_kill_9 streams_are_joined_over_kill_9 kill_9_twenty_times_under_load \
		a_lake_goes_on_through_failovers_and_kills_at_every_step $(ARGS)

# the engine's oracle, with many more random views
CASES ?= 100000
cases: setup web
	MILLPOND_CASES=$(CASES) cargo test --release --locked --workspace --lib -- --nocapture random_views_equal_a_recomputation $(ARGS)

bench: setup web
	benches/run

soak: setup web
	benches/run soak

web: api/web/node_modules/.package-lock.json

# npm writes this file last, so it says that the installation is complete
api/web/node_modules/.package-lock.json: api/web/package.json api/web/package-lock.json
	@$(MAKE) --no-print-directory setup
	cd api/web && npm ci --no-audit --no-fund --loglevel=error
	@# as old as the file that names them, so that they alone do not make cargo compile the page anew
	@find api/web/node_modules -exec touch --no-dereference --reference=api/web/package-lock.json {} +
	@touch $@

setup:
	@scripts/setup

fmt:
	cargo fmt --all
