"""The command at the end of a refusal's record: only if a signature held, and harmless in a shell, whatever the caller is called."""

import json
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_scope, require_service, require_user
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.telemetry import DecisionLog
from tests.kit.realm import Realm, settings

HOSTILE = (
    "$(touch planted)",
    "`touch planted`",
    "a; touch planted",
    "a\ttouch",
    "a | touch planted",
    "-x",
    "--json",
    "a b",
    "!!",
    "${HOME}",
    "a&touch planted",
    "~",
    "*",
    "#x",
    "é",
)
QUOTES = ("a'; touch planted; '", 'a"; touch planted; "', "a\\", "a'\"'\"'; touch planted")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.getLogger(f"tests.explain.{id(self)}")
        self.logger.propagate = False
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def written(decision: Decision) -> logging.LogRecord:
    lines = Lines()
    DecisionLog(lines.logger).decided(decision)
    (record,) = lines.records
    return record


def refusal(client: str, receiver: str = "crm", **fields: Any) -> Decision:
    return Decision(reason=Reason.CALLER_NOT_ALLOWED, client_id=client, receiver=receiver, cure="c", **fields)


def typed(command: str, place: Path) -> list[str]:
    """Return the arguments that a shell passes to the command, and see that it does nothing else."""
    tool = place / "s2s-fastapi"
    tool.write_text('#!/bin/sh\nfor each in "$@"; do printf \'%s\\n\' "$each"; done\n')
    tool.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place,
        env={"PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [path.name for path in place.iterdir()] == ["s2s-fastapi"]
    return done.stdout.splitlines()


def test_the_command_for_a_bound_token_asks_about_one(tmp_path: Path) -> None:
    (bound,) = [written(refusal("billing", binding="dpop")).__dict__["explain"]]
    assert typed(bound, tmp_path)[-3:] == ["--to", "crm", "--dpop"]
    assert "--dpop" not in written(refusal("billing")).__dict__["explain"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_pasted_command_has_the_name_as_one_word_and_runs_nothing_else(tmp_path: Path, name: str) -> None:
    record = written(refusal(name))
    command = vars(record)["explain"]
    if not name.isprintable():
        assert command == ""
        return
    expected = ["explain", "--client", name, "--to", "crm"]
    assert typed(command, tmp_path) == expected
    # As it stands in the line, in a line of JSON, and in the text of a value.
    assert record.getMessage().endswith(f" explain: {command}")
    assert typed(json.dumps(command, ensure_ascii=False)[1:-1], tmp_path) == expected
    assert typed(repr(command)[1:-1], tmp_path) == expected


@pytest.mark.parametrize("name", QUOTES, ids=range(len(QUOTES)))
@pytest.mark.parametrize("place", ["client", "receiver"])
def test_a_name_that_a_formatter_would_escape_gets_no_command(name: str, place: str) -> None:
    record = written(refusal(name) if place == "client" else refusal("a", name))
    assert vars(record)["explain"] == ""
    assert "explain:" not in record.getMessage()


@pytest.mark.parametrize("name", ["", "x" * 197 + "...", "a\ufffdb", "a\u200fb", "a\nb"])
def test_a_name_that_is_not_whole_gets_no_command(name: str) -> None:
    assert vars(written(refusal(name)))["explain"] == ""


def test_an_accepted_call_gets_no_command() -> None:
    lines = Lines()
    lines.logger.setLevel(logging.DEBUG)
    DecisionLog(lines.logger).decided(Decision(reason=Reason.ALLOWED, client_id="a", receiver="crm"))
    assert vars(lines.records[0])["explain"] == ""


@pytest.fixture
def ask(realm: Realm) -> Callable[..., dict[str, Any]]:
    lines = Lines()
    app = FastAPI(openapi_url=None)
    app.add_middleware(
        ServiceAuthMiddleware,
        settings=settings(),
        users=True,
        transport=realm.transport,
        observer=DecisionLog(lines.logger),
    )

    @app.get("/x", dependencies=[Depends((require_service() | require_user()) & require_scope("nobody-has-it"))])
    async def route() -> None: ...

    def send(token: str) -> dict[str, Any]:
        with TestClient(app) as client:
            client.get("/x", headers={"Authorization": f"Bearer {token}"})
        return vars(lines.records[-1])

    return send


def test_a_refusal_by_the_middleware_and_one_by_a_route_name_this_service(
    realm: Realm, ask: Callable[..., dict[str, Any]]
) -> None:
    for token, reason in ((realm.token(aud="other"), "wrong_audience"), (realm.token(), "scope_missing")):
        record = ask(token)
        assert record["reason"] == reason
        assert record["explain"] == f"s2s-fastapi explain --client {record['client_id']} --to {settings().client_id}"


def test_a_user_and_a_forger_get_no_command(realm: Realm, ask: Callable[..., dict[str, Any]]) -> None:
    for token in (realm.user_token(), realm.user_token(aud="other"), f"{realm.token()[:-8]}AAAAAAAA"):
        record = ask(token)
        assert record["outcome"] == "refused"
        assert record["explain"] == ""
