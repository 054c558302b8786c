"""Apps that call with bound tokens, in a block: the embedded issuer binds their tokens, and each call has a proof (RFC 9449)."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from s2s_fastapi import (
    KeycloakSettings,
    ServiceAuthMiddleware,
    TokenRequestError,
    require_bound,
    require_caller,
    service_client,
    service_lifespan,
)
from s2s_fastapi.testing import EmbeddedIssuer, client_of

URL = "http://crm:8001"
SECRET = "a-secret-of-this-test-5c1d"


def calling(crm: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, lifespan=service_lifespan(crm))

    @app.post("/escalate")
    async def escalate(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> int:
        return (await client.post("/tickets?q=1")).status_code

    return app


def test_a_played_service_sees_the_bound_token_and_the_proof_of_each_call() -> None:
    issuer = EmbeddedIssuer.for_tests()
    crm = service_client(URL, audience="crm", dpop=True)
    with client_of(calling(crm), issuer=issuer, client_id="chat") as client:
        played = issuer.downstream(crm).answer(201)
        assert [client.post("/escalate").json() for _ in range(2)] == [201, 201]
    first, second = played.calls
    for call in (first, second):
        assert (call.client_id, call.audiences) == ("chat", frozenset({"crm"}))
        assert call.headers["authorization"].startswith("DPoP ")
        assert (call.proof["htm"], call.proof["htu"]) == ("POST", f"{URL}/tickets")
    assert first.token == second.token
    assert first.proof["jti"] != second.proof["jti"]
    (asked,) = issuer.requests("token")
    assert asked.request.header("dpop")


def test_an_app_that_requires_bound_tokens_accepts_another_app() -> None:
    issuer = EmbeddedIssuer.for_tests()
    crm = FastAPI(openapi_url=None)
    crm.add_middleware(ServiceAuthMiddleware, audience="crm", dpop="required", public_url="https://crm.example.com")

    @crm.post("/tickets", status_code=201, dependencies=[Depends(require_bound() & require_caller("chat"))])
    async def open_ticket() -> None: ...

    target = service_client("https://crm.example.com", audience="crm", dpop=True, transport=httpx.ASGITransport(crm))
    with issuer.trusted_by(crm), client_of(calling(target), issuer=issuer, client_id="chat") as client:
        assert [client.post("/escalate").json() for _ in range(3)] == [201, 201, 201]


def test_the_setting_of_the_app_counts_in_a_block() -> None:
    issuer = EmbeddedIssuer.for_tests()
    settings = KeycloakSettings(url="http://x", realm="r", client_id="chat", client_secret="s", dpop=True)
    crm = service_client(URL, audience="crm", settings=settings)
    with client_of(calling(crm), issuer=issuer) as client:
        played = issuer.downstream(crm)
        assert client.post("/escalate").json() == 200
    assert played.calls[0].claims["cnf"]["jkt"]


def test_a_realm_file_decides_whether_a_client_must_prove_its_key() -> None:
    client = {"clientId": "chat", "secret": SECRET, "serviceAccountsEnabled": True}
    bound = {"attributes": {"dpop.bound.access.tokens": "true"}}
    issuer = EmbeddedIssuer({"realm": "r", "enabled": True, "clients": [{**client, **bound}]})
    bearer, proving = (service_client(URL, dpop=dpop) for dpop in (False, True))
    with client_of(calling(proving), issuer=issuer, client_id="chat") as app:
        issuer.downstream(proving)
        assert app.post("/escalate").json() == 200
    refused = pytest.raises(TokenRequestError, match="DPoP proof is missing")
    with refused, client_of(calling(bearer), issuer=issuer, client_id="chat"):  # it asks for its token when it starts
        pass


def test_against_an_old_keycloak_a_caller_that_wants_bound_tokens_gets_an_error() -> None:
    client = {"clientId": "chat", "secret": SECRET, "serviceAccountsEnabled": True}
    issuer = EmbeddedIssuer({"realm": "r", "enabled": True, "clients": [client]}, version="26.0.8")
    crm = service_client(URL, dpop=True)
    refused = pytest.raises(
        TokenRequestError, match=r"its token_type is Bearer, not DPoP\. Bound tokens need Keycloak 26\.4"
    )
    with refused, client_of(calling(crm), issuer=issuer, client_id="chat"):  # it asks for its token when it starts
        pass
