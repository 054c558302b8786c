"""Bound tokens over redirects, on real sockets: a proof for each hop at our origins, and none anywhere else."""

import asyncio
import ssl
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.service_client import service_client
from s2s_fastapi.errors import TokenWithheld
from tests.caller.bound import INVALID_PROOF, BindingKeycloak, Proof, proofs
from tests.caller.fakes import Clock, Receiver, receiver
from tests.kit.authority import make_authority, server_context

pytestmark = pytest.mark.usefixtures("source")
PACKAGES = {"httpx": httpx, "httpx2": httpx2}


@pytest.fixture
def keycloak() -> BindingKeycloak:
    return BindingKeycloak()


def ask(crm: Any, method: str, path: str, *, asynchronous: bool, **options: Any) -> Any:
    async def main() -> Any:
        async with crm as client:
            return await client.request(method, path, **options)

    if asynchronous:
        return asyncio.run(main())
    with crm as client:
        return client.request(method, path, **options)


both_packages = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
both_ways = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both_packages
@both_ways
@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_each_hop_at_home_has_a_proof_for_its_own_method_and_url(
    status: int, method: str, package: Any, asynchronous: bool, bob: Receiver
) -> None:
    bob.answers = [(status, {"Location": "/b?x=1"}, b""), (307, {"Location": "/b?x=1"}, b"")]
    crm = service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True)

    assert ask(crm, "POST", "/a", asynchronous=asynchronous, content=b"text").status_code == 200
    made = [proof for proof in proofs(bob) if proof is not None]
    said = [(proof.claims["htm"], proof.claims["htu"]) for proof in made]
    assert said == [("POST", f"{bob.url}/a"), (method, f"{bob.url}/b"), (method, f"{bob.url}/b")]
    assert [seen.method for seen in bob.seen] == ["POST", method, method]
    assert len({proof.claims["jti"] for proof in made}) == 3
    assert len(set(bob.tokens)) == 1


@both_packages
def test_a_redirect_to_the_very_same_url_has_a_proof_of_its_own_too(
    package: Any, bob: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.answers = [(307, {"Location": "/a"}, b"")]
    ask(
        service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True),
        "GET",
        "/a",
        asynchronous=False,
    )

    assert len({proof.claims["jti"] for proof in proofs(bob) if proof is not None}) == len(bob.seen) == 2
    assert "sent the proof" not in caplog.text


@both_packages
@both_ways
@pytest.mark.parametrize("status", [302, 307])
def test_another_port_gets_neither_token_nor_proof(
    status: int, package: Any, asynchronous: bool, bob: Receiver, charles: Receiver
) -> None:
    bob.always = (status, {"Location": f"{charles.url}/x"}, b"")
    crm = service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True)

    assert ask(crm, "GET", "/", asynchronous=asynchronous).status_code == 200
    assert (charles.tokens, proofs(charles)) == ([None], [None])
    assert proofs(bob) != [None]


@both_packages
def test_back_from_another_host_there_is_neither_token_nor_proof(
    package: Any, bob: Receiver, charles: Receiver
) -> None:
    away = charles.url.replace("127.0.0.1", "localhost")
    bob.answers = [(307, {"Location": away}, b"")]
    charles.always = (307, {"Location": f"{bob.url}/back"}, b"")
    crm = service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True)

    ask(crm, "GET", "/", asynchronous=False)
    assert (charles.tokens, proofs(charles)) == ([None], [None])
    assert [token is None for token in bob.tokens] == [proof is None for proof in proofs(bob)] == [False, True]


@both_packages
def test_between_two_origins_of_the_token_the_proof_stays_with_the_token(
    package: Any, bob: Receiver, charles: Receiver
) -> None:
    bob.always = (307, {"Location": charles.url}, b"")
    both = ServiceTokenAuth(bob.url, charles.url, dpop=True)
    with service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True) as client:
        client.get("/", auth=both)

    assert (charles.tokens, proofs(charles)) == ([None], [None])  # httpx drops the token between two origins


