"""Calls on behalf of a user: in routes, in single calls, from a token's text, and what they never do."""

import asyncio
import copy
import logging
import pickle
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import (
    ConfigurationError,
    NoUserToActFor,
    S2SError,
    ServiceTokenAuth,
    SessionEnded,
    TokenRequestError,
    TokenWithheld,
    auth_ready,
    health,
    require_caller,
    require_service,
    require_user,
    service_auth,
    service_client,
    service_lifespan,
)
from s2s_fastapi.accepted import INBOUND
from s2s_fastapi.backchannel.channel import Reply
from s2s_fastapi.caller.token_source import TokenSource, using
from tests.caller.exchange.fakes import CLIENT, INVALID_TOKEN, ExchangingKeycloak, claims_of_user
from tests.caller.fakes import Asked, Clock, Receiver, jwt, refusal
from tests.caller.on_behalf import ANYONE, as_service, as_user, browser, callers, guarded, user_token, users_app
from tests.kit.other_clients import GRPC, HTTP, grpc_receiver
from tests.kit.realm import Realm

pytestmark = pytest.mark.usefixtures("source")

PACKAGES = [httpx, httpx2]
ANN = ("id-of-ann", CLIENT)
BEN = ("id-of-ben", CLIENT)


@pytest.fixture
def keycloak() -> ExchangingKeycloak:
    return ExchangingKeycloak()


@pytest.fixture
def realm() -> Realm:
    return Realm()


class OnlyExchanging(ExchangingKeycloak):
    """Has a client without a service account."""

    def exchange(self, asked: Asked, number: int) -> Reply:
        if asked.form["grant_type"] == "client_credentials":
            return refusal(401, "unauthorized_client", "Client not enabled to retrieve service account")
        return super().exchange(asked, number)


def subjects(keycloak: ExchangingKeycloak) -> list[str]:
    """Return the users' tokens that Keycloak was shown."""
    return [asked.form["subject_token"] for asked in keycloak.requests]


# In routes


