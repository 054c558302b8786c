"""Public paths are exact, few and for reading: nothing beside them opens, and no requirement lies under one."""

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, StringConvertor
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import DOCS, ConfigurationError, ServiceAuthMiddleware, require_caller, require_service
from s2s_fastapi.declared.public_paths import PublicPath, PublicPaths
from tests.kit.receiving import App, Client, Options

GUARDED = [Depends(require_caller("chat-app-service"))]


async def ok(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


class TestAnEntry:
    @pytest.mark.parametrize(
        "text",
        [
            "", "healthz", "*", "/a*", "/a?b", "/a#b", "/a\n", "get /x", "GET", "GET ", "GET  /x", "/x GET", "GET,POST /x", "G3T /x",
            "/{p:path}", "/a/{p:path}", "POST /a/{p:path}/b", "/{x:nope}", "/{x}/{x}", 1, None, b"/x",
        ],
        ids=repr,
    )  # fmt: skip
    def test_that_is_no_path_of_a_route_is_refused(self, text: Any) -> None:
        with pytest.raises(ConfigurationError, match="public_paths"):
            PublicPaths([text])

    def test_with_a_convertor_that_takes_slashes_is_refused_whatever_its_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Tree(StringConvertor):
            regex = ".+"

        class Slug(StringConvertor):
            regex = "[a-z-]+"

        monkeypatch.setitem(CONVERTOR_TYPES, "tree", Tree())
        monkeypatch.setitem(CONVERTOR_TYPES, "slug", Slug())
        assert PublicPaths(["/a/{x:slug}"]).open("GET", "/a/b-c")
        with pytest.raises(ConfigurationError, match="would open a whole tree"):
            PublicPaths(["/a/{x:tree}"])

    def test_with_a_convertor_that_takes_some_slashes_opens_one_segment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Numbers(StringConvertor):
            regex = "[0-9/]+"

        monkeypatch.setitem(CONVERTOR_TYPES, "numbers", Numbers())
        paths = PublicPaths(["/f/{x:numbers}"])
        assert paths.open("GET", "/f/1")
        assert not paths.open("GET", "/f/1/2")
        assert not paths.open("GET", "/f//")

    def test_alone_instead_of_a_list_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"write \['/healthz'\]"):
            PublicPaths("/healthz")

    def test_without_a_method_opens_reading_only(self) -> None:
        paths = PublicPaths(["/x", "/y/{id}"])
        for path in ("/x", "/y/1"):
            opened = [
                method
                for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get")
                if paths.open(method, path)
            ]
            assert opened == ["GET", "HEAD"]

    def test_with_a_method_opens_nothing_else(self) -> None:
        paths = PublicPaths(["POST /x", "POST /y/{id:int}"])
        assert paths.open("POST", "/x")
        assert paths.open("POST", "/y/12")
        assert not any(paths.open(method, path) for method in ("GET", "HEAD", "PUT") for path in ("/x", "/y/12"))

    @pytest.mark.parametrize(
        "path", ["/y/", "/y/1/", "/y/a", "/y/1/2", "/y/1\n", "/y//1", "y/1", "/z/y/1", "/y/-1", ""]
    )
    def test_with_a_template_opens_what_the_template_says(self, path: str) -> None:
        assert not PublicPath.read("/y/{id:int}").opens("GET", path)

    @pytest.mark.parametrize("path", ["/x/", "/x//", "x", "/X", "/x\n", ""])
    def test_without_a_template_opens_that_path_alone(self, path: str) -> None:
        assert PublicPath.read("/x").opens("GET", "/x")
        assert not PublicPath.read("/x").opens("GET", path)

    def test_of_the_documentation_is_there_to_be_named(self) -> None:
        assert {route.path for route in FastAPI().routes} == set(DOCS)  # type: ignore[attr-defined]


