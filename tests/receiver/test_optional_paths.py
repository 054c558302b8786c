"""On an optional path, a request without credentials is accepted, and every other request is judged as everywhere."""

import logging
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import (
    CurrentPrincipal,
    OptionalPrincipal,
    Principal,
    ServiceAuthMiddleware,
    openapi_schema,
    require_caller,
    require_scope,
    require_service,
    require_user,
)
from tests.kit.receiving import App, Client, Headers, Observed, Options

CHAT = require_caller("chat-app-service")
OptionalChat = Annotated[Principal | None, Depends(CHAT.optional())]


def named(caller: Principal | None) -> dict[str, str | None]:
    return {"caller": None if caller is None else caller.client_id}


@pytest.fixture
def app(make_app: App) -> FastAPI:
    app = make_app(optional_paths=["/search", "POST /search", "/items/{item}", "WEBSOCKET /live"], public_paths=["/up"])

    app.put("/search")(lambda: "put")

    @app.get("/search")
    async def search(caller: OptionalPrincipal) -> Any:
        return named(caller)

    @app.post("/search")
    async def search_more(caller: OptionalChat) -> Any:
        return named(caller)

    @app.get("/items/{item}")
    async def item(item: str, request: Request) -> Any:
        if item == "secret":
            await CHAT(request)
        return {"user": request.user.is_authenticated, "scopes": request.auth.scopes}

    @app.get("/tickets")
    async def tickets(caller: CurrentPrincipal) -> Any:
        return named(caller)

    @app.get("/up")
    async def up() -> Any:
        return {}

    @app.websocket("/live")
    async def live(websocket: WebSocket, caller: OptionalPrincipal) -> None:
        await websocket.accept()
        await websocket.send_json(named(caller))
        await websocket.close()

    return app


class TestARequestWithoutCredentials:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    def test_is_accepted_and_nobody_calls(self, app: FastAPI, client: Client, method: str) -> None:
        response = client(app).request(method, "/search")

        assert response.status_code == 200 if method != "HEAD" else 405
        assert method != "GET" or response.json() == {"caller": None}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PUT", "/search"), ("DELETE", "/search"), ("GET", "/search/"), ("GET", "/Search"), ("GET", "/items/a/b"), ("GET", "/items"),
            ("GET", "/tickets"), ("GET", "/"), ("WEBSOCKET", "/live"), ("GET", "/live"),
        ],
    )  # fmt: skip
    def test_is_refused_on_every_other_path_and_method(
        self, app: FastAPI, client: Client, method: str, path: str
    ) -> None:
        response = client(app).request(method, path)

        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="crm-api-gateway"'

    def test_has_no_user_and_no_scopes(self, app: FastAPI, client: Client) -> None:
        assert client(app).get("/items/1").json() == {"user": False, "scopes": []}

    def test_is_reported_with_its_route_and_without_a_caller(
        self, app: FastAPI, client: Client, observed: Observed
    ) -> None:
        client(app).get("/items/1")

        [decision] = observed.decisions
        assert (decision.outcome, decision.reason, decision.route) == ("allowed", "anonymous", "/items/{item}")
        assert decision.client_id == ""

    def test_is_refused_if_the_code_asks_a_requirement_all_the_same(
        self, app: FastAPI, client: Client, observed: Observed, service: Headers
    ) -> None:
        refused = client(app).get("/items/secret")

        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="crm-api-gateway"'
        assert observed.reasons == ["no_credentials"]
        assert ".optional()" in observed.decisions[0].cure
        assert client(app).get("/items/secret", headers=service()).status_code == 200

    def test_keeps_the_challenge_whatever_the_app_answers(self, app: FastAPI, client: Client) -> None:
        @app.exception_handler(401)
        async def own(request: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"own": True}, 401)

        response = client(app).get("/items/secret")

        assert response.json() == {"own": True}
        assert response.headers["www-authenticate"] == 'Bearer realm="crm-api-gateway"'

    def test_leaves_no_trace_for_the_next_request(self, app: FastAPI, client: Client, service: Headers) -> None:
        asking = client(app)
        answers = [asking.get("/search", headers=headers).json() for headers in ({}, service(), {})]

        assert answers == [{"caller": None}, {"caller": "chat-app-service"}, {"caller": None}]


