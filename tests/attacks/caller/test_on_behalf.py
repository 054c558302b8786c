"""Calls on behalf of users: nobody acts for another one, a service for nobody, and a user's token goes to its own realm's Keycloak only."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import anyio
import httpx
import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response
from starlette.authentication import SimpleUser

from s2s_fastapi import (
    KeycloakSettings,
    NoUserToActFor,
    Principal,
    TokenRequestError,
    require_user,
    service_auth,
    service_client,
)
from s2s_fastapi.accepted import SCOPE_KEY, AcceptedToken
from s2s_fastapi.caller.token_source import TokenSource, using
from tests.caller.exchange.fakes import CLIENT, ExchangingKeycloak, read
from tests.caller.fakes import SECRET, Clock, reply
from tests.caller.on_behalf import ANYONE, as_service, as_user, browser, guarded, user_token, users_app
from tests.kit.realm import Realm
from tests.kit.realms import corp_and_partners, transport_to

pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture
def keycloak() -> ExchangingKeycloak:
    return ExchangingKeycloak()


@pytest.fixture
def source(keycloak: ExchangingKeycloak, clock: Clock, environment: object) -> Iterator[TokenSource]:
    with using(TokenSource(channel=keycloak, clock=clock)) as source:
        yield source


@pytest.fixture
def realm() -> Realm:
    return Realm()


class Echo(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """A service that answers with the user of the token, after others had their turn, and that sets a cookie for the user."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handle_request(self, request: Any) -> httpx.Response:
        self.seen.append(request)
        user = read(request.headers["Authorization"].removeprefix("Bearer ")).get("sub", "")
        return httpx.Response(200, json=user, headers={"Set-Cookie": f"user={user}"})

    async def handle_async_request(self, request: Any) -> httpx.Response:
        for _ in range(len(self.seen) % 7):
            await asyncio.sleep(0)
        return self.handle_request(request)


USERS = [f"user-{number}" for number in range(20)]


def test_users_who_call_at_once_are_never_mixed(realm: Realm, keycloak: ExchangingKeycloak) -> None:
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob)
    called = service_auth("http://bob", audience="bob")
    app = users_app()

    @app.get("/{name}")
    async def route(
        name: str,
        client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)],
        own: Annotated[httpx.AsyncClient, Depends(crm)],
        auth: Annotated[Any, Depends(called.on_behalf)],
    ) -> list[str]:
        client.headers["X-User"] = name
        answers = [await client.get("/"), await asyncio.create_task(client.get("/")), await own.get("/", auth=auth)]
        return [answer.json() for answer in answers]

    @app.get("/sync/{name}")
    def sync_route(name: str, client: Annotated[httpx.Client, Depends(crm.on_behalf.sync)]) -> list[str]:
        client.headers["X-User"] = name
        return [client.get("/").json() for _ in range(3)]

    headers = {name: as_user(realm, name) for name in USERS}
    guarded(app, realm)

    async def main() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            paths = [(name, way) for _ in range(5) for name in USERS for way in ("/", "/sync/")]
            return await asyncio.gather(*(client.get(f"{way}{name}", headers=headers[name]) for name, way in paths))

    answers = asyncio.run(main())

    assert len(answers) == 200
    for answer in answers:
        assert answer.json() == [f"id-of-{answer.request.url.path.rpartition('/')[2]}"] * 3
    for request in bob.seen:
        user = read(request.headers["Authorization"].removeprefix("Bearer "))["sub"]
        assert request.headers.get("X-User", user) in {user, user.removeprefix("id-of-")}
        assert "Cookie" not in request.headers or request.headers["Cookie"] == f"user={user}"
    assert len(keycloak.requests) == len(USERS)


def test_a_background_task_acts_for_nobody_once_the_answer_was_sent(realm: Realm, keycloak: ExchangingKeycloak) -> None:
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob)
    app = users_app()
    kept: dict[str, Any] = {}

    def later(request: Request, client: Any) -> None:
        kept["state"] = request.scope[SCOPE_KEY]
        for attempt in (lambda: client.get("/"), lambda: crm.auth.on_behalf_of(request)):
            with pytest.raises(NoUserToActFor, match="the request has ended"):
                attempt()
        kept["done"] = True

    @app.get("/")
    def route(
        request: Request, tasks: BackgroundTasks, client: Annotated[httpx.Client, Depends(crm.on_behalf.sync)]
    ) -> None:
        tasks.add_task(later, request, client)

    assert browser(guarded(app, realm)).get("/", headers=as_user(realm)).status_code == 200
    assert kept["done"]
    assert isinstance(kept["state"], AcceptedToken)
    assert kept["state"].credentials is None
    assert (bob.seen, keycloak.requests) == ([], [])


@pytest.mark.parametrize("how", ["replaced", "removed", "another user of the realm"])
def test_what_an_inner_middleware_writes_into_the_request_changes_nothing(
    how: str, realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob)
    app = users_app()

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> str:
        return str((await client.get("/")).json())

    class Inner:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                other = b"Bearer " + (user_token(realm, "ben").encode() if "user" in how else b"x")
                kept = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
                scope["headers"] = kept if how == "removed" else [*kept, (b"authorization", other)]
                scope["user"] = SimpleUser("ben")
            await self.app(scope, receive, send)

    app.add_middleware(Inner)
    answer = browser(guarded(app, realm)).get("/", headers=as_user(realm))
    assert answer.json() == "id-of-ann"
    assert [read(asked.form["subject_token"])["sub"] for asked in keycloak.requests] == ["id-of-ann"]


