"""An app that is a protected resource has one path without a token, and one audience. Neither opens anything else."""

import json
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_role, require_scope
from tests.kit.realms import corp_and_partners, settings_of, transport_to
from tests.kit.receiving import App, Client, Headers

URL = "https://tools.example.com/mcp"
PATH = "/.well-known/oauth-protected-resource/mcp"
REACHED: dict[str, Any] = {"app": "reached"}

Guarded = tuple[TestClient, list[str]]


@pytest.fixture
def guarded(make_app: App, client: Client) -> Guarded:
    """A client of an app that answers every path to every caller, and the requests that reached it."""
    app, reached = make_app(public_url=URL, resource=True), list[str]()

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def everything(request: Request) -> dict[str, Any]:
        reached.append(f"{request.method} {request.url.path}")
        return REACHED

    return client(app), reached


def test_a_token_for_this_resource_reaches_the_app(guarded: Guarded, service: Headers) -> None:
    http, reached = guarded
    assert http.get("/mcp", headers=service(aud=URL)).json() == REACHED
    assert reached == ["GET /mcp"]


@pytest.mark.parametrize(
    "aud",
    [
        "https://tools.example.com/other",
        "https://tools.example.com",
        "https://tools.example.com/",
        "https://tools.example.com/mcp/",
        "https://tools.example.com/MCP",
        "https://TOOLS.example.com/mcp",
        "https://tools.example.com:443/mcp",
        "https://tools.example.com/mc%70",
        "http://tools.example.com/mcp",
        "//tools.example.com/mcp",
        "tools.example.com/mcp",
        f"{URL}?a=b",
        f"{URL}#a",
        f" {URL}",
        f"https://tools.example.com{PATH}",
        "crm-api-gateway",
        ["crm-api-gateway", "account", f"{URL}/other"],
        [[URL]],
    ],
    ids=repr,
)
def test_a_token_for_another_resource_or_for_the_client_is_refused(
    guarded: Guarded, service: Headers, aud: Any
) -> None:
    http, reached = guarded
    assert http.get("/mcp", headers=service(aud=aud)).status_code == 401
    assert reached == []


@pytest.mark.parametrize(
    "path",
    [
        f"{PATH}/",
        f"{PATH}/x",
        f"{PATH}x",
        f"{PATH};x",
        f"{PATH}\n",
        f"{PATH}\0",
        f"{PATH}/../../../mcp",
        f"/{PATH}",
        f"/mcp{PATH}",
        f"/mcp/..{PATH}",
        PATH.upper(),
        PATH.replace("-", "_"),
        PATH.removesuffix("/mcp"),
        f"{PATH.removesuffix('mcp')}other",
        "/.well-known/oauth-protected-resource//mcp",
        "/.well-known/openid-configuration",
        "/.well-known/",
        "",
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_path_that_only_looks_like_that_of_the_document_needs_a_token(
    guarded: Guarded, path: str, method: str
) -> None:
    http, reached = guarded
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [(b"host", b"tools.example.com")],
    }  # fmt: skip
    anyio.run(http.app, scope, receive, send)
    assert (sent[0]["status"], reached) == (401, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("with_token", [True, False])
def test_a_request_for_the_document_reaches_no_code_of_the_app(
    guarded: Guarded, service: Headers, method: str, with_token: bool
) -> None:
    http, reached = guarded
    answer = http.request(method, f"{PATH}?path=/mcp", headers=service(aud=URL) if with_token else {})
    assert answer.status_code == {"GET": 200, "HEAD": 200, "OPTIONS": 204}.get(method, 405)
    assert reached == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example.com"),
        ("X-Forwarded-Host", "evil.example.com"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "host=evil.example.com;proto=http"),
        ("X-Original-URL", "/mcp"),
        ("Origin", "https://evil.example.com"),
    ],
)
def test_no_header_of_a_request_changes_the_document_or_the_challenge(guarded: Guarded, name: str, value: str) -> None:
    http, _ = guarded
    for path in (PATH, "/mcp"):
        plain, answer = http.get(path), http.get(path, headers={name: value})
        assert (answer.status_code, answer.headers, answer.content) == (
            plain.status_code,
            plain.headers,
            plain.content,
        )


def test_the_document_names_the_resource_and_the_issuers_and_nothing_of_the_routes(client: Client) -> None:
    corp, partners = corp_and_partners()
    app = FastAPI(title="the title of the app")
    asked = require_caller("a-caller") & require_scope("a-scope") & require_role("a-role", client="another-client")
    app.get("/a-route", dependencies=[Depends(asked)])(lambda: None)
    app.add_middleware(
        ServiceAuthMiddleware,
        settings=settings_of(corp, partners),
        transport=transport_to(corp, partners),
        public_url=URL,
        resource=True,
        public_paths=["/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"],
    )
    assert json.loads(client(app).get(PATH).content) == {
        "resource": URL,
        "authorization_servers": [corp.issuer, partners.issuer],
        "bearer_methods_supported": ["header"],
    }
