"""Calls on behalf of users on real servers: whose token the other service sees, what ends it, and what each refusal says."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from example_app.realm import claims_of
from s2s_fastapi import (
    CurrentPrincipal,
    KeycloakSettings,
    NoUserToActFor,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    SessionEnded,
    TokenRequestError,
    require_user,
    service_client,
    service_lifespan,
)
from s2s_fastapi.caller.token_source import TokenSource, using
from tests.real.admin import PLAIN
from tests.real.conftest import Servers
from tests.real.many_realms import with_keys
from tests.real.server import NEWEST, Keycloak
from tests.real.settings import settings_of
from tests.realm.realms import Representation, audience, caller, mapper, realm, scope, user

NAME = "acting"
SESSIONS = 24
"""How many users call at once in CI."""
_LIFE = 3
"""Seconds that the tokens of the second front end live."""
_SECRET = secrets.token_urlsafe(24)
_ENABLED = {"attributes": {"standard.token.exchange.enabled": "true"}}


def _front(client_id: str, **members: Any) -> Representation:
    mappers = [audience(name) for name in ("shop-api", "not-enabled", "no-scope")]
    public = {"publicClient": True, "secret": None, "directAccessGrantsEnabled": True, "serviceAccountsEnabled": False}
    return caller(client_id, **{**public, "protocolMappers": mappers, "defaultClientScopes": ["basic"], **members})


def _document() -> Representation:
    scopes = {"defaultClientScopes": ["basic", "crm-audience"], "optionalClientScopes": ["archive-audience"]}
    subject = scope("basic", mapper("sub", "sub"), shown="false")
    return realm(
        NAME,
        # Else most of the time of a log-in goes into the hash of the password.
        passwordPolicy="hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
        eventsEnabled=True,
        enabledEventTypes=["TOKEN_EXCHANGE", "TOKEN_EXCHANGE_ERROR"],
        clientScopes=[
            subject,
            *(scope(f"{name}-audience", audience(name), shown="true") for name in ("crm", "archive")),
        ],
        clients=[
            _front("shop-ui"),
            _front("kiosk", attributes={"access.token.lifespan": str(_LIFE)}),
            caller("shop-api", secret=_SECRET, **_ENABLED, **scopes),
            caller("elsewhere", secret=_SECRET, **_ENABLED, **scopes),
            caller("not-enabled", secret=_SECRET, **scopes),
            caller("no-scope", secret=_SECRET, **_ENABLED, defaultClientScopes=["basic"], optionalClientScopes=[]),
            caller("crm", serviceAccountsEnabled=False),
            caller("archive", serviceAccountsEnabled=False),
        ],
        users=[user(name) for name in ("ann", "ben", "cleo")],
    )


@dataclass
class Shop:
    """A service that users call, the CRM that it calls on their behalf, and the realm of both."""

    keycloak: Keycloak
    app: FastAPI

    def settings(self, client_id: str) -> KeycloakSettings:
        return _settings(self.keycloak, client_id)

    def user_token(self, username: str = "ann", via: str = "shop-ui") -> str:
        token: str = httpx.post(self.token_url, data=_login(username, via), verify=PLAIN, trust_env=False).json()[
            "access_token"
        ]
        return token

    @property
    def token_url(self) -> str:
        return f"{self.keycloak.url}/realms/{NAME}/protocol/openid-connect/token"

    @property
    def exchanges(self) -> int:
        """How often Keycloak exchanged a token, as it counts."""
        return len(self.keycloak.admin.get(f"/{NAME}/events?type=TOKEN_EXCHANGE&max=10000"))

    def user_path(self, username: str) -> str:
        return f"/{NAME}/users/{self.keycloak.admin.get(f'/{NAME}/users?username={username}&exact=true')[0]['id']}"

    def logout(self, username: str) -> None:
        self.keycloak.admin.request("POST", f"{self.user_path(username)}/logout")

    def acting(self, token: str, client_id: str = "shop-api", **wanted: Any) -> ServiceTokenAuth:
        """Return what calls on behalf of the user of a token, as one of the clients of the realm."""
        asked = {"audience": "crm", **wanted}
        auth = ServiceTokenAuth("http://crm.test", settings=self.settings(client_id), **asked)
        return auth.on_behalf_of(token)


def _login(username: str, via: str) -> dict[str, str]:
    return {"grant_type": "password", "client_id": via, "username": username, "password": "p"}


def _settings(keycloak: Keycloak, client_id: str) -> KeycloakSettings:
    return KeycloakSettings(
        url=keycloak.url, realm=NAME, client_id=client_id, client_secret=SecretStr(_SECRET), leeway=0
    )


def _receiver(keycloak: Keycloak, client_id: str) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=_settings(keycloak, client_id), users=True)

    @app.get("/me", dependencies=[Depends(require_user("shop-api"))])
    async def me(who: CurrentPrincipal) -> dict[str, Any]:
        return {"sub": who.subject, "via": who.client_id, "sid": who.claims["sid"], "aud": who.claims["aud"]}

    return app


def _shop(keycloak: Keycloak) -> FastAPI:
    settings = _settings(keycloak, "shop-api")
    crm, archive = (
        service_client(
            f"http://{name}.test",
            audience=name,
            scope=wanted,
            settings=settings,
            transport=httpx.ASGITransport(_receiver(keycloak, name)),
        )
        for name, wanted in (("crm", None), ("archive", "archive-audience"))
    )
    app = FastAPI(openapi_url=None, lifespan=service_lifespan(crm.on_behalf, archive.on_behalf))
    app.add_middleware(ServiceAuthMiddleware, settings=settings, users=True)
    users = [Depends(require_user("shop-ui", "kiosk"))]

    @app.get("/crm", dependencies=users)
    async def of_crm(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> Any:
        return (await client.get("/me")).raise_for_status().json()

    @app.get("/archive", dependencies=users)
    async def of_archive(client: Annotated[httpx.AsyncClient, Depends(archive.on_behalf)]) -> Any:
        return (await client.get("/me")).raise_for_status().json()

    return app


@pytest.fixture(scope="module")
def realm_there(keycloaks: Servers) -> Iterator[Keycloak]:
    keycloak = keycloaks(NEWEST)
    keycloak.admin.create_realm(with_keys(_document()))
    yield keycloak
    keycloak.admin.delete_realm(NAME)


@pytest.fixture
def shop(realm_there: Keycloak) -> Iterator[Shop]:
    with using(TokenSource()):
        yield Shop(realm_there, _shop(realm_there))


@pytest.fixture
def browser(shop: Shop) -> Iterator[TestClient]:
    with TestClient(shop.app, raise_server_exceptions=False) as client:
        yield client


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_other_service_sees_the_user_of_each_request_and_the_service_that_acts(
    shop: Shop, browser: TestClient
) -> None:
    before = shop.exchanges
    tokens = [shop.user_token(name) for name in ("ann", "ben")]
    for _ in range(2):
        for token in tokens:
            mine = claims_of(token)
            seen = browser.get("/crm", headers=_headers(token)).json()
            assert seen == {"sub": mine["sub"], "via": "shop-api", "sid": mine["sid"], "aud": "crm"}
    assert shop.exchanges - before == 2
    assert sorted(browser.get("/archive", headers=_headers(tokens[0])).json()["aud"]) == ["archive", "crm"]
    assert shop.exchanges - before == 3


def test_after_a_logout_a_remembered_token_counts_until_the_users_own_ends_and_a_new_exchange_is_401(
    shop: Shop, browser: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "s2s_fastapi")
    token = shop.user_token()
    assert browser.get("/crm", headers=_headers(token)).status_code == 200
    before = shop.exchanges
    shop.logout("ann")
    assert browser.get("/crm", headers=_headers(token)).status_code == 200
    assert shop.exchanges == before
    refused = browser.get("/archive", headers=_headers(token))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
        401,
        'Bearer realm="shop-api", error="invalid_token"',
    )
    _wait_for(lambda: "the session of the user is over" in caplog.text)

    # From then on nothing of the session is remembered.
    assert browser.get("/crm", headers=_headers(token)).status_code == 401
    assert token not in caplog.text


def test_a_remembered_token_lasts_no_longer_than_the_users_own_although_its_own_life_is_longer(shop: Shop) -> None:
    token = shop.user_token(via="kiosk")
    ends, before = claims_of(token)["exp"], shop.exchanges
    exchanged = shop.acting(token).token()
    assert claims_of(exchanged)["exp"] > ends + 200
    shop.logout("ann")
    last = 0.0
    while True:
        asked = time.time()
        try:
            assert shop.acting(token).token() == exchanged
        except SessionEnded:
            refused = time.time()
            break
        last = asked
        time.sleep(0.05)
    assert last < ends <= refused
    assert shop.exchanges - before == 1


def test_a_disabled_user_gets_no_new_token(shop: Shop, browser: TestClient) -> None:
    token = shop.user_token("cleo")
    assert browser.get("/crm", headers=_headers(token)).status_code == 200
    shop.keycloak.admin.request("PUT", shop.user_path("cleo"), {"enabled": False})
    assert browser.get("/archive", headers=_headers(token)).status_code == 401
    shop.keycloak.admin.request("PUT", shop.user_path("cleo"), {"enabled": True})


@pytest.mark.parametrize(
    ("client_id", "scope", "cure"),
    [
        ("not-enabled", None, 'Switch "Standard Token Exchange" on for the client not-enabled'),
        ("elsewhere", None, "Give the users' tokens the audience elsewhere: add an Audience mapper"),
        ("no-scope", "crm-audience", "Assign crm-audience to the client no-scope"),
        ("no-scope", None, "a client scope with an Audience mapper for crm"),
    ],
)
def test_each_refusal_names_its_cure_in_the_error_and_in_the_log(
    shop: Shop, caplog: pytest.LogCaptureFixture, client_id: str, scope: str | None, cure: str
) -> None:
    crm = service_client(
        "http://crm.test", audience="crm", scope=scope, settings=shop.settings(client_id), transport=_nowhere()
    )
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=shop.settings(client_id), audience="shop-api", users=True)

    @app.get("/crm", dependencies=[Depends(require_user("shop-ui"))])
    async def of_crm(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> int:
        return (await client.get("/me")).status_code

    token = shop.user_token()
    with TestClient(app, raise_server_exceptions=False) as browser:
        answer = browser.get("/crm", headers=_headers(token))
    assert answer.status_code == 503
    assert cure not in answer.text
    _wait_for(lambda: cure in caplog.text)
    assert token not in caplog.text

    with pytest.raises(TokenRequestError) as refused:
        shop.acting(token, client_id, scope=scope).token()
    assert cure in refused.value.cure


def _nowhere() -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was called without a token")

    return httpx.MockTransport(answer)


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread logs after the answer."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_keycloak_26_0_is_named_as_too_old_in_one_sentence(
    keycloaks: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    there = keycloaks("26.0.8").realm("techstore")
    token = there.user_token("customer", via="shop-api")
    auth = ServiceTokenAuth("http://crm.test", settings=settings_of(there, "shop-api"), audience="crm")
    with using(TokenSource()), pytest.raises(TokenRequestError) as refused:
        auth.on_behalf_of(token).token()
    assert refused.value.error == "unsupported_grant_type"
    assert refused.value.cure.startswith("Calls on behalf of a user need Keycloak 26.2 or newer")
    _wait_for(lambda: refused.value.cure in caplog.text)


# Many users at once


@dataclass(frozen=True)
class Storm:
    """What came of many sessions that called at once."""

    seconds: float
    answers: tuple[int, ...]
    """The status of each first answer."""
    service_token: float
    """Seconds until this service had a token of its own, which it requested in the middle."""
    waiting: int
    """How many sessions still waited then."""


async def storm(shop: Shop, tokens: list[str]) -> Storm:
    """Let all users call at once, again if they are told to come back, and compare whose token the CRM saw."""
    done = 0
    first: list[int] = []
    answered = asyncio.Event()

    async def call(client: httpx.AsyncClient, token: str) -> None:
        nonlocal done
        answer = await client.get("/crm", headers=_headers(token))
        first.append(answer.status_code)
        answered.set()
        while answer.status_code == 503:
            await asyncio.sleep(int(answer.headers["Retry-After"]))
            answer = await client.get("/crm", headers=_headers(token))
        mine = claims_of(token)
        assert answer.json() == {"sub": mine["sub"], "via": "shop-api", "sid": mine["sid"], "aud": "crm"}
        done += 1

    async def own() -> tuple[float, int]:
        await answered.wait()
        began = time.monotonic()
        await ServiceTokenAuth(settings=shop.settings("shop-api"), scope="archive-audience").atoken()
        return time.monotonic() - began, len(tokens) - done

    transport = httpx.ASGITransport(shop.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        began = time.monotonic()
        own_token = asyncio.create_task(own())
        await asyncio.gather(*(call(client, token) for token in tokens))
        took, waiting = await own_token
        return Storm(time.monotonic() - began, tuple(first), took, waiting)


async def logged_in(shop: Shop, number: int) -> list[str]:
    """Return a token of as many sessions."""
    limit = asyncio.Semaphore(4)
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False, timeout=120) as client:

        async def login() -> str:
            async with limit:
                answer = await client.post(shop.token_url, data=_login("ben", "shop-ui"))
                token: str = answer.json()["access_token"]
                return token

        return list(await asyncio.gather(*(login() for _ in range(number))))


def test_many_users_at_once_cost_one_exchange_each_and_get_their_own(shop: Shop) -> None:
    for _ in range(3):  # on a busy machine one request may take longer than all exchanges
        tokens = asyncio.run(logged_in(shop, SESSIONS))
        assert len({claims_of(token)["sid"] for token in tokens}) == SESSIONS
        before = shop.exchanges

        came = asyncio.run(storm(shop, tokens))
        assert shop.exchanges - before == SESSIONS
        assert set(came.answers) == {200}

        asyncio.run(storm(shop, tokens))
        assert shop.exchanges - before == SESSIONS
        if came.waiting > 0:
            return
    pytest.fail("the service's own token waited for all exchanges")


def test_the_exchanged_token_can_be_bound_to_the_key_of_the_service_and_a_bound_one_is_not_exchanged(
    shop: Shop,
) -> None:
    acting = shop.acting(shop.user_token(), dpop=True)
    bound = acting.headers_for("GET", "http://crm.test/me")["Authorization"].removeprefix("DPoP ")
    claims = claims_of(bound)

    assert (claims["typ"], claims["azp"], set(claims["cnf"]) >= {"jkt"}) == ("DPoP", "shop-api", True)
    with pytest.raises(NoUserToActFor, match="sender-constrained"):
        shop.acting(bound)
