# Two commands from a fresh clone: `make demo` and `make test`.
# Both make .venv (Python 3.11) and install what they need from the package index.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build where the index has it under this version; newer ones may pull CUDA packages.
TORCH ?= torch==2.13.0

.PHONY: demo test test-all lint setup-demo setup-dev bench clean

demo: $(VENV)/.demo
	$(BIN)/anysense demo --out out/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.demo
	$(BIN)/python benchmarks/overhead.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sim,viz]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info
