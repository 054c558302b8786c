# The set-up is `make demo` or `make test`; both build .venv first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# More workers than cores make tests with a limit in time fail. A file stays with one worker, because its tests share servers.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadfile
# Percent of lines and branches that the tests must run: what was measured (98.4), less one, because some tests depend on the machine.
COVERED ?= 97
# What installs packages into the environment $(1). UV=uv is less work: 5 s of CPU for all that the tests need, in place of 40.
install = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python,$(1)/bin/python -m pip install --quiet --disable-pip-version-check)
# What `make check` compares the files with: BASE=main for all of a branch.
BASE ?= HEAD

.PHONY: help demo check test test-one coverage constraints surface pictures test-lowest test-wheel test-layouts test-mcp fastapi-suite lint format keycloak parity env trace bench conformance down release clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV)) -c constraints.txt -e '.[test,browser-test,mcp-test,docs]'
	@touch $@

demo: $(VENV)/.installed  ## Play the five stories without a Keycloak, and show the result of each line
	$(BIN)/python -m example_app

check: $(VENV)/.installed lint  ## Lint, check types, run the tests of the files that you changed (BASE=main: of your branch)
	$(BIN)/python -m pytest -q $$($(BIN)/python -m tests.kit.changed $(BASE)) $(PYTEST)

test-one: $(VENV)/.installed  ## Run one file, folder or test: T=tests/test_names.py (PYTEST="-k word" for a part)
	$(BIN)/python -m pytest $(or $(T),$(error write T=tests/test_names.py)) $(PYTEST)

test: $(VENV)/.installed lint  ## Lint, check types, run every test; those on a real Keycloak if Java and Maven are there
	$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/real $(PYTEST)
	$(BIN)/python -m pytest $(PARALLEL) --no-loadscope-reorder tests/real $(PYTEST)

coverage: $(VENV)/.installed  ## Run every test without a real Keycloak, and fail if too few branches of the package run
	$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/real --cov --cov-fail-under=$(COVERED) $(PYTEST)

constraints: $(VENV)/.installed  ## Write constraints.txt: the newest versions of all that the tests need
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/python -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate --custom-compile-command 'make constraints' -o constraints.txt pyproject.toml tests/release/requirements.txt

surface: $(VENV)/.installed  ## Write tests/public_surface.txt anew: the public names and signatures, for a review of what changed
	$(BIN)/python -m tests.kit.surface

.PHONY: docs
docs: $(VENV)/.installed  ## Build the site of docs/ into build/site; open build/site/index.html, no server is needed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict -f docs/mkdocs.yml

pictures: $(VENV)/.installed  ## Take the pictures of the docs anew, of what runs
	$(BIN)/python -m tests.browser.pictures

test-lowest: VENV = .venv-lowest
test-lowest:  ## Run the tests on the oldest versions of our dependencies that we allow
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV)) -c constraints.txt uv
	mkdir -p build && $(BIN)/python -m uv pip compile --quiet --resolution lowest-direct --extra cli --extra otel --extra redis -o build/lowest.txt pyproject.toml
	$(call install,$(VENV)) -c build/lowest.txt -e '.[test]'
	# Old packages warn about new ones below them; that is theirs to mend.
	$(BIN)/python -m pytest -W ignore::DeprecationWarning --ignore=tests/browser --ignore=tests/mcp $(PYTEST)

