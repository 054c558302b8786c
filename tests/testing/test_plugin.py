"""The pytest plugin, in a pytest of its own and a folder without a conftest.py."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from example_app.realm import REALMS

ROOT = Path(__file__).parents[2]
SHELL = {
    "KEYCLOAK_URL": "nonsense",
    "KEYCLOAK_ISSUER": "https://sso.example.com/realms/corp",
    "KEYCLOAK_AUDIENCE": "nobody",
    "KEYCLOAK_CLIENT_SECRET": "",
}
EXAMPLE = """
from crm_gateway import app

def test_who_may_open(client_of, as_service, as_user):
    client = client_of(app)
    ticket = {"subject": "x"}
    assert client.post("/tickets", json=ticket, auth=as_service("chat-app-service")).status_code == 201
    assert client.post("/tickets", json=ticket, auth=as_service("billing")).status_code == 403
    assert client.post("/tickets", json=ticket, auth=as_user("ann", via="chat-app-service")).status_code == 403
    assert client.post("/tickets", json=ticket).status_code == 401
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crm_gateway.py").write_text((ROOT / "example_app" / "crm_gateway.py").read_text())
    return tmp_path


def pytest_in(
    folder: Path, test: str, *options: str, ini: str = "", shell: dict[str, str] = SHELL, by_name: bool = False
) -> str:
    """Run one test file and return what pytest says. `by_name`: the plugin comes by its entry point, as after an installation."""
    (folder / "test_it.py").write_text(test)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("KEYCLOAK_", "PYTEST_"))}
    variables |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), **shell}
    variables |= {} if by_name else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugin = () if by_name else ("-p", "s2s_fastapi_pytest")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, "-W", "error", *options],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_the_example_of_the_documentation_passes_in_an_empty_folder(folder: Path) -> None:
    assert "1 passed" in pytest_in(folder, EXAMPLE)


def test_the_example_passes_in_parallel_workers(folder: Path) -> None:
    pytest.importorskip("xdist")
    assert "1 passed" in pytest_in(folder, EXAMPLE, "-p", "xdist", "-n", "1")


def test_the_fixtures_work_in_async_tests_of_anyio(folder: Path) -> None:
    test = """
import pytest
from crm_gateway import app

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_async(async_client_of, client_of, as_service, anyio_backend):
    async with async_client_of(app) as client:
        assert (await client.get("/tickets", auth=as_service("billing"))).status_code == 200
        assert client_of(app).get("/tickets", auth=as_service("billing")).status_code == 200
"""
    assert "2 passed" in pytest_in(folder, test, "-p", "anyio")


def test_a_run_that_asks_for_no_fixture_loads_nothing(folder: Path) -> None:
    test = """
import sys

def test_nothing_is_loaded():
    heavy = {"s2s_fastapi", "fastapi", "starlette", "httpx", "httpx2", "joserfc", "pydantic", "anyio"}
    assert heavy.isdisjoint(sys.modules)
    assert "s2s_fastapi_pytest" in sys.modules
"""
    assert "1 passed" in pytest_in(folder, test)


def test_the_ini_setting_names_realm_files(folder: Path) -> None:
    (folder / "realms").mkdir()
    (folder / "realms" / "corp.json").write_text(REALMS["corp"].read_text())
    test = """
import pytest
from crm_gateway import app

def test_only_what_the_file_grants(client_of, as_service):
    client = client_of(app)
    assert client.get("/tickets", auth=as_service("billing")).status_code == 200
    assert client.get("/tickets", auth=as_service("chat-app-unassigned")).status_code == 401
    with pytest.raises(Exception, match="has no client nobody"):
        client.get("/tickets", auth=as_service("nobody"))
"""
    assert "1 passed" in pytest_in(folder, test, ini="s2s_realm_files = realms/corp.json\n")


def test_a_service_in_a_process_is_tested_with_its_environment(folder: Path) -> None:
    test = '''
import subprocess, sys

SCRIPT = """
from s2s_fastapi import KeysUnavailable, ServiceTokenAuth, TokenVerifier
import sys
verifier = TokenVerifier()
while True:  # a busy machine may not answer in 3 s
    try:
        assert verifier.verify(sys.argv[1]).client_id == "chat-app-service"
        break
    except KeysUnavailable:
        pass
print(ServiceTokenAuth(audience="crm").token())
"""

def test_both_ways(service_environment, as_service, keycloak_issuer):
    token = as_service("chat-app-service", audience="queue").token
    variables = service_environment("queue", audience="crm")
    ran = subprocess.run([sys.executable, "-c", SCRIPT, token], env=variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(".") == 2
'''
    assert "1 passed" in pytest_in(folder, test)


def test_a_missing_setting_names_the_fixture(folder: Path) -> None:
    test = """
from fastapi.testclient import TestClient
from crm_gateway import app

def test_without_a_block():
    with TestClient(app):
        pass

def test_without_a_lifespan():
    assert TestClient(app).get("/tickets").status_code == 401
"""
    said = pytest_in(folder, test, shell={})
    assert "2 failed" in said
    assert "client = client_of(app)" in said
    assert "client_of(app, verifier)" in said
    assert "apps that had not started (s2s_fastapi)" in said
    assert said.count("test_it.py::test_without_a_lifespan") >= 2


def test_the_plugin_has_the_name_that_turns_it_off(folder: Path) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = folder / "installed-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    lines = [f"{name} = {module}" for name, module in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    test = "def test_it(request, keycloak_issuer): ...\n"
    assert "1 passed" in pytest_in(folder, test, by_name=True)
    assert "fixture 'keycloak_issuer' not found" in pytest_in(folder, test, "-p", "no:s2s_fastapi", by_name=True)


def test_a_test_after_the_first_one_is_fast_and_leaves_nothing(folder: Path) -> None:
    test = """
import statistics, time
import pytest
from crm_gateway import app

@pytest.fixture(autouse=True, scope="module")
def before():
    return dict(vars(app))

@pytest.mark.parametrize("number", range(20))
def test_many(client_of, as_service, number, before):
    assert vars(app) == before
    assert client_of(app).get("/tickets", auth=as_service("billing")).status_code == 200
"""
    assert "20 passed" in pytest_in(folder, test)
