# Everything needs only Python (3.11 or 3.12), make and pip; each target creates .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-short test lint bench install clean

install: $(STAMP)

# A wheel is installed, never the checkout itself, so that what runs is what a user gets.
$(STAMP): setup.py pyproject.toml constraints.txt README.md $(shell find planners autoseg prognosis -name '*.py')
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -f $(VENV)/.dependencies -a ! constraints.txt -nt $(VENV)/.dependencies -a ! setup.py -nt $(VENV)/.dependencies || \
		{ $(BIN)/pip install --quiet -c constraints.txt torch && $(BIN)/pip install --quiet -c constraints.txt setuptools wheel ".[dev]" && touch $(VENV)/.dependencies; }
	@rm -rf build *.egg-info
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --force-reinstall -c constraints.txt .
	@rm -rf build *.egg-info
	@touch $@

demo: $(STAMP)
	$(BIN)/python -P benchmarks/demo.py demo-output

demo-short: $(STAMP)
	$(BIN)/python -P benchmarks/demo.py demo-output-short --short

test: $(STAMP)
	$(BIN)/python -P -m pytest tests -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-report=html

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