@pytest.mark.parametrize("package", PACKAGES)
def test_an_async_route_calls_with_the_token_of_its_user(
    package: Any, realm: Realm, bob: Receiver, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client(bob.url, audience="bob", client_class=package.AsyncClient)
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    async def route(client: Annotated[Any, Depends(crm.on_behalf)]) -> dict[str, Any]:
        return {"type": isinstance(client, package.AsyncClient), "status": (await client.get("/tickets")).status_code}

    headers = as_user(realm)
    with browser(guarded(app, realm)) as client:
        answers = [client.get("/", headers=headers).json() for _ in range(3)]

    assert answers == [{"type": True, "status": 200}] * 3
    assert callers(bob) == [ANN] * 3
    assert subjects(keycloak) == [headers["Authorization"].removeprefix("Bearer ")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_def_route_calls_with_the_token_of_its_user(package: Any, realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob", client_class=package.AsyncClient)
    app = users_app(lifespan=service_lifespan(crm.on_behalf.sync))

    @app.get("/")
    def route(client: Annotated[Any, Depends(crm.on_behalf.sync)]) -> dict[str, Any]:
        return {"type": isinstance(client, package.Client), "status": client.get("/tickets").status_code}

    with browser(guarded(app, realm)) as client:
        answers = [client.get("/", headers=as_user(realm, name)).json() for name in ("ann", "ben")]

    assert answers == [{"type": True, "status": 200}] * 2
    assert callers(bob) == [ANN, BEN]


def test_a_websocket_calls_with_the_token_of_its_user_as_long_as_it_is_open(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.websocket("/")
    async def route(websocket: WebSocket, client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await websocket.accept()
        while await websocket.receive_text() != "end":
            await websocket.send_text(str((await client.get("/")).status_code))

    with browser(guarded(app, realm)) as client, client.websocket_connect("/", headers=as_user(realm)) as socket:
        for _ in range(2):
            socket.send_text("call")
            assert socket.receive_text() == "200"
        socket.send_text("end")

    assert callers(bob) == [ANN] * 2


def test_a_websocket_without_a_user_is_closed_before_it_opens(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app()

    @app.websocket("/")
    async def route(websocket: WebSocket, client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await websocket.accept()  # pragma: no cover - never reached

    async def without_denial(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    guarded(app, realm)
    said = "This request needs the access token of a user."
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        browser(app).websocket_connect("/", headers=as_service(realm)),
    ):
        pass
    assert (denied.value.status_code, denied.value.json()) == (403, {"detail": said})
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        browser(without_denial).websocket_connect("/", headers=as_service(realm)),
    ):
        pass
    assert (closed.value.code, closed.value.reason) == (1008, said)
    assert bob.seen == []


def test_a_route_gets_the_auth_object_of_its_user_for_clients_of_its_own(realm: Realm, bob: Receiver) -> None:
    called = service_auth(bob.url, audience="bob")
    app = users_app()

    @app.get("/")
    async def route(auth: Annotated[ServiceTokenAuth, Depends(called.on_behalf)]) -> str:
        async with httpx2.AsyncClient(auth=auth) as client:
            await client.get(bob.url)
        return await auth.atoken()

    token = browser(guarded(app, realm)).get("/", headers=as_user(realm)).json()
    assert callers(bob) == [ANN]
    assert bob.tokens == [f"Bearer {token}"]


def test_a_starlette_endpoint_awaits_the_client_of_its_user(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")

    async def endpoint(request: Request) -> Response:
        client = await crm.on_behalf(request)
        return Response(status_code=(await client.get("/")).status_code)

    app = Starlette(
        routes=[Route("/", ANYONE.guard(endpoint))],
        lifespan=service_lifespan(crm.on_behalf),
    )
    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=as_user(realm)).status_code == 200
    assert callers(bob) == [ANN]


def test_a_single_call_of_a_shared_client_is_made_on_behalf_of_the_user(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm))

    @app.get("/")
    async def route(request: Request, client: Annotated[httpx.AsyncClient, Depends(crm)]) -> None:
        await client.get("/own")
        await client.get("/users", auth=crm.auth.on_behalf_of(request))

    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=as_user(realm)).status_code == 200
    assert callers(bob) == [("", CLIENT), ANN]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_text_of_a_users_token_is_enough_outside_of_a_request(package: Any, realm: Realm, bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(user_token(realm))
    with package.Client(auth=auth) as client:
        client.get(bob.url)

    async def main() -> str:
        async with package.AsyncClient(auth=auth) as client:
            await client.get(bob.url)
        return await auth.atoken()

    token = asyncio.run(main())
    assert callers(bob) == [ANN] * 2
    assert bob.tokens == [f"Bearer {token}"] * 2
    assert auth.token() == token


def test_other_clients_call_on_behalf_of_the_user_too(realm: Realm, bob: Receiver, charles: Receiver) -> None:
    pytest.importorskip("requests")
    token = user_token(realm)
    with ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(token).for_requests() as session:
        assert session.get(bob.url, timeout=5).status_code == 200
        with pytest.raises(TokenWithheld, match="holds the token"):
            session.get(bob.url, timeout=5, headers={"X-User-Token": token})
        with pytest.raises(TokenWithheld, match="holds the token"):
            session.get(bob.url, timeout=5, params={"t": token})
        with pytest.raises(TokenWithheld):
            session.get(charles.url, timeout=5)
    assert callers(bob) == [ANN]
    assert charles.seen == []


@pytest.mark.parametrize("client", HTTP)
def test_clients_other_than_httpx_call_on_behalf_of_a_user_too_and_never_send_on_the_users_own_token(
    client: str, realm: Realm, bob: Receiver
) -> None:
    shown = user_token(realm)
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(shown)

    assert HTTP[client](auth, bob.url) == 200
    with pytest.raises(TokenWithheld):
        HTTP[client](auth, bob.url, {"X-Token": shown})
    assert callers(bob) == [ANN]


@pytest.mark.parametrize("call", GRPC)
def test_grpc_calls_on_behalf_of_a_user_too_and_never_sends_on_the_users_own_token(call: str, realm: Realm) -> None:
    shown = user_token(realm)
    with grpc_receiver() as there:
        auth = ServiceTokenAuth(there.url, audience="bob").on_behalf_of(shown)
        assert GRPC[call](auth, there.url) == 200
        with pytest.raises(TokenWithheld):
            GRPC[call](auth, there.url, {"x-token": shown})

    assert there.tokens == [f"Bearer {auth.token()}"]


def test_another_audience_is_asked_for_on_behalf_of_the_same_user(
    realm: Realm, charles: Receiver, bob: Receiver, keycloak: ExchangingKeycloak
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(user_token(realm))
    other = auth.asking(audience="charles", origins=[charles.url])
    keycloak.aud = ["bob", "charles"]
    with httpx.Client() as client:
        client.get(charles.url, auth=other)
        with pytest.raises(TokenWithheld):
            client.get(bob.url, auth=other)
    assert callers(charles) == [ANN]
    assert bob.seen == []


# One client for each request


def test_all_users_share_the_connections_of_the_service(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm))

    @app.get("/")
    async def route(
        own: Annotated[httpx.AsyncClient, Depends(crm)], client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]
    ) -> None:
        await own.get("/")
        async with client:
            await client.get("/")
        await client.aclose()
        assert not client.is_closed

    with browser(guarded(app, realm)) as client:
        for name in ("ann", "ben", "ann"):
            assert client.get("/", headers=as_user(realm, name)).status_code == 200
    assert callers(bob)[1::2] == [ANN, BEN, ANN]
    assert bob.connections == 1


def test_def_routes_share_the_connections_too(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    def route(client: Annotated[httpx.Client, Depends(crm.on_behalf.sync)]) -> None:
        with client:
            client.get("/")
        client.close()
        assert not client.is_closed

    with browser(guarded(app, realm)) as client:
        for name in ("ann", "ben"):
            assert client.get("/", headers=as_user(realm, name)).status_code == 200
    assert callers(bob) == [ANN, BEN]
    assert bob.connections == 1


def test_a_client_cannot_be_used_after_the_connections_were_closed(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))
    kept: list[Any] = []

    @app.get("/")
    async def route(
        client: Annotated[Any, Depends(crm.on_behalf)], sync: Annotated[Any, Depends(crm.on_behalf.sync)]
    ) -> None:
        await client.get("/")
        sync.get("/")
        kept.extend((client, sync))

    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=as_user(realm)).status_code == 200
    assert [each.is_closed for each in kept] == [True, True]
    with pytest.raises(RuntimeError, match="has been closed"):
        asyncio.run(kept[0].get("/"))
    with pytest.raises(RuntimeError, match="has been closed"):
        kept[1].get("/")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_route_changes_in_its_client_reaches_no_other_request(
    package: Any, realm: Realm, bob: Receiver, httpx_requests: list[Any]
) -> None:
    async def note(request: Any) -> None:
        httpx_requests.append(request)

    crm = service_client(
        bob.url,
        audience="bob",
        client_class=package.AsyncClient,
        headers={"X-App": "shop"},
        cookies={"theme": "dark"},
        event_hooks={"request": [note]},
    )
    app = users_app(lifespan=service_lifespan(crm.on_behalf))
    bob.always = (200, {"Set-Cookie": "session=of-the-first"}, b"")

    @app.get("/")
    async def route(
        change: bool,
        own: Annotated[Any, Depends(crm)],
        client: Annotated[Any, Depends(crm.on_behalf)],
    ) -> None:
        if change:
            for each in (own, client):
                each.headers["X-User"] = "ann"
                each.cookies.set("user", "ann")
                each.event_hooks["request"].append(note)
                each.timeout.read = 1.0
                each.params = {"user": "ann"}
                each.base_url = "http://elsewhere"
        else:
            await client.get("/")
            assert client.timeout.read == 5.0

    with browser(guarded(app, realm)) as client:
        for name, change in (("ann", True), ("ben", False), ("ben", False)):
            assert client.get("/", params={"change": change}, headers=as_user(realm, name)).status_code == 200
    assert len(httpx_requests) == 2  # each hook ran once for each request
    assert [str(request.url) for request in httpx_requests] == [f"{bob.url}/"] * 2
    for request in httpx_requests:
        assert (request.headers["X-App"], request.headers.get("Cookie")) == ("shop", "theme=dark")
        assert "X-User" not in request.headers


@pytest.fixture
def httpx_requests() -> list[Any]:
    return []


def test_the_cookies_of_a_jar_that_the_service_itself_uses_are_not_sent_for_users(realm: Realm, bob: Receiver) -> None:
    cookies = httpx.Cookies({"own": "session"}).jar
    seen: list[Any] = []
    crm = service_client(bob.url, audience="bob", cookies=cookies, event_hooks={"request": [_noting(seen)]})
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await client.get("/")

    with browser(guarded(app, realm)) as client:
        client.get("/", headers=as_user(realm))
    assert ["cookie" in request.headers for request in seen] == [False]


def _noting(seen: list[Any]) -> Any:
    async def note(request: Any) -> None:
        seen.append(request)

    return note


def test_a_request_is_logged_once_by_httpx(realm: Realm, bob: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await client.get("/once")

    with caplog.at_level(logging.INFO, "httpx"), browser(guarded(app, realm)) as client:
        client.get("/", headers=as_user(realm))
    assert sum("/once" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_a_derived_class_keeps_what_it_removed_and_what_it_adds(package: Any, realm: Realm, bob: Receiver) -> None:
    class Tidy(package.AsyncClient):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            del self.headers["user-agent"]
            self.added = "kept"

    crm = service_client(bob.url, audience="bob", client_class=Tidy)
    app = users_app(lifespan=service_lifespan(crm.on_behalf))
    seen: list[Any] = []

    @app.get("/")
    async def route(client: Annotated[Any, Depends(crm.on_behalf)]) -> bool:
        seen.append((await client.get("/")).request)
        return isinstance(client, Tidy) and client.added == "kept"

    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=as_user(realm)).json() is True
    assert "user-agent" not in seen[0].headers


@pytest.mark.parametrize("kind", [httpx.AsyncClient, httpx.Client, httpx2.AsyncClient, httpx2.Client])
def test_a_client_has_no_state_that_copies_would_share_unnoticed(kind: Any) -> None:
    # A new attribute: look whether it can be changed in place. If it can, `Template` must give each copy its own.
    client = kind()
    assert set(vars(client)) == {
        *("_auth", "_base_url", "_params", "_trust_env", "_default_encoding", "_state"),  # values
        *("follow_redirects", "max_redirects"),
        *("_headers", "_cookies", "_event_hooks", "_timeout"),  # each copy has its own
        *("_transport", "_mounts"),  # shared on purpose
    }


def test_a_redirect_and_a_refusal_are_treated_as_for_the_services_own_token(
    realm: Realm, bob: Receiver, clock: Clock, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> int:
        return (await client.post("/orders", json={"n": 1})).status_code

    headers = as_user(realm)
    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=headers).json() == 200
        clock.now += 11  # sooner, the same token would be the answer
        bob.refuse()
        assert client.get("/", headers=headers).json() == 200
    assert [seen.body for seen in bob.seen] == [b'{"n":1}'] * 3
    assert callers(bob) == [ANN] * 3
    assert bob.tokens[1] != bob.tokens[2]
    assert len(keycloak.requests) == 2


def test_a_client_acts_for_its_user_in_tasks_and_threads_too(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    async def route(
        client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)],
        sync: Annotated[httpx.Client, Depends(crm.on_behalf.sync)],
    ) -> None:
        await asyncio.gather(*(asyncio.create_task(client.get("/")) for _ in range(2)))
        with ThreadPoolExecutor(1) as threads:  # without the context of this request
            threads.submit(sync.get, "/").result(5)

    with browser(guarded(app, realm)) as client:
        for name in ("ann", "ben"):
            assert client.get("/", headers=as_user(realm, name)).status_code == 200
    assert callers(bob) == [ANN] * 3 + [BEN] * 3


def test_the_parameter_of_a_route_must_fit_its_client(realm: Realm) -> None:
    crm = service_client("http://bob", audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))

    @app.get("/")
    def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf.sync)]) -> None: ...

    with (
        pytest.raises(ConfigurationError, match=r"annotated with httpx\.AsyncClient and gets httpx\.Client"),
        browser(app),
    ):
        pass


