# Entry points of the study; each sets up .venv from requirements.lock when that has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY := .venv-parity
TORCH := 2.13.0
RLAX := 0.1.6
STUDY ?= config.yaml
INSTALLED := $(VENV)/.installed

.PHONY: help env table smoke test prove parity lint schema lock status clean

help:
	@echo "make table    the whole study: results/paper_table.csv, figures, report (about an hour on 2 cores)"
	@echo "make smoke    a small study for a first look: smoke/paper_table.csv (about 5 minutes)"
	@echo "make test     the test suite (no torch, no network)"
	@echo "make prove    the proofs that take minutes"
	@echo "make parity   compare with reference implementations in torch and rlax ($(PARITY)); ACCEPT_TERMS=yes: Gemma too"
	@echo "make lint     formatting, linters, types"
	@echo "make schema   schemas/config.schema.yaml and docs/configuration.md, from the settings"
	@echo "make status   what is missing or failed, and the command that runs it"
	@echo "make clean    remove results (results/, smoke/, ci/, frontier/, kinds/, learned/, transfer/, long/, mixed/, stack/); keeps data/ and $(VENV)"

env: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PonderTTT needs Python 3.11 or newer; set PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) from requirements.lock (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

table: env
	@$(BIN)/python -m ponderttt.workflow.make $(STUDY)

smoke: env
	@$(BIN)/python -m ponderttt.workflow.make config/smoke.yaml

test: env
	$(BIN)/python -m pytest -m "not slow" -n 2 --no-loadscope-reorder

# Run long and compile little, so they are optimised.
prove: env
	XLA_FLAGS=--xla_backend_optimization_level=3 $(BIN)/python -m pytest -m slow -n 2 --no-loadscope-reorder

parity: env $(PARITY)/.installed
	$(PARITY)/bin/python tests/models/make_goldens.py --check --cache-dir data/downloads $(if $(ACCEPT_TERMS),--accept-terms)
	$(PARITY)/bin/python tests/training/ppo/make_goldens.py --check

# The same packages as .venv, and torch and rlax beside them; they are in no other environment.
$(PARITY)/.installed: requirements.lock pyproject.toml
	@test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	@$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) rlax==$(RLAX)
	@$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/python .ci/lint_workflow

# The schema for editors and the reference page of the configuration.
schema: env
	$(BIN)/python -m ponderttt.settings.reference

# Needs uv.  One version of each package for every Python from 3.11 on; no index address in the file.
lock:
	@echo 'setuptools>=77' | uv pip compile pyproject.toml - --extra dev --extra slurm --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements.lock --quiet

status: env
	@$(BIN)/ponderttt status --config $(STUDY)

clean:
	rm -rf results smoke ci frontier kinds learned transfer long mixed stack