class TestARequestWithCredentials:
    @pytest.mark.parametrize(
        "asked",
        [
            ({"Authorization": ""}, "", 401),
            ({"Authorization": "Basic YTpi"}, "", 401),
            ({"Authorization": "DPoP a.b.c"}, "", 401),
            ({"Authorization": "Token a.b.c"}, "", 401),
            ({"Authorization": "Bearerx"}, "", 401),
            ({"Authorization": "Bearer\xa0a.b.c"}, "", 401),
            ({"Authorization": "Bearer"}, "", 400),
            ({"Authorization": "Bearer a b"}, "", 400),
            ({"Authorization": "Bearer a.b.c"}, "", 401),
            ({"DPoP": "a.b.c"}, "", 401),
            ({"DPoP": ""}, "", 401),
            ({}, "?access_token=a.b.c", 401),
            ({}, "?x=1&access%5Ftoken=", 401),
        ],
        ids=str,
    )
    def test_that_are_bad_is_never_anonymous(
        self, app: FastAPI, client: Client, observed: Observed, asked: tuple[dict[str, str], str, int]
    ) -> None:
        headers, query, status = asked
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        for path in ("/search", "/items/1"):
            response = client(app).get(path + query, headers=raw)

            assert response.status_code == status
        assert "anonymous" not in observed.reasons

    def test_that_a_requirement_refuses_is_refused_as_everywhere(
        self, app: FastAPI, client: Client, service: Headers, user: Headers
    ) -> None:
        asking = client(app)

        assert asking.post("/search", headers=service()).json() == {"caller": "chat-app-service"}
        assert asking.post("/search", headers=service(azp="billing", client_id="billing")).status_code == 403
        assert asking.get("/search", headers=service(aud="other")).status_code == 401
        assert asking.get("/search", headers=service(exp=1)).status_code == 401
        assert asking.get("/search", headers=user()).status_code == 403

    def test_is_told_what_a_request_without_credentials_is(
        self, app: FastAPI, client: Client, observed: Observed
    ) -> None:
        client(app).get("/search", headers={"Authorization": "Basic YTpi"})
        client(app).get("/search/")

        assert "not even an empty one" in observed.decisions[0].cure
        assert "optional_paths has /search, which is not this method and path" in observed.decisions[1].cure


class TestASharedCache:
    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [("/search", {}, 200), ("/items/secret", {}, 401), ("/search", {"Authorization": "Basic x"}, 401), ("/search?x", {}, 200)],
    )  # fmt: skip
    def test_is_told_that_every_answer_depends_on_the_credentials(
        self, app: FastAPI, client: Client, path: str, headers: dict[str, str], status: int
    ) -> None:
        response = client(app).get(path, headers=headers)

        assert response.status_code == status
        assert response.headers["vary"] == "Authorization"
        assert response.headers.get("cache-control") == ("private" if headers else None)

    def test_keeps_no_answer_to_a_caller_for_another(self, app: FastAPI, client: Client, service: Headers) -> None:
        response = client(app).get("/search", headers=service())

        assert (response.headers["vary"], response.headers["cache-control"]) == ("Authorization", "private")
        assert "vary" not in client(app).get("/tickets", headers=service()).headers

    @pytest.mark.parametrize(
        ("vary", "expected"),
        [("Accept", "Accept, Authorization"), ("accept, AUTHORIZATION", "accept, AUTHORIZATION"), ("*", "*")],
    )
    def test_sees_what_the_app_varies_on_as_well(self, make_app: App, client: Client, vary: str, expected: str) -> None:
        app = make_app(optional_paths=["/x"])

        @app.get("/x")
        async def x() -> Any:
            return PlainTextResponse("x", headers={"Vary": vary})

        assert client(app).get("/x").headers["vary"] == expected

    @pytest.mark.parametrize(
        ("control", "warned"),
        [("no-store", 0), ("private, max-age=5", 0), ("max-age=5", 0), ("public", 1), ("max-age=5, S-MaxAge=60", 1), ("max-age=1,public", 1), ("max-age=9, must-revalidate", 1)],
    )  # fmt: skip
    def test_is_kept_from_an_answer_that_the_app_made_public_by_one_warning(
        self, make_app: App, service: Headers, caplog: pytest.LogCaptureFixture, control: str, warned: int
    ) -> None:
        app = make_app(optional_paths=["/x"])

        @app.get("/x")
        async def x() -> Any:
            return PlainTextResponse("x", headers={"Cache-Control": control})

        with caplog.at_level(logging.WARNING, "s2s_fastapi"):
            for headers in ({}, service(), service()):
                assert TestClient(app).get("/x", headers=headers).headers["cache-control"] == control
        assert sum("shared" in text or "s-maxage" in text for text in caplog.messages) == warned


