"""Callers of a test whose tokens are bound to a key (RFC 9449): each request has a proof that names the public URL of the app."""

from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from example_app.realm import REALMS, claims_of
from s2s_fastapi import (
    AuthenticationError,
    ConfigurationError,
    CurrentPrincipal,
    ServiceAuthMiddleware,
    TokenVerifier,
    require_bound,
    require_caller,
    require_user,
)
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.testing import EmbeddedIssuer, assert_refused, async_client_of, client_of, refused

PUBLIC = "https://crm.example.com/api"


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


def make_app(*, dpop: Any = "required", public_url: Any = PUBLIC, root_path: str = "", **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.root_path = root_path
    app.add_middleware(ServiceAuthMiddleware, audience="crm", dpop=dpop, public_url=public_url, **options)

    @app.get("/x/{name:path}", dependencies=[Depends(require_caller("alice", "bob"))])
    @app.post("/x/{name:path}", dependencies=[Depends(require_caller("alice", "bob"))])
    async def x(principal: CurrentPrincipal, name: str) -> dict[str, str]:
        return {"caller": principal.client_id, "binding": principal.binding}

    @app.get("/bound", dependencies=[Depends(require_bound())])
    async def bound() -> None: ...

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, _principal: CurrentPrincipal) -> None:
        await websocket.accept()
        await websocket.close()

    return app


@pytest.mark.parametrize("dpop", ["accepted", "required"])
def test_each_request_has_a_new_proof_for_its_own_place(issuer: EmbeddedIssuer, dpop: str) -> None:
    alice = issuer.as_service("alice", dpop=True)
    with client_of(make_app(dpop=dpop), issuer=issuer) as client:
        for path in ("/x/1", "/x/1", "/x/a%2Fb%20c?q=1&r=/", "/x/%C3%A4", "/x/../x/2", "/bound"):
            for method in ("GET", "POST") if path.startswith("/x") else ("GET",):
                answer = client.request(method, path, auth=alice)
                assert answer.status_code == 200, (method, path, client.trusted.decisions[-1].cure)
        assert client.get("/x/1", auth=alice).json() == {"caller": "alice", "binding": "dpop"}
        bearer = client.get("/x/1", auth=issuer.as_service("alice"))
    assert bearer.status_code == (200 if dpop == "accepted" else 401)


@pytest.mark.parametrize(
    ("public_url", "base_url", "root_path"),
    [
        ("https://crm.example.com", "http://testserver", ""),
        ("https://crm.example.com/", "http://testserver", ""),
        ("https://crm.example.com/api/v1", "http://testserver", ""),
        ("https://crm.example.com/api", "https://crm.example.com/api", ""),
        (["https://crm.example.com", "https://crm.internal.example"], "http://testserver", ""),
        ("https://crm.example.com/api", "http://testserver", "/api"),
        ("https://crm.example.com/api", "http://testserver/api", "/api"),
    ],
)
def test_the_proof_names_the_public_url_whatever_the_test_client_calls(
    issuer: EmbeddedIssuer, public_url: Any, base_url: str, root_path: str
) -> None:
    app = make_app(public_url=public_url, root_path=root_path)
    mounted = base_url.startswith("https://crm.example.com/api")
    with client_of(app, issuer=issuer, base_url=base_url.removesuffix("/api") if mounted else base_url) as client:
        answer = client.get("/x/1", auth=issuer.as_service("alice", dpop=True))
        assert answer.status_code == 200, client.trusted.decisions[-1].cure


def test_a_proof_counts_once_and_every_block_begins_anew(issuer: EmbeddedIssuer) -> None:
    app, alice = make_app(), issuer.as_service("alice", dpop=True)
    with client_of(app, issuer=issuer) as client:
        headers = alice.headers_for("GET", "/x/1")
        assert client.get("/x/1", headers=headers).status_code == 200
        assert_refused(client.get("/x/1", headers=headers), 401, "proof_replayed")
        client.trusted.reset()
        assert client.get("/x/1", headers=headers).status_code == 200
    with client_of(app, issuer=issuer) as client:
        assert client.get("/x/1", headers=headers).status_code == 200


def test_the_store_of_production_is_not_asked(issuer: EmbeddedIssuer) -> None:
    class Store:
        async def first_use(self, key: bytes, seconds: float) -> bool:
            raise AssertionError((key, seconds))

    app = make_app(replay_store=Store())
    with client_of(app, issuer=issuer) as client:
        assert client.get("/x/1", auth=issuer.as_service("alice", dpop=True)).status_code == 200


