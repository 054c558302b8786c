"""Code without a middleware accepts bound tokens of requests, with the same proofs; a token alone and plain headers prove nothing."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import WebSocketDenialResponse

from s2s_fastapi import AuthenticationError, ConfigurationError, S2SError, TokenVerifier, require_bound
from s2s_fastapi.accepted import FURTHER, digest
from s2s_fastapi.errors import ReplayStoreUnavailable
from s2s_fastapi.proof.replay import InProcessReplayStore
from s2s_fastapi.verifier.bound import _USED
from s2s_fastapi.verifier.token_verifier import _log_once
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
    [
        {"public_url": None},
        {"public_url": "https://[::1%25eth0]"},
        {"dpop": "yes"},
        {"dpop": None, "replay_store": InProcessReplayStore()},
    ],
    ids=["no URL", "a URL that no proof can name", "another mode", "a store for nothing"],
)
def test_wrong_options_are_refused_at_once(wrong: dict[str, Any], made: Made) -> None:
    with pytest.raises(ConfigurationError):
        made(**wrong)


@pytest.mark.parametrize("store", [None, InProcessReplayStore()], ids=["the process's", "its own"])
class TestARequestThatIsAskedTwice:
    """Two dependencies may ask the same verifier, or a mounted app its own one. A proof counts once for each request, not for each question."""

    def test_is_accepted_again(self, store: Any, made: Made, owner: Owner) -> None:
        verifier, other = made(replay_store=store), made(replay_store=store)
        connection = request(owner.headers(owner.token(), "/x"))
        for each in (verifier, verifier, other):
            assert asyncio.run(each.authenticate(connection)).binding == "dpop"
        copied = HTTPConnection(dict(connection.scope))  # as a middleware passes it on
        assert asyncio.run(verifier.authenticate(copied)).binding == "dpop"

    def test_is_refused_with_what_another_request_used(self, store: Any, made: Made, owner: Owner) -> None:
        verifier, token = made(replay_store=store), owner.token()
        headers, others = owner.headers(token, "/x"), owner.headers(token, "/x")
        for each in (headers, others):
            asyncio.run(verifier.authenticate(request(each)))
        assert refused(verifier, request(headers)).code == "proof_replayed"
        connection = request(owner.headers(token, "/x"))
        asyncio.run(verifier.authenticate(connection))
        connection.scope["headers"] = request(headers).scope["headers"]
        assert refused(verifier, HTTPConnection(connection.scope)).code == "proof_replayed"

    def test_is_refused_in_another_store_that_knows_its_proof(self, store: Any, made: Made, owner: Owner) -> None:
        elsewhere = InProcessReplayStore()
        headers = owner.headers(owner.token(), "/x")
        asyncio.run(made(replay_store=elsewhere).authenticate(request(headers)))
        connection = request(headers)
        asyncio.run(made(replay_store=store).authenticate(connection))
        assert refused(made(replay_store=elsewhere), connection).code == "proof_replayed"

    def test_keeps_nothing_of_a_proof_that_was_refused(self, store: Any, made: Made, owner: Owner) -> None:
        verifier = made(replay_store=store)
        headers = owner.headers(owner.token(), "/x")
        asyncio.run(verifier.authenticate(request(headers)))
        connection = request(headers)
        for _ in range(2):
            assert refused(verifier, connection).code == "proof_replayed"

    def test_knows_it_by_nothing_that_code_outside_can_write(self, store: Any, made: Made, owner: Owner) -> None:
        class Equal:
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        verifier = made(replay_store=store)
        headers = owner.headers(owner.token(), "/x")
        asyncio.run(verifier.authenticate(request(headers)))
        writings: list[Any] = [Equal(), True, ()]
        for written in writings:
            assert refused(verifier, request(headers, **{_USED: written})).code == "proof_replayed"


def test_verifiers_without_a_store_share_one_so_that_one_for_each_request_knows_the_last(
    made: Made, owner: Owner
) -> None:
    headers = owner.headers(owner.token(), "/x")
    assert asyncio.run(made().authenticate(request(headers))).binding == "dpop"
    assert refused(made(), request(headers)).code == "proof_replayed"


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({"dpop": None}, []),
        ({"dpop": "accepted"}, [logging.INFO]),
        ({"dpop": "required"}, [logging.INFO, logging.WARNING]),
        ({"dpop": "required", "replay_store": InProcessReplayStore()}, [logging.INFO]),
    ],
    ids=["none", "accepted", "required", "required with a store"],
)
def test_where_proofs_are_remembered_is_logged_once_however_many_verifiers_there_are(
    changes: Any, levels: list[int], made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    _log_once.cache_clear()
    with caplog.at_level(logging.INFO, "s2s_fastapi"):
        for _ in range(3):
            made(**changes).ready()
    assert [record.levelno for record in caplog.records] == levels
    assert all("remembered in this process only" in record.getMessage() for record in caplog.records)


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

    @pytest.mark.parametrize(
        ("raw", "url"),
        [
            (b"/admin/../b", "/b"),
            (b"/admin/%2e%2E/b", "/b"),
            (b"/admin/.%2e/b", "/b"),
            (b"/a/./b", "/a/b"),
            (b"/a/%2E", "/a/"),
            (b"/crm/b/..", "/crm/"),
            (b"/../b", "/b"),
            (b"/..", "/"),
            (b"/crm/../other/x", "/other/x"),
            (b"/crm/%2e%2e/other/x", "/other/x"),
            (b"/b#x/7", "/b"),
            (b"/b#", "/b"),
            (b"/b#/../b", "/b"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("base", ["", "/crm"])
    def test_is_none_if_clients_and_routers_read_the_path_in_different_ways(
        self, raw: bytes, url: str, base: str, made: Made, owner: Owner
    ) -> None:
        """Clients resolve dot segments and cut at `#`. Routers do neither, so the proof would open another route, or be for another service."""
        token = owner.token()
        for named in (url, base + url, raw.decode()):
            error = refused(made(public_url=PUBLIC_URL + base), request(owner.headers(token, named), raw_path=raw))
            assert error.code == "invalid_proof"

    @pytest.mark.parametrize("root_path", ["", "/api"])
    def test_has_the_path_of_the_mounts_above_it(self, root_path: str, made: Made, owner: Owner) -> None:
        """Callers use them. Without them the proof for /x would open /admin/x."""
        verifier = made()

        async def x(request: Request) -> PlainTextResponse:
            return PlainTextResponse((await verifier.authenticate(request)).binding)

        admin = FastAPI()
        admin.add_route("/x", x)
        routes: list[BaseRoute] = [
            Route("/x", x),
            Mount("/admin", routes=[Route("/x", x), Mount("/deep", routes=[Route("/x", x)])]),
            Mount("/other", app=admin),
        ]
        token, paths = owner.token(), ["/x", "/admin/x", "/admin/deep/x", "/other/x"]
        with TestClient(Starlette(routes=routes), root_path=root_path) as client:
            for path in paths:
                for named in paths:
                    response = client.get(root_path + path, headers=owner.headers(token, named))
                    assert (path, response.status_code) == (path, 200 if path == named else 401)

    def test_that_no_url_has_is_told(self, made: Made, owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
        refused(made(), request(owner.headers(owner.token(), "/b"), raw_path=b"/admin/../b"))
        assert "no URL has the path of the request" in caplog.text

    @pytest.mark.parametrize(
        "path", ["/.b", "/..b/c", "/a..", "/a/...", "/%2E.x", "/a%2F..%2Fb", "/a/.well-known/x", "/b%23x"]
    )
    def test_may_have_dots_that_are_no_segment(self, path: str, made: Made, owner: Owner) -> None:
        caller = asyncio.run(made().authenticate(request(owner.headers(owner.token(), path), path)))
        assert caller.binding == "dpop"

    @pytest.mark.parametrize("raw", ["/a/x", "/%61/x", "/a%2Fx"])
    def test_keeps_a_prefix_that_the_proxy_left_in_place(self, raw: str, made: Made, owner: Owner) -> None:
        verifier = made(public_url="https://CRM.example.com:443/%61/../%61/")
        url = "/a" + raw if "%2F" in raw else "/a/x"  # an escaped slash is a character of a segment
        connection = request(owner.headers(owner.token(), url), raw_path=raw.encode())
        assert asyncio.run(verifier.authenticate(connection)).binding == "dpop"

    @pytest.mark.parametrize(
        ("raw", "root_path"),
        [
            ("/ai/mcp", "/ai"),  # below a mount; behind a proxy that keeps the prefix; uvicorn with a root path
            ("/mcp", "/ai"),  # behind a proxy that strips it, and FastAPI(root_path=...)
            ("/%61i/mcp", "/ai/"),
            ("/ai/mcp", ""),
            ("/mcp", "/ai/mcp"),
            ("/ai/mcp/mcp", "/ai/mcp"),
        ],
    )
    def test_has_the_path_of_a_public_url_once(self, raw: str, root_path: str, made: Made, owner: Owner) -> None:
        verifier, token = made(public_url=f"{PUBLIC_URL}/ai/mcp"), owner.token()
        right = "/ai/mcp/mcp" if root_path == "/ai/mcp" else "/ai/mcp"
        for url in ("/ai/mcp", "/mcp", "/ai", "/ai/mcp/mcp", "/ai/mcp/ai/mcp", "/ai/ai/mcp"):
            connection = request(owner.headers(token, url), raw_path=raw.encode(), root_path=root_path)
            if url == right:
                assert asyncio.run(verifier.authenticate(connection)).binding == "dpop"
            else:
                assert refused(verifier, connection).code == "invalid_proof"

    @pytest.mark.parametrize(
        ("public", "root_path", "url"),
        [
            ("/ai/mcp", "/ai", "/ai/x"),  # another route of the same app
            ("/a%C3%A9/mcp", "/aé", "/a%C3%A9/x"),
            ("/ai", "/a", "/ai/x"),  # the beginning of a name is no prefix
            ("/api", "/internal", "/api/x"),
            ("", "/ai", "/x"),
        ],
    )
    def test_has_the_root_path_if_the_public_url_has_it(
        self, public: str, root_path: str, url: str, made: Made, owner: Owner
    ) -> None:
        verifier, token = made(public_url=PUBLIC_URL + public), owner.token()
        for named in {url, f"{public}/x", "/x"}:
            connection = request(owner.headers(token, named), raw_path=b"/x", root_path=root_path)
            if named == url:
                assert asyncio.run(verifier.authenticate(connection)).binding == "dpop"
            else:
                assert refused(verifier, connection).code == "invalid_proof"

    def test_costs_little_however_long_the_path_is(self, made: Made, owner: Owner) -> None:
        """The root path is looked for in the first few characters only."""
        token, path = owner.token(), "/" * 60_000
        connection = request(owner.headers(token, "/x"), raw_path=path.encode(), root_path="/" * 50)
        assert refused(made(), connection).code == "invalid_proof"
