"""Code without a middleware accepts bound tokens of requests, with the same proofs; a token alone and plain headers prove nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse

from s2s_fastapi import AuthenticationError, ConfigurationError, S2SError, TokenVerifier, require_bound
from s2s_fastapi.accepted import FURTHER, digest
from s2s_fastapi.errors import ReplayStoreUnavailable
from s2s_fastapi.proof.replay import InProcessReplayStore
from tests.kit.proving import PUBLIC_URL, Owner
from tests.kit.realm import Realm, settings

Made = Callable[..., TokenVerifier]


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def owner(realm: Realm) -> Owner:
    return Owner(realm)


@pytest.fixture
def made(realm: Realm) -> Made:
    def verifier(**changes: Any) -> TokenVerifier:
        given: dict[str, Any] = {"dpop": "accepted", "public_url": PUBLIC_URL, **changes}
        return TokenVerifier(settings(), transport=realm.transport, **given)

    return verifier


def request(headers: list[tuple[str, str]], path: str = "/x", **scope: Any) -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return HTTPConnection(
        {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": raw,
            **scope,
        }
    )


def refused(verifier: TokenVerifier, connection: Any) -> S2SError:
    with pytest.raises(S2SError) as caught:
        asyncio.run(verifier.authenticate(connection))
    return caught.value


def test_a_request_with_its_proof_is_accepted_once(made: Made, owner: Owner) -> None:
    verifier, token = made(), owner.token()
    headers = owner.headers(token, "/x")
    assert asyncio.run(verifier.authenticate(request(headers))).binding == "dpop"
    assert refused(verifier, request(headers)).code == "proof_replayed"
    assert refused(verifier, request(headers[:1])).code == "proof_missing"
    assert refused(verifier, request(owner.headers(token, "/y"))).code == "invalid_proof"
    assert refused(verifier, request([("Authorization", f"Bearer {token}")])).code == "sender_constrained"
    assert asyncio.run(verifier.authenticate(request(owner.headers(token, "/x")))).binding == "dpop"


def test_a_bound_token_that_was_authenticated_is_not_sent_on(made: Made, owner: Owner) -> None:
    verifier, token = made(), owner.token()

    async def further() -> tuple[bytes, ...]:
        await verifier.authenticate(request(owner.headers(token, "/x")))
        return FURTHER.get()

    assert asyncio.run(further()) == (digest(token),)


def test_the_challenge_is_that_of_the_scheme(made: Made, owner: Owner) -> None:
    error = refused(made(), request(owner.headers(owner.token(), "/y")))
    assert isinstance(error, AuthenticationError)
    assert (error.challenge or "").startswith('DPoP realm="crm-api-gateway", error="invalid_dpop_proof", algs="ES256 ')
    error = refused(made(), request(owner.headers(owner.token(aud="other"), "/x")))
    assert isinstance(error, AuthenticationError)
    assert (error.challenge or "").startswith('DPoP realm="crm-api-gateway", error="invalid_token", algs="ES256 ')


@pytest.mark.parametrize(
    ("mode", "schemes"), [(None, ["Bearer"]), ("accepted", ["Bearer", "DPoP"]), ("required", ["DPoP"])]
)
def test_a_request_without_credentials_learns_every_scheme_from_plain_fastapi(
    mode: Any, schemes: list[str], made: Made
) -> None:
    verifier = made(dpop=mode)
    app = FastAPI()

    @app.get("/x")
    async def x(request: Request) -> None:
        await verifier.authenticate(request)

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await verifier.authenticate(websocket)

    with TestClient(app) as client:
        answer = client.get("/x")
        assert [each.partition(" ")[0] for each in answer.headers.get_list("www-authenticate")] == schemes
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
            pass
        assert [each.partition(" ")[0] for each in denied.value.headers.get_list("www-authenticate")] == schemes


def test_plain_headers_prove_nothing_because_nobody_knows_their_request(made: Made, owner: Owner) -> None:
    verifier, token = made(), owner.token()
    for pairs in (owner.headers(token, "/x"), dict(owner.headers(token, "/x"))):
        error = refused(verifier, pairs)
        assert error.code == "invalid_proof"
        assert "authenticate got header pairs only" in str(error)
    assert asyncio.run(verifier.authenticate([("Authorization", f"Bearer {owner.realm.token()}")])).binding == ""


@pytest.mark.parametrize("mode", [None, "accepted", "required"])
def test_a_token_alone_proves_nothing(mode: Any, made: Made, owner: Owner) -> None:
    verifier = made(dpop=mode)
    token = owner.token()
    for given in (token, token.encode()):
        with pytest.raises(AuthenticationError) as caught:
            verifier.verify(given)
        assert caught.value.code == "sender_constrained"
        with pytest.raises(AuthenticationError):
            asyncio.run(verifier.averify(given))
    assert not verifier.decide(f"DPoP {token}").accepted


def test_an_unbound_token_is_refused_if_bound_ones_are_required(made: Made, owner: Owner) -> None:
    verifier = made(dpop="required")
    bearer = owner.realm.token()
    assert refused(verifier, request([("Authorization", f"Bearer {bearer}")])).code == "bearer_not_accepted"
    with pytest.raises(AuthenticationError):
        verifier.verify(bearer)
    assert made(dpop="accepted").verify(bearer).binding == ""


def test_without_dpop_the_scheme_is_another_one_as_ever(made: Made, owner: Owner) -> None:
    verifier = made(dpop=None, public_url=None)
    assert refused(verifier, request(owner.headers(owner.token(), "/x"))).code == "no_credentials"


def test_a_requirement_sees_the_binding(made: Made, owner: Owner) -> None:
    verifier, token = made(), owner.token()
    headers = owner.headers(token, "/x")
    assert asyncio.run(verifier.authenticate(request(headers), require_bound())).binding == "dpop"
    with pytest.raises(AuthenticationError) as caught:
        asyncio.run(
            verifier.authenticate(request([("Authorization", f"Bearer {owner.realm.token()}")]), require_bound())
        )
    assert caught.value.code == "not_bound"


def test_optional_credentials_are_judged_if_there_is_a_proof_alone(made: Made, owner: Owner) -> None:
    verifier, token = made(), owner.token()
    asked = verifier.authenticate_optional
    assert asyncio.run(asked(request([]))) is None
    caller = asyncio.run(asked(request(owner.headers(token, "/x"))))
    assert caller is not None
    assert caller.binding == "dpop"
    with pytest.raises(AuthenticationError):
        asyncio.run(asked(request(owner.headers(token, "/x")[1:])))


def test_a_store_that_cannot_tell_is_a_503(made: Made, owner: Owner) -> None:
    class Broken:
        async def first_use(self, key: bytes, seconds: float) -> bool:
            raise OSError

    error = refused(made(replay_store=Broken()), request(owner.headers(owner.token(), "/x")))
    assert isinstance(error, ReplayStoreUnavailable)
    assert (error.status_code, error.retry_after) == (503, 5)


@pytest.mark.parametrize(
    "wrong",
    [{"public_url": None}, {"dpop": "yes"}, {"dpop": None, "replay_store": InProcessReplayStore()}],
    ids=["no URL", "another mode", "a store for nothing"],
)
def test_wrong_options_are_refused_at_once(wrong: dict[str, Any], made: Made) -> None:
    with pytest.raises(ConfigurationError):
        made(**wrong)


class TestTheUrlOfARequest:
    """Servers write a scope in different ways."""

    @pytest.mark.parametrize(
        ("scope", "url"),
        [
            ({"raw_path": b"/x?a=b"}, "/x"),
            ({"path": "/api", "raw_path": b"/api?a=b", "root_path": "/api"}, ""),
            ({"raw_path": None}, "/x"),
            ({"raw_path": b""}, "/x"),
            ({"path": "/é b", "raw_path": None}, "/%C3%A9%20b"),
            ({"path": "/é", "raw_path": "/é".encode()}, "/%C3%A9"),
            ({"path": "/a/b", "raw_path": b"/a%2Fb"}, "/a%2Fb"),
            ({"path": "/%41", "raw_path": b"/%2541"}, "/%2541"),
            ({"path": "/api/x", "raw_path": b"/api/x", "root_path": "/api"}, "/x"),
            ({"path": "/api/x", "raw_path": b"/%61pi/x", "root_path": "/api/"}, "/x"),
            ({"path": "/é/x", "raw_path": b"/%c3%a9/x", "root_path": "/é"}, "/x"),
            ({"path": "/x", "raw_path": b"/x", "root_path": "/api"}, "/x"),
            ({"path": "/apix", "raw_path": b"/apix", "root_path": "/api"}, "/apix"),
            ({"path": "/x", "raw_path": b"/x", "type": "websocket"}, "/x"),
        ],
        ids=str,
    )
    def test_is_read_in_each(self, scope: dict[str, Any], url: str, made: Made, owner: Owner) -> None:
        token = owner.token()
        connection = request(owner.headers(token, url), **scope)
        assert asyncio.run(made().authenticate(connection)).binding == "dpop"

    @pytest.mark.parametrize("raw", [b".evil.example/x", b"@evil.example/x", b":1/x", b"http://evil.example/x", b"*"])
    @pytest.mark.parametrize(
        "url", ["https://crm.example.com.evil.example/x", "http://evil.example/x", f"{PUBLIC_URL}/x"]
    )
    def test_never_gets_another_host_from_the_path(self, raw: bytes, url: str, made: Made, owner: Owner) -> None:
        token = owner.token()
        headers = [("Authorization", f"DPoP {token}"), ("DPoP", owner.proof(token, url))]
        assert refused(made(), request(headers, raw_path=raw)).code == "invalid_proof"

    def test_costs_little_however_long_the_path_is(self, made: Made, owner: Owner) -> None:
        """The root path is looked for in the first few characters only."""
        token, path = owner.token(), "/" * 60_000
        connection = request(owner.headers(token, "/x"), raw_path=path.encode(), root_path="/" * 50)
        assert refused(made(), connection).code == "invalid_proof"
