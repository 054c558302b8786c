"""A public path opens the route that the router matches for it, and no other: whatever stands between the two."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_caller, require_service, require_user
from s2s_fastapi.requirement.opened import OPENED_KEY
from s2s_fastapi.requirement.request_state import SCOPE_KEY
from tests.kit.receiving import App, Client, Headers, Options

Scope = Any

EITHER = require_service() | require_user()


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(f"opaque {scope['path']}")(scope, receive, send)


async def where(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} {request.url.path}")


def routes(app: FastAPI | APIRouter, *paths: str, said: str = "") -> None:
    for path in paths:
        app.api_route(path, methods=["GET", "POST", "DELETE"])(functools.partial(lambda text: text, said + path))


def fastapi(*paths: str, said: str = "", **options: Any) -> FastAPI:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FastAPI calls root_path deprecated
        app = FastAPI(openapi_url=None, **options)
    routes(app, *paths, said=said)
    return app


class Changing:
    """A middleware that changes the scope in the request's own scope, in a copy, or in a new scope with the standard keys alone."""

    STANDARD = (
        "type",
        "method",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "scheme",
        "client",
        "server",
    )

    def __init__(self, app: Any, change: Callable[[Scope], Mapping[str, Any]], kind: str = "same") -> None:
        self.app = app
        self.change = change
        self.kind = kind

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if self.kind == "copy":
                scope = dict(scope)
            elif self.kind == "new":
                scope = {key: scope[key] for key in self.STANDARD if key in scope}
            scope.update(self.change(scope))
        await self.app(scope, receive, send)


def hiding(app: Any, change: Callable[[Scope], Mapping[str, Any]]) -> Any:
    """The same as a function, which keeps the app in a closure."""

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, **change(scope)} if scope["type"] == "http" else scope, receive, send)

    return changing


class Hiding:
    """The same, with the app in an attribute of another name."""

    def __init__(self, app: Any, change: Callable[[Scope], Mapping[str, Any]]) -> None:
        self._next = Changing(app, change)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._next(scope, receive, send)


class ChangingBase(BaseHTTPMiddleware):
    def __init__(self, app: Any, change: Callable[[Scope], Mapping[str, Any]]) -> None:
        super().__init__(app)
        self.change = change

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        request.scope.update(self.change(request.scope))
        return await call_next(request)


def strip_prefix(scope: Scope) -> Mapping[str, Any]:
    return {"path": scope["path"].removeprefix("/v1")}


def strip_slash(scope: Scope) -> Mapping[str, Any]:
    return {"path": scope["path"].rstrip("/")}


def strip_locale(scope: Scope) -> Mapping[str, Any]:
    return {"path": scope["path"][3:] if scope["path"].startswith("/de/") else scope["path"]}


def by_host(scope: Scope) -> Mapping[str, Any]:
    return {"path": "/tenant" + scope["path"]}


def lower(scope: Scope) -> Mapping[str, Any]:
    return {"path": scope["path"].lower()}


def set_root_path(scope: Scope) -> Mapping[str, Any]:
    return {"root_path": "/v1"}


def override_method(scope: Scope) -> Mapping[str, Any]:
    return {"method": "DELETE"}


def below_a_mount(change: Callable[[Scope], Mapping[str, Any]], scope: Scope) -> Mapping[str, Any]:
    """Return what a change makes of a path below the mount /sub."""
    changed = dict(change({**scope, "path": scope["path"].removeprefix("/sub")}))
    for key in ("path", "root_path"):
        if key in changed:
            changed[key] = "/sub" + changed[key]
    return changed


CHANGES = [
    pytest.param((strip_prefix, "/v1/secret"), id="a prefix is stripped"),
    pytest.param((strip_slash, "/secret/"), id="the slash at the end is stripped"),
    pytest.param((strip_locale, "/de/secret"), id="a locale is stripped"),
    pytest.param((by_host, "/secret"), id="the host is put in front"),
    pytest.param((lower, "/SECRET"), id="letters are made small"),
    pytest.param((set_root_path, "/v1/secret"), id="a root path is set"),
    pytest.param((override_method, "/open"), id="the method is replaced"),
]
KINDS = ["same", "copy", "new", "base", "closure", "attribute"]
PATHS = ("/open", "/secret", "/tenant/secret")