@pytest.mark.parametrize("dependency", ["on_behalf", "on_behalf.sync"])
def test_the_dependency_is_no_client_itself(dependency: str) -> None:
    crm = service_client("http://bob", audience="bob")
    given: Any = crm.on_behalf.sync if dependency.endswith("sync") else crm.on_behalf
    with pytest.raises(AttributeError, match=rf"Depends\(crm\.{dependency}\)"):
        given.get("/")
    with pytest.raises(ConfigurationError, match=r"Write Depends\(crm\.on_behalf\)"), given():
        pass
    assert repr(given) == f"service_client('http://bob', audience=['bob']).{dependency}"
    assert given == copy.deepcopy(given)
    assert given.downstream.on_behalf
    assert not crm.downstream.on_behalf


def test_without_a_connection_there_is_no_user() -> None:
    crm = service_client("http://bob", audience="bob")

    async def main() -> None:
        await crm.on_behalf()

    with pytest.raises(ConfigurationError, match=r"crm\.on_behalf\(request\)"):
        asyncio.run(main())


# Nobody to act for


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"client_id": "front-end", "sid": None},
            "front-end called, and it is not a user. Nothing was sent. A service calls",
        ),
        ({"client_id": "front-end"}, "front-end called, and it is not a user. Nothing was sent. Its token is neither"),
        ({"sid": None}, "front-end called, and it is not a user. Nothing was sent. Its token is neither"),
        ({}, "a user"),
    ],
    ids=["service", "both", "neither", "user"],
)
def test_only_a_user_can_be_acted_for(
    changes: dict[str, Any], said: str, realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client("http://bob", audience="bob")
    app = users_app()

    @app.get("/")
    async def route(request: Request) -> str:
        try:
            crm.auth.on_behalf_of(request)
        except NoUserToActFor as error:
            return str(error)
        return "a user"

    # Observed, so that a caller of unknown kind comes as far as the route.
    answer = browser(
        guarded(app, realm, insecure_observe_until=(datetime.now(UTC) + timedelta(days=30)).date().isoformat())
    ).get("/", headers=as_user(realm, **changes))
    assert said in answer.json()
    assert keycloak.requests == []


@pytest.mark.parametrize(
    "options", [{"public_paths": ["/"]}, {"optional_paths": ["/"]}], ids=["public path", "optional path"]
)
def test_a_request_without_a_token_has_no_user(
    options: dict[str, Any], realm: Realm, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client("http://bob", audience="bob")
    app = FastAPI(openapi_url=None)

    @app.get("/", dependencies=[Depends(ANYONE.optional())] if "optional_paths" in options else [])
    async def route(request: Request) -> str:
        with pytest.raises(NoUserToActFor, match="no token that ServiceAuthMiddleware accepted"):
            crm.auth.on_behalf_of(request)
        return "refused"

    assert browser(guarded(app, realm, **options)).get("/").json() == "refused"
    assert keycloak.requests == []


def test_without_the_middleware_there_is_no_user_even_if_the_header_has_a_token(
    realm: Realm, bob: Receiver, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client(bob.url, audience="bob")
    app = FastAPI()

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
        await client.get("/")  # pragma: no cover - never reached

    answer = browser(app).get("/", headers=as_user(realm))
    assert (answer.status_code, answer.json()) == (403, {"detail": "This request needs the access token of a user."})
    assert (bob.seen, keycloak.requests) == ([], [])


@pytest.mark.parametrize(
    "given", [None, b"bytes", {"Authorization": "Bearer x"}, 7], ids=["None", "bytes", "headers", "number"]
)
def test_something_else_is_refused_with_what_to_give(given: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="takes the text of a user's access token, or the Request or WebSocket"
    ):
        ServiceTokenAuth("http://bob", audience="bob").on_behalf_of(given)


@pytest.mark.parametrize(
    ("token", "error", "said"),
    [
        (jwt(**claims_of_user(client_id=CLIENT)), NoUserToActFor, "belongs to a service"),
        (jwt(**claims_of_user(iss="http://partner/realms/x")), NoUserToActFor, "issued by"),
        (jwt(**claims_of_user(exp=100)), SessionEnded, "expired"),
        (jwt(**claims_of_user(aud=["other"])), TokenRequestError, "is not for"),
        ("Bearer x", NoUserToActFor, "is not an access token"),
    ],
    ids=["a service's", "another realm's", "expired", "for another service", "a whole header"],
)
def test_a_token_that_cannot_be_exchanged_is_refused_when_it_is_given(
    token: str, error: type[Exception], said: str, keycloak: ExchangingKeycloak
) -> None:
    with pytest.raises(error, match=said):
        ServiceTokenAuth("http://bob", audience="bob").on_behalf_of(token)
    assert keycloak.requests == []


def test_the_log_says_once_what_to_change_if_users_tokens_are_not_for_this_service(
    keycloak: ExchangingKeycloak, caplog: pytest.LogCaptureFixture
) -> None:
    auth = ServiceTokenAuth("http://bob", audience="bob")
    for name in ("id-of-ann", "id-of-ben"):
        with pytest.raises(TokenRequestError):
            auth.on_behalf_of(jwt(**claims_of_user(aud=["other"], sub=name)))
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"add an Audience mapper for {CLIENT}" in line
    assert "id-of-" not in line
    assert keycloak.requests == []


@pytest.mark.parametrize("changes", [{"sid": None}, {"aud": "another"}, {"exp": 1}, {"cnf": {"jkt": "x"}}], ids=str)
def test_no_frame_of_a_refusal_shows_the_users_token(changes: dict[str, Any], realm: Realm) -> None:
    token, auth = user_token(realm, **changes), ServiceTokenAuth("http://bob:8000", audience="bob")
    with pytest.raises(S2SError) as caught:
        auth.on_behalf_of(token)

    trace = caught.value.__traceback__
    assert trace is not None
    shown = []
    while (trace := trace.tb_next) is not None:
        shown.append(repr(trace.tb_frame.f_locals))
    assert len(shown) > 1
    assert token not in "".join(shown)


def test_min_validity_is_for_the_services_own_token() -> None:
    auth = ServiceTokenAuth("http://bob", audience="bob")
    token = jwt(**claims_of_user())
    assert auth.asking(min_validity=30).on_behalf_of(token) == auth.on_behalf_of(token)
    with pytest.raises(ConfigurationError, match="Leave min_validity out"):
        auth.on_behalf_of(token).token(min_validity=30)
    with pytest.raises(ConfigurationError, match="Leave min_validity out"):
        auth.on_behalf_of(token).asking(min_validity=30)


# When the session is over


def _calling(crm: Any, realm: Realm, kind: str) -> Any:
    if kind == "FastAPI":
        app = users_app()

        @app.get("/")
        async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> None:
            await client.get("/")

        return guarded(app, realm)

    async def endpoint(request: Request) -> Response:
        client = await crm.on_behalf(request)
        await client.get("/")
        return JSONResponse({})  # pragma: no cover - never reached

    return guarded(Starlette(routes=[Route("/", ANYONE.guard(endpoint))]), realm)


@pytest.mark.parametrize("kind", ["FastAPI", "Starlette"])
def test_a_session_that_is_over_is_a_401_for_the_user(
    kind: str, realm: Realm, bob: Receiver, keycloak: ExchangingKeycloak
) -> None:
    keycloak.logged_out.add("session-of-ann")
    answer = browser(_calling(service_client(bob.url, audience="bob"), realm, kind)).get("/", headers=as_user(realm))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="chat-app-service", error="invalid_token"'
    assert "The session of the user has ended" in answer.text
    assert bob.seen == []


@pytest.mark.parametrize("kind", ["FastAPI", "Starlette"])
def test_every_other_reason_is_a_503(kind: str, realm: Realm, bob: Receiver, keycloak: ExchangingKeycloak) -> None:
    keycloak.always = refusal(400, "invalid_request", "Standard token exchange is not enabled for the requested client")
    answer = browser(_calling(service_client(bob.url, audience="bob"), realm, kind)).get("/", headers=as_user(realm))
    assert answer.status_code == 503
    assert "cannot be called at the moment" in answer.text
    assert bob.seen == []


def test_after_a_refusal_a_session_that_is_over_gives_the_receivers_401_and_then_its_own(
    realm: Realm, bob: Receiver, clock: Clock, keycloak: ExchangingKeycloak
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(user_token(realm))
    with httpx.Client(auth=auth) as client:
        assert client.get(bob.url).status_code == 200
        clock.now += 11
        bob.refuse()
        keycloak.always = INVALID_TOKEN
        assert client.get(bob.url).status_code == 401
        with pytest.raises(SessionEnded):
            client.get(bob.url)
    assert len(bob.seen) == 2


# When the request is over


def test_a_background_task_uses_what_is_remembered_and_exchanges_nothing_more(
    realm: Realm, bob: Receiver, keycloak: ExchangingKeycloak
) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))
    outcomes: list[str] = []

    async def later(client: httpx.AsyncClient) -> None:
        try:
            outcomes.append(str((await client.get("/later")).status_code))
        except NoUserToActFor as error:
            outcomes.append(str(error))

    @app.get("/")
    async def route(
        call: bool, tasks: BackgroundTasks, client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]
    ) -> None:
        if call:
            await client.get("/now")
        tasks.add_task(later, client)

    with browser(guarded(app, realm)) as client:
        assert client.get("/", params={"call": True}, headers=as_user(realm)).status_code == 200
        assert client.get("/", params={"call": False}, headers=as_user(realm, "ben")).status_code == 200
    assert outcomes[0] == "200"
    assert "the request has ended" in outcomes[1]
    assert callers(bob) == [ANN] * 2
    assert len(keycloak.requests) == 1


def test_a_stream_calls_until_its_last_part(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm))

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "first "
            yield str((await client.get("/")).status_code)

        return StreamingResponse(parts())

    with browser(guarded(app, realm)) as client:
        assert client.get("/", headers=as_user(realm)).text == "first 200"
    assert callers(bob) == [ANN]