class TestOverHttp:
    @pytest.fixture
    def there(self, make_app: App, client: Client) -> TestClient:
        app = make_app(public_paths=["/healthz", "POST /hooks/x", "POST /in/{provider}"])
        for path in ("/healthz", "/secret", "/hooks/x", "/in/{provider}", "/healthz/deep", "/{rest:path}"):
            app.api_route(path, methods=["GET", "POST", "HEAD", "OPTIONS", "PUT"])(lambda: "open")
        return client(app)

    def test_they_need_no_token(self, there: TestClient) -> None:
        assert there.get("/healthz").status_code == 200
        assert there.head("/healthz").status_code == 200
        assert there.post("/hooks/x").status_code == 200
        assert there.post("/in/stripe").status_code == 200
        assert there.get("/healthz?x=/secret").status_code == 200

    def test_a_token_that_is_sent_all_the_same_is_not_looked_at(self, there: TestClient) -> None:
        assert there.get("/healthz", headers={"Authorization": "Bearer nonsense"}).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/healthz"), ("OPTIONS", "/healthz"), ("PUT", "/healthz"), ("GET", "/hooks/x"), ("HEAD", "/hooks/x"),
            ("GET", "/in/stripe"), ("OPTIONS", "/in/stripe"), ("GET", "//healthz"), ("GET", "/healthz/"), ("GET", "/healthz//"),
            ("GET", "/healthz;x"), ("GET", "/healthz%2f"), ("GET", "/healthz%00"), ("GET", "/healthz%0a"), ("GET", "/HEALTHZ"),
            ("GET", "/healthz/deep"), ("GET", "/healthz%2fdeep"), ("GET", "/healthz%3fx"), ("GET", "/secret/%2e%2e/healthz"),
            ("GET", "/healthz/%2e%2e/secret"), ("GET", "/%68ealthz/"), ("GET", "/secret"), ("POST", "/in/"), ("POST", "/in/a/b"),
            ("POST", "/in/a%2fb"), ("POST", "/in//a"), ("POST", "/in/%0a"), ("POST", "/in/a%0a"), ("POST", "/hooks/x/"), ("GET", "/healthz\u00a0"),
        ],
    )  # fmt: skip
    def test_what_only_looks_like_one_is_not_open(self, there: TestClient, method: str, path: str) -> None:
        assert there.request(method, f"http://testserver{path}").status_code == 401

    @pytest.mark.parametrize("host", ["healthz", "x/healthz", "x/healthz?", "x:80/healthz#"])
    def test_the_host_header_does_not_move_the_path(self, there: TestClient, host: str) -> None:
        assert there.get("/secret", headers={"Host": host}).status_code == 401

    @pytest.mark.parametrize(
        "header", ["X-Forwarded-Prefix", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"]
    )
    def test_headers_do_not_move_the_path(self, there: TestClient, header: str) -> None:
        assert there.get("/secret", headers={header: "/healthz"}).status_code == 401

    @pytest.mark.parametrize("path", ["/hooks/%0A", "/hooks/%0a", "/hooks/x%0A", "/hooks/%00"])
    def test_a_template_opens_no_path_with_a_control_character(self, make_app: App, client: Client, path: str) -> None:
        app, router = make_app(public_paths=["POST /hooks/{provider}"]), APIRouter(prefix="/hooks")
        router.post("/")(lambda: "services only")  # which the router takes for "/hooks/\n" as well
        router.post("/{provider}")(lambda: "public")
        app.include_router(router)
        with client(app) as there:
            assert there.post("/hooks/stripe").json() == "public"
            assert there.post("/hooks/").status_code == 401
            assert there.post(path).status_code == 401

    def test_a_websocket_is_never_public(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/ws", "GET /ws"])

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(WebSocketDisconnect), client(app).websocket_connect("/ws"):
            pass


class TestTheRootPath:
    """As the server gives it: ``path`` with the root path in front (ASGI, the key root_path)."""

    @pytest.mark.parametrize(
        ("root_path", "path", "status"),
        [
            ("/api", "/api/healthz", 200),
            ("/api", "/healthz", 200),  # Starlette takes a path that does not begin with the root path as it is
            ("/ap", "/api/healthz", 401),
            ("/api", "/apihealthz", 401),
            ("/api", "/api/api/healthz", 401),
            ("/api", "/api/secret", 401),
            ("/healthz", "/healthz/secret", 401),
            ("", "/api/healthz", 401),
        ],
    )
    def test_is_not_part_of_a_public_path(self, make_app: App, root_path: str, path: str, status: int) -> None:
        app = make_app(public_paths=["/healthz"])
        app.get("/healthz")(lambda: "ok")
        app.get("/secret")(lambda: "secret")
        assert TestClient(app, root_path=root_path).get(path).status_code == status

    def test_of_the_app_itself_is_not_either(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/healthz"])
        app.root_path = "/api"
        app.get("/healthz")(lambda: "ok")
        assert client(app).get("/api/healthz").status_code == 200
        assert client(app).get("/api/secret").status_code == 401


class TestInAMount:
    def test_the_path_has_the_prefix_of_the_mount(self, make_app: App, client: Client) -> None:
        sub = FastAPI(openapi_url=None)
        sub.get("/healthz")(lambda: "ok")
        sub.get("/secret")(lambda: "secret")
        app = make_app(public_paths=["/sub/healthz"])
        app.mount("/sub", sub)
        assert client(app).get("/sub/healthz").status_code == 200
        assert client(app).get("/healthz").status_code == 401
        assert client(app).get("/sub/secret").status_code == 401
        assert client(app).get("/sub").status_code == 401

    def test_a_sub_app_with_a_middleware_of_its_own_has_its_own(self, make_app: App, client: Client) -> None:
        sub = make_app(public_paths=["/healthz"])
        sub.get("/healthz")(lambda: "ok")
        sub.get("/secret")(lambda: "secret")
        app = FastAPI(openapi_url=None)
        app.mount("/sub", sub)
        assert client(app).get("/sub/healthz").status_code == 200
        assert client(app).get("/sub/secret").status_code == 401

    def test_what_the_outer_app_opens_the_inner_one_does_not(self, make_app: App, client: Client) -> None:
        sub = make_app()
        sub.get("/healthz")(lambda: "ok")
        app = make_app(public_paths=["/sub/healthz"])
        app.mount("/sub", sub)
        assert client(app).get("/sub/healthz").status_code == 401


class TestAPublicPathThatWouldOpenMoreStopsTheStart:
    def stopped(self, app: Any, client: Client, sentence: str) -> None:
        with pytest.raises(ConfigurationError, match=sentence), client(app):
            pass

    def test_one_that_carries_a_requirement(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/x"])
        app.get("/x", dependencies=GUARDED)(lambda: None)
        self.stopped(
            app,
            client,
            "public_paths opens GET /x, but GET /x carries a requirement, its own or that of a router or app around it: remove one of the two",
        )

    def test_each_route_is_named_once(self, make_app: App) -> None:
        app = make_app(public_paths=["/x"])
        app.add_route("/x", require_service().guard(ok))
        with pytest.raises(ConfigurationError) as raised, TestClient(app):
            pass
        assert str(raised.value).count("carries a requirement") == 1

    def test_one_that_carries_the_requirement_of_a_router(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/v1/x"])
        router = APIRouter(dependencies=GUARDED)
        router.get("/x")(lambda: None)
        app.include_router(router, prefix="/v1")
        self.stopped(app, client, "public_paths opens GET /v1/x, but GET /v1/x carries")

    def test_one_that_a_template_with_a_requirement_takes_first(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/tickets/new"])
        app.get("/tickets/{id}", dependencies=GUARDED)(lambda: None)
        app.get("/tickets/new")(lambda: None)
        self.stopped(app, client, r"opens GET /tickets/new, but GET /tickets/\{id\} carries")

    def test_one_that_stands_before_the_template_is_fine(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/tickets/new"])
        app.get("/tickets/new")(lambda: "new")
        app.get("/tickets/{id}", dependencies=GUARDED)(lambda: None)
        with client(app) as there:
            assert there.get("/tickets/new").status_code == 200
            assert there.get("/tickets/old").status_code == 401

    @pytest.mark.parametrize(
        "first",
        [
            "/hooks/admin",
            "/hooks/{other}",
            "/{x}/b",
            "/{x}/{y}",
            "/{rest:path}",
            "/hooks/{n:int}",
            "/hooks/x{y}",
            "/hooks{p:path}",
        ],
    )
    def test_a_template_with_which_another_route_opens(self, make_app: App, client: Client, first: str) -> None:
        app = make_app(public_paths=["/hooks/{provider}"])
        app.get(first)(lambda: "secret")
        app.get("/hooks/{provider}")(lambda: "hook")
        self.stopped(
            app, client, r"opens GET /hooks/\{provider\}, and with it GET .*: write the public paths out one by one"
        )

    @pytest.mark.parametrize(
        "first",
        ["/hooks", "/hooks/", "/hooks/a/b", "/hooks/{a}/{b}", "/other/{provider}", "/hooks-{x}/b", "/{n:int}/b", "/"],
    )
    def test_a_template_beside_which_other_routes_stand_is_fine(
        self, make_app: App, client: Client, first: str
    ) -> None:
        app = make_app(public_paths=["/hooks/{provider}"])
        app.get(first)(lambda: "secret")
        app.get("/hooks/{provider}")(lambda: "hook")
        with client(app) as there:
            assert there.get("/hooks/a").status_code == 200

    def test_a_template_whose_route_comes_first_is_fine(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/hooks/{provider}"])
        app.get("/hooks/{provider}")(lambda: "hook")
        app.get("/hooks/admin", dependencies=GUARDED)(lambda: "never reached")
        with client(app) as there:
            assert there.get("/hooks/admin").json() == "hook"

    def test_a_template_of_another_method_is_fine(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["POST /hooks/{provider}"])
        app.get("/hooks/admin", dependencies=GUARDED)(lambda: "admin")
        app.post("/hooks/{provider}")(lambda: "hook")
        with client(app) as there:
            assert there.post("/hooks/admin").json() == "hook"
            assert there.get("/hooks/admin").status_code == 401

    def test_a_template_that_opens_an_app_that_cannot_be_read(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/hooks/{provider}"])
        app.mount("/hooks", opaque)
        app.get("/hooks/{provider}")(lambda: "hook")
        self.stopped(app, client, "and with it /hooks")

    def test_one_with_a_parameter_below_a_guarded_app_that_cannot_be_read(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/files/{name}"])
        app.mount("/files", require_service().guard(opaque))
        self.stopped(app, client, r"opens GET /files/\{name\}, and with it /files")

    def test_one_below_an_unguarded_app_that_cannot_be_read_is_what_was_written(
        self, make_app: App, client: Client
    ) -> None:
        app = make_app(public_paths=["/files/logo.png"])
        app.mount("/files", opaque)
        with client(app) as there:
            assert there.get("/files/logo.png").status_code == 200
            assert there.get("/files/secret.png").status_code == 401

    def test_one_that_a_host_guards(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/x"])
        app.router.routes.append(
            Host("{tenant}.example.com", Starlette(routes=[Route("/x", require_service().guard(ok))]))
        )
        app.get("/x")(lambda: None)
        self.stopped(app, client, r"opens GET /x, but GET //\{tenant\}\.example\.com/x carries")

    def test_one_that_also_is_a_guarded_websocket_is_fine(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/chat"])

        @app.websocket("/chat", dependencies=GUARDED)
        async def socket(websocket: WebSocket) -> None: ...

        app.get("/chat")(lambda: "page")
        with client(app) as there:
            assert there.get("/chat").status_code == 200

    def test_a_websocket_does_not_hide_a_guarded_route_of_the_same_path(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/chat"])

        @app.websocket("/chat")
        async def socket(websocket: WebSocket) -> None: ...

        app.get("/chat", dependencies=GUARDED)(lambda: "page")
        self.stopped(app, client, "opens GET /chat, but GET /chat carries")

    def test_one_of_a_starlette_app(self, options: Options, client: Client) -> None:
        routes = [Mount("/a", routes=[Route("/x", require_service().guard(ok)), WebSocketRoute("/x", ok)])]
        app = ServiceAuthMiddleware(Starlette(routes=routes), **options(public_paths=["/a/x"]))
        self.stopped(app, client, "opens GET /a/x, but GET /a/x carries")

    def test_one_that_nobody_serves_is_a_404(self, make_app: App, client: Client) -> None:
        with client(make_app(public_paths=["/nobody", *DOCS])) as there:
            assert there.get("/nobody").status_code == 404


@pytest.mark.anyio
async def test_a_path_as_the_server_decoded_it_is_what_counts(make_app: App) -> None:
    app = make_app(public_paths=["/healthz"])
    app.get("/healthz")(lambda: "ok")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
        assert (await there.get("/health%7a")).status_code == 200
        assert (await there.get("/healthz%2F")).status_code == 401
