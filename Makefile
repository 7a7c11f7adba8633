# Everything here needs only git, make, Python >= 3.11 and the package index; the tests against a
# NestJS operator also Node.js >= 20 and npm.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test interop chaos load check audit bench bench-quick fuzz soak clean

BIN := .venv/bin
STAMP := .venv/.installed
# Sessions of tests side by side; most tests wait for something most of the time.
WORKERS ?= 3

help:
	@echo 'make demo    run the checkout example on the embedded operator'
	@echo 'make test    run all tests (ARGS="-k name" narrows them)'
	@echo 'make interop only those against a real NestJS operator (Node.js >= 20)'
	@echo 'make chaos   faults on real processes, for CHAOS_MINUTES (10)'
	@echo 'make load    an operator beside a million suspended runs (LOAD_RUNS narrows)'
	@echo 'make check   lint, types, import floors, protocol, audit'
	@echo 'make audit   known vulnerabilities of what is installed (AUDIT_REQUIRED=1: fail if unknown)'
	@echo 'make fuzz    look for input that breaks something (FUZZ_SECONDS=60 for each target)'
	@echo 'make bench   measure this worker beside its peers (ARGS="--only KEY,..."; make bench-quick: 5 minutes)'
	@echo 'make soak    simulate seed after seed until stopped (ARGS="--seeds 1000000")'
	@echo 'make setup   only install into .venv'
	@echo 'make clean   delete .venv and caches'

setup: $(STAMP)
	@echo "ready: .venv"

$(STAMP): pyproject.toml .ci/setup.sh
	@bash .ci/setup.sh
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/checkout/demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

interop: $(STAMP)
	@$(BIN)/python -m pytest tests/interop $(ARGS)

chaos: $(STAMP)
	@$(BIN)/python -m pytest tests/chaos -m chaos -s -p no:logging $(ARGS)

load: $(STAMP)
	@$(BIN)/python -m pytest tests/load -m load -s -p no:logging $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict durable_worker
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typing
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/conformance/protocol
	$(BIN)/python .ci/audit.py

audit: $(STAMP)
	@$(BIN)/python .ci/audit.py

bench: $(STAMP)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-quick: $(STAMP)
	@$(BIN)/python -m tests.bench --quick $(ARGS)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= amqp message payload input detail properties cli worker operator operator-on-disk

fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --group fuzz
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		$(BIN)/python -m tests.fuzz $$target $(FUZZ_SECONDS) || exit 1; \
	done

soak: $(STAMP)
	@$(BIN)/python -m tests.simulation.soak $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -rf $(foreach package,protocol/nestjs tests/interop/operator examples/nestjs-operator,$(package)/node_modules $(package)/dist)
