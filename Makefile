# The two commands of the README. Both set up .venv first and reuse it afterwards.
PYTHON_ENV := .venv/bin/python
RUFF := $(PYTHON_ENV) -m ruff

.PHONY: help install demo lint format test

help:
	@echo "make demo     install into .venv, train and evaluate on a small generated set"
	@echo "make test     install into .venv, check the style, run the test suite"
	@echo "make lint     install into .venv, check the style alone"
	@echo "make format   mend what 'make lint' finds, where ruff can"

install:
	@bash tools/install.sh

demo: install
	@$(PYTHON_ENV) tools/demo.py

lint: install
	@$(RUFF) check --no-cache --output-format concise . || \
		{ echo "ERROR: ruff check found the lines above; 'make format' mends what it can" >&2; exit 1; }
	@$(RUFF) format --no-cache --check . || \
		{ echo "ERROR: ruff format would change the files above; 'make format' does" >&2; exit 1; }

format: install
	@$(RUFF) check --no-cache --fix --exit-zero .
	@$(RUFF) format --no-cache .

# Processes that run tests, each with one thread and up to 4 GB.
JOBS ?= 2

# -p no:cacheprovider leaves no files behind; arguments: make test ARGS="-k golden"
test: lint
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} \
		$(PYTHON_ENV) -m pytest -p no:cacheprovider -n $(JOBS) --dist worksteal $(ARGS)
