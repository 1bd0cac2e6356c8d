# What a newcomer types. `make` alone lists it.

CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)
# Each test has servers of its own to run; more at a time than this only makes them slower on a small machine.
TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); if [ $$n -gt 4 ]; then echo 4; else echo $$n; fi)

# What a demo of other engines (DEMO_ARGS="--from mysql") needs besides.
DEMO_DEPS := $(if $(findstring mariadb,$(DEMO_ARGS)),test-deps) $(if $(findstring mysql,$(DEMO_ARGS)),mysql)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chaos deps test-deps mysql

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r t d; do printf '  make %-7s %s\n' "$$t" "$$d"; done

demo: deps $(DEMO_DEPS) ## builds Cutwater and watches it move a live database between two throw-away servers
	$(CARGO) build --release --locked
	./target/release/cutwater demo $(DEMO_ARGS)

test: test-deps ## all tests, against real servers that are started and ended by them
	$(CARGO) test --locked -- --test-threads=$(TEST_THREADS)

lint: deps ## formatting and clippy, as CI asks for them
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: deps ## Cutwater against a native subscription, in the same run ([profile.bench]: release without LTO)
	$(CARGO) bench --locked --bench native

chaos: test-deps ## the full figures of what kills, crashes, cuts and freezes; CUTWATER_TEST_SEED repeats a run
	CUTWATER_CHAOS=1 $(CARGO) test --locked --test laws --test chaos --test property -- --test-threads=1 --nocapture
	CUTWATER_CHAOS=1 $(CARGO) test --locked --test cases -- --include-ignored --test-threads=1 --nocapture huge_value cannot_send

deps:
	@scripts/install-deps.sh

test-deps:
	@scripts/install-deps.sh tests

mysql:
	@scripts/fetch-mysql.sh mysql
