# The set-up is `make demo` or `make test`; both build .venv first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help test lint format keycloak clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

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

clean:  ## Remove what was built
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
