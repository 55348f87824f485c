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

# -p no:cacheprovider leaves no files behind; arguments: make test ARGS="-k golden"
test: install
	@OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(PYTHON_ENV) -m pytest -p no:cacheprovider $(ARGS)
