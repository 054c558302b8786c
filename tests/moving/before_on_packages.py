"""Each program before a move answers every caller as its guide says, and so does one with both guards in it.

pytest does not collect this file by itself, because its packages are only in the environment of ``make test-layouts``.
"""

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from s2s_fastapi import observed_refusals
from s2s_fastapi.testing import EmbeddedIssuer, client_of
from tests.moving.moves import MOVES, Move, headers_of


@contextmanager
def program(name: str, form: str, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the app of a program that finds the issuer on a socket, as other packages ask for its keys."""
    move, module = MOVES[name], f"tests.moving.{name}.{form}"
    (realm,) = issuer.realms
    with issuer.serving():
        for variable, value in issuer.environment(realm, move.client_id).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("KEYCLOAK_ISSUER", issuer.issuer(realm))
        yield import_module(module).app
    del sys.modules[module]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # python-keycloak leaves connections open
        gc.collect()


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
    with program(name, "before", issuer, monkeypatch) as app, TestClient(app) as client:
        answered = answers(client, move, issuer)
        del app, client

    assert answered == {str(ask): ask.before or ask.after for ask in move.asks}


NEVER_OBSERVED = {
    "keycloak_middleware": {
        "GET /me as a clerk with a token of another issuer",
        "GET /me as a clerk with a token that expired 45 s ago",
    },
    "pyjwt_dependency": {
        "GET /invoices as of acme, with an ID token",
        "GET /products as somebody with a password",
    },
}
"""Requests that the old guard accepts, and observe mode does not."""
REPORTED = {
    "keycloak_middleware": {
        ("/me", "wrong_audience"),
        ("/orders", "unknown_kind"),
        ("/nightly", "caller_not_allowed"),
    },
    "pyjwt_dependency": {
        ("/invoices", "wrong_audience"),
        ("/products", "unknown_kind"),
    },
}
"""What the report must name: what will be refused, and is not refused yet."""


@pytest.mark.parametrize("name", NEVER_OBSERVED)
def test_with_both_guards_and_observe_mode_callers_are_answered_as_before_and_the_report_says_what_will_change(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, issuer = MOVES[name], EmbeddedIssuer.for_tests()
    with (
        program(name, "during", issuer, monkeypatch) as app,
        client_of(app, issuer=issuer, client_id=move.client_id) as client,
    ):
        answered = answers(client, move, issuer)
        reported = {(row.route, row.reason) for row in observed_refusals(app).rows}
        del app, client

    assert answered == {
        str(ask): ask.after if str(ask) in NEVER_OBSERVED[name] else ask.before or ask.after for ask in move.asks
    }
    assert reported >= REPORTED[name]
