"""What FastAPI does not ask is said at the start: the dependencies of an app or a router do not reach everything in it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from s2s_fastapi import (
    DOCS,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_scope,
    require_service,
)
from s2s_fastapi.requirement.require import current_principal
from tests.kit.receiving import App, Headers, Options

BILLING = require_caller("billing")
SENTENCE = "FastAPI asks the dependencies of an app or a router on its own routes only"


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


async def socket(websocket: Any) -> None:
    await websocket.close()


async def nested(caller: Any = Depends(BILLING)) -> None: ...


@pytest.fixture
def named(caplog: pytest.LogCaptureFixture) -> Callable[[Any], list[str]]:
    """Start an app, and return what the one warning names; nothing where there is none."""

    def start(app: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "s2s_fastapi"), TestClient(app):
            pass
        sentences = [record.message for record in caplog.records if SENTENCE in record.message]
        assert len(sentences) <= 1
        return sentences[0].rpartition(" on each: ")[2].rstrip(".").split(", ") if sentences else []

    return start


@pytest.fixture
def app(make_app: App) -> FastAPI:
    return make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(BILLING)]), public_paths=["/healthz"])


class TestOfAnApp:
    def test_it_does_not_reach_plain_routes_websockets_mounts_and_hosts(self, app: FastAPI, named: Any) -> None:
        app.get("/own")(lambda: "own")
        app.websocket("/own")(socket)
        app.add_route("/plain", plain)
        app.router.routes.append(WebSocketRoute("/socket", socket))
        app.mount("/opaque", opaque)
        app.mount("/starlette", Starlette(routes=[Route("/a", plain), Route("/b", BILLING.guard(plain))]))
        app.router.routes.append(Host("h.test", Starlette(routes=[Route("/c", plain)])))
        sub = FastAPI(openapi_url=None)
        sub.get("/d")(lambda: "d")
        sub.get("/e", dependencies=[Depends(BILLING)])(lambda: "e")
        app.mount("/sub", sub)
        assert named(app) == [
            "GET /plain", "WEBSOCKET /socket", "/opaque", "GET /starlette/a", "GET //h.test/c", "GET /sub/d",
        ]  # fmt: skip

    def test_it_is_true_what_is_said(self, app: FastAPI, service: Headers) -> None:
        app.get("/own")(lambda: "own")
        app.add_route("/plain", plain)
        app.mount("/opaque", opaque)
        there = TestClient(app)
        asked = {path: there.get(path, headers=service()).status_code for path in ("/own", "/plain", "/opaque/")}
        assert asked == {"/own": 403, "/plain": 200, "/opaque/": 200}

    def test_it_says_nothing_where_everything_is_reached_guarded_or_public(self, app: FastAPI, named: Any) -> None:
        app.get("/own")(lambda: "own")
        app.add_route("/guarded", BILLING.guard(plain))
        app.add_route("/healthz", plain)
        app.mount("/files", BILLING.guard(opaque))
        assert named(app) == []

    def test_scopes_of_a_security_below_one_of_its_dependencies_are_seen(self, make_app: App, named: Any) -> None:
        async def asks(caller: Any = Security(current_principal, scopes=["tickets:read"])) -> None: ...

        async def outer(asked: Any = Depends(asks)) -> None: ...

        app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(outer)]))
        app.add_route("/plain", plain)
        app.add_route("/guarded", require_scope("tickets:read").guard(plain))
        assert named(app) == ["GET /plain"]

    def test_it_says_nothing_of_a_mount_with_a_door_of_its_own(
        self, app: FastAPI, named: Any, options: Options
    ) -> None:
        sub = FastAPI(openapi_url=None)
        sub.add_middleware(ServiceAuthMiddleware, **options())
        sub.get("/x")(lambda: "x")
        app.mount("/sub", sub)
        assert named(app) == []

    def test_it_says_nothing_of_the_documentation(self, make_app: App, named: Any) -> None:
        assert named(make_app(app=FastAPI(dependencies=[Depends(BILLING)]))) == []
        assert named(make_app(app=FastAPI(dependencies=[Depends(BILLING)]), public_paths=[*DOCS])) == []

    def test_it_says_nothing_where_no_requirement_is_asked(self, make_app: App, named: Any) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(lambda: None)]))
        app.add_route("/plain", plain)
        assert named(app) == []

    @pytest.mark.parametrize(
        "requirement",
        [
            require_service(),
            require_audience("crm-api-gateway"),
            require_audience("crm-api-gateway", "other"),
            require_service() & require_audience("crm-api-gateway"),
            BILLING | require_service(),
        ],
    )
    def test_it_says_nothing_of_what_the_middleware_asks_anyway(
        self, make_app: App, named: Any, requirement: Any
    ) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(requirement)]))
        app.add_route("/plain", plain)
        assert named(app) == []

    @pytest.mark.parametrize(
        "dependency",
        [
            Depends(require_audience("crm-api-gateway", only=True)),
            Depends(require_service() & require_scope("write")),
            Depends(nested),
            Security(current_principal, scopes=["write"]),
            Security(require_service(), scopes=["write"]),
        ],
    )
    def test_it_speaks_of_whatever_asks_for_more(self, make_app: App, named: Any, dependency: Any) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[dependency]))
        app.add_route("/plain", plain)
        assert named(app) == ["GET /plain"]

    def test_an_audience_narrower_than_the_apps_is_more(self, make_app: App, named: Any) -> None:
        app = make_app(
            app=FastAPI(openapi_url=None, dependencies=[Depends(require_audience("a"))]), audience=["a", "b"]
        )
        app.add_route("/plain", plain)
        assert named(app) == ["GET /plain"]


class TestOfARouter:
    def test_it_does_not_reach_the_plain_routes_in_it(self, make_app: App, named: Any) -> None:
        app, router = make_app(), APIRouter(prefix="/r", dependencies=[Depends(BILLING)])
        router.get("/own")(lambda: "own")
        router.add_route("/r/plain", plain)
        router.routes.append(WebSocketRoute("/r/socket", socket))
        app.include_router(router)
        app.add_route("/beside", plain)
        assert named(app) == ["GET /r/plain", "WEBSOCKET /r/socket"]

    def test_nor_does_that_of_an_inclusion_or_of_a_router_around(self, make_app: App, named: Any) -> None:
        app, outer, inner = make_app(), APIRouter(), APIRouter()
        inner.add_route("/plain", plain)
        inner.get("/own")(lambda: "own")
        outer.include_router(inner, prefix="/inner", dependencies=[Depends(BILLING)])
        app.include_router(outer, prefix="/outer")
        assert named(app) == ["GET /outer/inner/plain"]

    def test_that_asks_nothing_is_not_spoken_of(self, make_app: App, named: Any) -> None:
        app, router = make_app(), APIRouter()
        router.add_route("/plain", plain)
        app.include_router(router)
        assert named(app) == []

    def test_of_a_sub_app_does_not_reach_what_is_mounted_there(self, make_app: App, named: Any) -> None:
        app, sub = make_app(), FastAPI(openapi_url=None, dependencies=[Depends(BILLING)])
        sub.mount("/files", opaque)
        sub.get("/own")(lambda: "own")
        app.router.routes.append(Mount("/sub", sub))
        assert named(app) == ["/sub/files"]