REFUSALS = {
    "invalid_token": {"WWW-Authenticate": 'DPoP error="invalid_token"'},
    "use_dpop_nonce": {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n"},
    "invalid_dpop_proof": {"WWW-Authenticate": 'DPoP error="invalid_dpop_proof"'},
}


@both_packages
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("headers", REFUSALS.values(), ids=REFUSALS)
def test_what_another_host_refuses_says_nothing_of_our_token_our_nonce_and_our_clock(  # noqa: PLR0917 - fixtures
    headers: dict[str, str],
    bare: bool,
    package: Any,
    bob: Receiver,
    charles: Receiver,
    keycloak: BindingKeycloak,
    clock: Clock,
) -> None:
    bob.answers = [(307, {"Location": charles.url}, b"")]
    charles.always = (401, headers, b"")
    charles.dates = formatdate(time.time() + 300, usegmt=True)
    crm = service_client(bob.url, dpop=True, client_class=package.AsyncClient, follow_redirects=True)
    with package.Client(auth=crm.auth, base_url=bob.url, follow_redirects=True) if bare else crm as client:
        assert client.get("/").status_code == 401
        clock.now += 11
        client.get("/")

    assert len(charles.seen) == len(keycloak.requests) == 1
    proof = proofs(bob)[-1]
    assert proof is not None
    assert "nonce" not in proof.claims
    assert abs(proof.claims["iat"] - time.time()) < 60


@both_packages
def test_another_scheme_of_the_same_host_gets_neither_token_nor_proof(
    package: Any, bob: Receiver, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority)
    with receiver(server_context(authority)) as secure:
        bob.always = (307, {"Location": secure.url}, b"")
        options = {"follow_redirects": True, "verify": trusting, "client_class": package.AsyncClient}
        ask(service_client(bob.url, dpop=True, **options), "GET", "/", asynchronous=False)
        assert (secure.tokens, proofs(secure)) == ([None], [None])

        secure.always = (307, {"Location": bob.url}, b"")
        bob.always = (200, {}, b"")
        ask(service_client(secure.url, dpop=True, **options), "GET", "/", asynchronous=False)
    assert proofs(secure)[1] is not None
    assert (bob.tokens[1], proofs(bob)[1]) == (None, None)


@both_packages
def test_from_http_to_https_of_one_host_without_ports_goes_nothing(package: Any) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(request: Any) -> Any:
        seen.append((request.headers.get("Authorization"), request.headers.get("DPoP")))
        if request.url.scheme == "http":
            return package.Response(301, headers={"Location": "https://bob.example.com/"})
        return package.Response(200)

    options = {"follow_redirects": True, "transport": package.MockTransport(answer)}
    crm = service_client("http://bob.example.com", dpop=True, client_class=package.AsyncClient, **options)
    ask(crm, "GET", "/", asynchronous=False)

    assert None not in seen[0]
    assert seen[1] == (None, None)


def test_what_another_hook_changes_is_what_the_proof_says(bob: Receiver) -> None:
    def change(request: httpx.Request) -> None:
        request.method = "PUT"
        request.url = request.url.copy_with(path="/elsewhere")

    crm = service_client(bob.url, dpop=True, event_hooks={"request": [change]})
    ask(crm, "POST", "/here", asynchronous=False)

    (proof,) = proofs(bob)
    assert proof is not None
    assert (proof.claims["htm"], proof.claims["htu"]) == ("PUT", f"{bob.url}/elsewhere")


def test_a_redirected_request_that_needs_a_nonce_is_sent_again_where_it_was_refused(bob: Receiver) -> None:
    wanted = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n"}
    bob.answers = [(307, {"Location": "/b"}, b""), (401, wanted, b"")]
    crm = service_client(bob.url, dpop=True, follow_redirects=True)

    assert ask(crm, "POST", "/a", asynchronous=False, content=b"text").status_code == 200
    made = [proof for proof in proofs(bob) if proof is not None]
    assert [(proof.claims["htu"], proof.claims.get("nonce")) for proof in made] == [
        (f"{bob.url}/a", None),
        (f"{bob.url}/b", None),
        (f"{bob.url}/b", "n"),
    ]


@both_packages
def test_a_bare_client_that_follows_redirects_is_told_once(
    package: Any, bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.always = (307, {"Location": charles.url}, b"")
    with package.Client(auth=ServiceTokenAuth(bob.url, dpop=True), follow_redirects=True) as client:
        client.get(bob.url)
        client.get(bob.url)

    assert charles.tokens == [None, None]
    (first, _), (there, _) = proofs(bob), proofs(charles)
    assert first is not None
    assert there is not None
    assert there.text == first.text  # useless there: it has no token, and the proof is for bob's URL
    told = [record.getMessage() for record in caplog.records if "sent the proof" in record.getMessage()]
    assert len(told) == 1
    assert f"from {bob.url} to {charles.url}" in told[0]
    assert "use service_client" in told[0]


@both_packages
def test_a_bare_client_that_follows_a_redirect_at_home_is_sent_there_again_with_a_proof_of_its_own(
    package: Any, bob: Receiver
) -> None:
    bob.answers = [(307, {"Location": "/b"}, b""), (401, INVALID_PROOF, b"")]
    with package.Client(auth=ServiceTokenAuth(bob.url, dpop=True), follow_redirects=True) as client:
        assert client.get(f"{bob.url}/a").status_code == 200

    assert _said(bob) == [("GET", f"{bob.url}/a"), ("GET", f"{bob.url}/a"), ("GET", f"{bob.url}/b")]
    assert [seen.path for seen in bob.seen] == ["/a", "/b", "/b"]


# requests and aiohttp


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (303, "GET"), (307, "POST")])
def test_a_session_of_requests_makes_a_proof_for_each_hop(
    status: int, method: str, bob: Receiver, charles: Receiver
) -> None:
    bob.answers = [(status, {"Location": "/b"}, b"")]
    with ServiceTokenAuth(bob.url, dpop=True).for_requests() as session:
        answer = session.post(f"{bob.url}/a?q=1", data=b"text")
        assert answer.status_code == 200
        assert not {"Authorization", "DPoP"} & set(answer.request.headers)
        bob.always = (307, {"Location": charles.url}, b"")
        with pytest.raises(TokenWithheld):
            session.get(bob.url)

    assert _said(bob)[:2] == [("POST", f"{bob.url}/a"), (method, f"{bob.url}/b")]
    assert charles.seen == []


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (303, "GET"), (307, "POST")])
def test_a_session_of_aiohttp_makes_a_proof_for_each_hop(
    status: int, method: str, bob: Receiver, charles: Receiver
) -> None:
    bob.answers = [(status, {"Location": "/b"}, b"")]

    async def main() -> None:
        middleware = ServiceTokenAuth(bob.url, dpop=True).for_aiohttp()
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            async with session.post(f"{bob.url}/a?q=1", data=b"text") as answer:
                assert answer.status == 200
            bob.always = (307, {"Location": charles.url}, b"")
            with pytest.raises(TokenWithheld):
                await session.get(bob.url)

    asyncio.run(main())
    assert _said(bob)[:2] == [("POST", f"{bob.url}/a"), (method, f"{bob.url}/b")]
    assert charles.seen == []


def _said(there: Receiver) -> list[tuple[str, str]]:
    made: list[Proof] = [proof for proof in proofs(there) if proof is not None]
    return [(proof.claims["htm"], proof.claims["htu"]) for proof in made]
