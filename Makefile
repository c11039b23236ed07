# Everything a developer needs, from a machine with Python 3.11+, Rust and make; nothing is installed outside.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check bench build schemas lock simulate mutants chaos chaos-slice docker claude
demo: build ## the main job on real Kafka; REPO=/path/to/repository for yours
	@callboard demo $(if $(REPO),"$(REPO)")

test: check simulate mutants ## every test, on the real local Kafka
	pytest -q
	$(MAKE) --no-print-directory chaos-slice

check: build ## everything that needs no Kafka and is no test of Python
	ruff check . && ruff format --check . && mypy && lint-imports --no-logo
	python -m streams.schemas --check schemas
	cd rust-agents && cargo fmt --check && cargo test --quiet
	cd rust-agents && for features in "" mutants python; do cargo clippy --all-targets --features "$$features" --quiet -- -D warnings; done

simulate: ## the Rust machine in a simulated world of faults: 10^4 schedules, each made by its seed
	cd rust-agents && cargo run --release --quiet --bin simulate -- --seeds $(or $(SEEDS),10000)

mutants: ## faults of our own, put into the Rust machine one by one: the simulation must notice each
	cd rust-agents && cargo run --release --quiet --features mutants --bin simulate -- --mutants

chaos: build ## breaks all that can be broken on one machine, about ten minutes (SIZE=full: an hour); ONLY=F1,F5 for some
	python -m tests.chaos --write --size $(or $(SIZE),normal) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

chaos-slice: build ## a quick run of it, part of `make test`; says what was broken, and how to play it again
	python -m tests.chaos --size slice $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

bench: build ## beside the raw client and FastStream, in one run; writes benchmarks/RESULTS.md
	python -m benchmarks

docker: ## build the image, run docker-compose.yml end to end, test with a broker in a container; needs a Docker engine
	@deploy/docker/end_to_end.sh
	@$(MAKE) --no-print-directory build
	pytest -q -m docker tests/containers

schemas: build ## write schemas/ anew from the types
	python -m streams.schemas --write schemas

CLAUDE ?= target/claude-code/claude_agent_sdk/_bundled/claude
claude: build $(CLAUDE) ## our agents in the real Claude Code, without a model; CLAUDE=/path/to/claude for yours
	CALLBOARD_CLAUDE_CLI="$(abspath $(CLAUDE))" pytest -q tests/contract/test_claude_code.py
target/claude-code/claude_agent_sdk/_bundled/claude:
	@echo "downloading Claude Code (170 MB, once)"
	@$(BIN)/python -m pip install -q --no-deps --disable-pip-version-check --target target/claude-code claude-agent-sdk==0.2.187

build: $(BIN)/.built
$(BIN)/.built: $(BIN)/.installed Cargo.toml Cargo.lock pyproject.toml $(shell find rust-agents -name '*.rs' -o -name Cargo.toml)
	@echo "building the Rust runtime"
	@VIRTUAL_ENV=$(CURDIR)/.venv maturin develop --release --locked > /dev/null && touch $@

$(BIN)/.installed: requirements/development.txt
	@echo "installing dependencies into .venv (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Callboard needs Python 3.11 or newer, %s is %s; choose another: make PYTHON=..." % (sys.executable, sys.version.split()[0]))'
	@command -v cargo >/dev/null || { echo "Callboard needs Rust (cargo) to build its runtime; install it with rustup or your system's packages"; exit 1; }
	@$(PYTHON) -m venv .venv && $(BIN)/python -m pip install --require-hashes --disable-pip-version-check --progress-bar on -r $< | awk '/^(Collecting|Installing|Successfully)/ { print $$1, $$2; fflush() }'
	@touch $@

lock: ## resolve requirements/ anew
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade --group dev pyproject.toml --all-extras -o requirements/development.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade pyproject.toml --extra specialized --extra llm -o requirements/worker.txt
