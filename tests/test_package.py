"""The package as a whole: what it exports, when it is loaded, and what importing it does not do."""

import ast
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import get_type_hints

import pytest

import s2s_fastapi

NAMES = s2s_fastapi.__all__


def run(script: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_every_public_name_is_exported_in_order() -> None:
    assert sorted(NAMES, key=lambda name: (name.upper() != name, name[0].islower(), name)) == NAMES
    assert all(hasattr(s2s_fastapi, name) for name in NAMES)


def test_type_checkers_read_each_name_from_the_module_that_it_is_loaded_from() -> None:
    tree = ast.parse(Path(s2s_fastapi.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    read = {name.name: str(node.module).removeprefix("s2s_fastapi.") for node in imports for name in node.names}
    assert read == s2s_fastapi._MODULES
    assert sorted(read) == sorted(NAMES)


def test_importing_the_package_loads_only_its_version_and_the_hooks_for_forks() -> None:
    loaded = run("import sys, s2s_fastapi; print(*sys.modules)").split()
    assert [name for name in loaded if name.startswith("s2s_fastapi")] == [
        "s2s_fastapi.process",
        "s2s_fastapi.version",
        "s2s_fastapi",
    ]
    assert {"fastapi", "starlette", "httpx", "pydantic", "opentelemetry"}.isdisjoint(loaded)


def test_importing_all_names_reads_no_environment_starts_no_thread_and_loads_no_cryptography() -> None:
    script = """
import sys, threading
import fastapi, httpx
before = threading.active_count()
from s2s_fastapi import *
from s2s_fastapi.caller.auth import ServiceTokenAuth
assert threading.active_count() == before
late = {"joserfc", "cryptography", "authlib", "httpx2", "requests", "aiohttp", "grpc"} & set(sys.modules)
assert not late, late
"""
    run(script, KEYCLOAK_URL="nonsense", KEYCLOAK_LEEWAY="-1")


def test_pydantic_settings_is_loaded_when_settings_are_first_made() -> None:
    script = """
import sys
from s2s_fastapi import {names}
auth, client = ServiceTokenAuth("http://bob:8000"), service_client("http://crm:8000", audience="crm")
middleware, verifier = ServiceAuthMiddleware(None), TokenVerifier()
assert "pydantic_settings" not in sys.modules
assert verifier.audiences == frozenset(["crm"])
assert "pydantic_settings" in sys.modules
"""
    names = ", ".join(name for name in NAMES if name != "KeycloakSettings")
    run(script.format(names=names), KEYCLOAK_URL="http://k:8080", KEYCLOAK_REALM="r", KEYCLOAK_CLIENT_ID="crm")


@pytest.mark.parametrize(
    "name",
    [
        "ServiceAuthMiddleware.__init__",
        "TokenVerifier.__init__",
        "ServiceTokenAuth.__init__",
        "service_auth",
        "service_client",
    ],
)
def test_a_container_can_read_the_type_hints_of_whatever_takes_settings(name: str) -> None:
    hints = get_type_hints(attrgetter(name)(s2s_fastapi))
    one, several = s2s_fastapi.KeycloakSettings, Sequence[s2s_fastapi.KeycloakSettings]
    assert hints["settings"] == (
        one | several | None if "__init__" in name and "Auth.__init__" not in name else one | None
    )


def test_a_name_that_was_loaded_is_a_plain_attribute_from_then_on() -> None:
    script = """
import s2s_fastapi
assert "Principal" not in vars(s2s_fastapi)
assert s2s_fastapi.Principal is s2s_fastapi.Principal
assert vars(s2s_fastapi)["Principal"] is s2s_fastapi.principal.Principal
"""
    run(script)


def test_the_modules_of_public_names_are_attributes_and_others_must_be_imported() -> None:
    script = """
import s2s_fastapi
assert s2s_fastapi.errors.S2SError is s2s_fastapi.S2SError
assert not hasattr(s2s_fastapi, "cli")
assert callable(s2s_fastapi.health)
"""
    run(script)


def test_all_names_are_listed_before_any_is_loaded() -> None:
    listed = run("import s2s_fastapi; print(*dir(s2s_fastapi))").split()
    assert set(NAMES) <= set(listed)
    assert {name for name in set(listed) - set(NAMES) if name[:2] != "__"} == set()
    assert {"__all__", "__doc__", "__version__"} <= set(listed)


def test_a_star_import_gives_exactly_the_public_names() -> None:
    given = run("from s2s_fastapi import *; print(*[name for name in dir() if name[:2] != '__'])").split()
    assert sorted(given) == sorted(NAMES)


def test_a_misspelt_name_is_an_error_that_suggests_the_right_one() -> None:
    with pytest.raises(AttributeError, match="module 's2s_fastapi' has no attribute 'require_calller'") as caught:
        _ = s2s_fastapi.require_calller  # type: ignore[attr-defined] # the mistake itself
    assert (caught.value.name, caught.value.obj) == ("require_calller", s2s_fastapi)
    with pytest.raises(ImportError, match="cannot import name 'require_calller'"):
        exec("from s2s_fastapi import require_calller")  # noqa: S102 - as a developer writes it


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in {"DOCS", "CurrentPrincipal", "OptionalPrincipal"}]
)
def test_a_public_name_is_pickled_and_inspected_as_what_its_module_defines(name: str) -> None:
    value = getattr(s2s_fastapi, name)
    assert pickle.loads(pickle.dumps(value)) is value  # noqa: S301 - our own
    assert value.__module__ == f"s2s_fastapi.{s2s_fastapi._MODULES[name]}"
    assert inspect.getsource(value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_is_forked_during_the_first_use_of_a_name_uses_it_too() -> None:
    script = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python warns about each fork with threads
import s2s_fastapi
thread = threading.Thread(target=lambda: (s2s_fastapi.ServiceAuthMiddleware, s2s_fastapi.ServiceTokenAuth))
thread.start()
while "httpx" not in sys.modules and thread.is_alive():
    time.sleep(0.001)
if (child := os.fork()) == 0:
    signal.alarm(20)
    s2s_fastapi.ServiceAuthMiddleware, s2s_fastapi.ServiceTokenAuth
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
"""
    assert run(script) == "0\n"
