"""``s2s-fastapi attack``."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from s2s_fastapi.cli.commands import command_line
from tests.cli.command import environment, run

ROOT = str(Path(__file__).resolve().parents[2])
RIGHT = "example_app.crm_gateway:app"
BROKEN = "tests.testing.attack.broken.ours:observed"
TARGET = ("tests.testing.attack.broken.apps:target", "--factory")
CASE = ("--only", "audience-other", "--only", "no-token")


def test_a_right_app_has_no_hole_and_the_environment_counts_for_nothing(tmp_path: Path) -> None:
    done = run(
        "attack", RIGHT, *CASE, "--json", tmp_path / "r.json", "--junit", tmp_path / "r.xml",
        PYTHONPATH=ROOT, KEYCLOAK_URL="http://elsewhere", KEYCLOAK_REALM="other",
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert "0 holes, 4 cases on 3 routes." in done.stdout
    assert "GET /healthz (public)" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["counts"]["held"] == 4
    assert ET.parse(tmp_path / "r.xml").getroot().tag == "testsuites"  # noqa: S314 - our own


def test_a_hole_is_printed_and_is_exit_code_1() -> None:
    done = run("attack", BROKEN, "--factory", *CASE, PYTHONPATH=ROOT)

    assert done.returncode == 1
    assert "HOLE GET /orders: audience-other (The token is for another service.) 200" in done.stdout


def test_an_app_that_refuses_everybody_is_exit_code_2() -> None:
    done = run(
        "attack", "tests.testing.attack.broken.ours:refuses_everybody", "--factory", *CASE, PYTHONPATH=ROOT
    )  # fmt: skip

    assert done.returncode == 2
    assert "NOBODY GETS IN: no route accepted a good token, so no refusal proves anything." in done.stdout


def test_a_target_is_attacked_as_it_says() -> None:
    done = run("attack", "tests.testing.attack.broken.apps:target", "--factory", *CASE, PYTHONPATH=ROOT)

    assert (done.returncode, done.stderr) == (0, "")
    assert "0 holes" in done.stdout


def test_what_another_guard_lets_in_is_named_though_it_is_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "of_another_guard.py").write_text(
        "from tests.testing.attack.broken import apps, holes\napp = apps.target(holes.FirstHeaderCounts)\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(command_line(), ["attack", "of_another_guard:app", "--only", "two-headers.good-twice"])

    assert (done.exit_code, done.stderr) == (0, "")
    assert (
        "LENIENT GET /orders: two-headers.good-twice (Two Authorization headers, one of them with a good token.) 200"
        in done.stdout
    )


def test_an_app_that_a_server_runs_is_attacked_over_its_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    app = "tests.testing.attack.broken.served:app"
    trusted = {"PYTHONPATH": ROOT, "KEYCLOAK_URL": f"http://127.0.0.1:{port}", "KEYCLOAK_REALM": "attacked"}
    with served(app, **trusted) as url:
        done = run(
            "attack", app, "--url", url, "--issuer-port", port, *CASE, "--only", "cached-after-its-end", **trusted
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 holes, 5 cases on 2 routes." in done.stdout
    assert "NOT TRIED DELETE /orders: --unsafe-methods would try it" in done.stdout
    assert "the clock of this app cannot be turned" in done.stdout


@contextmanager
def served(app: str, **values: str) -> Iterator[str]:
    command = [sys.executable, "-m", "uvicorn", app, "--port", "0", "--log-level", "info"]
    with subprocess.Popen(command, env=environment(**values), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = (line for line in process.stderr if "running on" in line)
            yield next(lines).partition("running on ")[2].split()[0]
        finally:
            process.terminate()


@pytest.mark.parametrize(
    "code",
    [
        "import no_such_module",
        "import of",
        "None.url",
        "def app(): None.url",
        "raise SystemExit",
        "import sys; sys.exit(0)",
    ],
)
def test_an_error_of_the_app_itself_is_shown_with_its_place_and_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = f"of_{len(code)}"
    (tmp_path / f"{module}.py").write_text(f"{code}\n", encoding="utf-8")
    done = CliRunner().invoke(command_line(), ["attack", f"{module}:app", "--factory"])
    assert done.exit_code == 2
    assert f'{module}.py", line 1' in done.stderr
    assert done.stderr.endswith(f"The app {module}:app cannot be imported: the error above is its own.\n")


_APP = """
from fastapi import Depends, FastAPI
from s2s_fastapi import ServiceAuthMiddleware, require_caller

class Breaks:
    def __init__(self, app):
        raise {error}

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, audience="crm")
app.add_middleware(Breaks)
app.add_api_route("/x", lambda: None, dependencies=[Depends(require_caller("shop"))])
"""


@pytest.mark.parametrize("error", ["KeyError", "SystemExit"])
def test_an_error_of_the_app_while_it_is_attacked_is_shown_with_its_place_and_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / f"breaks_by_{error}.py").write_text(_APP.format(error=error), encoding="utf-8")
    done = CliRunner().invoke(command_line(), ["attack", f"breaks_by_{error}:app", "--only", "no-token"])
    assert done.exit_code == 2
    assert f'breaks_by_{error}.py", line 7' in done.stderr
    assert done.stderr.endswith(f"The app breaks_by_{error}:app cannot be attacked: the error above says why.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crm_gateway"], "Write the app as module:app, for example crm_gateway:app, not 'crm_gateway'."),
        (["no_such_module:app"], "There is no module no_such_module in"),
        (["example_app.crm_gateway:nothing"], "The module example_app.crm_gateway has no nothing."),
        (["example_app.shop_api:app", "--only", "nothing"], "There is no case and no kind of cases named nothing."),
        ([RIGHT, "--url", "http://crm.example:80"], "Only an app on this machine can be attacked"),
        ([*TARGET, "--url", "http://127.0.0.1:1"], "A Target says by itself how it is attacked"),
        ([*TARGET, "--client-id", "x"], "A Target says by itself how it is attacked"),
        ([*TARGET, "--public", "/x"], "A Target says by itself how it is attacked"),
        ([*TARGET, "--unsafe-methods"], "A Target says by itself how it is attacked"),
        ([*TARGET, "--other-guard"], "A Target says by itself how it is attacked"),
        ([RIGHT, "--factory"], "--factory calls app without arguments, and it cannot be called so."),
        (["sys:platform", "--factory"], "--factory calls platform without arguments, and it cannot be called so."),
        ([RIGHT, "--other-guard"], "--other-guard needs --url."),
        ([RIGHT, "--base-url", "crm"], "Write the base URL as https://api.example.com, not as 'crm'."),
        ([RIGHT, "--base-url", "http://crm", "--url", "http://127.0.0.1:1"], "leave out --base-url"),
        (["example_app.crm_gateway:opened"], "has no ServiceAuthMiddleware"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(command_line(), ["attack", *arguments], catch_exceptions=False)

    assert done.exit_code == 2
    assert words in done.stderr
