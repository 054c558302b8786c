"""guard protects whatever Starlette takes as an endpoint or mounts, and stays what it was for everybody else."""

import functools
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_caller, require_scope, require_service
from tests.kit.receiving import Client, Headers, Options

A = require_caller("chat-app-service")
EVE = {"azp": "eve", "client_id": "eve"}


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.display_name)


def sync_page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.display_name)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["user"].display_name)(scope, receive, send)


async def with_prefix(prefix: str, request: Request) -> PlainTextResponse:
    return await page(request)


async def with_defaults(request: Request, size: int = 1, unit: str = "") -> PlainTextResponse:
    return await page(request)


class Page(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return await page(request)


class Methods(HTTPEndpoint):
    @A.guard
    async def get(self, request: Request) -> PlainTextResponse:
        return await page(request)


class Pages:
    async def page(self, request: Request) -> PlainTextResponse:
        return await page(request)

    def sync_page(self, request: Request) -> PlainTextResponse:
        return sync_page(request)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def threaded(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(request: Request) -> Any:
        return await run_in_threadpool(function, request)

    return wrapper


ROUTES = {
    "an async function": Route("/x", A.guard(page)),
    "a sync function": Route("/x", A.guard(sync_page)),
    "a function with defaults": Route("/x", A.guard(with_defaults)),
    "a partial": Route("/x", A.guard(functools.partial(with_prefix, "p"))),
    "a partial of a guarded function": Route("/x", functools.partial(A.guard(with_prefix), "p")),
    "a bound method": Route("/x", A.guard(Pages().page)),
    "a bound sync method": Route("/x", A.guard(Pages().sync_page)),
    "a decorated function": Route("/x", A.guard(decorated(page))),
    "a decorated guarded function": Route("/x", decorated(A.guard(page))),
    "a stack": Route("/x", decorated(require_service().guard(decorated(A.guard(decorated(page)))))),
    "a sync function in a thread": Route("/x", threaded(A.guard(sync_page))),
    "an endpoint class": Route("/x", A.guard(Page)),
    "a method of an endpoint class": Route("/x", Methods),
    "an ASGI function as an endpoint": Mount("/x", A.guard(asgi)),
    "an ASGI method": Mount("/x", A.guard(Pages().asgi)),
    "an ASGI object": Mount("/x", A.guard(Pages())),
    "an ASGI partial": Mount("/x", A.guard(functools.partial(asgi))),
    "a mounted app": Mount("/x", A.guard(Starlette(routes=[Route("/", page)]))),
    "a mounted FastAPI app": Mount("/x", A.guard(FastAPI(routes=[Route("/", page)]))),
    "a host": Host("testserver", A.guard(Starlette(routes=[Route("/x", page)]))),
    "an app within a guarded app": Mount("/x", require_service().guard(Starlette(routes=[Mount("/", A.guard(asgi))]))),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_it_lets_in_whom_it_should_and_nobody_else(
    route: Any, options: Options, client: Client, service: Headers
) -> None:
    app = Starlette(routes=[route], middleware=[Middleware(ServiceAuthMiddleware, **options())])
    with TestClient(app, raise_server_exceptions=False) as there:
        allowed = there.get("/x", headers=service())
        assert (allowed.status_code, allowed.text) == (200, "chat-app-service")
        refused = there.get("/x", headers=service(**EVE))
        assert (refused.status_code, refused.text) == (403, "This caller may not call this.")
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="crm-api-gateway", error="insufficient_scope"'
        assert there.get("/x").status_code == 401


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    await websocket.close()


class Echo(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await echo(websocket)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None: ...


@pytest.mark.parametrize(
    "route",
    [
        WebSocketRoute("/ws", A.guard(echo)),
        WebSocketRoute("/ws", A.guard(Echo)),
        WebSocketRoute("/ws", decorated(A.guard(echo))),
        Mount("/", A.guard(Starlette(routes=[WebSocketRoute("/ws", echo)]))),
    ],
    ids=["a function", "an endpoint class", "a decorated function", "a mounted app"],
)
def test_it_lets_websockets_in_likewise(route: Any, options: Options, service: Headers) -> None:
    app = Starlette(routes=[route], middleware=[Middleware(ServiceAuthMiddleware, **options())])
    there = TestClient(app)
    with there.websocket_connect("/ws", headers=service()) as connected:
        assert connected.receive_text() == "chat-app-service"
    with pytest.raises(WebSocketDenialResponse) as raised, there.websocket_connect("/ws", headers=service(**EVE)):
        pass
    assert raised.value.status_code == 403
    with pytest.raises(WebSocketDisconnect), there.websocket_connect("/ws"):
        pass


def test_all_guards_of_a_stack_must_be_met(options: Options, client: Client, service: Headers) -> None:
    routes = [Route("/x", A.guard(require_scope("s").guard(page)))]
    app = client(Starlette(routes=routes, middleware=[Middleware(ServiceAuthMiddleware, **options())]))
    assert app.get("/x", headers=service(scope="s")).status_code == 200
    assert app.get("/x", headers=service()).status_code == 403
    assert app.get("/x", headers=service(**EVE, scope="s")).status_code == 403


def test_the_endpoint_does_not_begin_before_the_caller_is_let_in(
    options: Options, client: Client, service: Headers
) -> None:
    began: list[str] = []

    async def counted(request: Request) -> PlainTextResponse:
        began.append(request.user.display_name)
        return PlainTextResponse("", background=BackgroundTask(began.append, "task"))

    app = client(
        Starlette(routes=[Route("/x", A.guard(counted))], middleware=[Middleware(ServiceAuthMiddleware, **options())])
    )
    app.get("/x", headers=service(**EVE))
    app.get("/x")
    assert began == []
    app.get("/x", headers=service())
    assert began == ["chat-app-service", "task"]


@pytest.mark.parametrize("endpoint", [page, sync_page, Page, asgi], ids=lambda endpoint: endpoint.__name__)
def test_without_the_middleware_nobody_is_let_through(endpoint: Any, client: Client, service: Headers) -> None:
    guarded = A.guard(endpoint)
    app = Starlette(routes=[Mount("/x", guarded) if endpoint is asgi else Route("/x", guarded)])
    assert client(app).get("/x/" if endpoint is asgi else "/x", headers=service()).status_code == 500
    with pytest.raises(ConfigurationError, match="add ServiceAuthMiddleware"):
        TestClient(app).get("/x/" if endpoint is asgi else "/x", headers=service())


def test_the_routes_keep_their_names_methods_and_documentation() -> None:
    assert A.guard(page).__name__ == "page"
    assert Route("/x", A.guard(page)).name == "page"
    assert Route("/x", A.guard(Page)).name == "Page"
    assert Route("/x", A.guard(page)).methods == {"GET", "HEAD"}
    assert Route("/x", A.guard(Page)).methods is None


def test_a_function_is_told_apart_from_an_app_by_what_it_must_be_given() -> None:
    async def asgi_with_a_default(scope: Any, receive: Any, send: Any, hint: str = "") -> None: ...

    assert type(A.guard(asgi_with_a_default)).__name__ == "Guarded"
    assert type(A.guard(with_defaults)).__name__ == "function"


@pytest.mark.parametrize("thing", [None, "page", 1, {}])
def test_what_cannot_be_called_cannot_be_guarded(thing: Any) -> None:
    with pytest.raises(ConfigurationError, match="guard takes an endpoint or an ASGI app"):
        A.guard(thing)


def test_a_guarded_function_that_is_not_given_its_request_does_not_run() -> None:
    ran: list[str] = []

    def sync(value: str) -> None:
        ran.append(value)

    async def asynchronous(value: str) -> None:
        ran.append(value)

    with pytest.raises(ConfigurationError, match="guard is for Starlette endpoints"):
        A.guard(sync)("no request")
    with pytest.raises(ConfigurationError, match="guard is for Starlette endpoints"):
        anyio.run(A.guard(asynchronous), "no request")
    assert ran == []


def test_a_lifespan_passes_a_guarded_app() -> None:
    entered: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.append(scope["type"])
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with TestClient(A.guard(app)):
        pass
    assert entered == ["lifespan"]


class TestOnAFastAPIRoute:
    def test_it_works_where_the_route_takes_the_request(
        self, make_app: Callable[..., FastAPI], client: Client, service: Headers
    ) -> None:
        app = make_app()

        @app.get("/x/{number}")
        @A.guard
        async def route(number: int, request: Request) -> int:
            return number

        @app.get("/sync")
        @A.guard
        def sync(request: Request, size: int = 1) -> int:
            return size

        @app.websocket("/ws")
        @A.guard
        async def socket(websocket: WebSocket) -> None:
            await echo(websocket)

        with client(app) as there:
            assert there.get("/x/3", headers=service()).json() == 3
            assert there.get("/x/3", headers=service(**EVE)).status_code == 403
            assert there.get("/sync?size=2", headers=service()).json() == 2
            assert there.get("/sync", headers=service(**EVE)).status_code == 403
            with pytest.raises(WebSocketDenialResponse), there.websocket_connect("/ws", headers=service(**EVE)):
                pass

    def test_it_stops_the_start_where_it_does_not(
        self, make_app: Callable[..., FastAPI], client: Client, service: Headers
    ) -> None:
        async def none() -> None: ...

        async def three(a: int, b: int, request: Request) -> None: ...

        for function in (none, three):
            app = make_app()
            app.get("/x")(A.guard(function))
            with (
                pytest.raises(ConfigurationError, match=r"GET /x .*on a FastAPI route use Depends\(requirement\)"),
                client(app),
            ):
                pass
            assert client(app).get("/x?a=1&b=2", headers=service()).status_code == 500

    @pytest.mark.parametrize("also_below", [False, True])
    def test_it_stops_the_start_where_it_stands_above_the_routes_decorator(
        self, make_app: Callable[..., FastAPI], client: Client, also_below: bool
    ) -> None:
        app = make_app()

        async def route(request: Request) -> None: ...

        if also_below:
            app.get("/y")(A.guard(app.get("/x")(route)))
        else:
            A.guard(app.get("/x")(route))
        with (
            pytest.raises(ConfigurationError, match=r"^GET /x \(.*\): guard stands above the decorator .*\.$"),
            client(app),
        ):
            pass

    def test_it_stops_a_request_where_the_start_did_not(
        self, make_app: Callable[..., FastAPI], client: Client, service: Headers
    ) -> None:
        app = make_app()
        app.get("/early")(lambda: None)
        there = client(app)
        assert there.get("/early", headers=service()).status_code == 200

        async def none() -> None: ...

        app.get("/late")(A.guard(none))
        assert there.get("/late", headers=service()).status_code == 500