def test_a_test_plays_the_thief(issuer: EmbeddedIssuer) -> None:
    alice, bob = issuer.as_service("alice", dpop=True), issuer.as_service("bob", dpop=True)
    with client_of(make_app(dpop="accepted"), issuer=issuer) as client:
        stolen = alice.token
        mine = bob.headers_for("GET", "/x/1", token=stolen)
        assert_refused(client.get("/x/1", headers=mine), 401, "invalid_proof")
        assert_refused(client.get("/x/1", headers={"Authorization": f"DPoP {stolen}"}), 401, "proof_missing")
        assert_refused(client.get("/x/1", headers={"Authorization": f"Bearer {stolen}"}), 401, "sender_constrained")
        elsewhere = alice.headers_for("GET", "/x/2", token=stolen)
        assert_refused(client.get("/x/1", headers=elsewhere), 401, "invalid_proof")
        assert_refused(client.post("/x/2", headers=elsewhere), 401, "invalid_proof")
        assert client.get("/x/2", headers=elsewhere).status_code == 200
        assert_refused(client.get("/bound", auth=issuer.as_service("alice")), 401, "not_bound")


def test_time_that_passes_makes_a_proof_too_old(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        for seconds, reason in ((25, ""), (35, "invalid_proof"), (-5, ""), (-15, "invalid_proof")):
            headers = issuer.as_service("alice", dpop=True).headers_for("GET", "/x/1")
            issuer.time.forward(seconds)
            answer = client.get("/x/1", headers=headers)
            if reason:
                assert_refused(answer, 401, reason)
            else:
                assert answer.status_code == 200
            issuer.time.reset()


def test_a_websocket_is_a_get(issuer: EmbeddedIssuer) -> None:
    alice = issuer.as_service("alice", dpop=True)
    with client_of(make_app(), issuer=issuer) as client:
        with client.websocket_connect("/ws", headers=alice.headers_for("GET", "/ws")):
            pass
        with (
            refused(401, "invalid_proof"),
            client.websocket_connect("/ws", headers=alice.headers_for("POST", "/ws")),
        ):
            pass


def test_users_have_bound_tokens_too(issuer: EmbeddedIssuer) -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="crm", dpop="required", public_url=PUBLIC, users=True)

    @app.get("/bound", dependencies=[Depends(require_bound() & require_user("front"))])
    async def bound() -> None: ...

    with client_of(app, issuer=issuer) as client:
        ann = issuer.as_user("ann", via="front", dpop=True)
        assert client.get("/bound", auth=ann).status_code == 200
        assert repr(ann) == "as_user('ann', via='front', dpop=True)"


@pytest.mark.anyio
async def test_the_client_of_httpx_sends_proofs_too(issuer: EmbeddedIssuer) -> None:
    async with async_client_of(make_app(), issuer=issuer) as client:
        for _ in range(2):
            assert (await client.get("/x/1", auth=issuer.as_service("alice", dpop=True))).status_code == 200


def test_a_mounted_app_has_its_own_public_url(issuer: EmbeddedIssuer) -> None:
    inner = make_app(public_url="https://crm.example.com/inner")
    app = FastAPI(openapi_url=None, routes=[Mount("/inner", app=inner)])
    with client_of(app, issuer=issuer) as client:
        assert client.get("/inner/x/1", auth=issuer.as_service("alice", dpop=True)).status_code == 200


def test_without_dpop_in_the_app_the_proof_names_what_was_called(issuer: EmbeddedIssuer) -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="crm")

    @app.get("/x", dependencies=[Depends(require_caller("alice"))])
    async def x() -> None: ...

    with client_of(app, issuer=issuer) as client:
        answer = client.get("/x", auth=issuer.as_service("alice", dpop=True))
        assert answer.status_code == 401
        assert answer.request.headers["DPoP"].count(".") == 2
        proved = claims_of(answer.request.headers["DPoP"])
        assert (proved["htm"], proved["htu"]) == ("GET", "http://testserver/x")


