# Everything a person or CI runs. On a new machine: Python >= 3.11 with venv, make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := benchmarks/.venv
# pip before 25.1 cannot read dependency groups by itself
FAULTS := tests/faults tests/test_ledger.py tests/test_ledger_faults.py tests/test_submission_files.py
GROUP := import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'])

.PHONY: setup demo tests faults audit lint types format constraints bench clear

setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . $$($(PYTHON) -c "$(GROUP)")
	touch $@

demo: setup  ## the whole flow on handwritten digits
	$(BIN)/batteries demo demo

tests: setup  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

faults: setup  ## every fault as often as docs/reliability.md says, and that page; about 20 minutes
	rm -f .faults.jsonl
	FAULTS=full FAULTS_FIGURES=$(CURDIR)/.faults.jsonl OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest $(FAULTS) -n 3 --dist worksteal  # many wait more than they compute
	FAULTS=alone FAULTS_FIGURES=$(CURDIR)/.faults.jsonl OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -k price
	$(BIN)/python tests/faults/page.py .faults.jsonl

audit:  ## known holes in what constraints.txt pins; asks PyPI, so a mirror without advisories fails it
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: setup  ## write constraints.txt anew from what is installed; one file for CPU and GPU, so no "+cpu"
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

bench: $(BENCH)/.stamp  ## beside other libraries, which get an environment of their own; about half an hour
	$(BENCH)/bin/python benchmarks/page.py

$(BENCH)/.stamp: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements.txt
	touch $@

clear:  ## remove all that the project made, and nothing else
	rm -rf $(VENV) $(BENCH) .audit demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .faults.jsonl examples/*/runs examples/*/logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
