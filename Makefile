# The set-up is `make demo` or `make test`; both build .venv first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help demo test lint format keycloak env bench clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(VENV)/.installed  ## Play the three stories without a Keycloak, and show what came of each line
	$(BIN)/python -m example_app

test: $(VENV)/.installed lint  ## Lint, check types, run every test; those on a real Keycloak wherever Java and Maven are there
	$(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed  ## Put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

keycloak: $(VENV)/.installed  ## Start a real Keycloak with the realms of the three stories, to play with
	$(BIN)/python -m tests.keycloak

env: $(VENV)/.installed  ## Write .env with fresh secrets for docker compose, unless it is there
	$(BIN)/python -m example_app.env

bench: $(VENV)/.installed  ## Measure what a guarded route and a cold burst cost
	$(BIN)/python benchmarks/receiver.py
	$(BIN)/python benchmarks/burst.py

clean:  ## Remove what was built
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