class TestAWebSocket:
    def test_needs_no_credentials_only_if_it_is_written(self, app: FastAPI, service: Headers) -> None:
        for headers, caller in (({}, None), (service(), "chat-app-service")):
            with TestClient(app).websocket_connect("/live", headers=headers) as socket:
                assert socket.receive_json() == {"caller": caller}
        with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/live", headers={"DPoP": "x"}):
            pass

    def test_is_not_opened_by_the_path_of_a_route_over_http(self, make_app: App) -> None:
        app = make_app(optional_paths=["/x"])
        app.get("/x")(lambda: 1)

        @app.websocket("/x")
        async def x(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/x"):
            pass


class TestARequirementThatIsOptional:
    def test_is_the_plain_requirement_where_the_path_is_not_optional(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(CHAT.optional())]), optional_paths=["/x"])
        app.get("/x")(lambda: 1)
        app.get("/y")(lambda: 1)
        billing = service(azp="billing", client_id="billing")
        asking = client(app)

        assert [asking.get(path).status_code for path in ("/x", "/y")] == [200, 401]
        assert [asking.get(path, headers=service()).status_code for path in ("/x", "/y")] == [200, 200]
        assert [asking.get(path, headers=billing).status_code for path in ("/x", "/y")] == [403, 403]

    def test_has_the_scopes_of_a_security_around_it(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app(optional_paths=["/x"])

        @app.get("/x")
        async def x(caller: Annotated[Principal | None, Security(CHAT.optional(), scopes=["read"])]) -> Any:
            return named(caller)

        assert client(app).get("/x").json() == {"caller": None}
        assert client(app).get("/x", headers=service()).status_code == 403
        assert client(app).get("/x", headers=service(scope="read")).status_code == 200

    def test_guards_endpoints_and_mounted_apps_of_starlette(
        self, options: Options, client: Client, service: Headers
    ) -> None:
        async def who(request: Request) -> PlainTextResponse:
            return PlainTextResponse(str(request.user.is_authenticated))

        async def mounted(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("mounted")(scope, receive, send)

        class Page(HTTPEndpoint):
            async def get(self, request: Request) -> PlainTextResponse:
                return await who(request)

        guarded = CHAT.optional().guard
        pages = [Route("/page", guarded(Page)), Route("/closed", guarded(Page))]
        plain = [Route("/x", guarded(who)), Mount("/m", guarded(mounted)), Route("/y", guarded(who))]
        app = Starlette(routes=[*plain, *pages, Mount("/below", routes=pages)])
        opened = ["/x", "/m/1", "/page", "/below/page"]
        app.add_middleware(ServiceAuthMiddleware, **options(optional_paths=opened))
        asking = client(app)

        assert [asking.get(path).status_code for path in opened] == [200] * 4
        assert [asking.get(path).status_code for path in ("/y", "/m/2", "/closed", "/below/closed")] == [401] * 4
        billing = service(azp="billing", client_id="billing")
        assert [asking.get(path, headers=billing).status_code for path in opened] == [403] * 4
        assert [asking.get(path, headers=service()).status_code for path in opened] == [200] * 4

    def test_shows_that_anybody_may_call_in_the_document(self, app: FastAPI) -> None:
        app.openapi_url = "/openapi.json"
        document = openapi_schema(app)
        search, tickets = document["paths"]["/search"], document["paths"]["/tickets"]

        assert search["get"]["security"] == [{"ServiceToken": []}, {}]
        assert search["get"]["responses"]["401"]["description"] == "Credentials that are not accepted here."
        assert search["post"]["x-service-auth"] == [
            "service chat-app-service, token for crm-api-gateway",
            "anybody without credentials",
        ]
        assert search["put"]["security"] == tickets["get"]["security"] == [{"ServiceToken": []}]


class Renaming:
    """A middleware between ours and the router, which changes the path."""

    def __init__(self, app: Any, before: str, after: str, header: tuple[bytes, bytes] | None = None) -> None:
        self.app, self.before, self.after, self.header = app, before, after, header

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == self.before:
            headers = [*scope["headers"], *([self.header] if self.header else [])]
            scope = {**scope, "path": self.after, "headers": headers}
        await self.app(scope, receive, send)


class TestAPathThatIsChangedOnTheWay:
    def app(self, options: Options, renaming: tuple[str, str], **changes: Any) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.get("/open")(lambda: "open")
        app.get("/closed", dependencies=[Depends(CHAT)])(lambda: "closed")
        app.get("/up")(lambda: "up")
        app.add_middleware(Renaming, *renaming, **changes)
        app.add_middleware(GZipMiddleware)
        app.add_middleware(ServiceAuthMiddleware, **options(optional_paths=["/open"], public_paths=["/up"]))
        return app

    @pytest.mark.parametrize(
        ("renaming", "status"),
        [
            (("/open", "/closed"), 401),  # what the router matches is not optional
            (("/up", "/closed"), 401),
            (("/open", "/up"), 200),
            (("/up", "/open"), 401),  # nobody looked whether it has credentials
            (("/closed", "/open"), 401),
        ],
    )
    def test_is_compared_again_at_the_router(
        self, options: Options, client: Client, observed: Observed, renaming: tuple[str, str], status: int
    ) -> None:
        response = client(self.app(options, renaming)).get(renaming[0])

        assert response.status_code == status
        assert observed.reasons in (["no_credentials"], ["anonymous"])
        assert (observed.reasons == ["anonymous"]) == (status == 200)

    def test_is_judged_with_credentials_that_came_on_the_way(
        self, options: Options, client: Client, observed: Observed, service: Headers
    ) -> None:
        header = (b"authorization", service()["Authorization"].encode())

        assert client(self.app(options, ("/open", "/closed"), header=header)).get("/open").json() == "closed"
        assert observed.reasons == ["allowed"]


class NewScope:
    """A middleware below a router that passes on a scope of its own, with another path."""

    def __init__(self, app: Any, after: str) -> None:
        self.app, self.after = app, after

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            kept = (
                "type",
                "method",
                "query_string",
                "headers",
                "extensions",
                "app",
                "http_version",
                "server",
                "client",
                "scheme",
            )
            scope = {key: scope[key] for key in kept if key in scope} | {
                "path": self.after,
                "raw_path": self.after.encode(),
            }
        await self.app(scope, receive, send)


class TestAMiddlewareBelowTheFirstRouter:
    @pytest.mark.parametrize("option", ["public_paths", "optional_paths"])
    @pytest.mark.parametrize("kind", ["mount", "guarded mount", "mount with middleware", "guard inside"])
    def test_opens_no_other_route_by_a_scope_of_its_own(
        self, options: Options, client: Client, observed: Observed, kind: str, option: str
    ) -> None:
        async def private(request: Request) -> PlainTextResponse:
            return PlainTextResponse("private")

        endpoint = require_caller("admin").guard(private) if kind == "guard inside" else private
        routes = [Route("/open", lambda request: PlainTextResponse("open")), Route("/private", endpoint)]
        inner = Starlette(routes=routes)
        rewriting: Any = NewScope(inner, "/private")
        mounted = require_caller("admin").guard(rewriting) if kind == "guarded mount" else rewriting
        mount = Mount("/s", mounted)
        if kind == "mount with middleware":
            mount = Mount("/s", routes=routes, middleware=[Middleware(NewScope, after="/private")])
        if kind == "guarded mount" and option == "optional_paths":
            mount = Mount("/s", require_caller("admin").optional().guard(rewriting))
        app = Starlette(routes=[mount])
        app.add_middleware(ServiceAuthMiddleware, **options(**{option: ["/s/open"]}))

        response = client(app).get("/s/open")

        assert response.status_code == 401
        assert "private" not in response.text
        assert observed.reasons == ["no_credentials"]

    def test_keeps_what_is_known_of_a_request_without_credentials(
        self, options: Options, client: Client, service: Headers
    ) -> None:
        inner = FastAPI(openapi_url=None)

        @inner.get("/open")
        async def who(caller: OptionalPrincipal) -> Any:
            return named(caller)

        app = Starlette(routes=[Mount("/s", NewScope(inner, "/open"))])
        app.add_middleware(ServiceAuthMiddleware, **options(optional_paths=["/s/open"]))

        assert client(app).get("/s/open").json() == {"caller": None}


class TestARequirementThatADependencyReturns:
    def test_and_nobody_asks_is_a_fault_with_and_without_credentials(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app(optional_paths=["/x", "/y", "/z"])

        def admin() -> Any:
            return CHAT

        @app.get("/x")
        async def x(requirement: Annotated[Any, Depends(admin)]) -> str:
            return "x"

        @app.get("/y", dependencies=[Depends(admin)])
        async def y() -> str:
            return "y"

        def anybody() -> Any:
            return CHAT.optional()

        @app.get("/z")
        async def z(request: Request, requirement: Annotated[Any, Depends(anybody)]) -> Any:
            return named(await requirement(request))

        asking = client(app)
        assert [asking.get(path).status_code for path in ("/x", "/y", "/z")] == [500, 500, 200]
        assert [asking.get(path, headers=service()).status_code for path in ("/x", "/y", "/z")] == [500, 500, 200]


class TestTheStartIsStopped:
    def stopped(self, app: Any, sentence: str) -> None:
        with pytest.raises(Exception, match=sentence), TestClient(app):
            pass

    def test_by_a_plain_requirement_on_an_optional_path(self, make_app: App) -> None:
        for requirement in (CHAT, require_scope("read"), CHAT | require_caller("b")):
            app = make_app(optional_paths=["/x"])
            app.get("/x", dependencies=[Depends(requirement)])(lambda: 1)
            self.stopped(app, r"no request without credentials meets it: write .*\.optional\(\), or remove the path")

    def test_by_a_plain_requirement_beside_an_optional_one(self, make_app: App) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(require_service())]), optional_paths=["/x"])
        app.get("/x", dependencies=[Depends(CHAT.optional())])(lambda: 1)
        self.stopped(app, r"has the requirement require_service\(\), .*: write require_service\(\).optional\(\), or")

    def test_by_a_guard_around_an_optional_path(self, options: Options) -> None:
        app = Starlette(routes=[Mount("/m", CHAT.guard(Starlette(routes=[Route("/x", lambda request: request)])))])
        app.add_middleware(ServiceAuthMiddleware, **options(optional_paths=["/m/x"]))
        self.stopped(app, "no request without credentials meets it")

    def test_by_current_principal_on_an_optional_path(self, make_app: App) -> None:
        app = make_app(optional_paths=["/x"])

        @app.get("/x")
        async def x(caller: CurrentPrincipal) -> Any:
            return named(caller)

        self.stopped(app, "has CurrentPrincipal.*write OptionalPrincipal")

    @pytest.mark.parametrize(("option", "sentence"), [
        ("public_paths", "takes OptionalPrincipal, and on a public path nobody looks"),
        ("", 'takes OptionalPrincipal, but is not in optional_paths, so the principal is never None: add "POST /x"'),
    ])  # fmt: skip
    def test_by_optional_principal_where_nobody_looked(self, make_app: App, option: str, sentence: str) -> None:
        app = make_app(**({option: ["POST /x"]} if option else {}))

        @app.post("/x")
        async def x(caller: OptionalPrincipal) -> Any:
            return named(caller)

        self.stopped(app, sentence)

    def test_by_optional_principal_below_another_dependency(self, make_app: App) -> None:
        app = make_app()

        async def tenant(caller: OptionalPrincipal) -> Any:
            return named(caller)

        app.get("/x")(lambda tenant: tenant)
        app.get("/y", dependencies=[Depends(tenant)])(lambda: 1)
        self.stopped(app, "GET /y takes OptionalPrincipal, but is not in optional_paths")

    @pytest.mark.parametrize(
        "texts",
        [
            (["/x"], ["/x"]),
            (["POST /x"], ["POST /x"]),
            (["GET /x"], ["/x"]),
            (["/x/{y}"], ["/x/{y}"]),
            (["/x/{y}"], ["/x/z"]),
        ],
    )
    def test_by_a_path_that_is_public_too(self, make_app: App, texts: tuple[list[str], list[str]]) -> None:
        app = make_app(public_paths=texts[0], optional_paths=texts[1])
        app.api_route("/x", methods=["GET", "POST"])(lambda: 1)
        app.get("/x/{y}")(lambda y: 1)
        self.stopped(app, "stands in public_paths and in optional_paths: remove one of the two")

    def test_by_a_template_that_opens_another_route(self, make_app: App) -> None:
        app = make_app(optional_paths=["/x/{y}"])
        app.get("/x/me")(lambda: 1)
        app.get("/x/{y}")(lambda y: 1)
        self.stopped(
            app, "optional_paths opens GET /x/{y}, and with it GET /x/me: write the optional paths out one by one"
        )

    @pytest.mark.parametrize("entry", ["*", "/x*", "/{p:path}", "get /x", "/x?y", 1, ["/x"]], ids=repr)
    def test_by_an_entry_that_is_no_path(self, make_app: App, entry: Any) -> None:
        self.stopped(make_app(optional_paths=[entry]), "optional_paths")

    @pytest.mark.parametrize("rule", [{"users": True}, {"insecure_skip_audience": True}])
    def test_if_the_app_demands_a_caller_and_the_optional_path_names_none(
        self, make_app: App, client: Client, rule: dict[str, Any]
    ) -> None:
        app = make_app(optional_paths=["/x"], **rule)
        app.get("/x")(lambda: 1)
        self.stopped(app, "Missing on: GET /x")

        right = make_app(optional_paths=["/x"], **rule)
        right.get(
            "/x",
            dependencies=[Depends((require_service() | require_user()).optional())]
            if "users" in rule
            else [Depends(CHAT.optional())],
        )(lambda: 1)
        assert client(right).get("/x").status_code == 200


