# Everything needs only Python (3.11 or 3.12), make and pip; each target creates .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
TESTS ?= tests

# The variables reach the environments in which pip builds source packages too. Relative, because pip splits them at spaces; older pips read
# only the first for a build, newer ones only the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SUPPORTED := import sys; v = sys.version_info[:2]; \
	sys.exit(0 if v in ((3, 11), (3, 12)) else "error: autoseg needs Python 3.11 or 3.12, this is %d.%d; " % v + sys.argv[1])

.PHONY: demo demo-short test lint bench install clean

install: $(STAMP)

# A wheel is installed, never the checkout itself, so that what runs is what a user gets.
$(STAMP): $(VENV)/.dependencies pyproject.toml README.md $(shell find planners autoseg prognosis -name '*.py')
	@rm -rf build *.egg-info
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	@rm -rf build *.egg-info
	@touch $@

$(VENV)/.dependencies: setup.py constraints.txt | $(BIN)/pip
	@$(BIN)/python -c '$(SUPPORTED)' "remove $(VENV), then: make PYTHON=python3.12"
	@echo "installing what autoseg needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet torch
	@$(BIN)/python -m pip install --quiet setuptools wheel ".[dev]"
	@touch $@

# pip comes last into an environment, so it is what shows a whole one.
$(BIN)/pip:
	@test ! -e $(VENV) || { echo "error: $(VENV) is an environment without pip; remove it and make again" >&2; exit 1; }
	@command -v "$(PYTHON)" >/dev/null || { echo "error: there is no $(PYTHON); say which: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' "say which: make PYTHON=python3.12"
	@trap 'rm -rf $(VENV); exit 130' INT TERM; "$(PYTHON)" -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "error: $(PYTHON) cannot make $(VENV): it needs its modules venv and ensurepip" >&2; exit 1; }

# From a cohort's images and clinical table to a report.
demo: $(STAMP)
	$(BIN)/python -P benchmarks/demo.py demo-output

demo-short: $(STAMP)
	$(BIN)/python -P benchmarks/demo.py demo-output-short --short

# All of it, or a part: make test TESTS=tests/planners. PYTHONSAFEPATH: -P for the child processes as well.
test: $(STAMP)
	PYTHONSAFEPATH=1 $(BIN)/python -m pytest $(TESTS) -n $(JOBS) --dist worksteal --cov --cov-report=term:skip-covered --cov-report=html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@echo "See benchmarks/README.md: the comparisons with nnU-Net need its own environment."
	$(BIN)/python -P benchmarks/augmentation.py

clean:
	rm -rf $(VENV) build *.egg-info demo-output demo-output-short htmlcov .coverage* .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
