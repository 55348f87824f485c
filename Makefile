# The two commands of the README. Both set up .venv first and reuse it afterwards.
PYTHON_ENV := .venv/bin/python

.PHONY: help install demo test

help:
	@echo "make demo   install into .venv, train and evaluate on a small generated set"
	@echo "make test   install into .venv, run the test suite"

install:
	@bash tools/install.sh

demo: install
	@$(PYTHON_ENV) tools/demo.py

# Processes that run tests, each with one thread and up to 4 GB.
JOBS ?= 2

# -p no:cacheprovider leaves no files behind; arguments: make test ARGS="-k golden"
test: install
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} \
		$(PYTHON_ENV) -m pytest -p no:cacheprovider -n $(JOBS) --dist worksteal $(ARGS)