class TestARewrittenPublicPath:
    """It comes in as a public path. The router sees another path, which is not public."""

    @pytest.fixture(params=KINDS)
    def between(self, request: pytest.FixtureRequest) -> Callable[..., Middleware]:
        kind = request.param
        made: dict[str, Any] = {"base": ChangingBase, "closure": hiding, "attribute": Hiding}
        return lambda change: (
            Middleware(made[kind], change=change) if kind in made else Middleware(Changing, change=change, kind=kind)
        )

    @pytest.mark.parametrize("rewriting", CHANGES)
    def test_needs_a_token_and_runs_with_one(
        self, options: Options, client: Client, service: Headers, between: Any, rewriting: Any
    ) -> None:
        change, path = rewriting
        app = fastapi(*PATHS)
        app.user_middleware.append(between(change))
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=[path]))
        refused = client(app).get(path)
        assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True)
        let_in = client(app).get(path, headers=service())
        assert (let_in.status_code, let_in.json()) == (200, "/open" if path == "/open" else let_in.json())
        assert client(app).get(path, headers={"Authorization": "Bearer nonsense"}).status_code == 401

    @pytest.mark.parametrize("rewriting", CHANGES)
    def test_needs_a_token_also_where_we_are_wrapped_around_the_app(
        self, options: Options, client: Client, service: Headers, between: Any, rewriting: Any
    ) -> None:
        change, path = rewriting
        cls, args, kwargs = between(change)
        app = ServiceAuthMiddleware(cls(fastapi(*PATHS), *args, **kwargs), **options(public_paths=[path]))
        assert client(app).get(path).status_code == 401
        assert client(app).get(path, headers=service()).status_code == 200

    # A new scope below a mount cannot be told from another request that the endpoint makes in this process.
    @pytest.mark.parametrize("between", [kind for kind in KINDS if kind != "new"], indirect=True)
    @pytest.mark.parametrize("rewriting", CHANGES)
    def test_needs_a_token_below_a_mount(
        self, options: Options, client: Client, service: Headers, between: Any, rewriting: Any
    ) -> None:
        change, path = rewriting
        cls, args, kwargs = between(functools.partial(below_a_mount, change))
        app = FastAPI(openapi_url=None)
        app.mount("/sub", cls(fastapi(*PATHS), *args, **kwargs))
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=[f"/sub{path}"]))
        assert client(app).get(f"/sub{path}").status_code == 401
        assert client(app).get(f"/sub{path}", headers=service()).status_code == 200

    @pytest.mark.parametrize("kind", ["mount", "router", "mounted app"])
    @pytest.mark.parametrize("hides", [Changing, Hiding])
    def test_needs_a_token_whoever_holds_the_middleware(
        self, options: Options, client: Client, kind: str, hides: Any
    ) -> None:
        between = [Middleware(hides, change=lambda _: {"path": "/a/secret"})]
        inner = [Route("/secret", where), Route("/open", where)]
        if kind == "mount":
            app = Starlette(routes=[Mount("/a", routes=inner, middleware=between)])
        elif kind == "mounted app":
            app = Starlette(routes=[Mount("/a", Starlette(routes=inner, middleware=between))])
        else:
            app = Starlette(routes=[Mount("/a", Router(inner, middleware=[Middleware(Changing, change=lambda _: {"path": "/a/secret"})]))])  # fmt: skip
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/a/open"]))
        assert client(app).get("/a/open").status_code == 401

    def test_says_what_to_do(self, options: Options, client: Client, observed: Any) -> None:
        app = fastapi(*PATHS)
        app.add_middleware(Changing, change=strip_prefix)
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/v1/secret"]))
        assert client(app).get("/v1/secret").status_code == 401
        assert "Add that middleware after ServiceAuthMiddleware" in observed.decisions[0].cure

    def test_is_public_if_both_paths_are(self, options: Options, client: Client) -> None:
        app = fastapi(*PATHS)
        app.add_middleware(Changing, change=strip_prefix)
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/v1/open", "/open"]))
        assert client(app).get("/v1/open").json() == "/open"

    def test_is_public_if_the_middleware_is_around_ours(self, options: Options, client: Client) -> None:
        app = fastapi(*PATHS)
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/open"]))
        app.add_middleware(Changing, change=strip_prefix)
        assert client(app).get("/v1/open").json() == "/open"
        assert client(app).get("/v1/secret").status_code == 401

    @pytest.mark.anyio
    async def test_to_a_websocket_is_not_public(self, options: Options) -> None:
        app, ran, sent = fastapi("/open"), [], []

        @app.websocket("/open")
        async def socket(websocket: WebSocket) -> None:
            ran.append(websocket)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        app.add_middleware(Changing, change=lambda _: {"type": "websocket"})
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/open"]))
        scope = {"type": "http", "method": "GET", "path": "/open", "query_string": b"", "headers": []}
        await app(scope, receive, send)
        assert (ran, sent) == ([], ["websocket.close"])

    def test_below_a_mount_that_takes_any_path_is_not_public(self, options: Options, client: Client) -> None:
        sub = Changing(fastapi("/open", "/secret"), lambda scope: {"path": scope["root_path"] + "/secret"})
        app = Starlette(routes=[Mount("/{any:path}", sub)])
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/a/open"]))
        assert client(app).get("/a/open").status_code == 401

    def test_behind_a_router_whose_own_middleware_hides_it_stops_the_start(
        self, options: Options, client: Client
    ) -> None:
        router = Router([Route("/open", where)], middleware=[Middleware(hiding, change=strip_prefix)])
        app = ServiceAuthMiddleware(router, **options(public_paths=["/open"]))
        with pytest.raises(ConfigurationError, match=r"Keep the inner app in self\.app"), client(app):
            pass
        with client(ServiceAuthMiddleware(router, **options())):
            pass  # nothing is public: nothing to compare

    def test_in_the_second_lifespan_is_compared_with_the_routes_of_then(self, options: Options, client: Client) -> None:
        app = fastapi(*PATHS)
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/sub/open"]))
        with client(app):
            pass
        app.mount("/sub", Changing(fastapi(*PATHS), lambda _: {"path": "/sub/secret"}))
        with client(app) as there:
            assert there.get("/sub/open").status_code == 401