def test_headers_for_no_request_are_an_error_that_says_what_to_write(issuer: EmbeddedIssuer) -> None:
    alice = issuer.as_service("alice", dpop=True, audience="crm")
    with pytest.raises(ConfigurationError, match=r"write auth=as_service\('alice', dpop=True\), or headers="):
        alice.headers  # noqa: B018 - it is made when it is read
    plain = issuer.as_service("alice", audience="crm")
    assert plain.headers_for("GET", "/x", token="t") == {"Authorization": "Bearer t"}
    assert plain.headers_for("GET", "/x")["Authorization"].startswith("Bearer ey")


def test_each_caller_has_a_key_of_its_own_and_keeps_it(issuer: EmbeddedIssuer) -> None:
    def key(name: str) -> str:
        claims = claims_of(issuer.as_service(name, dpop=True, audience="crm").token)
        assert (claims["typ"], claims["cnf"]["kc-jkt-type"]) == ("DPoP", "DPoP")
        return str(claims["cnf"]["jkt"])

    assert key("alice") == key("alice") != key("bob")


def test_with_a_realm_file_a_client_that_must_prove_its_key_gets_no_other_token(issuer: EmbeddedIssuer) -> None:
    from s2s_fastapi import TokenRequestError

    own = EmbeddedIssuer(
        {
            "realm": "r",
            "enabled": True,
            "clients": [
                {
                    "clientId": "alice",
                    "secret": "s",
                    "serviceAccountsEnabled": True,
                    "attributes": {"dpop.bound.access.tokens": "true"},
                }
            ],
        }
    )
    with pytest.raises(TokenRequestError, match="DPoP proof is missing"):
        own.as_service("alice").token  # noqa: B018
    assert claims_of(own.as_service("alice", dpop=True).token)["typ"] == "DPoP"
    key = ProofKey()
    token = own.service_token("r", "alice", dpop=key)
    assert claims_of(token)["cnf"]["jkt"] == key.thumbprint
    with pytest.raises(TokenRequestError, match="DPoP proof is missing"):
        own.service_token("r", "alice")


def test_an_old_keycloak_binds_no_token() -> None:
    old = EmbeddedIssuer.read(REALMS["corp"], version="26.0.8")
    with pytest.raises(ConfigurationError, match=r"before 26\.4 it binds no token"):
        old.as_service("chat-app-service", dpop=True).token  # noqa: B018


def test_time_that_is_turned_on_and_back_closes_no_block(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        alice = issuer.as_service("alice", dpop=True)
        headers = alice.headers_for("GET", "/x/1")
        assert client.get("/x/1", headers=headers).status_code == 200
        issuer.time.forward(120)
        assert_refused(client.get("/x/1", headers=headers), 401, "invalid_proof")
        assert client.get("/x/1", auth=alice).status_code == 200
        issuer.time.reset()
        assert client.get("/x/1", auth=alice).status_code == 200
        assert_refused(client.get("/x/1", headers=headers), 401, "proof_replayed")


def test_a_verifier_without_the_middleware_sees_proofs_too(issuer: EmbeddedIssuer) -> None:
    class Store:
        async def first_use(self, key: bytes, seconds: float) -> bool:
            raise AssertionError((key, seconds))

    verifier = TokenVerifier(audience="crm", dpop="required", public_url=PUBLIC, replay_store=Store())

    async def answer(request: Request) -> JSONResponse:
        try:
            principal = await verifier.authenticate(request)
        except AuthenticationError as error:
            return JSONResponse(str(error.code), 401)
        return JSONResponse(principal.binding)

    app = Starlette(routes=[Route("/x", answer)])
    with issuer.trusted_by(verifier), TestClient(app) as client:
        alice = issuer.as_service("alice", dpop=True)
        headers = alice.headers_for("GET", "/x")
        assert client.get("/x", headers=headers).json() == "dpop"
        assert client.get("/x", headers=headers).json() == "proof_replayed"
        assert client.get("/x", auth=alice).json() == "dpop"
        assert client.get("/x", auth=issuer.as_service("alice")).json() == "bearer_not_accepted"
    assert verifier._dpop.store.__class__ is Store


def test_the_store_of_production_is_back_after_the_block(issuer: EmbeddedIssuer) -> None:
    class Store:
        asked = 0

        async def first_use(self, key: bytes, seconds: float) -> bool:
            raise AssertionError((key, seconds))

    store = Store()
    app = make_app(replay_store=store)
    with client_of(app, issuer=issuer) as client:
        (middleware,) = client.trusted.middlewares
        assert middleware._start.options.replay_store is not store
    assert middleware._start.options.replay_store is store
