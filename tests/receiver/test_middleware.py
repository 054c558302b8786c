"""The door itself: which request gets which answer, and that nothing else about a request changes on its way through."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    AuthorizationError,
    Principal,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_scope,
    require_service,
)
from s2s_fastapi.accepted import INBOUND, digest
from tests.kit.realm import Realm, SigningKey
from tests.kit.receiving import App, Client, Headers, Options

Through = tuple[FastAPI, TestClient]

REALM = 'Bearer realm="crm-api-gateway"'
NO_CREDENTIALS = (401, REALM, "This service needs a bearer access token.")
INVALID_REQUEST = (
    400,
    f'{REALM}, error="invalid_request"',
    "The credentials of the request are malformed or given more than once.",
)
INVALID_TOKEN = f'{REALM}, error="invalid_token"'
UNTRUSTED = (401, INVALID_TOKEN, "The access token was not accepted.")
INSUFFICIENT = f'{REALM}, error="insufficient_scope"'


def told(response: Any) -> tuple[int, str | None, str]:
    assert set(response.json()) == {"detail"}
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.headers.get("WWW-Authenticate"), response.json()["detail"]


FORGER = SigningKey("RS256")

ROWS: dict[str, tuple[Callable[[Realm], list[tuple[str, str]]], tuple[int, str, str]]] = {
    "nothing": (lambda realm: [], NO_CREDENTIALS),
    "another scheme": (lambda realm: [("Authorization", "Basic YTpi")], NO_CREDENTIALS),
    "an empty header": (lambda realm: [("Authorization", "")], NO_CREDENTIALS),
    "a proxy's header": (lambda realm: [("Proxy-Authorization", f"Bearer {realm.token()}")], NO_CREDENTIALS),
    "a cookie": (lambda realm: [("Cookie", f"access_token={realm.token()}")], NO_CREDENTIALS),
    "two headers": (lambda realm: [("Authorization", f"Bearer {realm.token()}")] * 2, INVALID_REQUEST),
    "no token": (lambda realm: [("Authorization", "Bearer")], INVALID_REQUEST),
    "no token68": (lambda realm: [("Authorization", "Bearer a,b")], INVALID_REQUEST),
    "two tokens": (lambda realm: [("Authorization", "Bearer a b")], INVALID_REQUEST),
    "a long token": (lambda realm: [("Authorization", f"Bearer {'a' * 17000}")], INVALID_REQUEST),
    "no JWT": (lambda realm: [("Authorization", "Bearer abc")], UNTRUSTED),
    "alg none": (lambda realm: [("Authorization", f"Bearer {realm.token(header={'alg': 'none'})}")], UNTRUSTED),
    "a kid nobody has": (lambda realm: [("Authorization", f"Bearer {realm.token(header={'kid': 'x'})}")], UNTRUSTED),
    "another's signature": (
        lambda realm: [("Authorization", f"Bearer {realm.token(key=FORGER, header={'kid': realm.key.kid})}")],
        UNTRUSTED,
    ),
}

CLAIMS: dict[str, tuple[dict[str, Any], tuple[int, str, str]]] = {
    "iss": (
        {"iss": "http://keycloak.test/realms/other"},
        (401, INVALID_TOKEN, "The access token is from another issuer."),
    ),
    "aud": ({"aud": "account"}, (401, INVALID_TOKEN, "The access token is not for this service.")),
    "no aud": ({"aud": None}, (401, INVALID_TOKEN, "The access token is not for this service.")),
    "typ": ({"typ": "ID"}, (401, INVALID_TOKEN, "The token is not an access token.")),
    "exp": (
        {"exp": 1000, "iat": 900},
        (401, f'{INVALID_TOKEN}, error_description="The access token expired."', "The access token expired."),
    ),
    "nbf": ({"nbf": 2**33}, (401, INVALID_TOKEN, "The access token is not valid yet.")),
    "24 h": ({"exp": 2**33}, (401, INVALID_TOKEN, "The access token lives too long.")),
    "cnf": (
        {"cnf": {"jkt": "x"}},
        (
            401,
            INVALID_TOKEN,
            "The access token is bound to a key or a client certificate, and this service does not accept it as it was sent.",
        ),
    ),
    "azp": ({"azp": None}, (401, INVALID_TOKEN, "A claim of the access token is missing or malformed.")),
    "a user": ({"client_id": None, "sid": "s"}, (403, INSUFFICIENT, "Only services may call this.")),
    "unknown": (
        {"client_id": None},
        (403, INSUFFICIENT, "The access token does not say whether a service or a user is calling."),
    ),
    "a caller": ({"azp": "eve", "client_id": "eve"}, (403, INSUFFICIENT, "This caller may not call this.")),
    "a scope": ({"scope": "a"}, (403, f'{INSUFFICIENT}, scope="a b"', "The access token lacks a scope.")),
    "a narrower audience": (
        {"aud": ["crm-api-gateway", "x"], "scope": "a b"},
        (401, INVALID_TOKEN, "The access token is for other services too."),
    ),
}


class TestTheTable:
    @pytest.fixture
    def app(self, make_app: App) -> FastAPI:
        app = make_app()
        asked = (
            require_caller("chat-app-service")
            & require_scope("a", "b")
            & require_audience("crm-api-gateway", only=True)
        )
        app.get("/x", dependencies=[Depends(asked)])(lambda: "ok")

        @app.websocket("/x", dependencies=[Depends(asked)])
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.close()

        return app

    @pytest.mark.parametrize(("headers", "answer"), ROWS.values(), ids=ROWS)
    def test_of_credentials(self, app: FastAPI, client: Client, realm: Realm, headers: Any, answer: Any) -> None:
        assert told(client(app).get("/x", headers=httpx.Headers(headers(realm)).raw)) == answer

    @pytest.mark.parametrize(("claims", "answer"), CLAIMS.values(), ids=CLAIMS)
    def test_of_claims(self, app: FastAPI, client: Client, service: Headers, claims: Any, answer: Any) -> None:
        assert told(client(app).get("/x", headers=service(**{"scope": "b a", **claims}))) == answer

    @pytest.mark.parametrize(("claims", "answer"), CLAIMS.values(), ids=CLAIMS)
    def test_of_claims_is_the_same_for_a_websocket(
        self, app: FastAPI, client: Client, service: Headers, claims: Any, answer: Any
    ) -> None:
        headers = service(**{"scope": "b a", **claims})
        with pytest.raises(WebSocketDenialResponse) as raised, client(app).websocket_connect("/x", headers=headers):
            pass
        response = raised.value
        assert told(response) == answer

    @pytest.mark.parametrize("extensions", [None, {}, "absent", {"websocket.http.push": {}}], ids=str)
    def test_of_claims_closes_a_websocket_before_it_is_accepted_where_there_are_no_denials(
        self, app: FastAPI, service: Headers, extensions: Any
    ) -> None:
        for headers in ({}, service(azp="eve", client_id="eve"), service(scope="a")):
            assert anyio.run(handshake, app, headers, extensions) == [("websocket.close", 1008)]

    def test_a_token_in_the_query_as_well(self, app: FastAPI, client: Client, service: Headers) -> None:
        assert told(client(app).get("/x?access_token=abc", headers=service(scope="a b"))) == INVALID_REQUEST

    @pytest.mark.tells_secrets("the client of this test logs the URL it was given, with the query", "log httpx")
    def test_a_token_in_the_query_alone(self, app: FastAPI, client: Client, realm: Realm) -> None:
        assert told(client(app).get(f"/x?access_token={realm.token(scope='a b')}")) == NO_CREDENTIALS

    def test_no_keys(self, app: FastAPI, client: Client, realm: Realm, service: Headers) -> None:
        realm.answer = lambda request: httpx.Response(500)
        response = client(app).get("/x", headers=service(scope="a b"))
        assert told(response) == (503, None, "The service cannot check tokens at the moment.")
        assert response.headers["Retry-After"] in {"5", "6"}  # 5 s, up to a tenth more, rounded up

    def test_no_keys_for_a_websocket(self, app: FastAPI, realm: Realm, service: Headers) -> None:
        realm.answer = lambda request: httpx.Response(500)
        assert anyio.run(handshake, app, service(), None) == [("websocket.close", 1013)]

    def test_a_good_token(self, app: FastAPI, client: Client, service: Headers) -> None:
        good = service(scope="a b c")
        assert client(app).get("/x", headers=good).json() == "ok"
        with client(app).websocket_connect("/x", headers=good):
            pass

    def test_a_head_request_is_refused_without_a_surprise(self, app: FastAPI, client: Client) -> None:
        assert client(app).head("/x").status_code == 401

    def test_the_scheme_is_written_in_any_case(self, app: FastAPI, client: Client, realm: Realm) -> None:
        assert (
            client(app).get("/x", headers={"Authorization": f"bEARER  {realm.token(scope='a b')}"}).status_code == 200
        )

    def test_no_answer_echoes_anything_of_the_token(self, app: FastAPI, client: Client, service: Headers) -> None:
        refused = client(app).get(
            "/x", headers=service(azp="<eve>", client_id="<eve>", scope="secret-scope", jti="jti-value")
        )
        assert not any(word in str(refused.headers) + refused.text for word in ("eve", "secret-scope", "jti-value"))


async def handshake(app: Any, headers: dict[str, str], extensions: Any) -> list[tuple[str, int]]:
    """Return what an app sends to a WebSocket handshake of a server without denial responses."""
    sent: list[tuple[str, int]] = []
    scope = {
        "type": "websocket", "path": "/x", "query_string": b"", "scheme": "ws", "root_path": "", "subprotocols": [],
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    if extensions != "absent":
        scope["extensions"] = extensions

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append((message["type"], message.get("code", 0)))

    await app(scope, receive, send)
    return sent


async def refused_by_starlette(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


class TestTheChallengeSurvives:
    EVE = {"azp": "eve", "client_id": "eve"}  # noqa: RUF012 - read only

    def test_a_handler_of_fastapi(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_caller("a"))])(lambda: None)

        @app.exception_handler(StarletteHTTPException)
        async def handler(request: Request, error: StarletteHTTPException) -> JSONResponse:
            return JSONResponse({"problem": error.detail}, error.status_code)

        refused = client(app).get("/x", headers=service())
        assert refused.status_code == 403
        assert refused.headers.get_list("WWW-Authenticate") == [INSUFFICIENT]
        assert refused.json() == {"problem": "This caller may not call this."}

    def test_a_handler_of_plain_starlette(self, options: Options, client: Client, service: Headers) -> None:
        def handler(request: Request, error: Exception) -> PlainTextResponse:
            return PlainTextResponse("no", 403)

        app = Starlette(
            routes=[Route("/x", require_caller("a").guard(refused_by_starlette))],
            middleware=[Middleware(ServiceAuthMiddleware, **options())],
            exception_handlers={403: handler},
        )
        refused = client(app).get("/x", headers=service())
        assert (refused.status_code, refused.headers["WWW-Authenticate"], refused.text) == (403, INSUFFICIENT, "no")

    def test_starlettes_own_handler_once(self, options: Options, client: Client, service: Headers) -> None:
        app = Starlette(
            routes=[Route("/x", require_caller("a").guard(refused_by_starlette))],
            middleware=[Middleware(ServiceAuthMiddleware, **options())],
        )
        refused = client(app).get("/x", headers=service())
        assert refused.status_code == 403
        assert refused.headers.get_list("WWW-Authenticate") == [INSUFFICIENT]

    def test_a_response_of_another_status_is_the_apps_own(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_caller("a"))])(lambda: None)
        app.add_exception_handler(403, lambda request, error: RedirectResponse("/login"))
        refused = client(app).get("/x", headers=service())
        assert refused.status_code == 307
        assert "WWW-Authenticate" not in refused.headers

    def test_a_challenge_of_the_apps_own_stays(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_caller("a"))])(lambda: None)
        app.add_exception_handler(403, lambda request, error: PlainTextResponse("", 403, {"www-authenticate": "Own"}))
        assert client(app).get("/x", headers=service()).headers.get_list("WWW-Authenticate") == ["Own"]

    def test_a_403_of_the_app_gets_none(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()

        @app.get("/x")
        async def route() -> None:
            raise HTTPException(403, "mine")

        assert "WWW-Authenticate" not in client(app).get("/x", headers=service()).headers

    def test_an_app_without_starlettes_handlers(self, options: Options, client: Client, service: Headers) -> None:
        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("in")(scope, receive, send)

        for inner in (
            require_caller("a").guard(asgi),
            Router([Route("/x", require_caller("a").guard(refused_by_starlette))]),
        ):
            refused = client(ServiceAuthMiddleware(inner, **options())).get("/x", headers=service())
            assert told(refused) == (403, INSUFFICIENT, "This caller may not call this.")
        assert anyio.run(
            handshake, ServiceAuthMiddleware(require_caller("a").guard(asgi), **options()), service(), None
        ) == [("websocket.close", 1008)]

    def test_a_refusal_of_the_apps_own_is_the_apps_own(self, options: Options, service: Headers) -> None:
        async def inner(scope: Any, receive: Any, send: Any) -> None:
            require_caller("a").check(scope["user"])

        with pytest.raises(AuthorizationError, match="caller_not_allowed"):
            TestClient(ServiceAuthMiddleware(inner, **options())).get("/x", headers=service())

    def test_an_extension_message_before_the_answer(self, options: Options, client: Client, service: Headers) -> None:
        async def inner(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.early_hint", "links": []})
            try:
                await require_caller("a").guard(Starlette())(scope, receive, send)
            except StarletteHTTPException:
                await PlainTextResponse("no", 403)(scope, receive, send)

        assert (
            client(ServiceAuthMiddleware(inner, **options())).get("/x", headers=service()).headers["WWW-Authenticate"]
            == INSUFFICIENT
        )

    def test_a_refusal_that_comes_after_the_answer_began_is_the_servers_to_end(
        self, options: Options, service: Headers
    ) -> None:
        async def inner(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await require_caller("a").guard(Starlette())(scope, receive, send)

        with pytest.raises(StarletteHTTPException):
            TestClient(ServiceAuthMiddleware(inner, **options())).get("/x", headers=service())


class TestWhatIsToldOfADecision:
    def test_a_refusal_by_a_requirement_names_the_route_as_declared(
        self, make_app: App, client: Client, service: Headers, observed: Any
    ) -> None:
        app, router = make_app(), APIRouter()
        router.get("/tickets/{id}", dependencies=[Depends(require_caller("a"))])(lambda: None)
        app.include_router(router, prefix="/v1")
        client(app).get("/v1/tickets/4711", headers=service())
        (decision,) = observed.decisions
        assert (decision.reason, decision.method, decision.route) == ("caller_not_allowed", "GET", "/v1/tickets/{id}")
        assert decision.client_id == "chat-app-service"
        assert decision.token_id
        assert "(allowed: a)" in decision.cure

    def test_an_acceptance_is_told_once(self, make_app: App, client: Client, service: Headers, observed: Any) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_service())])(lambda: None)
        client(app).get("/x", headers=service())
        assert [(str(decision.reason), decision.route) for decision in observed.decisions] == [("allowed", "/x")]

    @pytest.mark.tells_secrets(
        "whoever traces requests shows their path", "log httpx", "span GET", "attribute url.path", "metric http"
    )
    @pytest.mark.parametrize("cut", [None, 60])
    def test_a_token_in_the_path_is_not_told(
        self, make_app: App, client: Client, realm: Realm, observed: Any, cut: int | None
    ) -> None:
        token = realm.token()[:cut]
        client(make_app()).get(f"/tickets/{token}/x")
        assert observed.decisions[0].route == "/tickets/(left out)/x"

    def test_a_refusal_at_the_door_names_the_path_without_control_characters(
        self, make_app: App, client: Client, observed: Any
    ) -> None:
        client(make_app()).get("/x%0aforged")
        assert (observed.decisions[0].route, observed.decisions[0].reason) == (
            "/x\N{REPLACEMENT CHARACTER}forged",
            "no_credentials",
        )

    def test_an_observer_that_does_not_want_acceptances_is_spared(
        self, make_app: App, client: Client, service: Headers, observed: Any
    ) -> None:
        observed.wants_allowed = False
        app = make_app()
        app.get("/x")(lambda: None)
        client(app).get("/x", headers=service())
        client(app).get("/x")
        assert observed.reasons == ["no_credentials"]

    def test_nobody_is_told_of_public_paths(self, make_app: App, client: Client, observed: Any) -> None:
        app = make_app(public_paths=["/x"])
        app.get("/x")(lambda: None)
        client(app).get("/x")
        assert observed.decisions == []

    def test_the_log_is_the_observer_unless_given(
        self, make_app: App, client: Client, service: Headers, caplog: Any
    ) -> None:
        app = make_app(observer=None)
        app.get("/x", dependencies=[Depends(require_caller("a"))])(lambda: None)
        client(app).get("/x", headers=service())
        (record,) = (record for record in caplog.records if record.name == "s2s_fastapi.decisions")
        assert (record.levelno, record.reason, record.status) == (logging.WARNING, "caller_not_allowed", 403)


class TestWhatPassesThrough:
    @pytest.fixture
    def there(self, make_app: App, client: Client) -> tuple[FastAPI, TestClient]:
        app = make_app(public_paths=["/public"])
        return app, client(app)

    def test_streams_in_and_out(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.post("/x")
        async def route(request: Request) -> StreamingResponse:
            parts = [part async for part in request.stream()]

            async def out() -> AsyncIterator[bytes]:
                for part in parts:
                    yield part.upper()

            return StreamingResponse(out())

        assert http.post("/x", content=iter([b"a", b"b"]), headers=service()).content == b"AB"

    def test_background_tasks_run_after_the_answer_with_the_callers_token_still_known(
        self, there: Through, realm: Realm
    ) -> None:
        app, http = there
        token, seen = realm.token(), []

        @app.get("/x")
        async def route(background: BackgroundTasks) -> None:
            background.add_task(lambda: seen.append(INBOUND.get()))

        assert http.get("/x", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert seen == [digest(token)]
        assert INBOUND.get() is None

    @pytest.mark.anyio
    async def test_after_the_answer_the_callers_token_is_forgotten(self, there: Through, service: Headers) -> None:
        app, _ = there
        app.get("/x")(lambda: None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
            assert (await http.get("/x", headers=service())).status_code == 200
        assert INBOUND.get() is None

    def test_errors_of_the_app(self, make_app: App, service: Headers) -> None:
        app = make_app()

        @app.get("/x")
        async def route() -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            TestClient(app).get("/x", headers=service())

    def test_http_errors_of_the_app(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.get("/x")
        async def route() -> None:
            raise HTTPException(418, "mine", {"X-Mine": "1"})

        answer = http.get("/x", headers=service())
        assert (answer.status_code, answer.json(), answer.headers["X-Mine"]) == (418, {"detail": "mine"}, "1")
        assert http.get("/nowhere", headers=service()).status_code == 404
        assert http.post("/x", headers=service()).status_code == 405

    def test_head_and_the_state(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.middleware("http")
        async def outer(request: Request, call_next: Any) -> Any:
            request.state.outer = "kept"
            return await call_next(request)

        @app.api_route("/x", methods=["GET", "HEAD"])
        async def route(request: Request) -> str:
            return str(request.state.outer)

        assert http.get("/x", headers=service()).json() == "kept"
        assert http.head("/x", headers=service()).headers["content-length"] == "6"

    def test_the_state_of_the_lifespan(self, make_app: App, client: Client, service: Headers) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
            yield {"pool": "open"}

        app = make_app(app=FastAPI(lifespan=lifespan, openapi_url=None))

        @app.get("/x")
        async def route(request: Request) -> str:
            return str(request.state.pool)

        with client(app) as http:
            assert http.get("/x", headers=service()).json() == "open"

    def test_a_client_that_goes_away(self, there: Through, service: Headers) -> None:
        app, _ = there
        seen: list[type] = []

        @app.post("/x")
        async def route(request: Request) -> None:
            try:
                await request.body()
            except ClientDisconnect as error:
                seen.append(type(error))

        scope = {
            "type": "http", "method": "POST", "path": "/x", "query_string": b"", "root_path": "",
            "headers": [(b"authorization", service()["Authorization"].encode())],
        }  # fmt: skip

        async def gone() -> None:
            async def receive() -> dict[str, str]:
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None: ...

            await app(scope, receive, send)

        anyio.run(gone)
        assert seen == [ClientDisconnect]

    def test_a_public_path_runs_for_nobody(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.get("/public")
        async def route(request: Request) -> list[Any]:
            return [request.user.is_authenticated, request.user.display_name, request.auth.scopes]

        assert http.get("/public", headers=service()).json() == [False, "", []]

    def test_the_token_that_came_to_a_public_path_is_known_as_one_that_must_not_go_on(
        self, there: Through, service: Headers
    ) -> None:
        app, http = there
        seen: list[bytes | None] = []

        @app.get("/public")
        async def route() -> None:
            seen.append(INBOUND.get())

        headers = service()
        for brought in (headers, {}, {"Authorization": "Basic eA=="}, {"Authorization": "Bearer"}):
            assert http.get("/public", headers=brought).status_code == 200
        assert seen == [digest(headers["Authorization"].removeprefix("Bearer ")), None, None, None]
        assert INBOUND.get() is None

    def test_a_websocket(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept("chat", [(b"x-mine", b"1")])
            await websocket.send_bytes(await websocket.receive_bytes())
            await websocket.close(4000, "bye")

        with http.websocket_connect("/ws", ["chat"], headers=service()) as connected:
            assert str(connected.accepted_subprotocol) == "chat"
            connected.send_bytes(b"x")
            assert connected.receive_bytes() == b"x"
            assert connected.receive() == {"type": "websocket.close", "code": 4000, "reason": "bye"}

    def test_a_denial_of_the_apps_own(self, there: Through, service: Headers) -> None:
        app, http = there

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.send_denial_response(PlainTextResponse("mine", 418))

        with pytest.raises(WebSocketDenialResponse) as raised, http.websocket_connect("/ws", headers=service()):
            pass
        assert raised.value.status_code == 418


class TestScopesOfTheServer:
    @pytest.mark.parametrize("kind", ["webtransport", "HTTP", "", "http2"])
    def test_of_an_unknown_type_are_refused(self, options: Options, kind: str) -> None:
        async def never(*_: Any) -> Any:
            pytest.fail("let in")

        async def ask() -> None:
            await ServiceAuthMiddleware(never, **options())({"type": kind}, never, never)

        with pytest.raises(Exception, match=r"scope type .* is unknown"):
            anyio.run(ask)


class TestPreflight:
    PREFLIGHT = {"Origin": "https://ui.example", "Access-Control-Request-Method": "GET"}  # noqa: RUF012 - read only

    def cors(self, app: FastAPI) -> None:
        app.add_middleware(CORSMiddleware, allow_origins=["https://ui.example"], expose_headers=["WWW-Authenticate"])

    def test_is_not_exempt(self, make_app: App, client: Client) -> None:
        app = make_app()
        app.api_route("/x", methods=["GET", "OPTIONS"])(lambda: None)
        assert client(app).options("/x", headers=self.PREFLIGHT).status_code == 401

    def test_is_answered_by_cors_outside(self, make_app: App, client: Client, caplog: Any) -> None:
        app = make_app()
        self.cors(app)
        app.get("/x")(lambda: None)
        with client(app) as http:
            assert http.options("/x", headers=self.PREFLIGHT).status_code == 200
            refused = http.get("/x", headers={"Origin": "https://ui.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://ui.example"
        assert not [record for record in caplog.records if record.name == "s2s_fastapi"]

    @pytest.mark.parametrize("around", [False, True])
    def test_is_refused_by_cors_inside_and_the_start_says_so(
        self, make_app: App, options: Options, client: Client, caplog: Any, around: bool
    ) -> None:
        app: Any = FastAPI(openapi_url=None)
        self.cors(app)
        app.get("/x")(lambda: None)
        app = ServiceAuthMiddleware(app, **options()) if around else make_app(app=app)
        with client(app) as http:
            assert http.options("/x", headers=self.PREFLIGHT).status_code == 401
        messages = [record.message for record in caplog.records if record.name == "s2s_fastapi"]
        assert len(messages) == 1
        assert "add it after ServiceAuthMiddleware" in messages[0]


def test_a_body_that_cannot_be_read_is_only_looked_at_after_the_token(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()

    @app.post("/x", dependencies=[Depends(require_caller("a"))])
    async def route(body: dict[str, Any]) -> None: ...

    assert client(app).post("/x", content=b"{").status_code == 401
    assert (
        json.loads(client(app).post("/x", content=b"{}", headers=service()).text)["detail"]
        == "This caller may not call this."
    )


def test_a_token_is_told_to_the_route_as_its_principal(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(require_service())]) -> list[Any]:
        return [caller.client_id, caller.kind, sorted(caller.audiences), sorted(caller.scopes)]

    assert client(app).get("/x", headers=service()).json() == [
        "chat-app-service",
        "service",
        ["crm-api-gateway"],
        ["email", "profile"],
    ]
