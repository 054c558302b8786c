"""Each program before a move answers every caller as its guide says.

pytest does not collect this file by itself, because its packages are only in the environment of ``make test-layouts``.
"""

from importlib import import_module

import pytest
from starlette.testclient import TestClient

from s2s_fastapi.testing import EmbeddedIssuer
from tests.moving.moves import MOVES, headers_of


@pytest.mark.parametrize("name", MOVES)
def test_the_program_before_the_move_answers_each_caller_as_the_guide_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, issuer = MOVES[name], EmbeddedIssuer.for_tests()
    (realm,) = issuer.realms
    with issuer.serving():
        for variable, value in issuer.environment(realm, move.client_id).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("KEYCLOAK_ISSUER", issuer.issuer(realm))
        with TestClient(import_module(f"tests.moving.{name}.before").app) as client:
            answered = {
                str(ask): client.request(*ask.request.split(), headers=headers_of(move, ask, issuer)).status_code
                for ask in move.asks
            }

    assert answered == {str(ask): ask.before or ask.after for ask in move.asks}
