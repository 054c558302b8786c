"""Each program before a move answers every caller as its guide says, and so does one with both guards in it.

pytest does not collect this file by itself, because its packages are only in the environment of ``make test-layouts``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from s2s_fastapi import observed_refusals
from s2s_fastapi.testing import EmbeddedIssuer
from tests.moving.moves import MOVES, Move, headers_of


@contextmanager
def environment_of(move: Move, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let programs find the issuer on a socket, as other packages ask for its keys."""
    (realm,) = issuer.realms
    with issuer.serving():
        for variable, value in issuer.environment(realm, move.client_id).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("KEYCLOAK_ISSUER", issuer.issuer(realm))
        yield


def answers(client: Any, move: Move, issuer: EmbeddedIssuer) -> dict[str, int]:
    return {
        str(ask): client.request(*ask.request.split(), headers=headers_of(move, ask, issuer)).status_code
        for ask in move.asks
    }


@pytest.mark.parametrize("name", MOVES)
def test_the_program_before_the_move_answers_each_caller_as_the_guide_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    move, issuer = MOVES[name], EmbeddedIssuer.for_tests()
    with (
        environment_of(move, issuer, monkeypatch),
        TestClient(import_module(f"tests.moving.{name}.before").app) as client,
    ):
        answered = answers(client, move, issuer)

    assert answered == {str(ask): ask.before or ask.after for ask in move.asks}


def test_with_both_guards_and_observe_mode_every_token_of_the_realm_is_answered_as_before_and_the_report_says_what_will_change(
    monkeypatch: pytest.MonkeyPatch, keycloak_issuer: EmbeddedIssuer, client_of: Callable[..., Any]
) -> None:
    move = MOVES["pyjwt_dependency"]
    with environment_of(move, keycloak_issuer, monkeypatch):
        app = import_module("tests.moving.pyjwt_dependency.during").app
        answered = answers(client_of(app, client_id=move.client_id), move, keycloak_issuer)

    never_observed = {"GET /invoices as of acme, with an ID token", "GET /products as somebody with a password"}
    assert answered == {
        str(ask): ask.after if str(ask) in never_observed else ask.before or ask.after for ask in move.asks
    }
    assert {(row.route, row.reason) for row in observed_refusals(app).rows} == {
        ("/invoices", "wrong_audience"),
        ("/invoices/{owner}", "role_missing"),  # the old guard refuses it, too
        ("/products", "unknown_kind"),
    }
