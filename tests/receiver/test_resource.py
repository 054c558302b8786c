"""An app that is a protected resource: its URL is its audience, and anybody may read where its tokens come from (RFC 9728)."""

import logging
from typing import Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    ConfigurationError,
    ServiceAuthMiddleware,
    SessionEnded,
    openapi_schema,
    require_caller,
    require_scope,
)
from s2s_fastapi.requirement.request_state import Authenticated
from tests.kit.realm import settings
from tests.kit.realms import corp_and_partners, settings_of, transport_to
from tests.kit.receiving import App, Client, Headers, Observed, Options

URL = "https://tools.example.com/mcp"
PATH = "/.well-known/oauth-protected-resource/mcp"
ADDRESS = f"https://tools.example.com{PATH}"
SPACE = f'Bearer realm="crm-api-gateway", resource_metadata="{ADDRESS}"'


def tools(make_app: App, **changes: Any) -> FastAPI:
    app = make_app(**{"public_url": URL, "resource": True, **changes})
    app.get("/mcp", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: "in")
    app.get("/narrow", dependencies=[Depends(require_scope("narrow"))])(lambda: "in")
    return app


def refused(options: dict[str, Any]) -> str:
    """Return why the start of an app with these options was refused."""
    with pytest.raises(ConfigurationError) as raised, TestClient(ServiceAuthMiddleware(FastAPI(), **options)):
        pass
    return str(raised.value)