# At the start of the app


def test_no_token_is_requested_at_the_start_for_calls_on_behalf_of_users(keycloak: ExchangingKeycloak) -> None:
    crm = service_client("http://bob", audience="bob")
    called = service_auth("http://charles", audience="charles")
    lifespan = service_lifespan(crm.on_behalf, crm.on_behalf.sync, called.on_behalf)
    with browser(FastAPI(lifespan=lifespan)):
        assert keycloak.requests == []
    assert len(lifespan.downstreams) == 2
    assert all(each.on_behalf for each in lifespan.downstreams)
    with browser(FastAPI(lifespan=service_lifespan(crm, crm.on_behalf))):
        assert [asked.form["grant_type"] for asked in keycloak.requests] == ["client_credentials"]


def test_a_client_without_a_service_account_starts_calls_and_is_ready(realm: Realm, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    app = users_app(lifespan=service_lifespan(crm.on_behalf))
    app.add_route("/readyz", auth_ready)

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm.on_behalf)]) -> int:
        return (await client.get("/tickets")).status_code

    keycloak = OnlyExchanging()
    with using(TokenSource(channel=keycloak)), browser(guarded(app, realm, public_paths=["/readyz"])) as client:
        assert client.get("/", headers=as_user(realm)).json() == 200
        ready = client.get("/readyz")
        state = health(app)
    assert keycloak.requests
    assert (ready.status_code, ready.json()["tokens"]) == (200, {"usable": 0, "failing": 0, "idle": 0})
    assert (state.ready, state.problem, state.tokens) == (True, None, ())


