"""The marker in the place of endpoints: requirements are asked, nothing of the app's own runs, and everything is put back."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, Request, Security, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import (
    ConfigurationError,
    CurrentPrincipal,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_scope,
)
from s2s_fastapi.declared.routes import read_access
from s2s_fastapi.requirement.require import current_principal
from s2s_fastapi.testing.marked_endpoints import MARKED_HEADER, marked_endpoints
from tests.kit.receiving import Observed, client, observed, options, realm, service

__all__ = ["client", "observed", "options", "realm", "service"]

Send_ = Callable[..., Any]
CRM = require_caller("chat-app-service")


def ran(*_: Any, **__: Any) -> Any:
    raise AssertionError("the app's own code ran")


async def ran_async(*_: Any, **__: Any) -> Any:
    ran()


def loud() -> None:
    ran()


class Body(BaseModel):
    subject: str


def needs(caller: Annotated[Principal, Depends(CRM)], token: Annotated[int, Header()]) -> str:
    ran()
    return ""


def opened() -> Iterator[str]:
    ran()
    yield ""


class Passing:
    """A middleware that notes what passes."""

    passed = 0

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        type(self).passed += scope["type"] != "lifespan"
        await self.app(scope, receive, send)


class Loud(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        ran()
        return Response()


class LoudSocket(WebSocketEndpoint):
    async def on_connect(self, websocket: Any) -> None:
        ran()


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    ran()


def fastapi_app(directory: Path) -> FastAPI:
    router = APIRouter(prefix="/v1", dependencies=[Depends(CRM)])

    @router.get("/included/{number}")
    async def included(number: int) -> None:
        ran()

    @router.websocket("/socket/{number}")
    async def socket(websocket: WebSocket, number: int) -> None:
        ran()

    router.add_route("/plain", CRM.guard(ran_async))
    router.add_websocket_route("/plain-socket", CRM.guard(ran_async))
    app = FastAPI(openapi_url=None)

    @app.post("/coroutine", dependencies=[Depends(CRM)])
    async def coroutine(body: Body, size: int, opened: Annotated[str, Depends(opened)]) -> Body:
        return body

    @app.post("/function")
    def function(body: Body, caller: Annotated[Principal, Depends(CRM)]) -> None:
        ran()

    @app.get("/nested")
    async def nested(it: Annotated[str, Depends(needs)]) -> None:
        ran()

    @app.get("/scoped", dependencies=[Security(CRM, scopes=["tickets:read"])])
    async def scoped() -> None:
        ran()

    @app.get("/stream", dependencies=[Depends(CRM)], response_class=StreamingResponse)
    async def stream() -> AsyncIterator[bytes]:
        ran()
        yield b""

    @app.get("/lines", dependencies=[Depends(CRM)])
    def lines() -> Iterator[Body]:
        ran()
        yield Body(subject="")

    @app.get("/anyone")
    async def anyone(caller: CurrentPrincipal, background: BackgroundTasks, response: Response) -> None:
        ran()

    app.include_router(router)
    return app


def starlette_app(directory: Path) -> Starlette:
    inner = Starlette(routes=[Route("/x", CRM.guard(ran))])
    return Starlette(
        routes=[
            Route("/function", CRM.guard(ran_async), methods=["POST"], middleware=[Middleware(Passing)]),
            Route("/class", CRM.guard(Loud)),
            Route("/twice", CRM.guard(require_scope("tickets:read").guard(ran_async))),
            WebSocketRoute("/socket", CRM.guard(LoudSocket)),
            Mount("/inner", app=inner),
            Mount(
                "/guarded", app=CRM.guard(Starlette(routes=[Route("/x", ran_async)])), middleware=[Middleware(Passing)]
            ),
            Mount("/opaque", app=CRM.guard(opaque)),
            Host("api.example.com", app=Starlette(routes=[Route("/hosted", CRM.guard(ran_async))])),
        ]
    )


GUARDED = {
    fastapi_app: [
        "POST /coroutine",
        "POST /function",
        "GET /nested",
        "GET /stream",
        "GET /lines",
        "GET /v1/included/{number}",
        "GET /plain",
        "WEBSOCKET /v1/socket/{number}",
        "WEBSOCKET /plain-socket",
    ],
    starlette_app: [
        "POST /function",
        "GET /class",
        "WEBSOCKET /socket",
        "GET /inner/x",
        "GET /guarded/x",
        "GET /opaque/{path}",
    ],
}
CASES = [(make, name) for make, names in GUARDED.items() for name in names]


def ask(app: Any, name: str, headers: dict[str, str]) -> int:
    """Send one request, and return the status; 101 for a WebSocket that was accepted."""
    method, path = name.replace("{number}", "no-number").replace("{path}", "file").split()
    client = TestClient(app, raise_server_exceptions=False)
    if method != "WEBSOCKET":
        return client.request(method, path, headers=headers).status_code
    try:
        with client.websocket_connect(path, headers=headers) as socket:
            assert socket.receive()["type"] == "websocket.close"
    except WebSocketDisconnect as refused:
        return int(getattr(refused, "status_code", 0) or refused.code)
    return 101


@pytest.mark.parametrize("case", CASES, ids=[f"{make.__name__}-{name}" for make, name in CASES])
def test_the_allowed_caller_reaches_the_marker_and_another_caller_does_not(
    case: tuple[Callable[[Path], Any], str], options: Send_, service: Send_, observed: Observed, tmp_path: Path
) -> None:
    make, name = case
    app = make(tmp_path)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        refused = ask(app, name, service(azp="billing", client_id="billing"))
        assert not marker.reached
        assert refused in (403, 1008)
        assert observed.reasons[-1] == "caller_not_allowed"
        assert ask(app, name, service()) in (200, 101)
        (reached,) = marker.reached
        assert name in (f"{reached.method} {reached.route}", "GET /opaque/{path}")  # old Starlettes note no mount
        assert reached.client_id == "chat-app-service"
        assert [route.path for route in read_access(app).routes if route.entry is reached.entry] == [
            name.split()[1].removesuffix("/{path}")
        ]
        assert observed.reasons[-1] == "allowed"
    assert not marker.unmarked


def snapshot(app: Any) -> list[Any]:
    """Return what the routes of an app hold: apps along ``.app``, and each attribute of a dependant."""
    found: list[Any] = []
    waiting: list[Any] = [route.entry for route in read_access(app).routes]
    while waiting:
        thing = waiting.pop()
        for name in ("app", "default", *(Dependant.__slots__ if isinstance(thing, Dependant) else ())):
            held = getattr(thing, name, None)
            found.append((name, getattr(held, "__func__", held)))
        waiting += [
            each for each in (getattr(thing, "app", None), getattr(thing, "dependant", None)) if each is not None
        ]
        waiting += thing.dependencies if isinstance(thing, Dependant) else ()
    return found


@pytest.mark.parametrize("make", [fastapi_app, starlette_app], ids=lambda make: str(make.__name__))
def test_everything_is_put_back_also_if_the_block_raises(make: Callable[[Path], Any], tmp_path: Path) -> None:
    app = make(tmp_path)
    before = snapshot(app)
    with contextlib.suppress(ZeroDivisionError), marked_endpoints(app):
        assert snapshot(app) != before
        raise ZeroDivisionError
    assert snapshot(app) == before
    with marked_endpoints(app):
        pass  # it can be marked again
    assert snapshot(app) == before


def test_an_app_that_served_before_serves_the_same_afterwards(options: Send_, service: Send_, client: Send_) -> None:
    async def plain(request: Request) -> Response:
        return Response("plain")

    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **options())
    app.add_route("/plain", CRM.guard(plain))

    @app.get("/number/{number}")
    async def number(number: int, caller: Annotated[Principal, Depends(CRM)]) -> int:
        return number

    def answers() -> list[Any]:
        paths = ("/plain", "/number/5", "/number/x")
        said = [client(app).get(path, headers=service()) for path in paths]
        other = [client(app).get(path, headers=service(azp="x", client_id="x")) for path in paths]
        return [(one.status_code, one.text if one.status_code == 200 else "") for one in (*said, *other)]

    before = answers()
    assert before == [(200, "plain"), (200, "5"), (422, ""), (403, ""), (403, ""), (403, "")]
    with marked_endpoints(app) as marker:
        assert answers() == [(200, "")] * 3 + [(403, "")] * 3
    assert len(marker.reached) == 3
    assert answers() == before


def test_public_paths_documentation_and_routes_without_a_requirement_are_marked_too(
    options: Send_, service: Send_, client: Send_
) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/healthz", "/docs"]))
    app.get("/healthz")(loud)
    app.add_route("/open", ran_async)
    with marked_endpoints(app) as marker:
        answers = [client(app).get(path).headers.get(MARKED_HEADER) for path in ("/healthz", "/docs", "/open")]
        assert answers == ["1", "1", None]
        assert client(app).get("/open", headers=service()).status_code == 200
    assert [(each.route, each.client_id) for each in marker.reached] == [
        ("/healthz", ""),
        ("/docs", ""),
        ("/open", "chat-app-service"),
    ]


def test_dependencies_of_the_apps_own_run_if_the_test_says_so(client: Send_) -> None:
    def own(authorization: Annotated[str, Header()]) -> None:
        if authorization != "Bearer good":
            raise ConfigurationError

    app = FastAPI()
    app.post("/own", dependencies=[Depends(own)])(loud)
    with marked_endpoints(app) as marker:
        assert client(app).post("/own").status_code == 200
    with marked_endpoints(app, run_dependencies=True) as marker:
        assert client(app).post("/own", headers={"Authorization": "Bearer bad"}).status_code == 500
        assert not marker.reached
        assert client(app).post("/own", headers={"Authorization": "Bearer good"}).status_code == 200
        assert marker.reached


def test_the_files_of_a_frontend_are_not_served(tmp_path: Path, options: Send_, service: Send_, client: Send_) -> None:
    (tmp_path / "index.html").write_text("the page")
    app = FastAPI(openapi_url=None, dependencies=[Depends(CRM)])
    if not hasattr(app, "frontend"):
        pytest.skip("this FastAPI has no frontend()")
    app.frontend("/", directory=tmp_path)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        assert client(app).get("/index.html", headers=service(azp="x", client_id="x")).status_code == 403
        assert client(app).get("/index.html", headers=service()).text == ""
    assert len(marker.reached) == 1
    assert client(app).get("/index.html", headers=service()).text == "the page"


def test_an_app_in_the_place_of_the_404_is_marked(options: Send_, service: Send_, client: Send_) -> None:
    app = Starlette()
    app.router.default = CRM.guard(opaque)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        assert client(app).get("/any", headers=service(azp="x", client_id="x")).status_code == 403
        assert client(app).get("/any", headers=service()).status_code == 200
    assert not marker.unmarked
    assert client(app).get("/any", headers=service()).status_code == 500


def test_an_app_below_the_middleware_that_cannot_be_read_is_marked(
    options: Send_, service: Send_, client: Send_
) -> None:
    app = ServiceAuthMiddleware(opaque, **options())
    with marked_endpoints(app) as marker:
        assert client(app).get("/any").status_code == 401
        assert client(app).get("/any", headers=service()).status_code == 200
    assert not marker.unmarked
    assert app.app is opaque


def test_code_in_front_of_routes_is_not_marked_and_is_named() -> None:
    class Own(Starlette):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().__call__(scope, receive, send)

    app = Starlette(routes=[Mount("/own", app=Own(routes=[Route("/x", ran_async)]))])
    with marked_endpoints(app) as marker:
        assert [route.path for route in marker.unmarked] == ["/own"]


def test_an_app_that_cannot_be_read_and_has_nothing_of_ours_in_front_is_not_marked() -> None:
    with marked_endpoints(opaque) as marker:
        assert [route.path for route in marker.unmarked] == ["/"]
        assert not marker.marked


def test_two_threads_cannot_mark_the_same_app_at_once() -> None:
    def mark(app: Any) -> str:
        try:
            with marked_endpoints(app):
                return "marked"
        except ConfigurationError as error:
            return str(error)

    with ThreadPoolExecutor(1) as other:
        with marked_endpoints(opaque):  # nothing of it is exchanged, so that only the claim tells
            assert "marked already" in other.submit(mark, opaque).result()
            assert other.submit(mark, FastAPI(openapi_url=None)).result() == "marked"
        assert other.submit(mark, opaque).result() == "marked"


def test_an_app_that_is_marked_cannot_be_marked_again_and_stays_marked() -> None:
    app = FastAPI()
    app.get("/x")(loud)
    with marked_endpoints(app) as marker:
        with pytest.raises(ConfigurationError, match="marked already"), marked_endpoints(app):
            pass
        assert TestClient(app).get("/x").status_code == 200
        assert marker.reached
    with pytest.raises(AssertionError, match="own code ran"):
        TestClient(app).get("/x")


def test_an_override_of_a_requirement_is_seen(options: Send_, service: Send_, client: Send_) -> None:
    """It lets everybody in, so the marker must show it and not ask the requirement all the same."""
    app = FastAPI()
    app.get("/x", dependencies=[Depends(CRM)])(loud)
    app.dependency_overrides[CRM] = lambda: None
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        assert client(app).get("/x", headers=service(azp="x", client_id="x")).status_code == 200
    assert marker.reached


@pytest.mark.parametrize("overridden", [False, True], ids=["no overrides", "overrides"])
def test_requirements_below_dependencies_of_the_apps_own_are_asked_with_their_scopes(
    overridden: bool, options: Send_, service: Send_, client: Send_, observed: Observed
) -> None:
    def inner(caller: Annotated[Principal, Security(CRM, scopes=["tickets:read"])], number: int) -> None:
        ran()

    def outer(inner: Annotated[None, Depends(inner)]) -> None:
        ran()

    def unrelated() -> None:
        ran()

    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Security(outer, scopes=["tickets:write"]), Depends(unrelated)])(loud)
    if overridden:
        app.dependency_overrides[unrelated] = loud
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        for scope, status in (("tickets:read", 403), ("tickets:write", 403), ("tickets:read tickets:write", 200)):
            assert client(app).get("/x", headers=service(scope=scope)).status_code == status
        assert client(app).get("/x", headers=service(azp="x", client_id="x")).status_code == 403
    assert observed.reasons == ["scope_missing", "scope_missing", "allowed", "caller_not_allowed"]
    assert len(marker.reached) == 1


def test_the_scopes_around_the_current_principal_are_asked(options: Send_, service: Send_, client: Send_) -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Security(current_principal, scopes=["tickets:read"])])(loud)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app):
        assert client(app).get("/x", headers=service(scope="profile")).status_code == 403
        assert client(app).get("/x", headers=service(scope="tickets:read")).status_code == 200


def test_a_route_that_everybody_may_call_is_marked_whatever_its_endpoint_takes(
    options: Send_, service: Send_, client: Send_, tmp_path: Path
) -> None:
    app = fastapi_app(tmp_path)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with marked_endpoints(app) as marker:
        assert client(app).get("/anyone", headers=service(azp="x", client_id="x")).status_code == 200
    assert [each.client_id for each in marker.reached] == ["x"]
