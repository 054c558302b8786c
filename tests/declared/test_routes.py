"""What an app declares is read from its routes, whatever they are made of; what cannot be read is named, never left out."""

import functools
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from s2s_fastapi import (
    ConfigurationError,
    CurrentPrincipal,
    Principal,
    Requirement,
    ServiceAuthMiddleware,
    read_access,
    require_audience,
    require_caller,
    require_role,
    require_scope,
    require_service,
    service_auth,
    service_client,
    service_lifespan,
)
from s2s_fastapi.declared.routes import RouteAccess
from tests.kit.realm import settings
from tests.kit.receiving import Client, Options

A, B = require_caller("a"), require_scope("b")


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def socket(websocket: WebSocket) -> None:
    await websocket.close()


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


class Hiding:
    """A middleware that keeps the app under a name of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inner(scope, receive, send)


def bare(**options: Any) -> FastAPI:
    return FastAPI(openapi_url=None, **options)


def read(app: Any) -> dict[str, Requirement | str | None]:
    """Return what is declared, by name; opaque routes as such."""
    return {route.name: "opaque" if route.opaque else route.requirement for route in read_access(app).routes}


class TestOfFastAPI:
    def test_a_route(self) -> None:
        app = bare()

        @app.get("/x/{id}")
        async def route(id: int, caller: Annotated[Principal, Depends(A)]) -> None: ...  # noqa: A002

        app.post("/y", dependencies=[Depends(A), Depends(B)])(lambda: None)
        app.api_route("/z", methods=["PUT", "DELETE"])(lambda: None)
        assert read(app) == {"GET /x/{id}": A, "POST /y": A & B, "DELETE/PUT /z": None}

    def test_the_app_and_a_router_add_theirs(self) -> None:
        app = bare(dependencies=[Depends(A)])
        router = APIRouter(prefix="/r", dependencies=[Depends(B)])
        router.get("/x", dependencies=[Depends(require_service())])(lambda: None)
        app.include_router(router, prefix="/v1", dependencies=[Depends(require_scope("c"))])
        assert read(app) == {"GET /v1/r/x": A & require_scope("c") & B & require_service()}

    def test_routers_within_routers(self) -> None:
        app, outer, inner = bare(), APIRouter(prefix="/o"), APIRouter(prefix="/i")
        inner.get("/x")(lambda: None)
        outer.include_router(inner, prefix="/p", dependencies=[Depends(A)])
        app.include_router(outer, prefix="/v1")
        app.include_router(outer, prefix="/v2", dependencies=[Depends(B)])
        inner.get("/late")(lambda: None)
        assert read(app) == {
            "GET /v1/o/p/i/x": A, "GET /v1/o/p/i/late": A, "GET /v2/o/p/i/x": B & A, "GET /v2/o/p/i/late": B & A,
        }  # fmt: skip

    def test_a_websocket_also_of_an_included_router(self) -> None:
        app, router = bare(), APIRouter(dependencies=[Depends(A)])
        router.websocket("/ws")(socket)
        app.websocket("/own", dependencies=[Depends(B)])(socket)
        app.include_router(router, prefix="/v1")
        assert read(app) == {"WEBSOCKET /own": B, "WEBSOCKET /v1/ws": A}

    def test_plain_routes_of_a_router_do_not_get_its_dependencies(self) -> None:
        app, router = bare(dependencies=[Depends(A)]), APIRouter(dependencies=[Depends(A)])
        router.add_route("/x", endpoint)
        router.add_websocket_route("/ws", socket)
        router.mount("/m", Starlette(routes=[Route("/y", endpoint)]))
        router.routes.append(Host("h.example", Starlette(routes=[Route("/z", endpoint)])))
        app.include_router(router, prefix="/v1")
        app.add_route("/own", endpoint)
        assert read(app) == {
            "GET /v1/x": None, "WEBSOCKET /v1/ws": None, "GET /v1/m/y": None, "GET //h.example/v1/z": None, "GET /own": None,
        }  # fmt: skip

    def test_the_documentation(self) -> None:
        assert set(read(FastAPI())) == {"GET /docs", "GET /docs/oauth2-redirect", "GET /redoc", "GET /openapi.json"}

    def test_the_files_of_a_frontend(self, tmp_path: Path) -> None:
        app, router = bare(dependencies=[Depends(A)]), APIRouter(prefix="/r", dependencies=[Depends(B)])
        app.frontend("/", directory=tmp_path)
        app.frontend("/app", directory=tmp_path)
        router.frontend("/ui", directory=tmp_path)
        app.include_router(router, prefix="/v1")
        assert read(app) == {"GET /{path:path}": A, "GET /app/{path:path}": A, "GET /v1/r/ui/{path:path}": A & B}

    def test_what_a_users_dependencies_ask(self) -> None:
        app = bare()

        async def inner(caller: Annotated[Principal, Depends(A)]) -> Principal:
            return caller

        class Outer:
            def __init__(self, caller: Annotated[Principal, Depends(inner)]) -> None: ...

            async def __call__(self, scoped: Annotated[Principal, Depends(B)]) -> None: ...

        @app.get("/x")
        async def route(outer: Annotated[Outer, Depends()]) -> None: ...

        app.get("/y", dependencies=[Depends(Outer.__call__)])(lambda: None)
        assert read(app) == {"GET /x": A, "GET /y": B}

    def test_the_scopes_of_security(self) -> None:
        app = bare()

        async def mine(caller: Annotated[Principal, Security(A, scopes=["inner"])]) -> Principal:
            return caller

        async def current(caller: CurrentPrincipal) -> Principal:
            return caller

        app.get("/x", dependencies=[Security(A, scopes=["s"])])(lambda: None)
        app.get("/y", dependencies=[Security(mine, scopes=["outer"])])(lambda: None)
        app.get("/z", dependencies=[Security(current, scopes=["s"])])(lambda: None)
        assert read(app) == {
            "GET /x": A & require_scope("s"), "GET /y": A & require_scope("inner", "outer"), "GET /z": require_scope("s"),
        }  # fmt: skip

    def test_the_current_principal_and_requires_are_no_requirement(self) -> None:
        app = bare()

        @app.get("/x")
        async def route(caller: CurrentPrincipal) -> None: ...

        assert read(app) == {"GET /x": None}

    def test_equal_requirements_count_once(self) -> None:
        app = bare(dependencies=[Depends(A)])
        app.get("/x", dependencies=[Depends(require_caller("a"))])(lambda: None)
        assert read(app) == {"GET /x": A}

    def test_a_router_of_a_guarded_app_leaves_the_middleware_behind(self) -> None:
        sub = bare()
        sub.add_middleware(ServiceAuthMiddleware)
        sub.get("/x")(lambda: None)
        app = bare()
        app.include_router(sub.router, prefix="/sub")
        assert read(app) == {"GET /sub/x": None}

    def test_a_route_with_a_default_of_ours_is_reported(self) -> None:
        app = bare()

        @app.get("/x")
        async def route(p=A) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

        (route_access,) = read_access(app).routes
        assert route_access.requirement is None
        assert "the parameter p has the requirement" in route_access.mistakes[0].text


class TestOfStarlette:
    def test_routes_mounts_hosts_and_websockets(self) -> None:
        app = Starlette(
            routes=[
                Route("/x", A.guard(endpoint), methods=["POST"]),
                Route("/open", endpoint),
                WebSocketRoute("/ws", A.guard(socket)),
                Mount("/m", routes=[Route("/y", B.guard(endpoint)), Mount("/n", routes=[Route("/z", endpoint)])]),
                Mount("/g", app=A.guard(Starlette(routes=[Route("/y", B.guard(endpoint))]))),
                Host(
                    "api.example",
                    app=A.guard(Router([Route("/y", endpoint), Mount("/m", routes=[Route("/z", endpoint)])])),
                ),
            ]
        )
        assert read(app) == {
            "POST /x": A, "GET /open": None, "WEBSOCKET /ws": A, "GET /m/y": B, "GET /m/n/z": None, "GET /g/y": A & B,
            "GET //api.example/y": A, "GET //api.example/m/z": A,
        }  # fmt: skip

    def test_endpoint_classes(self) -> None:
        class Page(HTTPEndpoint): ...

        class Socket(WebSocketEndpoint): ...

        app = Starlette(
            routes=[
                Route("/a", A.guard(Page)),
                Route("/b", Page),
                WebSocketRoute("/c", A.guard(Socket)),
                WebSocketRoute("/d", Socket),
            ]
        )
        assert read(app) == {"/a": A, "/b": None, "WEBSOCKET /c": A, "WEBSOCKET /d": None}

    def test_guards_below_decorators_and_partials(self) -> None:
        def decorated(function: Any) -> Any:
            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await function(*args, **kwargs)

            return wrapper

        class Pages:
            @A.guard
            async def page(self, request: Request) -> PlainTextResponse:
                return PlainTextResponse("page")

        app = Starlette(
            routes=[
                Route("/a", decorated(A.guard(decorated(B.guard(endpoint))))),
                Route("/b", functools.partial(decorated(A.guard(endpoint)))),
                Route("/c", A.guard(functools.partial(B.guard(endpoint)))),
                Route("/d", Pages().page),
                Route("/e", A.guard(Pages().page)),
            ]
        )
        assert read(app) == {"GET /a": A & B, "GET /b": A, "GET /c": A & B, "GET /d": A, "GET /e": A}

    def test_what_cannot_be_read_is_opaque(self, tmp_path: Path) -> None:
        class Own(BaseRoute): ...

        app = Starlette(
            routes=[
                Mount("/asgi", app=opaque),
                Mount("/guarded", app=A.guard(opaque)),
                Mount("/files", app=StaticFiles(directory=tmp_path)),
                Mount("/hidden", app=Hiding(Starlette(routes=[Route("/x", endpoint)]))),
                Host("h.example", app=opaque),
                Own(),
            ]
        )
        assert [(route.name, route.opaque, route.requirement) for route in read_access(app).routes] == [
            ("/asgi", True, None), ("/guarded", True, A), ("/files", True, None), ("/hidden", True, None), ("//h.example/", True, None),
            ("/", True, None),
        ]  # fmt: skip

    def test_middleware_of_a_mount_does_not_hide_its_routes(self) -> None:
        for middleware in (
            Middleware(GZipMiddleware),
            Middleware(Hiding),
            Middleware(BaseHTTPMiddleware, dispatch=None),
        ):
            app = Starlette(routes=[Mount("/m", routes=[Route("/x", A.guard(endpoint))], middleware=[middleware])])
            assert read(app) == {"GET /m/x": A}

    def test_what_answers_where_no_route_does_is_named(self) -> None:
        assert read(Router([Route("/x", endpoint)], default=opaque)) == {"GET /x": None, "/": "opaque"}
        assert read(Router(default=A.guard(Router([Route("/y", endpoint)])))) == {"GET /y": A}
        app = bare()
        app.router.default = opaque
        outer = Starlette(routes=[Mount("/m", app=app)])
        assert read(outer) == {"/m": "opaque"}

    def test_a_route_that_is_an_app_itself(self) -> None:
        assert read(Mount("/m", app=opaque)) == {"/m": "opaque"}
        assert read(Starlette(routes=[Mount("/m", app=Host("h.example", app=opaque))])) == {"//h.example/m": "opaque"}
        assert read(Starlette(routes=[Mount("/m", app=Route("/x", A.guard(endpoint)))])) == {"GET /m/x": A}

    def test_an_app_that_holds_itself_ends(self) -> None:
        class Loop:
            app: Any

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

        loop = Loop()
        loop.app = loop
        assert read(loop) == {"/": "opaque"}

    def test_an_app_of_another_kind_with_routes_is_opaque(self) -> None:
        class Lazy:
            routes: ClassVar[list[Any]] = []

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

        assert read(Starlette(routes=[Mount("/lazy", Lazy()), Route("/x", A.guard(endpoint))])) == {
            "/lazy": "opaque",
            "GET /x": A,
        }

    def test_a_router_that_answers_what_it_does_not_know_is_opaque_there(self) -> None:
        class Answering(Router):
            async def not_found(self, scope: Any, receive: Any, send: Any) -> None: ...

        assert read(Starlette(routes=[Mount("/m", Answering([Route("/x", A.guard(endpoint))]))])) == {
            "GET /m/x": A,
            "/m": "opaque",
        }


class TestOfAppsBehindMiddleware:
    def test_ours_around_the_app(self) -> None:
        app = bare()
        app.get("/x", dependencies=[Depends(B)])(lambda: None)
        assert read(ServiceAuthMiddleware(A.guard(GZipMiddleware(app)))) == {"GET /x": A & B}

    def test_ours_added_to_the_app(self) -> None:
        app = bare()
        app.add_middleware(ServiceAuthMiddleware)
        app.get("/x", dependencies=[Depends(B)])(lambda: None)
        assert read(app) == {"GET /x": B}

    @pytest.mark.parametrize(
        "mounted", [lambda sub: Mount("/m", sub), lambda sub: Mount("", sub), lambda sub: Host("h", sub)]
    )
    def test_a_sub_app_with_ours_is_left_to_itself(self, mounted: Callable[[Any], BaseRoute]) -> None:
        added, given = bare(), Starlette(routes=[Route("/x", endpoint)], middleware=[Middleware(ServiceAuthMiddleware)])
        added.add_middleware(ServiceAuthMiddleware)
        added.add_middleware(GZipMiddleware)
        added.get("/x")(lambda: None)
        around = ServiceAuthMiddleware(Starlette(routes=[Route("/x", endpoint)]))
        router = Router(
            [Route("/x", endpoint)], middleware=[Middleware(GZipMiddleware), Middleware(ServiceAuthMiddleware)]
        )
        for sub in (added, given, around, GZipMiddleware(around), router):
            assert read(Starlette(routes=[mounted(sub), Route("/own", A.guard(endpoint))])) == {"GET /own": A}

    def test_ours_around_a_router(self, options: Options, service: Callable[..., dict[str, str]]) -> None:
        def router(**changes: Any) -> Router:
            return Router(
                [Route("/x", A.guard(endpoint))], middleware=[Middleware(ServiceAuthMiddleware, **options(**changes))]
            )

        there = TestClient(router())
        assert there.get("/x", headers=service(azp="a", client_id="a")).status_code == 200
        assert there.get("/x", headers=service()).status_code == 403
        with (
            pytest.raises(ConfigurationError, match="but GET /x carries a requirement"),
            TestClient(router(public_paths=["/x"])),
        ):
            pass

    def test_a_mount_with_ours_is_left_to_itself(self) -> None:
        for others in ([], [Middleware(Hiding)], [Middleware(GZipMiddleware)]):
            mount = Mount("/m", routes=[Route("/x", endpoint)], middleware=[Middleware(ServiceAuthMiddleware), *others])
            assert read(Starlette(routes=[mount])) == {}

    def test_ours_on_a_mount_takes_what_hides_its_routes_for_opaque(
        self, options: Options, user: Callable[..., dict[str, str]]
    ) -> None:
        ours = Middleware(ServiceAuthMiddleware, **options(users=True))
        outer = Starlette(routes=[Mount("/m", app=Hiding(PlainTextResponse("for services")), middleware=[ours])])
        with TestClient(outer) as there:
            answer = there.get("/m/x", headers=user())
        assert answer.status_code == 500
        assert "for services" not in answer.text


class TestOfDownstreams:
    CRM = service_client("http://crm:8000", audience="crm", settings=settings(client_secret="s"))
    BOB = service_auth("http://bob:8000", audience="bob", scope="s", settings=settings(client_secret="s"))

    def test_dependencies_on_clients_are_whom_it_calls(self) -> None:
        app, router = bare(), APIRouter(dependencies=[Depends(self.BOB)])

        @app.get("/x")
        async def route(client: Annotated[httpx.AsyncClient, Depends(self.CRM)]) -> None: ...

        router.get("/y")(lambda: None)
        app.include_router(router)
        called = {downstream.origins: downstream for downstream in read_access(app).downstreams}
        assert set(called) == {("http://crm:8000",), ("http://bob:8000",)}
        assert called["http://bob:8000",].scopes == {"s"}
        assert called["http://crm:8000",].audiences == {"crm"}

    def test_sync_clients_count_and_equal_ones_once(self) -> None:
        app = bare(lifespan=service_lifespan(self.CRM))
        app.get("/x", dependencies=[Depends(self.CRM.sync)])(lambda: None)
        assert [downstream.audiences for downstream in read_access(app).downstreams] == [{"crm"}]

    def test_a_lifespan_names_them(self) -> None:
        for app in (bare(lifespan=service_lifespan(self.CRM)), Starlette(lifespan=service_lifespan(self.CRM))):
            assert [downstream.audiences for downstream in read_access(app).downstreams] == [{"crm"}]
            assert [downstream.audiences for downstream in read_access(ServiceAuthMiddleware(app)).downstreams] == [
                {"crm"}
            ]

    def test_a_lifespan_that_fastapi_joined_with_a_routers_names_them_all(self) -> None:
        @asynccontextmanager
        async def own(app: Any) -> AsyncIterator[None]:
            yield

        app = bare(lifespan=service_lifespan(self.CRM))
        app.include_router(APIRouter(lifespan=own))
        app.include_router(APIRouter(lifespan=service_lifespan(self.BOB)))
        assert {name for downstream in read_access(app).downstreams for name in downstream.audiences} == {"crm", "bob"}

    @pytest.mark.parametrize("lifespan", [False, True])
    def test_a_base_url_that_is_a_function_is_not_asked_for_by_the_start(
        self, options: Options, service: Callable[..., dict[str, str]], lifespan: bool
    ) -> None:
        def elsewhere() -> str:
            raise KeyError("BOB_URL")

        bob = service_client(elsewhere, audience="bob", settings=settings(client_secret="s"))
        app = bare(lifespan=service_lifespan(bob, warm_up=False)) if lifespan else bare()
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/healthz"]))
        app.get("/healthz")(lambda: None)
        app.get("/x", dependencies=[Depends(require_service())])(lambda: None)
        app.get("/bob", dependencies=[Depends(bob), Depends(require_service())])(lambda: None)
        client = TestClient(app, raise_server_exceptions=False)

        assert client.get("/healthz").status_code == 200
        assert client.get("/x", headers=service()).status_code == 200
        assert client.get("/bob", headers=service()).status_code == 500
        with pytest.raises(KeyError):
            _ = read_access(app).downstreams

    def test_a_lifespan_without_clients_calls_nobody(self) -> None:
        assert read_access(bare(lifespan=service_lifespan())).downstreams == frozenset()

    def test_an_app_that_calls_nobody_has_none(self) -> None:
        assert read_access(bare()).downstreams == frozenset()


class TestInsecureSkipAudience:
    """Story 2 as first written: no audience, so every route says whom it lets in."""

    def start(self, client: Client, options: Options, app: FastAPI, **more: Any) -> None:
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_skip_audience=True, **more))
        with client(app):
            pass

    def test_names_every_route_that_says_nothing(self, client: Client, options: Options) -> None:
        app = FastAPI()
        for path in ("/one", "/two", "/three"):
            app.get(path)(lambda: None)
        app.get("/open")(lambda: None)
        app.get("/audience", dependencies=[Depends(require_audience("x"))])(lambda: None)
        app.get("/either", dependencies=[Depends(require_audience("x") | A)])(lambda: None)
        app.get("/current", dependencies=[Depends(lambda: None)])(lambda: None)

        @app.websocket("/ws")
        async def unguarded(websocket: WebSocket) -> None: ...

        app.mount("/files", opaque)
        for path, requirement in {"/a": A, "/b": B, "/c": require_role("r"), "/d": A & B, "/e": A | B}.items():
            app.get(path, dependencies=[Depends(requirement)])(lambda: None)
        with pytest.raises(ConfigurationError) as raised:
            self.start(client, options, app, public_paths=["/open"])
        named, _, pages = str(raised.value).rpartition("Missing on: ")[2].partition(". FastAPI's documentation is ")
        assert "public_paths=[*DOCS]" in pages
        missing = named.split(", ")
        assert missing == [
            "GET /openapi.json", "GET /docs", "GET /docs/oauth2-redirect", "GET /redoc", "GET /one", "GET /two", "GET /three",
            "GET /audience", "GET /either", "GET /current", "WEBSOCKET /ws", "/files (an app whose routes cannot be read: mount a requirement's .guard(app) instead of the app)",
        ]  # fmt: skip

    def test_is_logged_at_start(self, client: Client, options: Options, caplog: pytest.LogCaptureFixture) -> None:
        app = bare(dependencies=[Depends(A)])
        app.get("/x")(lambda: None)
        self.start(client, options, app)
        assert [record.message for record in caplog.records if record.name == "s2s_fastapi"] == [
            "insecure_skip_audience is on: tokens meant for other services are accepted."
        ]

    def test_takes_tokens_for_others_from_the_right_caller_only(
        self, client: Client, options: Options, service: Any
    ) -> None:
        app = bare()
        app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: None)
        self.start(client, options, app)
        there = client(app)
        assert there.get("/x", headers=service(aud="other")).status_code == 200
        assert there.get("/x", headers=service(aud=None)).status_code == 200
        assert there.get("/x", headers=service(aud=None, azp="eve", client_id="eve")).status_code == 403


class TestAnAppThatSaysNoAudience:
    def test_takes_it_from_its_routes(self, client: Client, options: Options, service: Any) -> None:
        app = bare()
        app.add_middleware(ServiceAuthMiddleware, **options(settings=settings(client_id=None)))
        app.get("/a", dependencies=[Depends(require_audience("a"))])(lambda: None)
        app.get("/b", dependencies=[Depends(require_audience("b") & A)])(lambda: None)
        with client(app) as there:
            assert there.get("/a", headers=service(aud="a")).status_code == 200
            assert there.get("/a", headers=service(aud="b")).status_code == 401
            assert there.get("/nowhere", headers=service(aud="c")).status_code == 401
            assert there.get("/nowhere", headers=service(aud="b")).status_code == 404

    @pytest.mark.parametrize("dependencies", [[], [Depends(A)], [Depends(require_audience("a") | A)]])
    def test_does_not_start_while_one_says_none(self, client: Client, options: Options, dependencies: Any) -> None:
        app = bare()
        app.add_middleware(ServiceAuthMiddleware, **options(settings=settings(client_id=None)))
        app.get("/a", dependencies=[Depends(require_audience("a"))])(lambda: None)
        app.get("/x", dependencies=dependencies)(lambda: None)
        with (
            pytest.raises(ConfigurationError, match=r"give every route .* a require_audience.* Missing on: GET /x\."),
            client(app),
        ):
            pass

    def test_does_not_start_without_any_route(self, client: Client, options: Options) -> None:
        app = bare()
        app.add_middleware(ServiceAuthMiddleware, **options(settings=settings(client_id=None)))
        with pytest.raises(ConfigurationError, match="KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE"), client(app):
            pass


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (RouteAccess("/x", frozenset({"GET", "HEAD"})), "GET /x"),
        (RouteAccess("/x", frozenset({"HEAD"})), "HEAD /x"),
        (RouteAccess("/x", frozenset({"POST", "GET"})), "GET/POST /x"),
        (RouteAccess("/x"), "/x"),
        (RouteAccess("/x", websocket=True), "WEBSOCKET /x"),
        (RouteAccess("/x", frozenset({"GET"}), host="h"), "GET //h/x"),
    ],
)
def test_a_route_is_named_as_one_writes_it(route: RouteAccess, name: str) -> None:
    assert route.name == name


def test_reading_changes_nothing_and_warns_of_nothing() -> None:
    app = FastAPI(lifespan=service_lifespan())
    app.include_router(APIRouter(), prefix="/x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_access(app) == read_access(app)