@pytest.mark.parametrize(
    ("options", "requirement", "said"),
    [
        ({"users": False}, None, "the middleware accepts only services (to accept users as well, write users=True"),
        ({}, require_service(), "its requirement require_service() accepts only services"),
        ({}, require_caller("shop") & require_service(), "accepts only services"),
        ({"public_paths": ["/"]}, None, "it is public, so nobody knows the user"),
    ],
    ids=["no users", "a service", "one service", "public"],
)
@pytest.mark.parametrize("dependency", ["client", "sync", "auth"])
def test_an_app_does_not_start_if_no_user_can_call_a_route_that_acts_for_users(
    dependency: str, options: dict[str, Any], requirement: Any, said: str, realm: Realm
) -> None:
    app = _acting_app(dependency, requirement)
    with pytest.raises(ConfigurationError) as refused, browser(guarded(app, realm, **options)):
        pass
    assert "GET /" in str(refused.value)
    assert "it calls on behalf of the user who called it (on_behalf), and" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("options", "requirement"),
    [
        ({}, require_user()),
        ({}, require_user("front-end") | require_caller("shop")),
        ({"optional_paths": ["/"]}, require_user().optional()),
    ],
    ids=["a user", "a user or a service", "optional"],
)
def test_an_app_starts_if_a_user_can_call(options: dict[str, Any], requirement: Any, realm: Realm) -> None:
    with browser(guarded(_acting_app("client", requirement), realm, **options)) as client:
        assert client.get("/", headers=as_user(realm)).status_code == 200


