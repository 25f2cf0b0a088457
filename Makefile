# Everything runs in .venv, made on demand from requirements.lock with nothing but Python and make.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	echo $$p; break; fi; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --retries 5 --timeout 60
TYPED := operator tests/chaos tests/docs tests/e2e tests/support tests/support_tests tests/conftest.py tests/run.py \
	$(sort $(dir $(wildcard examples/*/*.py)))

.PHONY: help demo demo-cluster test lint lint-python lint-types lint-imports lint-chart lint-shell \
	generate bench chaos control-plane

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## tenants on an embedded Valkey, told as a story (no cluster needed)
	@PYTHONPATH=. $(BIN)/python examples/demo/local.py

demo-cluster: control-plane ## the same through helm install and kubectl on a real API server
	@PYTHONPATH=. $(BIN)/python examples/demo/cluster.py

test: $(READY) ## every test, tier by tier (TEST_ARGS="--tier unit" for one of them)
	@$(BIN)/python -m tests.run $(TEST_ARGS)

lint: lint-python lint-types lint-imports lint-chart lint-shell ## style, types, layers, chart, shell

lint-python: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

lint-types: $(READY)
	@$(BIN)/mypy $(TYPED)

lint-imports: $(READY)
	@$(BIN)/lint-imports --no-logo

lint-chart: $(READY)
	@$(BIN)/python -m tests.support.controlplane build helm
	@helm="$$($(BIN)/python -m tests.support.controlplane helm)" && \
	"$$helm" lint --strict charts/memtenant

lint-shell: $(READY)
	@$(BIN)/shellcheck .ci/run $$(git ls-files '*.sh')

generate: $(READY) ## write what is generated: CRDs, the chart's copy of them, the SDK's twin
	@$(BIN)/python -m memtenant.api.generate
	@$(BIN)/python -m memtenant.memory.generate

bench: control-plane $(PEERS)/.ready ## measure the limits that the design sets
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

chaos: control-plane ## break everything at random while agents work (CHAOS_ARGS="--minutes 20")
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

control-plane: $(READY) ## build kube-apiserver, etcd and Helm into the user's cache (minutes, once)
	@$(BIN)/python -m tests.support.controlplane build

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "memtenant needs Python 3.11 or later; tried: $(CANDIDATES)." \
	"Install one, or say which: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing the locked packages into $(VENV) (a minute at first)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS)/.ready: tests/bench/peers.txt $(READY)
	@echo "Installing what the SDK is measured beside into $(PEERS)"
	@$(BIN)/python -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check --retries 5 --timeout 60 \
		install --require-hashes -r tests/bench/peers.txt
	@touch $@
