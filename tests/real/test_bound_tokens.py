"""Bound tokens on real servers, from end to end: both frameworks, both HTTP clients, WebSockets; and what Keycloak 26.0 refuses."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
import httpx2
import pytest
import uvicorn
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from example_app.realm import Realm, claims_of
from s2s_fastapi import (
    AuthenticationError,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenRequestError,
    TokenVerifier,
    require_bound,
    require_caller,
    require_service,
)
from s2s_fastapi.proof.key import ProofKey
from tests.real.conftest import Servers
from tests.real.server import NEWEST
from tests.real.settings import settings_of

OLDEST: Final = "26.0.8"
alice = require_caller("alice") & require_bound()


@dataclass(frozen=True)
class Receiver:
    """Bob on a socket."""

    realm: Realm
    url: str

    def caller(self, client_id: str = "alice", **options: Any) -> ServiceTokenAuth:
        """Return what a caller attaches to requests to Bob."""
        settings = settings_of(self.realm, client_id)
        return ServiceTokenAuth(self.url, audience="bob", settings=settings, **options)

    def get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=headers, trust_env=False)


@contextlib.contextmanager
def receiving(realm: Realm, make: Callable[..., Any], dpop: str | None) -> Iterator[Receiver]:
    """Serve an app of Bob's that knows the URL at which it is reached."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        options: dict[str, Any] = {"settings": settings_of(realm, "bob")}
        if dpop is not None:
            options |= {"dpop": dpop, "public_url": url}
        server = uvicorn.Server(uvicorn.Config(make(**options), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until = time.monotonic() + 60
            while not server.started and thread.is_alive() and time.monotonic() < until:
                time.sleep(0.02)
            yield Receiver(realm, url)
        finally:
            server.should_exit = True
            thread.join(20)


def fastapi_app(**options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **options)

    @app.api_route("/letters/{name}", methods=["GET", "HEAD", "POST"])
    async def letters(name: str, caller: Annotated[Principal, Depends(alice)]) -> dict[str, str]:
        return {"name": name, "from": caller.client_id, "binding": caller.binding}

    @app.get("/anybody")
    async def anybody(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
        return {"from": caller.client_id, "binding": caller.binding}

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, caller: Annotated[Principal, Depends(alice)]) -> None:
        await websocket.accept()
        await websocket.send_text(f"{caller.client_id} {caller.binding}")
        await websocket.close()

    return app


def starlette_app(**options: Any) -> Starlette:
    async def letters(request: Request) -> JSONResponse:
        return JSONResponse(
            {"name": request.path_params["name"], "from": request.user.client_id, "binding": request.user.binding}
        )

    async def anybody(request: Request) -> JSONResponse:
        return JSONResponse({"from": request.user.client_id, "binding": request.user.binding})

    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{websocket.user.client_id} {websocket.user.binding}")
        await websocket.close()

    app = Starlette(
        routes=[
            Route("/letters/{name}", alice.guard(letters), methods=["GET", "HEAD", "POST"]),
            Route("/anybody", anybody),
            WebSocketRoute("/ws", alice.guard(ws)),
        ]
    )
    app.add_middleware(ServiceAuthMiddleware, **options)
    return app


APPS: Final[dict[str, Callable[..., Any]]] = {"FastAPI": fastapi_app, "Starlette": starlette_app}
CLIENTS: Final[dict[str, Any]] = {"httpx": httpx, "httpx2": httpx2}


def warm(realm: Realm) -> Realm:
    """Ask for one token without a limit of 5 s: the first one of a server that was just started may take longer."""
    realm.service_token("dora")
    return realm


@pytest.fixture(scope="module")
def realm(keycloaks: Servers) -> Realm:
    return warm(keycloaks(NEWEST).realm("vault"))


@pytest.fixture(scope="module", params=APPS)
def bob(realm: Realm, request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(realm, APPS[request.param], "accepted") as receiver:
        yield receiver


@pytest.mark.parametrize("library", CLIENTS)
def test_a_bound_token_is_asked_for_and_used_from_end_to_end(bob: Receiver, library: str) -> None:
    auth = bob.caller(dpop=True)
    with CLIENTS[library].Client(auth=auth, base_url=bob.url, trust_env=False) as client:
        answers = [
            client.get("/letters/a"),
            client.post("/letters/b?x=1", json={"text": "hello"}),
            client.get("/letters/caf%C3%A9%20au%20lait"),
            client.get("/letters/a"),
        ]
        head = client.head("/letters/a")

    assert [answer.status_code for answer in (*answers, head)] == [200] * 5, [answer.text for answer in answers]
    assert [answer.json()["name"] for answer in answers] == ["a", "b", "café au lait", "a"]
    assert {(answer.json()["from"], answer.json()["binding"]) for answer in answers} == {("alice", "dpop")}


@pytest.mark.parametrize("library", CLIENTS)
def test_so_it_is_in_async_code(bob: Receiver, library: str) -> None:
    async def ask() -> list[str]:
        auth = bob.caller(dpop=True)
        async with CLIENTS[library].AsyncClient(auth=auth, base_url=bob.url, trust_env=False) as client:
            return [(await client.get("/letters/a")).json()["binding"] for _ in range(3)]

    assert asyncio.run(ask()) == ["dpop"] * 3


def test_keycloak_binds_the_token_to_the_key_of_the_proof(bob: Receiver) -> None:
    headers = bob.caller(dpop=True).headers_for("GET", f"{bob.url}/letters/a")
    scheme, _, token = headers["Authorization"].partition(" ")
    claims = claims_of(token)

    assert (scheme, claims["typ"], claims["azp"]) == ("DPoP", "DPoP", "alice")
    assert sorted(claims["aud"]) == ["bob", "charles"]
    assert len(claims["cnf"]["jkt"]) == 43
    assert bob.get("/letters/a", headers).status_code == 200


def test_without_the_key_the_token_is_of_no_use(bob: Receiver) -> None:
    auth, url = bob.caller(dpop=True), f"{bob.url}/letters/a"
    stolen = auth.headers_for("GET", url)
    token = stolen["Authorization"].removeprefix("DPoP ")
    by_thief = ProofKey().proof("GET", url, now=time.time(), token=token)
    tried = {
        "as a bearer token": {"Authorization": f"Bearer {token}"},
        "without a proof": {"Authorization": f"DPoP {token}"},
        "a proof for another path": {**stolen, "DPoP": auth.headers_for("GET", f"{bob.url}/letters/b")["DPoP"]},
        "a proof for another method": {**stolen, "DPoP": auth.headers_for("POST", url)["DPoP"]},
        "a proof by another key": {**stolen, "DPoP": by_thief},
    }
    for warm in (False, True):
        if warm:
            assert bob.get("/letters/a", stolen).status_code == 200
        refused = {name: bob.get("/letters/a", headers) for name, headers in tried.items()}
        assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(tried, 401)
    errors = [answer.headers["WWW-Authenticate"] for answer in refused.values()]
    assert 'error="invalid_token"' in errors[0]
    assert all('error="invalid_dpop_proof"' in error for error in errors[1:])

    again = bob.get("/letters/a", stolen)
    assert (again.status_code, 'error="invalid_dpop_proof"' in again.headers["WWW-Authenticate"]) == (401, True)
    assert bob.get("/letters/a", auth.headers_for("GET", url)).status_code == 200


def test_a_websocket_takes_a_bound_token(bob: Receiver) -> None:
    auth, url = bob.caller(dpop=True), f"{bob.url.replace('http', 'ws')}/ws"
    headers = auth.headers_for("GET", url)

    with connect(url, additional_headers=headers, proxy=None) as connected:
        assert connected.recv(10) == "alice dpop"
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers, proxy=None):
        pass
    assert refused.value.response.status_code == 401


def test_a_bearer_token_is_accepted_where_it_may_be_and_never_where_a_bound_one_is_required(bob: Receiver) -> None:
    with httpx.Client(auth=bob.caller("dora"), base_url=bob.url, trust_env=False) as dora:
        assert dora.get("/anybody").json() == {"from": "dora", "binding": ""}
        assert dora.get("/letters/a").status_code in (401, 403)


def test_a_client_that_was_not_told_to_bind_may_bind_all_the_same(bob: Receiver) -> None:
    with httpx.Client(auth=bob.caller("dora", dpop=True), base_url=bob.url, trust_env=False) as dora:
        assert dora.get("/anybody").json() == {"from": "dora", "binding": "dpop"}


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
def test_where_bound_tokens_are_required_a_bearer_token_is_refused(realm: Realm, make: Callable[..., Any]) -> None:
    with receiving(realm, make, "required") as bob:
        with httpx.Client(auth=bob.caller(dpop=True), base_url=bob.url, trust_env=False) as client:
            assert client.get("/anybody").json() == {"from": "alice", "binding": "dpop"}
        with httpx.Client(auth=bob.caller("dora"), base_url=bob.url, trust_env=False) as dora:
            refused = dora.get("/anybody")

    assert refused.status_code == 401
    assert refused.headers.get_list("WWW-Authenticate")[0].startswith("DPoP ")


@pytest.mark.parametrize("make", APPS.values(), ids=APPS)
def test_a_receiver_that_was_not_told_of_bound_tokens_refuses_them(realm: Realm, make: Callable[..., Any]) -> None:
    with receiving(realm, lambda **options: _without_bound(make, **options), None) as bob:
        headers = bob.caller(dpop=True).headers_for("GET", f"{bob.url}/anybody")
        token = headers["Authorization"].removeprefix("DPoP ")

        assert bob.get("/anybody", headers).status_code == 401
        assert bob.get("/anybody", {"Authorization": f"Bearer {token}"}).status_code == 401
    with pytest.raises(AuthenticationError) as refused:
        TokenVerifier(settings_of(realm, "bob")).verify(token)
    assert refused.value.code == "sender_constrained"


def _without_bound(make: Callable[..., Any], **options: Any) -> Any:
    """Return an app of the same framework whose routes say nothing of bound tokens."""
    if make is fastapi_app:
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **options)

        @app.get("/anybody")
        async def anybody(caller: Annotated[Principal, Depends(require_service())]) -> str:
            return caller.client_id

        return app

    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse(request.user.client_id)

    plain = Starlette(routes=[Route("/anybody", endpoint)])
    plain.add_middleware(ServiceAuthMiddleware, **options)
    return plain


def test_a_client_that_must_bind_gets_no_token_without_a_proof(bob: Receiver) -> None:
    with pytest.raises(TokenRequestError, match="KEYCLOAK_DPOP"):
        bob.caller().token()


def test_a_service_that_is_told_by_its_environment_binds(realm: Realm) -> None:
    settings = settings_of(realm, "alice", dpop=True)
    headers = ServiceTokenAuth("http://bob.test", audience="bob", settings=settings).headers_for(
        "GET", "http://bob.test/letters"
    )

    assert headers["Authorization"].startswith("DPoP ")


@pytest.fixture(scope="module")
def old(keycloaks: Servers) -> Realm:
    return warm(keycloaks(OLDEST).realm("vault"))


class TestKeycloak260:
    """The oldest server that this package works with: it binds no token, and says so to nobody."""

    def test_a_caller_that_wants_a_bound_token_gets_an_error_and_sends_nothing(self, old: Realm) -> None:
        with (
            receiving(old, fastapi_app, "accepted") as bob,
            pytest.raises(TokenRequestError, match=r"ignored the proof") as refused,
        ):
            httpx.get(f"{bob.url}/anybody", auth=bob.caller(dpop=True), trust_env=False)
        assert refused.value.retryable is False

    def test_its_bearer_tokens_are_accepted_or_refused_as_the_receiver_says(self, old: Realm) -> None:
        for dpop, status in (("accepted", 200), ("required", 401)):
            with receiving(old, fastapi_app, dpop) as bob:
                assert httpx.get(f"{bob.url}/anybody", auth=bob.caller("dora"), trust_env=False).status_code == status
