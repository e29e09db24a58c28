# make setup       .venv with everything installed (again when setup.py or constraints.txt change)
# make quickstart  the whole path on the built-in sample; SEED=1 DATA=folder DEVICE=host_cpu WORK_DIR=folder
# make test        lint, then every test; COVERAGE=1 also measures coverage, with a report in htmlcov/
# make lint        ruff's rules and format, then mypy
# make docs        API reference from the docstrings, in site/

PYTHON ?= python3
# Python 3.10 lacks some of the pinned versions: CONSTRAINTS=/dev/null lets pip choose.
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORK_DIR ?= quickstart
# Test processes; each takes several GB.
JOBS ?= 2

QUICKSTART = --work_dir='$(WORK_DIR)' $(if $(SEED),--seed=$(SEED)) $(if $(DATA),--data='$(DATA)') \
  $(if $(DEVICE),--device=$(DEVICE))
COVERED = $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-report=html)

.PHONY: setup quickstart test lint docs

setup: $(STAMP)

$(STAMP): setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): two to four minutes'
	$(BIN)/python -m pip install --quiet --constraint '$(CONSTRAINTS)' --editable '.[dev]'
	touch $@

quickstart: setup
	$(BIN)/mobiledets-quickstart $(QUICKSTART)

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(COVERED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python docs/api_reference.py site
