"""A route that is added after the start is checked before it answers; what would have stopped the start answers 500."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import Principal, require_caller, require_service, require_user
from tests.realm import Realm

App = Callable[..., FastAPI]
Client = Callable[[Any], TestClient]
Headers = Callable[..., dict[str, str]]

CHAT = require_caller("chat-app-service")
EITHER = require_service() | require_user()


def nothing() -> None: ...


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


def to_the_app(app: FastAPI) -> None:
    app.get("/late")(nothing)


def to_an_included_router(app: FastAPI) -> None:
    app.state.router.get("/late")(nothing)


def by_including_another(app: FastAPI) -> None:
    router = APIRouter(prefix="/late")
    router.get("")(nothing)
    app.include_router(router)


def a_plain_route(app: FastAPI) -> None:
    app.add_route("/late", plain)


def a_mount(app: FastAPI) -> None:
    app.mount("/late", opaque)


def below_a_mount(app: FastAPI) -> None:
    app.state.mounted.routes.append(Route("/late", plain))


def in_the_place_of_another(app: FastAPI) -> None:
    del app.router.routes[-1]
    app.get("/late")(nothing)


@pytest.fixture
def app(make_app: App) -> FastAPI:
    """An app that lets users in, with a router and a mount, so that every route must say who may call."""
    app = make_app(users=True)
    app.state.router, app.state.mounted = APIRouter(), Starlette()
    app.include_router(app.state.router)
    app.router.routes.append(Mount("/below", app.state.mounted))
    app.get("/known", dependencies=[Depends(EITHER)])(lambda: "known")
    app.get("/last", dependencies=[Depends(EITHER)])(lambda: "last")
    return app


@pytest.mark.parametrize(
    ("add", "path"),
    [
        (to_the_app, "/late"),
        (to_an_included_router, "/late"),
        (by_including_another, "/late"),
        (a_plain_route, "/late"),
        (a_mount, "/late/x"),
        (below_a_mount, "/below/late"),
        (in_the_place_of_another, "/late"),
    ],
)
def test_a_late_route_that_says_nothing_answers_500_and_the_others_go_on(
    app: FastAPI,
    client: Client,
    user: Headers,
    caplog: pytest.LogCaptureFixture,
    *,
    add: Callable[[FastAPI], None],
    path: str,
) -> None:
    with client(app) as there:
        assert there.get("/known", headers=user()).status_code == 200
        add(app)
        for _ in range(2):
            assert there.get(path, headers=user()).status_code == 500
            assert there.get("/known", headers=user()).status_code == 200
    errors = [
        record.message for record in caplog.records if record.levelno == logging.ERROR and record.name == "s2s_fastapi"
    ]
    assert len(errors) == 1
    assert "was added after the start and answers 500: users=True lets users in" in errors[0]


def test_what_a_late_route_does_is_not_done(app: FastAPI, client: Client, user: Headers) -> None:
    ran: list[str] = []
    with client(app) as there:
        there.get("/known", headers=user())
        app.post("/late")(lambda: ran.append("late"))
        there.post("/late", headers=user())
        assert ran == []


def test_a_late_route_that_says_it_answers(app: FastAPI, client: Client, user: Headers, service: Headers) -> None:
    with client(app) as there:
        app.get("/late", dependencies=[Depends(CHAT)])(nothing)
        assert there.get("/late", headers=service()).status_code == 200
        assert there.get("/late", headers=user()).status_code == 403
        assert there.get("/late").status_code == 401


def test_a_late_route_that_is_taken_away_again_takes_the_error_with_it(
    app: FastAPI, client: Client, user: Headers
) -> None:
    with client(app) as there:
        to_the_app(app)
        assert there.get("/late", headers=user()).status_code == 500
        del app.router.routes[-1]
        assert there.get("/late", headers=user()).status_code == 404


def test_a_late_requirement_that_fastapi_does_not_ask_answers_500(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()
    app.get("/known")(nothing)
    with client(app) as there:
        assert there.get("/known", headers=service()).status_code == 200

        @app.get("/late/{number}")
        async def late(number: int, caller: Annotated[Principal, Depends(CHAT), Depends(nothing)]) -> None: ...

        assert there.get("/late/7", headers=service(azp="eve", client_id="eve")).status_code == 500
        assert there.post("/late/7", headers=service()).status_code == 405
        assert there.get("/known", headers=service()).status_code == 200


def test_a_late_websocket_is_refused(app: FastAPI, client: Client, user: Headers) -> None:
    with client(app) as there:

        @app.websocket("/late")
        async def late(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(WebSocketDisconnect), there.websocket_connect("/late", headers=user()):
            pass


def test_a_late_route_of_an_app_for_services_answers_as_before(
    make_app: App, client: Client, service: Headers, realm: Realm
) -> None:
    app = make_app()
    with client(app) as there:
        app.get("/late")(lambda: "late")
        assert there.get("/late", headers=service()).json() == "late"
        assert there.get("/late").status_code == 401
