"""Our own two sides on the embedded issuer: in process and over sockets, with a small realm and with those of the stories."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

import httpx
import httpx2
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from example_app.realm import REALMS, Realm, claims_of
from s2s_fastapi import (
    AudienceNotGranted,
    KeycloakSettings,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenRequestError,
    require_caller,
)
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering
from tests.testing.asking import ODD_ID, ODD_SECRET, SECRET, part


@pytest.fixture(params=["in process", "socket"])
def reached(own: EmbeddedIssuer, request: pytest.FixtureRequest) -> Iterator[EmbeddedIssuer]:
    """Give an issuer, and let all tokens of this test come from it."""
    if request.param == "socket":
        with own.serving(), using(TokenSource()):
            yield own
    else:
        channel = BackChannel(transport=own.transport, timeout=10)
        with using(TokenSource(channel=lambda _: channel)):
            yield own


def settings(issuer: EmbeddedIssuer, client_id: str = "caller", secret: str = SECRET) -> KeycloakSettings:
    return KeycloakSettings(url=issuer.url, realm="corp", client_id=client_id, client_secret=secret)


def receiver(issuer: EmbeddedIssuer) -> FastAPI:
    app = FastAPI()
    transport = issuer.transport if issuer.url.endswith(".test") else None
    app.add_middleware(ServiceAuthMiddleware, settings(issuer, "receiver"), transport=transport)

    @app.get("/")
    async def who(caller: Annotated[Principal, Depends(require_caller("caller"))]) -> str:
        return caller.client_id

    return app


def test_a_request_with_our_auth_passes_our_middleware(reached: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://testserver", audience="receiver", settings=settings(reached))
    with TestClient(receiver(reached)) as client:
        assert client.get("/").status_code == 401
        for _ in range(3):
            answer = client.get("/", headers={"Authorization": f"Bearer {auth.token()}"})
            assert (answer.status_code, answer.json()) == (200, "caller")
    assert len(reached.requests("token")) == 1
    assert len(reached.requests("certs")) == 1


def test_a_user_and_another_service_do_not(reached: EmbeddedIssuer) -> None:
    with TestClient(receiver(reached)) as client:
        for token in (
            reached.user_token("corp", "dora", via="direct"),
            reached.service_token("corp", "rfc9068"),
        ):
            assert client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_an_issuer_without_keys_is_503(reached: EmbeddedIssuer) -> None:
    reached.faults.add("certs", answering(503), times=None)
    token = reached.service_token("corp", "caller")
    with TestClient(receiver(reached)) as client:
        assert client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 503


def test_our_caller_raises_keycloaks_refusals(reached: EmbeddedIssuer) -> None:
    with pytest.raises(TokenRequestError) as wrong:
        ServiceTokenAuth("http://bob", settings=settings(reached, secret="wrong")).token()
    assert (wrong.value.http_status, wrong.value.error) == (401, "unauthorized_client")
    with pytest.raises(TokenRequestError) as nobody:
        ServiceTokenAuth("http://bob", settings=settings(reached, "nobody")).token()
    assert (nobody.value.http_status, nobody.value.error) == (401, "invalid_client")
    with pytest.raises(AudienceNotGranted) as other:
        ServiceTokenAuth("http://bob", audience="bob", settings=settings(reached)).token()
    assert other.value.granted == {"receiver"}


def test_an_odd_secret_comes_through_our_basic_encoding(reached: EmbeddedIssuer) -> None:
    for method in ("client_secret_basic", "client_secret_post"):
        given = KeycloakSettings(
            url=reached.url, realm="corp", client_id=ODD_ID, client_secret=ODD_SECRET, client_auth=method
        )
        auth = ServiceTokenAuth("http://bob", settings=given)
        assert part(auth.token(), 1)["azp"] == ODD_ID


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_one_auth_object_serves_both_httpx_generations(reached: EmbeddedIssuer, library: type[httpx]) -> None:  # type: ignore[valid-type]
    auth = ServiceTokenAuth("http://bob:8000", settings=settings(reached))
    seen = []

    def echo(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return library.Response(200)  # type: ignore[attr-defined,no-any-return]

    async def main() -> None:
        async with library.AsyncClient(transport=library.MockTransport(echo), auth=auth) as client:  # type: ignore[attr-defined]
            await client.get("http://bob:8000/")

    asyncio.run(main())
    with library.Client(transport=library.MockTransport(echo), auth=auth) as client:  # type: ignore[attr-defined]
        client.get("http://bob:8000/")
    assert len(set(seen)) == 1
    assert len(reached.requests("token")) == 1


@pytest.fixture(scope="module", params=["26.7.3", "26.0.8"])
def stories(request: pytest.FixtureRequest) -> Iterator[EmbeddedIssuer]:
    """Give the realms of the stories on a socket, under /auth and with a public address of their own."""
    issuer = EmbeddedIssuer.read(
        *REALMS.values(), version=request.param, auth_path="/auth", public_url="http://auth.example:{port}"
    )
    with issuer.serving():
        yield issuer


def realm(issuer: EmbeddedIssuer, name: str) -> Realm:
    return Realm(name, issuer.url, issuer.public_url, issuer.auth_path, issuer.values)


@pytest.mark.parametrize(
    ("name", "client_id", "scope", "audience"),
    [
        ("corp", "chat-app-service", None, {"crm-api-gateway", "account"}),
        ("corp", "chat-app-unassigned", None, {"account"}),
        ("corp", "billing", None, {"crm-api-gateway"}),
        ("techstore", "shop-api", None, {"notification-service"}),
        ("techstore", "inventory-service", None, {"notification-service"}),
        ("abc", "alice", None, set()),
        ("abc", "alice", "untrusted-audience", {"bob"}),
        ("abc", "alice", "both-audiences", {"bob", "charles"}),
        ("abc", "alice", "untrusted-audience charles-audience", {"bob", "charles"}),
        ("abc", "alice", "auto-add-both-audiences", {"bob", "charles"}),
        ("abc", "alice", "bob-url-audience", {"https://bob.abc.example/api"}),
        ("abc", "alice", "auto-add-audience", {"bob"}),
        ("abc", "alice", "auto-add-audience another-scope-to-include-charles", {"bob", "charles"}),
        ("abc", "alice", "auto-add-without-role", set()),
        ("abc", "alice-without-role", "auto-add-audience", set()),
        ("abc", "alice-without-roles-scope", "auto-add-audience", set()),
    ],
)
def test_the_tokens_of_the_stories_are_for_whom_the_stories_say(
    stories: EmbeddedIssuer, name: str, client_id: str, scope: str | None, audience: set[str]
) -> None:
    asked = realm(stories, name)
    claims = claims_of(asked.service_token(client_id, scope))
    found = claims.get("aud", [])
    assert {found} if isinstance(found, str) else set(found) == audience
    assert claims["iss"] == asked.issuer == stories.issuer(name)
    assert (claims["azp"], claims["client_id"]) == (client_id, client_id)


def test_the_users_of_the_stories_log_in(stories: EmbeddedIssuer) -> None:
    for via in ("shop-ui", "shop-api"):
        claims = claims_of(realm(stories, "techstore").user_token("customer", via=via))
        assert (claims["azp"], claims["aud"], "sid" in claims) == (via, "notification-service", True)
    assert claims_of(realm(stories, "abc").user_token("dora", via="abc-ui", scope="untrusted-audience"))["aud"] == "bob"


def test_the_environment_of_a_storys_service_is_the_same_from_either_side(stories: EmbeddedIssuer) -> None:
    assert stories.environment("techstore", "shop-api") == realm(stories, "techstore").environment("shop-api")