class TestThePublicUrl:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("", "it is empty"),
            (["https://a.example", "tools.example.com"], "it does not start with http:// or https://"),
            (b"https://tools.example.com", "it is not text"),
            ("tools.example.com/mcp", "it does not start with http:// or https://"),
            ("/mcp", "it does not start with http:// or https://"),
            ("wss://tools.example.com/mcp", "it does not start with http:// or https://"),
            ("http://tools.example.com/mcp", "http is accepted on loopback addresses only, so write https"),
            ("http://tools:8000/mcp", "http is accepted on loopback addresses only, so write https"),
            ("http://10.0.0.5/mcp", "http is accepted on loopback addresses only, so write https"),
            ("http://127.0.0.1.example.com/", "http is accepted on loopback addresses only, so write https"),
            ("http://localhost.example.com/", "http is accepted on loopback addresses only, so write https"),
            ("https:///mcp", "it has no host"),
            ("https://tools.example.com:99999/mcp", "its host or port cannot be read"),
            ("https://ann@tools.example.com/mcp", "a user name or password does not belong in it"),
            ("https://tools.example.com/mcp?a=b", "a query or fragment does not belong in it"),
            ("https://tools.example.com/mcp?", "a query or fragment does not belong in it"),
            ("https://tools.example.com/mcp#a", "a query or fragment does not belong in it"),
            ('https://tools.example.com/"', "it has a character no URL can have"),
            ("https://tools.example.com/a\\b", "it has a character no URL can have"),
            ("https://tools.example.com/a b", "it has a character no URL can have"),
            ("https://tools.example.com/mcp ", "it has a blank at one end"),
            ("https://tools.example.com/\r\nX: y", "it has the character U+000D, which cannot be printed"),
            ("https://tööls.example.com/mcp", "it has a character that is not ASCII. Write its host in Punycode"),
            ("https://tools.example.com/é", "it has a character that is not ASCII. Write its host in Punycode"),
            (f"https://tools.example.com/{'a' * 255}", "it is longer than 255 characters"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("resource", [True, False])
    def test_a_url_that_callers_cannot_compare_or_quote_stops_the_start(
        self, options: Options, url: Any, problem: str, resource: bool
    ) -> None:
        sentence = refused(options(public_url=url, resource=resource))
        assert f'public_url= takes the URL at which callers reach this app, such as "{URL}": {problem}' in sentence

    @pytest.mark.parametrize(
        "url",
        [
            "https://tools.example.com",
            "https://tools.example.com/",
            "https://tools.example.com:8443/a/b/",
            "https://xn--tls-snaa.example.com/%C3%A9",
            "https://Tools.example.com/MCP",
            "http://localhost:8000/mcp",
            "http://tools.localhost/mcp",
            "http://127.9.9.9/mcp",
            "http://[::1]:8000/mcp",
        ],
    )
    def test_a_url_is_the_audience_as_it_was_written(
        self, make_app: App, client: Client, service: Headers, url: str
    ) -> None:
        http = client(tools(make_app, public_url=url))
        assert http.get("/mcp", headers=service(aud=url)).text == '"in"'
        assert http.get("/mcp", headers=service(aud=f"{url}x")).status_code == 401

    def test_a_resource_without_its_url_stops_the_start(self, options: Options) -> None:
        assert refused(options(resource=True)) == (
            f'resource=True needs the URL at which callers reach this app: public_url="{URL}".'
        )

    def test_a_url_given_as_the_resource_stops_the_start(self, options: Options) -> None:
        assert refused(options(resource=URL)) == (
            "resource= takes True or False: write resource=True, and the URL of this app in public_url=."
        )

    def test_a_url_alone_changes_nothing(self, make_app: App, client: Client, service: Headers) -> None:
        http = client(tools(make_app, resource=False))
        assert http.get("/mcp", headers=service()).status_code == 200
        assert http.get("/mcp", headers=service(aud=URL)).status_code == 401
        answer = http.get(PATH)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="crm-api-gateway"')


class TestTheAudience:
    @pytest.mark.parametrize(
        "case",
        [
            ({}, [URL], ["crm-api-gateway", f"{URL}/", "https://tools.example.com", "https://other.example.com/mcp"]),
            ({"settings": settings(audience="named")}, [URL], ["named", "crm-api-gateway"]),
            ({"audience": "named"}, ["named"], [URL, "crm-api-gateway"]),
            ({"audience": ["named", URL]}, ["named", URL], ["crm-api-gateway"]),
        ],
        ids=["in place of the client id", "in place of the settings' audience", "named in code", "named in code, too"],
    )
    def test_the_url_is_the_only_audience_unless_the_code_names_others(
        self, make_app: App, client: Client, service: Headers, case: tuple[Any, list[str], list[str]]
    ) -> None:
        changes, accepted, others = case
        http = client(tools(make_app, **changes))
        assert [http.get("/mcp", headers=service(aud=name)).status_code for name in accepted] == [200] * len(accepted)
        assert [http.get("/mcp", headers=service(aud=name)).status_code for name in others] == [401] * len(others)

    def test_an_audience_of_the_settings_that_is_not_accepted_is_a_warning(
        self, make_app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        with TestClient(tools(make_app, settings=settings(audience=["named", URL]))):
            pass
        assert caplog.messages.count(
            "resource=True: public_url is the only audience, so KEYCLOAK_AUDIENCE (named) is not accepted. Remove that setting; or write "
            "audience=[...] with every audience that is accepted."
        ) == 1  # fmt: skip

    def test_the_start_logs_the_audience_and_the_address_of_the_document(
        self, make_app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "s2s_fastapi")
        with TestClient(tools(make_app)):
            pass
        assert (
            f"the app is a protected resource: tokens for {URL} are accepted, and {ADDRESS} needs no token."
            in caplog.messages
        )

    @pytest.mark.parametrize(
        "changes",
        [{}, {"settings": settings(audience=URL)}, {"settings": settings(audience="old"), "audience": "named"}],
        ids=["no audience", "the same", "named in code"],
    )
    def test_settings_that_say_the_same_are_no_warning(
        self, make_app: App, changes: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with TestClient(tools(make_app, **changes)):
            pass
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    def test_openapi_shows_the_audience_and_the_challenge_as_they_are(self, options: Options) -> None:
        app = FastAPI()
        app.get("/mcp", dependencies=[Depends(require_caller("agent"))])(lambda: "in")
        document = openapi_schema(ServiceAuthMiddleware(app, **options(public_url=URL, resource=True)))
        operation = document["paths"]["/mcp"]["get"]
        assert operation["x-service-auth"] == [f"service agent, token for {URL}"]
        shown = {
            status: answer["headers"]["WWW-Authenticate"]["schema"].get("example")
            or answer["headers"]["WWW-Authenticate"].get("example")
            for status, answer in operation["responses"].items()
            if "WWW-Authenticate" in answer.get("headers", {})
        }
        assert set(shown) == {"400", "401", "403"}
        assert all(value.startswith(SPACE) for value in shown.values())

    def test_a_token_of_each_realm_needs_the_url(self, client: Client) -> None:
        corp, partners = corp_and_partners()
        app = FastAPI(openapi_url=None)
        asked = require_caller("chat-app-service") | require_caller("chat-app-service", realm="partners")
        app.get("/mcp", dependencies=[Depends(asked)])(lambda: "in")
        app.add_middleware(
            ServiceAuthMiddleware,
            settings=settings_of(corp, partners),
            transport=transport_to(corp, partners),
            public_url=URL,
            resource=True,
        )
        http = client(app)
        for realm in (corp, partners):
            for aud, status in ((URL, 200), ("crm-api-gateway", 401)):
                answer = http.get("/mcp", headers={"Authorization": f"Bearer {realm.token(aud=aud)}"})
                assert answer.status_code == status
        assert http.get(PATH).json()["authorization_servers"] == [corp.issuer, partners.issuer]
        stranger = {"Authorization": f"Bearer {partners.token(aud=URL, azp='eve', client_id='eve')}"}
        assert http.get("/mcp", headers=stranger).headers["WWW-Authenticate"].startswith(SPACE)


class TestTheDocument:
    def test_anybody_may_read_it_and_keep_it(
        self, make_app: App, client: Client, realm: Any, observed: Observed
    ) -> None:
        answer = client(tools(make_app)).get(PATH)
        assert answer.json() == {
            "resource": URL,
            "authorization_servers": [realm.issuer],
            "bearer_methods_supported": ["header"],
        }
        assert {name: answer.headers[name] for name in ("content-type", "cache-control", "access-control-allow-origin")} == {
            "content-type": "application/json",
            "cache-control": "public, max-age=3600",
            "access-control-allow-origin": "*",
        }  # fmt: skip
        assert "www-authenticate" not in answer.headers
        assert observed.decisions == []

    def test_credentials_make_no_difference(self, make_app: App, client: Client, service: Headers) -> None:
        http = client(tools(make_app))
        plain = http.get(PATH)
        for headers in (service(aud=URL), service(aud="other"), {"Authorization": "Bearer x"}, {"Cookie": "a=b"}):
            answer = http.get(PATH, headers=headers)
            assert (answer.content, answer.headers) == (plain.content, plain.headers)

    def test_it_needs_no_keycloak(self, make_app: App, client: Client, realm: Any) -> None:
        realm.answer = lambda _: httpx.Response(503)
        http = client(tools(make_app))
        assert http.get(PATH).status_code == 200
        assert http.get("/mcp", headers={"Authorization": f"Bearer {realm.token(aud=URL)}"}).status_code == 503

    def test_head_has_the_headers_of_get_and_no_body(self, make_app: App, client: Client) -> None:
        http = client(tools(make_app))
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "HEAD", "path": PATH, "query_string": b"", "headers": []}
        anyio.run(http.app, scope, receive, send)
        start, *bodies = sent
        assert (start["status"], [body["body"] for body in bodies]) == (200, [b""])
        assert httpx.Headers(start["headers"]).multi_items() == httpx.Headers(http.get(PATH).headers).multi_items()

    def test_a_preflight_request_of_any_origin_is_answered(self, make_app: App, client: Client) -> None:
        headers = {
            "Origin": "https://inspector.example.com",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "mcp-protocol-version",
        }
        answer = client(tools(make_app)).options(PATH, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "*"

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
    def test_another_method_is_not_allowed_whoever_sends_it(
        self, make_app: App, client: Client, service: Headers, method: str
    ) -> None:
        for headers in ({}, service(aud=URL)):
            answer = client(tools(make_app)).request(method, PATH, headers=headers)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("https://tools.example.com", ""),
            ("https://tools.example.com/", ""),
            ("https://tools.example.com/mcp", "/mcp"),
            ("https://tools.example.com/mcp/", "/mcp/"),
            ("https://tools.example.com:8443/a/b", "/a/b"),
            ("https://tools.example.com/%C3%A9", "/%C3%A9"),
        ],
    )
    def test_its_path_stands_between_the_host_and_the_path_of_the_url(
        self, make_app: App, client: Client, url: str, path: str
    ) -> None:
        http = client(tools(make_app, public_url=url))
        answer = http.get(f"/.well-known/oauth-protected-resource{path}")
        assert (answer.status_code, answer.json()["resource"]) == (200, url)
        address = httpx.URL(url).copy_with(raw_path=f"/.well-known/oauth-protected-resource{path}".encode())
        assert f'resource_metadata="{address}"' in http.get("/mcp").headers["WWW-Authenticate"]

    @pytest.mark.parametrize("root_path", ["/api", "/api/"])
    @pytest.mark.parametrize("in_front", [True, False])
    def test_a_root_path_of_the_server_does_not_move_it(self, make_app: App, root_path: str, in_front: bool) -> None:
        http = TestClient(tools(make_app), root_path=root_path)
        assert http.get(f"{root_path if in_front else ''}{PATH}").status_code == 200
        assert http.get(f"/other{PATH}").status_code == 401

    def test_layers_of_the_app_do_not_hide_it(self, make_app: App, client: Client) -> None:
        app = tools(make_app)
        app.add_middleware(CORSMiddleware, allow_origins=["https://inspector.example.com"])
        answer = client(app).get(PATH, headers={"Origin": "https://inspector.example.com"})
        assert (answer.status_code, answer.json()["resource"]) == (200, URL)
        assert answer.headers.get_list("access-control-allow-origin") == ["https://inspector.example.com"]

    def test_a_route_that_it_hides_is_a_warning(self, make_app: App, caplog: pytest.LogCaptureFixture) -> None:
        app = tools(make_app)
        app.get(PATH)(lambda: "mine")
        with TestClient(app) as http:
            assert http.get(PATH).json()["resource"] == URL
        sentence = (
            f"resource=True: the middleware answers {PATH}, so this route is never reached: GET {PATH}. Remove it."
        )
        assert caplog.messages.count(sentence) == 1

    @pytest.mark.parametrize(
        ("mount", "path"), [("/tools", "/tools/mcp"), ("/", "/mcp"), ("/.well-known", "/.well-known/mcp")]
    )
    def test_a_mount_where_no_request_for_it_comes_is_a_warning(
        self, make_app: App, service: Headers, mount: str, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        http = TestClient(Starlette(routes=[Mount(mount, tools(make_app))]), root_path="/api")
        assert [http.get(f"/api{path}", headers=service(aud=URL)).status_code for _ in range(2)] == [200, 200]
        warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        if mount == "/tools":
            sentence = (
                f"resource=True: the app is mounted at /tools, so requests for {ADDRESS} do not reach it, and clients learn nothing of its "
                "realm. Add ServiceAuthMiddleware to the outermost app, or let that app or the proxy answer them."
            )
            assert warned == [sentence]
            assert http.get(f"/api/tools{PATH}").status_code == 401
        else:
            assert (warned, http.get(f"/api{PATH}").status_code) == ([], 200)

    def test_an_app_around_a_mounted_tool_server_answers(
        self, options: Options, service: Headers, caplog: pytest.LogCaptureFixture
    ) -> None:
        inner = Starlette(routes=[Route("/mcp", lambda _: PlainTextResponse("in"))])
        app = FastAPI(openapi_url=None)
        app.mount("/", inner)
        app.add_middleware(ServiceAuthMiddleware, **options(public_url=URL, resource=True))
        http = TestClient(app)
        assert http.get(PATH).json()["resource"] == URL
        assert http.get("/mcp", headers=service(aud=URL)).text == "in"
        assert "mounted" not in caplog.text


class TestTheChallenges:
    @pytest.mark.parametrize(
        ("asked", "refusal"),
        [
            (({}, "/mcp"), (401, "")),
            (({}, "/nowhere"), (401, "")),
            (({"Authorization": "Bearer a b"}, "/mcp"), (400, ', error="invalid_request"')),
            (({"Authorization": "Bearer abc"}, "/mcp"), (401, ', error="invalid_token"')),
            (("eve", "/mcp"), (403, ', error="insufficient_scope"')),
            (("chat-app-service", "/narrow"), (403, ', error="insufficient_scope", scope="narrow"')),
        ],
    )
    def test_every_challenge_names_the_document(
        self, make_app: App, client: Client, service: Headers, asked: tuple[Any, str], refusal: tuple[int, str]
    ) -> None:
        headers, path = asked
        given = service(aud=URL, azp=headers, client_id=headers) if isinstance(headers, str) else headers
        answer = client(tools(make_app)).get(path, headers=given)
        assert (answer.status_code, answer.headers["WWW-Authenticate"].removeprefix(SPACE)) == refusal
        assert answer.headers["WWW-Authenticate"].startswith(SPACE)

    def test_that_of_a_users_session_that_ended_names_it_too(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = tools(make_app)

        @app.get("/as-the-user")
        async def route() -> None:
            raise SessionEnded("over")

        answer = client(app).get("/as-the-user", headers=service(aud=URL))
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, f'{SPACE}, error="invalid_token"')

    def test_an_exception_handler_of_the_app_does_not_lose_it(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = tools(make_app)

        @app.exception_handler(HTTPException)
        async def mine(request: Request, error: HTTPException) -> JSONResponse:
            return JSONResponse({"mine": True}, error.status_code)

        answer = client(app).get("/narrow", headers=service(aud=URL))
        assert (answer.status_code, answer.json()) == (403, {"mine": True})
        assert answer.headers["WWW-Authenticate"] == f'{SPACE}, error="insufficient_scope", scope="narrow"'

    def test_a_guard_in_a_starlette_app_names_it(self, options: Options, client: Client, service: Headers) -> None:
        async def endpoint(request: Any) -> PlainTextResponse:
            return PlainTextResponse("in")

        app = Starlette(routes=[Route("/mcp", require_caller("agent").guard(endpoint))])
        answer = client(ServiceAuthMiddleware(app, **options(public_url=URL, resource=True))).get(
            "/mcp", headers=service(aud=URL)
        )
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (403, f'{SPACE}, error="insufficient_scope"')

    @pytest.mark.parametrize("with_token", [True, False])
    def test_the_denial_of_a_websocket_names_it(self, make_app: App, service: Headers, with_token: bool) -> None:
        app = tools(make_app)

        @app.websocket("/ws", dependencies=[Depends(require_caller("agent"))])
        async def socket(websocket: WebSocket) -> None: ...

        headers = service(aud=URL) if with_token else {}
        with (
            pytest.raises(WebSocketDenialResponse) as raised,
            TestClient(app).websocket_connect("/ws", headers=headers),
        ):
            pass
        expected = f'{SPACE}, error="insufficient_scope"' if with_token else SPACE
        assert raised.value.headers["WWW-Authenticate"] == expected

    def test_a_websocket_for_the_document_is_a_websocket_like_any_other(self, make_app: App) -> None:
        with (
            pytest.raises(WebSocketDenialResponse) as raised,
            TestClient(tools(make_app)).websocket_connect(PATH),
        ):
            pass
        assert raised.value.status_code == 401

    def test_a_requirement_that_meets_no_credentials_names_it(self, options: Options, client: Client) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            Authenticated.of(scope)

        http = client(ServiceAuthMiddleware(app, **options(public_url=URL, resource=True, optional_paths=["/x"])))
        answer = http.get("/x")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, SPACE)
