"""Each program after a move answers every caller as its guide says."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.moving.moves import MOVES, headers_of


@pytest.mark.parametrize("name", MOVES)
def test_the_program_after_the_move_answers_each_caller_as_the_guide_says(
    name: str, client_of: Callable[..., Any], keycloak_issuer: EmbeddedIssuer
) -> None:
    move = MOVES[name]
    client = client_of(import_module(f"tests.moving.{name}.after").app, client_id=move.client_id)

    answered = {
        str(ask): client.request(*ask.request.split(), headers=headers_of(move, ask, keycloak_issuer)).status_code
        for ask in move.asks
    }

    assert answered == {str(ask): ask.after for ask in move.asks}
