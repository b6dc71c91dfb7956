# course · test · lab · lint · results: each sets up .venv first if it is missing or out of date.
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
READY := .venv/ready

.PHONY: course test lab lint results
course: $(READY)
	$(BIN)/ftkit course

test: $(READY)
	$(BIN)/python -m pytest

lab: $(READY)
	$(BIN)/jupyter lab --ip=127.0.0.1 $(OPTIONS) notebooks/00_start_here.ipynb

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

results: $(READY)
	$(BIN)/python -m tests.benchmarks.tuning_methods
	$(BIN)/python -m tests.benchmarks.transfer
	$(BIN)/python -m tests.benchmarks.report
	$(BIN)/ftkit course --update

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + '. Try: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[course,test]"
	$(BIN)/ftkit fetch
	touch $(READY)