def _acting_app(dependency: str, requirement: Any) -> Any:
    crm = service_client("http://bob", audience="bob")
    acting: Any = {
        "client": crm.on_behalf,
        "sync": crm.on_behalf.sync,
        "auth": service_auth("http://bob", audience="bob").on_behalf,
    }[dependency]
    app = FastAPI(openapi_url=None)

    @app.get("/", dependencies=[Depends(requirement)] if requirement is not None else [])
    async def route(client: Annotated[Any, Depends(acting)]) -> None: ...

    return app


# Nothing of a user's token gets out


def test_an_auth_object_of_a_user_shows_no_token_and_is_not_pickled(realm: Realm) -> None:
    token = user_token(realm)
    auth = ServiceTokenAuth("http://bob", audience="bob").on_behalf_of(token)
    assert repr(auth) == "ServiceTokenAuth('http://bob:80', audience=['bob']).on_behalf_of(...)"
    assert copy.deepcopy(auth) is auth
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(auth)
    again = ServiceTokenAuth("http://bob", audience="bob").on_behalf_of(token)
    assert (auth, hash(auth)) == (again, hash(again))
    assert auth != ServiceTokenAuth("http://bob", audience="bob")
    assert auth != ServiceTokenAuth("http://bob", audience="bob").on_behalf_of(user_token(realm, "ben"))


