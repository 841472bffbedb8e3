# Every task of the project; `make` lists them. Each sets up what it needs in $(VENV), once.

PYTHON ?= python3
VENV ?= .venv
# The build of torch: pip's own configuration decides, which on a plain machine is PyPI's (on Linux with CUDA, some gigabytes).
# For the CPU build, name the index that PyTorch's own instructions give for it: make demo TORCH_PIP_ARGS="--index-url …"
TORCH_PIP_ARGS ?=
# Processes that share the test files. A file stays in one process, so what its tests share is built once.
TEST_WORKERS ?= 2
# Passed on to `make lock`, as LOCK_ARGS=--upgrade or LOCK_ARGS="--upgrade-package polars".
LOCK_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
INSTALLED := $(VENV)/.installed
# Once for every Python and platform, with the hashes of all files of a release.
LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --annotation-style line \
	--custom-compile-command "make lock" --quiet $(LOCK_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults check format lock ui clean

help:  ## List the tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED)  ## Install everything into .venv, from requirements.lock

demo: setup  ## Raw readings to queried forecasts, offline, in under five minutes
	@$(BIN)/tidecast demo

test: setup  ## Run every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

faults: setup  ## Kill, fuzz and disorder everything at full size: half an hour, for the table of docs/reliability.md
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.upgrade
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.run

check: setup  ## Hold format, lint, types, documents and packaging to the rules
	@echo "check: format";    $(BIN)/ruff format --check .
	@echo "check: lint";      $(BIN)/ruff check .
	@echo "check: types";     $(BIN)/mypy
	@echo "check: packages";  $(BIN)/python -m pip check
	@echo "check: documents"; $(BIN)/python -m pytest tests/test_*.py

format: setup  ## Format the code and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup  ## Resolve requirements.lock and docker/servers.lock anew
	@$(LOCK) --config-file .ci/lock.toml --extra dev --extra kafka --extra stats --no-emit-package torch pyproject.toml -o requirements.lock
	@$(LOCK) --constraint requirements.lock docker/servers.in -o docker/servers.lock

ui: setup  ## Open the Prefect and MLflow pages on loopback
	@$(BIN)/tidecast ui

clean:  ## Remove caches, builds and the demo's data; never .venv or data/lake
	@rm -rf build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis data/demo
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make requires Python 3.11 or newer; got $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.12 …"; exit 1; }
	@echo "setup 1/4: a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup 2/4: $(TORCH)"
	@$(PIP) install $(TORCH_PIP_ARGS) $(TORCH)
	@echo "setup 3/4: the packages of requirements.lock, each against its hash"
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@echo "setup 4/4: tidecast"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
