"""The recipe of a gateway: what no rule allows is not there, and what a rule allows is sent on byte by byte."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from example_app import gateway
from s2s_fastapi import TokenVerifier
from tests.kit.realm import Realm, settings


class Upstream(httpx.AsyncBaseTransport):
    """Notes what arrives behind the gateway."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.headers: list[httpx.Headers] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.method, request.url.raw_path))
        self.headers.append(request.headers)
        return httpx.Response(200, json={"behind": True})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def asking(realm: Realm, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(gateway, "verifier", TokenVerifier(settings(), transport=realm.transport))
    client = httpx.AsyncClient(base_url="http://catalogue.test", transport=upstream)
    gateway.app.dependency_overrides[gateway.upstream] = lambda: client
    yield TestClient(gateway.app, raise_server_exceptions=False)
    gateway.app.dependency_overrides.clear()


def sent(asking: TestClient, method: str, raw_path: bytes, **headers: str) -> int:
    """Send a path as it is: a client would change it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = raw_path.partition(b"?")[0]
        await gateway.app(
            {**scope, "raw_path": path, "path": httpx.URL("http://x").copy_with(path="/").path}, receive, send
        )

    query = raw_path.partition(b"?")[2].decode()
    return (
        TestClient(app, raise_server_exceptions=False)
        .request(method, "/any", params=query, headers=headers)
        .status_code
    )


def headers_of(realm: Realm, name: str, scope: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {realm.token(azp=name, client_id=name, scope=scope)}"}


def test_right_callers_reach_what_the_rules_allow(asking: TestClient, realm: Realm, upstream: Upstream) -> None:
    writer, curator = headers_of(realm, "w", "collections:write"), headers_of(realm, "curator", "collections:write")
    assert sent(asking, "GET", b"/collections") == 200
    assert sent(asking, "GET", b"/collections/a%20b?limit=%2F") == 200
    assert sent(asking, "GET", b"/collections/x", **writer) == 200
    assert sent(asking, "POST", b"/collections", **writer) == 200
    assert sent(asking, "DELETE", b"/collections/x.y", **curator) == 200
    assert upstream.seen == [
        ("GET", b"/collections"),
        ("GET", b"/collections/a%20b?limit=%2F"),
        ("GET", b"/collections/x"),
        ("POST", b"/collections"),
        ("DELETE", b"/collections/x.y"),
    ]
    assert not any(str(realm.token())[:20] in headers.get("authorization", "") for headers in upstream.headers)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("POST /collections", 401),
        ("POST /collections w", 403),
        ("DELETE /collections/x w collections:write", 403),
        ("DELETE /collections/x curator", 403),
        ("DELETE /collections curator collections:write", 404),
        ("PUT /collections/x curator collections:write", 404),
        ("HEAD /collections", 404),
        ("GET /admin curator collections:write", 404),
        ("GET /", 404),
        ("GET /collections/", 404),
        ("GET /Collections", 404),
    ],
)
def test_what_no_rule_allows_is_not_sent_on(
    asking: TestClient, realm: Realm, upstream: Upstream, asked: str, expected: int
) -> None:
    method, path, name, scope = (*asked.split(), "", "")[:4]
    assert sent(asking, method, path.encode(), **(headers_of(realm, name, scope) if name else {})) == expected
    assert upstream.seen == []


def test_a_scope_does_not_say_that_a_service_calls(asking: TestClient, realm: Realm, upstream: Upstream) -> None:
    user = {"Authorization": f"Bearer {realm.user_token(scope='collections:write')}"}
    assert sent(asking, "POST", b"/collections", **user) == 403
    assert upstream.seen == []


def test_bad_credentials_are_never_anonymous(asking: TestClient, upstream: Upstream) -> None:
    for value in ("", "Basic x", "Bearer a.b.c", "DPoP a"):
        assert sent(asking, "GET", b"/collections", Authorization=value) == 401
    assert sent(asking, "GET", b"/collections?access_token=a") == 401
    assert upstream.seen == []


@pytest.mark.parametrize(
    "path",
    [
        b"/collections/..%2fadmin", b"/collections/%2e%2e/admin", b"/collections/..", b"/collections/.", b"/collections/../admin",
        b"//collections", b"/collections//x", b"/collections/x;y", b"/collections/x\\..\\admin", b"/collections/%5c..%5cadmin",
        b"/collections/%252e%252e", b"/collections/x%00", b"/collections/x%0d%0a", b"/collections/x%2Fy", b"/collections/%3b", b"/collections/%7F",
        b"/collections/%", b"/collections/%zz", b"/collections/%c0%ae%c0%ae%c0%af/admin", b"/collections/x\n", b"/collections/x/../../admin", b"/collections/a#b",
        b"/collections/%c0%ae%c0%ae%c0%afadmin", b"/collections/%C1%9c",
    ],
)  # fmt: skip
def test_a_path_that_two_programs_read_differently_is_not_sent_on(
    asking: TestClient, upstream: Upstream, path: bytes
) -> None:
    status = sent(asking, "GET", path)

    behind = [raw for _, raw in upstream.seen]
    assert (status, behind) == (404, []) or behind == [path]  # or byte by byte
    assert not any(b"admin" in raw.rpartition(b"/")[2] for raw in behind)