@pytest.mark.parametrize("forged", [object(), {"principal": "ann"}, "token", "another's"])
def test_what_only_looks_like_an_accepted_token_is_nobody(
    forged: Any, realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client("http://bob", audience="bob")
    principal = Principal(client_id="front-end", kind="user", issuer="", issued_at=0, expires_at=0)
    sentence = "no token that ServiceAuthMiddleware accepted"
    if forged == "another's":  # the digest of one token, and the text of another
        forged = AcceptedToken(principal, b"digest of ben's", f"Bearer {user_token(realm)}".encode())
        sentence = "is not the one that ServiceAuthMiddleware accepted"
    with pytest.raises(NoUserToActFor, match=sentence):
        crm.auth.on_behalf_of(Request({"type": "http", "headers": [], SCOPE_KEY: forged}))
    assert keycloak.requests == []


@pytest.mark.parametrize("route", ["client", "sync", "auth", "single"])
def test_a_service_gets_neither_a_users_token_nor_our_own_in_its_place(
    route: str, realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob)
    app = users_app()

    @app.get("/client")
    async def client(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await client.get("/")  # pragma: no cover - never reached

    @app.get("/sync")
    def sync(client: Annotated[httpx.Client, Depends(crm.on_behalf.sync)]) -> None:
        client.get("/")  # pragma: no cover - never reached

    @app.get("/auth")
    async def auth(auth: Annotated[Any, Depends(service_auth("http://bob", audience="bob").on_behalf)]) -> None:
        await auth.atoken()  # pragma: no cover - never reached

    @app.get("/single")
    async def single(request: Request, client: Annotated[httpx.AsyncClient, Depends(crm)]) -> None:
        await client.get("/", auth=crm.auth.on_behalf_of(request))

    answer = browser(guarded(app, realm)).get(f"/{route}", headers=as_service(realm))
    assert (answer.status_code, answer.json()) == (403, {"detail": "This request needs the access token of a user."})
    assert (bob.seen, keycloak.requests) == ([], [])


def test_a_partners_user_is_shown_to_the_partner_only(keycloak: ExchangingKeycloak) -> None:
    corp, partners = corp_and_partners()
    common = {"url": "http://keycloak.test", "client_id": CLIENT, "client_secret": SECRET}
    ours, theirs = KeycloakSettings(realm="corp", **common), KeycloakSettings(realm="partners", **common)
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob, settings=ours)
    app = FastAPI(openapi_url=None)
    seen: list[str] = []

    @app.exception_handler(NoUserToActFor)
    async def refused(request: Request, error: NoUserToActFor) -> Response:
        seen.append(str(error))
        return Response(status_code=error.status_code)

    @app.get("/", dependencies=[Depends(ANYONE | require_user(realm="partners"))])
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> str:
        return str((await client.get("/")).json())

    guarded(app, corp, settings=[ours, theirs], transport=transport_to(corp, partners))
    caller = browser(app)
    of_a_partner = {"Authorization": f"Bearer {partners.user_token(aud=CLIENT)}"}
    assert caller.get("/", headers=of_a_partner).status_code == 403
    assert f"was issued by {partners.issuer}" in seen[0]
    assert (bob.seen, keycloak.requests) == ([], [])
    of_ours = {"Authorization": f"Bearer {corp.user_token(aud=CLIENT, sub='id-of-ann')}"}
    assert caller.get("/", headers=of_ours).json() == "id-of-ann"
    assert [read(asked.form["subject_token"])["iss"] for asked in keycloak.requests] == [corp.issuer]


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_an_answer_of_keycloak_that_is_the_users_own_token_is_not_sent_on(
    package: Any, realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    # Of a user who logged in with this very client: nothing else in the answer would tell the two apart.
    token = user_token(realm, azp=CLIENT, aud=[CLIENT, "bob"])
    body = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": 60,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    keycloak.always = reply(200, body)
    auth = service_auth("http://bob", audience="bob").auth.on_behalf_of(token)
    with package.Client(auth=auth) as client, pytest.raises(TokenRequestError, match="the user's own"):
        client.get("http://bob")


def test_threads_without_a_context_act_for_the_user_they_were_given(realm: Realm) -> None:
    crm = service_client("http://bob", audience="bob", transport=Echo())
    auths = {name: crm.auth.on_behalf_of(user_token(realm, name)) for name in USERS[:4]}
    with ThreadPoolExecutor(8) as threads, crm as client:
        jobs = [(name, threads.submit(client.get, "/", auth=auths[name])) for _ in range(5) for name in auths]
        assert [job.result(10).json() for _, job in jobs] == [f"id-of-{name}" for name, _ in jobs]


def test_a_client_that_a_task_kept_acts_for_nobody_else_later(realm: Realm, keycloak: ExchangingKeycloak) -> None:
    bob = Echo()
    crm = service_client("http://bob", audience="bob", transport=bob)
    app = users_app()
    kept: list[httpx.AsyncClient] = []

    @app.get("/{call}")
    async def route(call: str, client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> Any:
        kept.append(client)
        with anyio.fail_after(5):
            return (await kept[0].get("/")).json() if call == "first" else None

    caller = browser(guarded(app, realm))
    # The first client was given away while ann's request ran, and ben's request uses it: it is ann's, or nobody's.
    assert caller.get("/first", headers=as_user(realm)).json() == "id-of-ann"
    assert caller.get("/first", headers=as_user(realm, "ben")).json() == "id-of-ann"
    keycloak.requests.clear()
    kept.clear()
    assert caller.get("/kept", headers=as_user(realm, "charles")).json() is None
    assert caller.get("/first", headers=as_user(realm, "ben")).status_code == 403
    assert keycloak.requests == []
