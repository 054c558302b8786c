"""The command ``s2s-fastapi graph``: what it prints, writes and answers with its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from s2s_fastapi.cli.commands import command_line
from tests.operations.landscape import SHOP, STOCK, app, call, client, route


def graph(*arguments: object) -> Any:
    return CliRunner().invoke(command_line(), ["graph", *map(str, arguments)])


@pytest.fixture
def access(tmp_path: Path) -> Path:
    path = tmp_path / "access.json"
    apps = [app(STOCK, route("/items", {"caller": [SHOP]})), app(SHOP, calls=[call(STOCK)], receives=False)]
    path.write_text(json.dumps({"version": 1, "apps": apps}))
    return path


def realm_file(directory: Path, *audiences: str, name: str = "corp") -> Path:
    path = directory / f"{name}.json"
    clients = [client(SHOP, *audiences), client(STOCK)]
    for each in clients:
        del each["defaultClientScopes"]  # the realm's own
    path.write_text(json.dumps({"realm": name, "enabled": True, "clients": clients}))
    return path


def test_a_landscape_in_which_all_fits_is_a_table_and_exit_code_0(access: Path, tmp_path: Path) -> None:
    done = graph(access, "--realm-file", realm_file(tmp_path, STOCK))

    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(SHOP)]
    assert "declared, and Keycloak grants it" in line
    assert line.rstrip().endswith("1 of 1")


def test_what_does_not_fit_is_exit_code_1(access: Path, tmp_path: Path) -> None:
    done = graph(access, "--realm-file", realm_file(tmp_path), "--json")

    assert done.exit_code == 1
    assert [each["status"] for each in json.loads(done.stdout)["relations"]] == ["not_granted"]


def test_only_routes_of_the_first_realm_are_drawn_and_the_others_are_named(tmp_path: Path) -> None:
    shops = "https://sso.partner.test/realms/shops"
    theirs = route("/theirs", {"caller": [SHOP], "realm": shops})
    apps = [app(STOCK, route("/items", {"caller": [SHOP]}), theirs), app(SHOP, calls=[call(STOCK)], receives=False)]
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"version": 1, "apps": apps}))
    done = graph(path, "--realm-file", realm_file(tmp_path, STOCK))

    assert done.exit_code == 0, done.output
    assert "1 of 1" in done.stdout
    assert f"{STOCK} also accepts callers of {shops}: they are not looked at here." in done.stderr


def test_what_to_change_and_the_plan_stand_below_the_table_and_on_the_page(access: Path, tmp_path: Path) -> None:
    page = tmp_path / "graph.html"
    lacking = graph(access, "--realm-file", realm_file(tmp_path), "--html", page)
    foreign = graph(access, "--realm-file", realm_file(tmp_path, STOCK, "else"))

    assert f"{SHOP} calls {STOCK}: s2s-fastapi plan shows what the realm lacks" in lacking.stdout
    assert f"is in a plan: s2s-fastapi plan {access}" in lacking.stdout
    assert f'"plan": "s2s-fastapi plan {access}"' in page.read_text()
    assert "s2s-fastapi plan" not in foreign.stdout


def test_a_route_that_names_the_caller_and_refuses_it_is_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    named = {"caller": [SHOP]}
    strict = app(STOCK, route("/items", named), route("/export", {"and": [named, {"scope": ["export"]}]}))
    calling = app(SHOP, calls=[call(STOCK)], receives=False)
    path.write_text(json.dumps({"version": 1, "apps": [strict, calling]}))
    done = graph(path, "--realm-file", realm_file(tmp_path, STOCK))

    assert done.exit_code == 1
    assert "1 of 2 routes that name this caller refuses it: GET /export (scope_missing)" in done.stdout
    assert "lacks scope export. Assign the client scope export" in done.stdout


def test_without_a_realm_what_is_declared_is_shown(access: Path) -> None:
    done = graph(access, "--mermaid")

    assert done.exit_code == 0
    assert 's0 -->|"declared"| s1' in done.stdout


def test_the_page_is_written_beside_the_table(access: Path, tmp_path: Path) -> None:
    done = graph(access, "--realm-file", realm_file(tmp_path, STOCK), "--html", tmp_path / "graph.html")

    assert done.exit_code == 0
    page = (tmp_path / "graph.html").read_text()
    assert "in the realm corp" in page
    assert "Nothing needs attention" in page
    assert "to look at" not in page.lower()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--json", "--mermaid"], "not both"),
        (["--realm", "corp"], "--realm-file"),
        (["--html", "missing/graph.html"], "cannot be written"),
    ],
    ids=["two forms", "a realm of no file", "no directory"],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(access: Path, arguments: list[str], sentence: str) -> None:
    done = graph(access, *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_realm_of_several_is_chosen_by_name(access: Path, tmp_path: Path) -> None:
    files = [realm_file(tmp_path, STOCK), realm_file(tmp_path, name="lab")]
    options = [word for file in files for word in ("--realm-file", file)]

    assert graph(access, *options).exit_code == 2
    assert [graph(access, *options, "--realm", name).exit_code for name in ("corp", "lab")] == [0, 1]


def test_a_name_is_never_markup_in_the_table(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    caller = app("[link=javascript:x]a[/link]", calls=[call(STOCK)], receives=False)
    path.write_text(json.dumps({"version": 1, "apps": [app(STOCK, route("/items")), caller]}))

    assert "[link=javascript:x]a[/link]" in graph(path).stdout


def test_a_long_row_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    caller = app("shop", calls=[call("n" * 250)], receives=False)
    path.write_text(json.dumps({"version": 1, "apps": [app(STOCK, route("/items")), caller]}))

    printed = graph(path).stdout
    assert [
        line
        for line in printed.splitlines()
        if line.startswith("shop calls the audience n") and line.endswith("accepts it.")
    ]
