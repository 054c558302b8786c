"""``s2s-fastapi attack``."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.command import run

ROOT = str(Path(__file__).resolve().parents[2])
RIGHT = "example_app.crm_gateway:app"
BROKEN = "tests.testing.attack.broken.ours:observed"
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crm_gateway"], "Write the app as module:app, for example crm_gateway:app, not 'crm_gateway'."),
        (["no_such_module:app"], "There is no module no_such_module in"),
        (["example_app.crm_gateway:nothing"], "The module example_app.crm_gateway has no nothing."),
        (["example_app.shop_api:app", "--only", "nothing"], "There is no case and no kind of cases named nothing."),
        ([RIGHT, "--url", "http://crm.example:80"], "Only an app on this machine can be attacked"),
        (["example_app.crm_gateway:opened"], "pass the app that ServiceAuthMiddleware was added to"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], words: str) -> None:
    done = run("attack", *arguments, PYTHONPATH=ROOT)

    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
