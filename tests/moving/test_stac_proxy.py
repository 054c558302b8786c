"""A STAC proxy that was moved: everybody reads, a caller reads more, and who writes needs a scope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.moving.stac_proxy.app import app
from tests.moving.stac_proxy.auth import verifier

ITEMS = "/collections/sentinel/items"


@dataclass
class Proxy:
    client: Any
    catalogue: Any

    def status(self, request: str, **options: Any) -> int:
        status: int = self.client.request(*request.split(), **options).status_code
        return status

    @property
    def filters(self) -> list[str]:
        """The filters that the catalogue got, one for each request that was sent on."""
        return [parse_qs(urlsplit(call.url).query)["filter"][0] for call in self.catalogue.calls]


@pytest.fixture
def proxy(keycloak_issuer: EmbeddedIssuer, client_of: Callable[..., Any]) -> Proxy:
    catalogue = keycloak_issuer.downstream("http://catalogue:8080").answer(200, json={})
    return Proxy(client_of(app, verifier, client_id="stac-proxy"), catalogue)


def test_a_reader_without_a_token_sees_what_is_public(proxy: Proxy) -> None:
    assert [proxy.status(f"GET {ITEMS}"), proxy.status("POST /search")] == [200, 200]
    assert proxy.filters == ["private = false"] * 2


def test_a_reader_with_a_token_sees_what_is_their_own_too(proxy: Proxy, as_user: Callable[..., Any]) -> None:
    assert proxy.status(f"GET {ITEMS}", auth=as_user("ann", via="browser", claims={"sub": "ann-1"})) == 200
    assert proxy.filters == ["private = false OR owner = 'ann-1'"]


def test_a_bad_token_of_a_reader_is_refused_and_never_taken_for_none(proxy: Proxy, as_user: Callable[..., Any]) -> None:
    refused = [
        proxy.status(f"GET {ITEMS}", auth=as_user("ann", via="browser", key="forged")),
        proxy.status(f"GET {ITEMS}", auth=as_user("ann", via="browser", audience="another-service")),
        proxy.status(f"GET {ITEMS}", auth=as_user("ann", via="browser", expires_in=-60)),
        proxy.status(f"GET {ITEMS}", headers={"Authorization": ""}),
        proxy.status(f"GET {ITEMS}", headers={"Authorization": "Basic YTpi"}),
    ]

    assert (refused, proxy.filters) == ([401] * 5, [])


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /collections",
        "PUT /collections/sentinel",
        f"POST {ITEMS}",
        f"DELETE {ITEMS}/one",
        "POST /collections/sentinel/bulk_items",
    ],
)
def test_who_writes_needs_the_scope(
    proxy: Proxy, as_user: Callable[..., Any], as_service: Callable[..., Any], request_line: str
) -> None:
    answered = [
        proxy.status(request_line),
        proxy.status(request_line, auth=as_user("ann", via="browser")),
        proxy.status(request_line, auth=as_service("ingest", scope="stac:write")),
    ]

    assert answered == [401, 403, 200]


@pytest.mark.parametrize(
    "request_line", ["PATCH /search", "DELETE /collections", "GET /collections/%2e%2e/admin", "POST /collections/"]
)
def test_what_no_rule_allows_is_not_there(proxy: Proxy, as_service: Callable[..., Any], request_line: str) -> None:
    assert proxy.status(request_line, auth=as_service("ingest", scope="stac:write")) == 404
    assert proxy.filters == []


def test_the_token_of_a_caller_is_not_sent_on(proxy: Proxy, as_service: Callable[..., Any]) -> None:
    proxy.status(f"GET {ITEMS}", auth=as_service("ingest"))

    assert "authorization" not in proxy.catalogue.calls[0].headers