class TestARightApp:
    @pytest.mark.parametrize(
        "between",
        [
            Middleware(GZipMiddleware),
            Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
            Middleware(CORSMiddleware, allow_origins=["*"]),
            Middleware(ChangingBase, change=lambda _: {}),
            Middleware(Changing, change=lambda _: {}, kind="copy"),
            Middleware(Changing, change=lambda _: {}, kind="new"),
            Middleware(hiding, change=lambda _: {}),
            Middleware(Hiding, change=lambda _: {}),
        ],
        ids=["gzip", "trusted host", "CORS", "base class", "copied scope", "new scope", "function", "class"],
    )
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_serves_its_public_paths_behind_middleware_that_changes_no_path(
        self, options: Options, client: Client, service: Headers, between: Middleware, wrapped: bool
    ) -> None:
        app: Any = fastapi("/open", "/hooks/{name}", "/secret")
        app.mount("/sub/{tenant}", fastapi("/open", "/secret", said="sub"))
        app.mount("/files", opaque)
        cls, args, kwargs = between
        hides = wrapped and cls in (hiding, Hiding)
        # A template would open too much of an app whose routes cannot be read.
        templates = ["POST /hooks/a", "/sub/a/open"] if hides else ["POST /hooks/{name}", "/sub/{tenant}/open"]
        public = ["/open", "/files/a.png", *templates]
        if wrapped:
            app = ServiceAuthMiddleware(cls(app, *args, **kwargs), **options(public_paths=public))
        else:
            app.user_middleware.append(between)
            app.add_middleware(ServiceAuthMiddleware, **options(public_paths=public))
        with client(app) as there:
            assert there.get("/open").json() == "/open"
            assert there.post("/hooks/a").status_code == 200
            assert there.get("/sub/a/open").json() == "sub/open"
            assert there.get("/files/a.png").text == "opaque /files/a.png"
            for path in ("/secret", "/sub/a/secret", "/hooks/a", "/files/b.png", "/sub/a/b/open"):
                assert there.get(path).status_code == 401, path
            assert there.get("/secret", headers=service()).status_code == 200

    def test_redirects_and_answers_404_and_405_on_its_public_paths_as_ever(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/a", "/b", "POST /c", "/nobody"])
        app.get("/a/")(lambda: "a")
        app.get("/b")(lambda: "b")
        app.get("/c")(lambda: "c")
        there = client(app)
        assert there.get("/a").headers["location"] == "http://testserver/a/"
        assert there.get("/a/").status_code == 401
        assert there.head("/b").status_code == 405
        assert there.post("/c").status_code == 405
        assert there.get("/nobody").status_code == 404

    def test_may_be_asked_in_this_process_by_a_public_endpoint_of_its_own(
        self, options: Options, client: Client
    ) -> None:
        inner = fastapi("/secret")

        @inner.post("/hooks/x")
        async def hook() -> Any:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(inner), base_url="http://inside") as inside:
                return (await inside.get("/secret")).json()

        app = ServiceAuthMiddleware(inner, **options(public_paths=["POST /hooks/x"]))
        assert client(app).post("/hooks/x").json() == "/secret"

    def test_that_asks_its_inner_app_twice_is_compared_each_time(self, options: Options, client: Client) -> None:
        inner = fastapi("/open", "/secret")

        async def batch(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await inner(scope, receive, send)
                return
            said: list[int] = []

            async def noted(message: Any) -> None:
                if message["type"] == "http.response.start":
                    said.append(message["status"])

            for path in ("/open", "/secret"):
                kept = {key: scope[key] for key in Changing.STANDARD if key in scope}
                await inner({**kept, "path": path, "raw_path": path.encode()}, receive, noted)
            await PlainTextResponse(str(said))(scope, receive, send)

        app = ServiceAuthMiddleware(batch, **options(public_paths=["/open"]))
        assert client(app).get("/open").text in ("[200, 401]", "[401, 401]")

    def test_is_open_as_ever_if_it_is_called_without_the_middleware(self, options: Options, client: Client) -> None:
        inner = fastapi("/open", "/secret")
        with client(ServiceAuthMiddleware(inner, **options(public_paths=["/open"]))) as there:
            assert there.get("/secret").status_code == 401
        assert client(inner).get("/secret").json() == "/secret"

    def test_may_be_behind_two_middlewares_with_other_public_paths(self, options: Options, client: Client) -> None:
        inner = fastapi("/a", "/b")
        one, other = (ServiceAuthMiddleware(inner, **options(public_paths=[path])) for path in ("/a", "/b"))
        mounted = ServiceAuthMiddleware(Starlette(routes=[Mount("/m", inner)]), **options(public_paths=["/m/a"]))
        asked = [(client(app).get(path).status_code) for app in (one, other) for path in ("/a", "/b", "/a")]
        assert asked == [200, 401, 200, 401, 200, 401]
        assert [client(mounted).get(path).status_code for path in ("/m/a", "/m/b", "/a")] == [200, 401, 401]

    def test_may_mount_one_app_in_two_places(self, make_app: App, client: Client) -> None:
        app, sub = make_app(public_paths=["/v1/open", "/v2/secret"]), fastapi("/open", "/secret")
        app.mount("/v1", sub)
        app.mount("/v2", sub)
        there = client(app)
        asked = {path: there.get(path).status_code for path in ("/v1/open", "/v1/secret", "/v2/open", "/v2/secret")}
        assert asked == {"/v1/open": 200, "/v1/secret": 401, "/v2/open": 401, "/v2/secret": 200}

    def test_may_serve_another_app_for_a_host(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/open"])
        app.router.routes.append(Host("tenant.test", fastapi("/open", "/secret", said="tenant")))
        there = client(app)
        assert there.get("/open", headers={"Host": "tenant.test"}).json() == "tenant/open"
        assert there.get("/secret", headers={"Host": "tenant.test"}).status_code == 401

    def test_is_watched_once_however_often_it_starts(self, options: Options, client: Client) -> None:
        app = fastapi("/open")
        for _ in range(3):
            with client(ServiceAuthMiddleware(app, **options(public_paths=["/open"]))):
                pass
        check: Any = app.router.middleware_stack
        assert check.app == app.router.app

    def test_is_not_touched_if_nothing_is_public(self, make_app: App, client: Client) -> None:
        app = make_app()
        with client(app):
            assert app.router.middleware_stack == app.router.app

    def test_sees_no_mark_of_a_public_path_on_a_request_with_a_token(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app(public_paths=["/open"])
        seen: list[set[str]] = []

        async def endpoint(request: Request) -> PlainTextResponse:
            seen.append(set(request.scope))
            return PlainTextResponse("")

        for path in ("/open", "/x"):
            app.add_route(path, endpoint)
            client(app).get(path, headers=service())
        assert [keys & {OPENED_KEY, SCOPE_KEY} for keys in seen] == [{OPENED_KEY}, {SCOPE_KEY}]


class TestTheRootPath:
    @pytest.mark.parametrize("server", ["", "/api", "/other"])
    @pytest.mark.parametrize(
        "around",
        [
            lambda app: app,
            GZipMiddleware,
            lambda app: ChangingBase(GZipMiddleware(app), lambda _: {}),
            lambda app: hiding(app, lambda _: {}),
            lambda app: Hiding(app, lambda _: {}),
        ],
        ids=["bare", "gzip", "two", "closure", "attribute"],
    )
    def test_that_fastapi_sets_below_us_is_what_counts(
        self, options: Options, around: Any, server: str, service: Headers
    ) -> None:
        inner = fastapi("/healthz", "/api/open", "/open", root_path="/api", servers=[{"url": "/api"}])
        app = ServiceAuthMiddleware(around(inner), **options(public_paths=["/healthz", "/api/open"]))
        there = TestClient(app, root_path=server)
        asked = {
            path: there.get(path).status_code
            for path in ("/healthz", "/api/healthz", "/api/open", "/open", "/api/api/open")
        }
        assert asked == {"/healthz": 200, "/api/healthz": 200, "/api/open": 401, "/open": 401, "/api/api/open": 200}
        assert there.get("/api/open", headers=service()).json() == "/open"

    @pytest.mark.parametrize("root_path", ["", "/api", "/sub", "/api/sub", "/sub/open"])
    @pytest.mark.parametrize("outer", ["", "/api"])
    def test_of_a_mounted_app_opens_nothing_else(
        self, options: Options, client: Client, root_path: str, outer: str
    ) -> None:
        app = fastapi(root_path=outer)
        app.mount("/sub", fastapi("/open", "/", "/secret", "/sub/open", "/api/sub/open", root_path=root_path))
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/sub/open"]))
        for path in ("/sub/open", "/api/sub/open", "/sub/secret", "/sub/sub/open", "/sub/", "/api/sub/secret"):
            answer = client(app).get(path)
            assert (answer.status_code, answer.text) in [(200, '"/open"'), (401, answer.text)], path
        works = {("", ""), ("", "/sub"), ("/api", ""), ("/api", "/api/sub")}
        if (outer, root_path) in works:
            assert client(app).get(f"{outer}/sub/open").json() == "/open"

    def test_of_an_app_that_is_changed_after_the_start_opens_nothing(self, options: Options, client: Client) -> None:
        inner = fastapi("/open", "/api/open")
        app = ServiceAuthMiddleware(inner, **options(public_paths=["/api/open"]))
        assert client(app).get("/api/open").status_code == 200
        inner.root_path = "/api"
        assert client(app).get("/api/open").status_code == 401

    def test_is_nothing_for_a_websocket(self, options: Options, client: Client, service: Headers) -> None:
        inner = fastapi("/open", root_path="/api")

        @inner.websocket("/open")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.close()

        app = ServiceAuthMiddleware(inner, **options(public_paths=["/open"]))
        with pytest.raises(WebSocketDisconnect), client(app).websocket_connect("/api/open"):
            pass
        with client(app).websocket_connect("/api/open", headers=service()):
            pass


class TestAGuardAboveAPublicPath:
    """`users=True` wants a guard on what is mounted. A public path below it is public all the same, and nothing else."""

    @pytest.mark.parametrize("settings", [{"users": True}, {"insecure_skip_audience": True}, {}])
    @pytest.mark.parametrize("mounted", ["opaque", "starlette", "fastapi", "two guards", "router"])
    def test_lets_exactly_that_path_through(
        self, make_app: App, client: Client, service: Headers, settings: Any, mounted: str
    ) -> None:
        below: dict[str, Any] = {
            "opaque": EITHER.guard(opaque),
            "starlette": EITHER.guard(Starlette(routes=[Route("/a.png", where), Route("/b.png", where)])),
            "fastapi": EITHER.guard(fastapi("/a.png", "/b.png")),
            "two guards": EITHER.guard(require_service().guard(opaque)),
            "router": Router([Mount("/", EITHER.guard(opaque))]),
        }
        app = make_app(public_paths=["/files/a.png"], **settings)
        app.mount("/files", below[mounted])
        with client(app) as there:
            assert there.get("/files/a.png").status_code == 200
            for path in ("/files/b.png", "/files/", "/files/a.png/", "/files//a.png", "/files/A.png", "/files/x/a.png"):
                assert there.get(path).status_code == 401, path
            assert there.post("/files/a.png").status_code == 401
            assert there.get("/files/b.png", headers=service()).status_code == 200

    def test_asks_everybody_else_as_ever(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app(public_paths=["/files/a.png"])
        app.mount("/files", require_caller("billing").guard(opaque))
        assert client(app).get("/files/b.png", headers=service()).status_code == 403
        assert client(app).get("/files/a.png", headers=service()).status_code == 200

    @pytest.mark.parametrize("kind", ["same", "copy", "new"])
    def test_does_not_let_through_what_a_middleware_makes_of_it(
        self, make_app: App, client: Client, service: Headers, kind: str
    ) -> None:
        app = make_app(public_paths=["/files/a.png"])
        guard = require_caller("billing").guard(opaque)
        app.mount("/files", Changing(guard, lambda _: {"path": "/files/b.png"}, kind))
        there = client(app)
        assert there.get("/files/a.png").status_code == 401
        assert there.get("/files/a.png", headers=service()).status_code == 403

    def test_around_the_whole_app_lets_through_as_well(self, options: Options, client: Client) -> None:
        inner = EITHER.guard(fastapi("/open", "/secret"))
        app = ServiceAuthMiddleware(inner, **options(public_paths=["/open"], users=True))
        with client(app) as there:
            assert there.get("/open").status_code == 200
            assert there.get("/secret").status_code == 401

    def test_below_a_mount_with_a_parameter(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/{tenant}/logo.png", "/acme/a.css"], users=True)
        app.mount("/{tenant}", EITHER.guard(Starlette(routes=[Route("/logo.png", where), Route("/a.css", where)])))
        there = client(app)
        asked = [there.get(p).status_code for p in ("/x/logo.png", "/acme/a.css", "/x/a.css", "/x/y/logo.png")]
        assert asked == [200, 200, 401, 401]

    def test_does_not_open_a_route_with_a_requirement_of_its_own(self, make_app: App, client: Client) -> None:
        app, sub = make_app(public_paths=["/sub/x"]), FastAPI(openapi_url=None)
        sub.get("/x", dependencies=[Depends(require_service())])(lambda: "x")
        app.mount("/sub", EITHER.guard(sub))
        with pytest.raises(ConfigurationError, match="GET /sub/x carries a requirement"), client(app):
            pass

    def test_is_what_the_start_asks_for(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/files/a.png"], users=True)
        app.mount("/files", opaque)
        with pytest.raises(ConfigurationError, match=r"/files \(an app whose .*\.guard\(app\)"), client(app):
            pass

    def test_does_not_make_websockets_public(self, make_app: App, client: Client) -> None:
        sub = FastAPI(openapi_url=None)

        @sub.websocket("/x")
        async def socket(websocket: WebSocket) -> None:
            raise AssertionError

        app = make_app(public_paths=["/sub/x"])
        app.mount("/sub", EITHER.guard(sub))
        with pytest.raises(WebSocketDisconnect), client(app).websocket_connect("/sub/x"):
            pass


def test_a_router_that_is_included_is_one_with_its_app(make_app: App, client: Client) -> None:
    app, router = make_app(public_paths=["/v1/open"]), APIRouter(prefix="/v1")
    routes(router, "/open", "/secret")
    app.include_router(router)
    assert client(app).get("/v1/open").status_code == 200
    assert client(app).get("/v1/secret").status_code == 401