class TestARightAppStarts:
    def test_with_a_guarded_route_in_front_of_an_optional_template_and_the_route_stays_closed(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app(optional_paths=["/items/{item}"])
        app.get("/items/mine", dependencies=[Depends(CHAT)])(lambda: "mine")
        app.get("/items/{item}")(lambda item: item)

        asking = client(app)
        assert [asking.get(path).status_code for path in ("/items/mine", "/items/1")] == [401, 200]
        assert asking.get("/items/mine", headers=service()).json() == "mine"

    def test_with_paths_from_an_iterator(self, make_app: App, client: Client) -> None:
        app = make_app(optional_paths=(path for path in ["/x"]), public_paths=iter(["/y"]))
        app.get("/x")(lambda: 1)
        app.get("/y")(lambda: 1)
        with TestClient(app):
            pass
        app.get("/late")(lambda: 1)  # the app is read again
        assert [client(app).get(path).status_code for path in ("/x", "/y", "/late")] == [200, 200, 401]


class TestARightAppIsToldOnce:
    def test_which_routes_accept_requests_without_credentials(
        self, app: FastAPI, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "s2s_fastapi"), TestClient(app):
            pass

        [line] = [text for text in caplog.messages if "without credentials" in text]
        assert line.endswith("on: GET /search, POST /search, GET /items/{item}, WEBSOCKET /live")

    def test_that_an_optional_requirement_is_on_no_optional_path(
        self, make_app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(CHAT.optional())])(lambda: 1)

        with TestClient(app):
            pass
        assert 'add "/x" to optional_paths, or leave .optional() out' in caplog.text

    def test_that_no_route_answers_an_optional_path(self, make_app: App, caplog: pytest.LogCaptureFixture) -> None:
        app = make_app(optional_paths=["/serach", "/live"])
        app.get("/search")(lambda: 1)

        @app.websocket("/live")
        async def live(websocket: WebSocket) -> None: ...

        with TestClient(app):
            pass
        assert "optional_paths: no route answers /serach." in caplog.text
        assert 'WEBSOCKET /live is a WebSocket: write "WEBSOCKET /live"' in caplog.text

    def test_and_a_route_that_comes_late_is_checked_too(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(optional_paths=["/x", "/y"])
        app.get("/x")(lambda: 1)
        with TestClient(app) as asking:
            app.get("/y", dependencies=[Depends(CHAT)])(lambda: 1)

            assert asking.get("/y").status_code == 500
            assert "no request without credentials meets it" in caplog.text
            assert asking.get("/x").status_code == 200


def test_a_mock_of_the_mark_or_of_another_request_is_not_believed(make_app: App, client: Client) -> None:
    class Forging:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "s2s_fastapi.anonymous": True}, receive, send)

    app = make_app(optional_paths=["/x"])

    @app.get("/x")
    async def x(caller: OptionalPrincipal) -> Any:
        return named(caller)

    without = FastAPI(openapi_url=None, routes=app.routes)
    without.add_middleware(Forging)
    assert client(without).get("/x").status_code == 500