test-wheel: VENV = .venv-wheel
test-wheel:  ## Run the tests against the built wheel, away from the source
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w build/wheel .
	$(call install,$(VENV)) -c constraints.txt "$$(ls build/wheel/*.whl)[test]"
	$(call install,$(VENV)) --force-reinstall --no-deps build/wheel/*.whl
	tar c --exclude=__pycache__ tests example_app docs README.md CHANGELOG.md pyproject.toml constraints.txt | tar x -C build/wheel
	cd build/wheel && $(abspath $(BIN))/python -m pytest --ignore=tests/browser --ignore=tests/mcp --ignore=tests/test_docs.py --ignore=tests/test_compose.py --ignore=tests/test_make_trace.py --ignore=tests/test_speed.py --ignore=tests/test_conformance.py --ignore=tests/release $(PYTEST)

.venv-layouts/.installed: pyproject.toml tests/receiver/layouts/packages/requirements.txt
	$(PYTHON) -m venv .venv-layouts
	$(call install,.venv-layouts) -r tests/receiver/layouts/packages/requirements.txt -e '.[otel]'
	@touch $@

test-layouts: .venv-layouts/.installed  ## Run the apps of tests/receiver/layouts and tests/moving, those on third-party packages too, in the pinned versions
	.venv-layouts/bin/python -m pytest -W ignore::DeprecationWarning tests/receiver/layouts/test_layouts.py tests/receiver/layouts/packages/layouts_on_packages.py tests/moving/before_on_packages.py tests/moving/mcp_on_packages.py $(PYTEST)

.venv-mcp/.installed: pyproject.toml tests/mcp/requirements.txt
	$(PYTHON) -m venv .venv-mcp
	$(call install,.venv-mcp) -r tests/mcp/requirements.txt -e '.[otel]'
	@touch $@

test-mcp: .venv-mcp/.installed  ## Run tests/mcp on the older generation of the two MCP SDKs (two files are about the newer one)
	.venv-mcp/bin/python -m pytest -W ignore::DeprecationWarning --ignore=tests/mcp/test_story.py --ignore=tests/mcp/test_official_extensions.py tests/mcp $(PYTEST)

.venv-fastapi-suite/.installed: pyproject.toml tests/fastapi_suite/requirements.txt
	$(PYTHON) -m venv .venv-fastapi-suite
	$(call install,.venv-fastapi-suite) -r tests/fastapi_suite/requirements.txt -e .
	@touch $@

fastapi-suite: .venv-fastapi-suite/.installed  ## Run FastAPI's own tests behind our middleware, and compare (SUITE=--part for security, dependencies and WebSockets)
	.venv-fastapi-suite/bin/python -m tests.fastapi_suite $(SUITE)

lint: $(VENV)/.installed  ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed  ## Put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

keycloak: $(VENV)/.installed  ## Start a real Keycloak with the realms of the stories, to play with
	$(BIN)/python -m tests.real

parity: $(VENV)/.installed  ## Ask the embedded issuer and real servers the same about many realm files, and write docs/realm-parity.md (VERSIONS=26.0.8 for one, FILES="keys light" for some)
	$(BIN)/python -m tests.real.parity $(VERSIONS) $(FILES)

env:  ## Write .env with fresh secrets for docker compose, unless it is there (needs only Python)
	$(PYTHON) -m example_app.env

down: env  ## End what docker compose started, Grafana too
	docker compose --profile observability down --remove-orphans

trace: $(VENV)/.installed env  ## Start docker compose with Keycloak and the services tracing, and print where to look at a checkout's trace
	$(BIN)/python -m example_app.observability

.venv-bench/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt -e .
	@touch $@

bench: .venv-bench/.installed  ## Measure what a guarded route and a token that goes out cost, beside others, and write docs/speed.md (BENCH=--quick only tries it out)
	.venv-bench/bin/python -m benchmarks $(BENCH)

# Without the packages whose guards are compared: their versions are those of the published results, also when constraints.txt has newer ones.
build/conformance.txt: constraints.txt benchmarks/conformance/requirements.txt
	mkdir -p build && sed -nE 's/^([A-Za-z0-9._-]+).*==.*/^\1==/p' benchmarks/conformance/requirements.txt | grep -vif - constraints.txt >$@

.venv-conformance/.installed: pyproject.toml build/conformance.txt
	$(PYTHON) -m venv .venv-conformance
	$(call install,.venv-conformance) -c build/conformance.txt -r benchmarks/conformance/requirements.txt -e .
	@touch $@

conformance: .venv-conformance/.installed  ## Attack an app behind our guard and behind three others, and write docs/conformance.md (CONFORMANCE=--check only compares)
	.venv-conformance/bin/python -m benchmarks.conformance.run $(CONFORMANCE)

.venv-release/.installed: tests/release/requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-release
	$(call install,.venv-release) --only-binary :all: -c constraints.txt -r tests/release/requirements.txt
	@touch $@

# The tag goes through the environment: a tag may hold what a shell runs.
release: .venv-release/.installed  ## Make dist/ from the last commit, twice with the same bytes, and look at it; SBOM and licences (TAG=v0.1.0 must fit the version)
	.venv-release/bin/python -m tests.release

clean:  ## Remove what was built
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
