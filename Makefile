# The two commands a new machine needs are `make demo` and `make test`; both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help env demo test lint types imports unit format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make the virtual environment .venv with everything needed

# torch first and by itself: the pinned version has a CPU build, an unpinned one brings gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voxnest needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev --editable .
	@touch $@

demo: env ## Make synthetic voices, train, evaluate, verify: the whole tool in two minutes
	$(BIN)/voxnest demo

test: lint types imports unit ## Everything CI checks: lint, types, import directions, tests

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

imports: env
	$(BIN)/lint-imports

unit: env
	$(BIN)/python -m pytest

format: env ## Mend layout and import order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what `make` made (not your runs)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
