# The two commands a new machine needs are `make demo` and `make test`; both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help env demo test lint types imports docs unit browser newest test-versions format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make the virtual environment .venv with everything needed

# torch first and by itself: the pinned version has a CPU build, an unpinned one brings gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voxnest needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev --editable .
	@touch $@

demo: env ## Make synthetic voices, train, evaluate, verify: the whole tool in minutes
	$(BIN)/voxnest demo

test: lint types imports docs unit newest .versions-oldest ## Everything CI checks, with the newest libraries and the oldest

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

imports: env
	$(BIN)/lint-imports

docs: env ## Build the documentation site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A process for each core, of one thread each: threads of several would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(1)/python -m pytest -n auto --dist worksteal

unit: env browser
	$(call PYTEST,$(BIN))

# A test opens the report of an evaluation in Chromium. It is installed where that can be done, as in CI; else the test skips.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "no Chromium here: the test of reports in a browser is skipped"

format: env ## Mend layout and import order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel as a user installs it, on the newest and on the oldest libraries that pyproject.toml allows, and the tests
# of what is built on them. torch is the pinned CPU build in both.
LIBRARY_TESTS := test_audio test_audio_limits test_augmentation test_corpora_prepare test_corpora_malformed \
	test_corpora_synthetic test_training_config test_checkpoint test_cli test_cli_embed_verify test_cli_evaluate test_evaluate \
	test_inference test_report_page test_score_files test_training

# A .venv that is new has the newest libraries, and tests/test_wheel.py installs the wheel beside them.
newest: env
	@$(BIN)/python tools/versions.py check newest || $(MAKE) .versions-newest

test-versions: .versions-newest .versions-oldest ## Test with the newest and the oldest libraries allowed

.versions-%:
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	.venv-$*/bin/python -m pip install --quiet -c constraints.txt torch
	rm -rf build/wheel-$*
	.venv-$*/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel-$* .
	if [ $* = oldest ]; then $(PYTHON) tools/versions.py oldest; fi > .venv-$*/constraints.txt
	.venv-$*/bin/python -m pip install --quiet -c constraints.txt -c .venv-$*/constraints.txt \
		build/wheel-$*/voxnest-*.whl pytest pytest-timeout pytest-xdist
	.venv-$*/bin/python tools/versions.py check $*
	$(call PYTEST,.venv-$*/bin) -q -k "not counts" $(LIBRARY_TESTS:%=tests/%.py)

clean: ## Remove what `make` made (not your runs)
	rm -rf $(VENV) .venv-newest .venv-oldest build site .pytest_cache .mypy_cache .ruff_cache
