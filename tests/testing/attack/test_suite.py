"""``attack_tests(app)`` in a test file of a user."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack import attack_tests
from tests.testing.attack import hosts
from tests.testing.attack.broken import ours

ROOT = Path(__file__).resolve().parents[3]
FILE = """
from s2s_fastapi.testing.attack import attack_tests
from tests.testing.attack.broken import ours

test_attacks = attack_tests({app}, only={only})
"""


def played(folder: Path, app: str, only: list[str], *options: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_app.py").write_text(FILE.format(app=app, only=only), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, *options, "test_app.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "KEYCLOAK_URL": "http://elsewhere", "KEYCLOAK_REALM": "other"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_right_app_passes_with_an_item_for_each_case_on_each_route(tmp_path: Path) -> None:
    done = played(tmp_path, "ours.orders()", ["no-token", "user"])

    assert done.returncode == 0, done.stdout
    for route in ("GET /orders", "DELETE /orders", "WEBSOCKET /live"):
        assert f"PASSED test_app.py::test_attacks[{route} no-token]" in done.stdout
        assert f"PASSED test_app.py::test_attacks[{route} user]" in done.stdout
    assert "PASSED test_app.py::test_attacks[somebody-gets-in]" in done.stdout
    assert "PASSED test_app.py::test_attacks[GET /orders good-token]" in done.stdout
    assert "GET /health" not in done.stdout


def test_a_route_that_refuses_a_good_token_fails_and_is_tried_all_the_same(tmp_path: Path) -> None:
    done = played(tmp_path, "ours.orders(ours.Inverted, requires=())", ["no-token", "user"])

    assert "FAILED test_app.py::test_attacks[DELETE /orders good-token]" in done.stdout
    assert "FAILED test_app.py::test_attacks[DELETE /orders no-token]" in done.stdout
    assert "SKIPPED" in done.stdout
    assert "PASSED test_app.py::test_attacks[GET /orders good-token]" in done.stdout


def test_a_hole_fails_its_item_alone_and_says_what_was_sent(tmp_path: Path) -> None:
    done = played(tmp_path, "ours.orders(ours.OpensDelete, requires=())", ["no-token"])

    assert done.returncode == 1
    assert "FAILED test_app.py::test_attacks[DELETE /orders no-token]" in done.stdout
    assert "DELETE /orders: no-token (No Authorization header.) 200 reached the route" in done.stdout
    assert "Sources: RFC 6750 section 3.1" in done.stdout
    assert "PASSED test_app.py::test_attacks[GET /orders no-token]" in done.stdout


def test_a_case_that_proves_nothing_is_skipped_with_its_reason(tmp_path: Path) -> None:
    done = played(tmp_path, "ours.orders(requires=())", ["stranger"])

    assert done.returncode == 0
    assert "not_applicable: the route permits this caller" in done.stdout


def test_an_app_that_refuses_everybody_fails(tmp_path: Path) -> None:
    done = played(tmp_path, "ours.refuses_everybody()", ["no-token"])

    assert done.returncode == 1
    assert "FAILED test_app.py::test_attacks[somebody-gets-in]" in done.stdout
    assert "Nobody gets in: no route accepted a good token, so no refusal proves anything." in done.stdout
    assert "GET /orders: a good token was not accepted: 401" in done.stdout


def test_two_collections_have_the_same_ids() -> None:
    first, second = (attack_tests(ours.orders()) for _ in range(2))

    ids = [[item.id for item in test.pytestmark[0].args[1]] for test in (first, second)]  # type: ignore[attr-defined]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0]) > 300


def test_an_app_that_cannot_be_attacked_says_so_when_the_file_is_read() -> None:
    with pytest.raises(ConfigurationError, match="has no ServiceAuthMiddleware"):
        attack_tests(object())


@pytest.mark.parametrize("make", [hosts.below_one_middleware, hosts.each_with_its_own], ids=lambda make: make.__name__)
def test_a_hole_of_one_host_is_found_if_another_host_has_the_same_path(make: Any) -> None:
    test = attack_tests(make(), only=["no-token"])

    test("GET //api.y.test/s", "no-token")
    with pytest.raises(pytest.fail.Exception, match=r"GET //api\.x\.test/s: no-token .* 200"):
        test("GET //api.x.test/s", "no-token")
    for host in ("x", "y"):
        test(f"GET //api.{host}.test/s", "good-token")


def runs() -> None:
    raise AssertionError("the app's own code ran")


def test_a_route_that_is_declared_twice_has_an_item_for_each() -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="orders")
    for caller in ("billing", "shop"):
        app.add_api_route("/x", runs, dependencies=[Depends(require_caller(caller))])

    test = attack_tests(app, only=["no-token"])

    ids = [item.id for item in test.pytestmark[0].args[1]]  # type: ignore[attr-defined]
    assert ids[1:] == [f"GET /x{number} {case}" for number in ("", " (2)") for case in ("good-token", "no-token")]


def test_a_function_of_two_methods_makes_no_warning() -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="orders")
    app.add_api_route("/x", runs, methods=["GET", "POST"], dependencies=[Depends(require_caller("billing"))])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack_tests(app, only=["no-token"])
