# MLTrading on Airflow: the commands for a bare machine (Linux, Python 3.11 to 3.14).
# Every target makes the environment .venv/ first, once. Elsewhere: docker compose up.

# AIRFLOW=3 after any target: on Airflow 3, in .venv-airflow3/; by itself where Python is too new for 2.11.
VENV := $(shell AIRFLOW=$(AIRFLOW) include/standalone/setup.sh --folder)
PYTHON_OF_VENV = $(VENV)/bin/python
# Tests wait a third of their time: three processes for two cores. Order and grouping: tests/conftest.py.
PARALLEL = -n 3 --no-loadscope-reorder
.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help setup demo run shell test test-fast test-exhaustive test-second-python lint bench smoke-live \
	docs constraints check-constraints clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-26s %s\n", $$1, $$2 }'

setup: ## Make the environment .venv/ (PYTHON=/path/to/python chooses the interpreter)
	@AIRFLOW=$(AIRFLOW) include/standalone/setup.sh

demo: setup ## Everything local and offline: load, collect, compute, show (ONCE=1: end by itself; SYMBOLS=100)
	@$(PYTHON_OF_VENV) -m include.standalone demo $(if $(ONCE),--once) $(if $(SYMBOLS),--symbols $(SYMBOLS))

run: setup ## The real thing: against Yahoo, on its schedules, until Ctrl-C
	@$(PYTHON_OF_VENV) -m include.standalone run

shell: setup ## A shell in which airflow, psql and the command line work (CMD='…': run that and end)
	@$(PYTHON_OF_VENV) -m include.standalone shell $(if $(value CMD),--command "$$SHELL_COMMAND")

test: setup ## The tests: unit, integration, end to end; 6 to 12 minutes on two cores
	@$(PYTHON_OF_VENV) -m pytest -m "not exhaustive" $(PARALLEL)

test-fast: setup ## The tests without Airflow and browser; two to five minutes
	@$(PYTHON_OF_VENV) -m pytest -m "not e2e and not exhaustive" $(PARALLEL)

test-exhaustive: setup ## The slow rest: every fault at every step, full sizes
	@$(PYTHON_OF_VENV) -m pytest -m exhaustive $(PARALLEL)

test-second-python: setup ## The unit tests on the other supported Python, where the machine has it
	@include/standalone/second_python.sh

lint: setup ## Check style, types, configuration and pins; changes nothing
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PYTHON_OF_VENV) -m include.mltrading validate
	@VENV=$(VENV) include/standalone/constraints.sh check

bench: setup ## Measure against the floor, into bench.json (ONLY=engine or airflow: that part)
	@$(PYTHON_OF_VENV) -m include.standalone bench $(if $(ONLY),--only $(ONLY))

smoke-live: setup ## One symbol from the real Yahoo through the adapter (needs a network)
	@$(PYTHON_OF_VENV) -m include.standalone smoke-live

docs: setup ## Write the generated pages of docs/ anew: commands, configuration, data dictionary, features
	@$(PYTHON_OF_VENV) -m include.reference

constraints: setup ## Compile constraints.txt from the requirements files (UPGRADE=1: newer releases)
	@VENV=$(VENV) include/standalone/constraints.sh write $(if $(UPGRADE),--upgrade)

check-constraints: setup ## Check that constraints.txt is what the requirements files need
	@VENV=$(VENV) include/standalone/constraints.sh check

clean: ## Delete .venv/, all data and secrets of this checkout, and caches
	@include/standalone/clean.sh

# Passed on as it was typed, over several lines too: make would expand its dollars.
unexport CMD
export SHELL_COMMAND := $(value CMD)