@pytest.mark.parametrize("place", ["header", "query"])
def test_the_users_own_token_is_not_sent_beside_the_exchanged_one(place: str, realm: Realm, bob: Receiver) -> None:
    token = user_token(realm)
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(token)
    assert INBOUND.get() is None  # as in a worker: only the auth object knows the token
    given: dict[str, Any] = {"headers": {"X-User-Token": token}} if place == "header" else {"params": {"t": token}}
    with httpx.Client(auth=auth) as client, pytest.raises(TokenWithheld, match="holds the token"):
        client.get(bob.url, **given)
    assert bob.seen == []


def test_a_request_to_another_origin_gets_no_users_token(realm: Realm, bob: Receiver, charles: Receiver) -> None:
    crm = service_client(bob.url, audience="bob")
    auth = crm.auth.on_behalf_of(user_token(realm))
    with httpx.Client(auth=auth) as client, pytest.raises(TokenWithheld, match="A service_client calls one origin"):
        client.get(charles.url)
    assert charles.seen == []


def test_the_test_kits_source_is_used_by_objects_that_were_made_before(realm: Realm, bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(user_token(realm))
    auth.token()
    other = ExchangingKeycloak()
    with using(TokenSource(channel=other)):
        auth.token()
    assert len(other.requests) == 1
