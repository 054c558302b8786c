"""What a decision says about the request that it was made on."""

from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import require_caller


def test_a_decision_says_whether_its_route_is_declared_or_only_the_path_that_was_requested(
    make_app: Callable[..., FastAPI],
    client: Callable[[Any], TestClient],
    service: Callable[..., dict[str, str]],
    observed: Any,
) -> None:
    app = make_app()
    app.get("/tickets/{number}", dependencies=[Depends(require_caller("chat-app-service"))])(lambda number: number)
    there = client(app)

    statuses = [
        there.get("/tickets/1").status_code,
        there.get("/tickets/1", headers=service()).status_code,
        there.get("/tickets/1", headers=service(azp="eve", client_id="eve")).status_code,
        there.get("/nothing", headers=service()).status_code,
    ]

    assert statuses == [401, 200, 403, 404]
    assert [(decision.route, decision.routed) for decision in observed.decisions] == [
        ("/tickets/1", False),
        ("/tickets/{number}", True),
        ("/tickets/{number}", True),
        ("/nothing", False),
    ]
