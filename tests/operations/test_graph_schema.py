"""What ``graph --json`` prints is what docs/schemas/graph.schema.json says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.operations.graph import VERSION, as_json
from s2s_fastapi.operations.relations import Relation, RouteAnswer, Status, Unanswered
from tests.operations.landscape import SHOP, STOCK, app, call, client, route
from tests.operations.schemas import DOCS, valid

SCHEMA: dict[str, Any] = json.loads((DOCS / "schemas" / "graph.schema.json").read_text(encoding="utf-8"))


def test_the_schema_has_the_kinds_and_the_version_of_the_code() -> None:
    assert SCHEMA["properties"]["relations"]["items"]["properties"]["status"]["enum"] == [*map(str, Status)]
    assert SCHEMA["properties"]["version"] == {"const": VERSION}


@pytest.mark.parametrize("status", Status)
def test_each_kind_of_relation_is_as_the_schema_says_and_one_more_member_is_not(status: Status) -> None:
    routes = (RouteAnswer("GET /items", accepted=False, reason="expired", cure="Wait."),)
    full = Relation(SHOP, STOCK, status, (STOCK,), ("s",), routes, {"azp": SHOP}, "a", "b", on_behalf=True, dpop=True)
    printed = as_json([full, Relation(SHOP, STOCK, status)], [Unanswered(SHOP, "ghost")])
    assert valid(json.dumps(printed), "graph") == printed
    for place in (printed, printed["relations"][0], printed["relations"][0]["routes"][0], printed["unanswered"][0]):
        place["more"] = ""
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(printed, SCHEMA)
        del place["more"]


@pytest.mark.parametrize("with_realm", [True, False])
def test_what_the_command_prints_is_as_the_schema_says(with_realm: bool, tmp_path: Path) -> None:
    access, realm = tmp_path / "access.json", tmp_path / "corp.json"
    apps = [
        app(STOCK, route("/items", {"caller": [SHOP]})),
        app(SHOP, calls=[call(STOCK), call("ghost")], receives=False),
    ]
    access.write_text(json.dumps({"version": 1, "apps": apps}))
    clients = [client(SHOP, STOCK), client(STOCK)]
    for each in clients:
        del each["defaultClientScopes"]  # the realm's own
    realm.write_text(json.dumps({"realm": "corp", "enabled": True, "clients": clients}))
    options = ["--realm-file", str(realm)] if with_realm else []
    done = CliRunner().invoke(command_line(), ["graph", str(access), "--json", *options])
    printed = valid(done.stdout, "graph")
    assert printed["unanswered"] == [{"caller": SHOP, "audience": "ghost"}]
    assert all((each["token"] is not None) is with_realm for each in printed["relations"])
