"""Bound tokens on real sockets: proofs, nonces, clocks, redirects and refusals, with httpx and httpx2, sync and async."""

import asyncio
import copy
import hashlib
import io
import pickle
import re
import threading
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from joserfc.jwk import ECKey

from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.lifespan import service_lifespan
from s2s_fastapi.caller.origins import pin
from s2s_fastapi.caller.service_client import service_auth, service_client
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import ConfigurationError, TokenRequestError, TokenWithheld
from s2s_fastapi.readiness import health
from tests.caller.bound import (
    INVALID_PROOF,
    INVALID_TOKEN,
    NONCE_WANTED,
    TOKEN_URL,
    BindingKeycloak,
    Pairs,
    Proof,
    proofs,
    thumbprint_in,
)
from tests.caller.fakes import Clock, Receiver, b64, jwt, refusal, settings, wait_until_idle
from tests.caller.test_auth import WAYS, Send
from tests.kit.forks import in_child, needs_fork

PIN = pin("http://b")
pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture
def keycloak() -> BindingKeycloak:
    return BindingKeycloak()


@pytest.fixture(params=WAYS)
def send(request: pytest.FixtureRequest) -> Send:
    return WAYS[str(request.param)][1]


def auth_for(*receivers: Receiver, **options: Any) -> ServiceTokenAuth:
    return ServiceTokenAuth(*(receiver.url for receiver in receivers), audience="bob", dpop=True, **options)


def test_a_request_carries_the_token_and_a_proof_for_exactly_this_request(
    send: Send, bob: Receiver, keycloak: BindingKeycloak
) -> None:
    assert send(auth_for(bob), "POST", f"{bob.url}/x/y?q=1#f", content=b"{}").status_code == 200

    (proof,), (token,) = proofs(bob), bob.tokens
    assert proof is not None
    assert token is not None
    assert proof.header["typ"] == "dpop+jwt"
    assert (proof.claims["htm"], proof.claims["htu"]) == ("POST", f"{bob.url}/x/y")
    ath = urlsafe_b64encode(hashlib.sha256(token.removeprefix("DPoP ").encode()).digest()).decode().rstrip("=")
    assert proof.claims["ath"] == ath
    assert thumbprint_in(token) == proof.thumbprint == keycloak.shown[0].thumbprint
    send(auth_for(bob), "GET", bob.url)
    assert proofs(bob)[1].claims["htu"] == f"{bob.url}/"  # type: ignore[union-attr]
    asked = keycloak.shown[0]
    assert (asked.claims["htm"], asked.claims["htu"]) == ("POST", TOKEN_URL)
    assert "ath" not in asked.claims
    assert set(proof.header["jwk"]) == {"kty", "crv", "x", "y"}


def test_every_request_has_a_proof_of_its_own_and_all_share_one_token(bob: Receiver, keycloak: BindingKeycloak) -> None:
    auth = auth_for(bob)
    for _, way in WAYS.values():
        way(auth, "GET", bob.url)

    made = [proof for proof in proofs(bob) if proof is not None]
    assert len({proof.claims["jti"] for proof in made}) == len(made) == len(WAYS)
    assert len({proof.thumbprint for proof in made}) == len(set(bob.tokens)) == len(keycloak.requests) == 1


def test_one_client_has_one_key_for_all_audiences_and_scopes(
    bob: Receiver, charles: Receiver, keycloak: BindingKeycloak
) -> None:
    keycloak.aud = ["bob", "charles"]
    for there, audience, scope in ((bob, "bob", None), (charles, "charles", "profile")):
        httpx.get(there.url, auth=ServiceTokenAuth(there.url, audience=audience, scope=scope, dpop=True))

    assert len(keycloak.requests) == 2
    assert len({proof.thumbprint for proof in keycloak.shown}) == 1


def test_threads_that_need_a_key_at_the_same_moment_get_one(keycloak: BindingKeycloak) -> None:
    auth, meeting = ServiceTokenAuth("http://bob:8000", dpop=True), threading.Barrier(8)

    def ask(number: int) -> str:
        meeting.wait(10)
        return Proof.read(auth.asking(scope=f"s{number}").headers_for("GET", "http://bob:8000")["DPoP"]).thumbprint

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
    assert len(keycloak.requests) == 8


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_websocket_on_an_httpx_client_opens_with_a_proof(package: Any, bob: Receiver) -> None:
    with package.Client(auth=auth_for(bob)) as client, client.stream("GET", bob.url.replace("http", "ws") + "/room"):
        pass

    assert proofs(bob)[0].claims["htu"] == f"{bob.url}/room"  # type: ignore[union-attr]


def test_another_client_has_another_key(bob: Receiver, keycloak: BindingKeycloak) -> None:
    for client_id in ("chat-app-service", "other"):
        httpx.get(bob.url, auth=auth_for(bob, settings=settings(client_id=client_id)))

    assert len({proof.thumbprint for proof in keycloak.shown}) == 2


def test_a_bound_token_and_a_bearer_token_are_never_shared(bob: Receiver, keycloak: BindingKeycloak) -> None:
    bound, bearer = auth_for(bob), ServiceTokenAuth(bob.url, audience="bob")
    for auth in (bound, bearer, bound, bearer):
        httpx.get(bob.url, auth=auth)

    assert [str(token).partition(" ")[0] for token in bob.tokens] == ["DPoP", "Bearer"] * 2
    assert [proof is None for proof in proofs(bob)] == [False, True] * 2
    assert len(keycloak.requests) == 2
    assert "DPoP" not in keycloak.requests[1].headers


def test_the_setting_decides_and_code_decides_otherwise(
    bob: Receiver, environment: pytest.MonkeyPatch, keycloak: BindingKeycloak
) -> None:
    environment.setenv("KEYCLOAK_DPOP", "true")
    for dpop in (None, True, False):
        httpx.get(bob.url, auth=ServiceTokenAuth(bob.url, audience="bob", dpop=dpop))

    assert [str(token).partition(" ")[0] for token in bob.tokens] == ["DPoP", "DPoP", "Bearer"]
    assert len(keycloak.requests) == 2  # the setting and dpop=True are one key
    assert ServiceTokenAuth(bob.url).downstream.dpop
    assert service_client(bob.url).downstream.dpop
    assert not service_client(bob.url, dpop=False).downstream.dpop
    assert service_auth(bob.url, dpop=True).downstream.dpop


def test_without_settings_a_downstream_is_not_bound(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("KEYCLOAK_URL")

    assert not ServiceTokenAuth("http://bob:8000").downstream.dpop
    assert ServiceTokenAuth("http://bob:8000", dpop=True).downstream.dpop


Answered = tuple[dict[str, Any], dict[str, Any]]
"""Members of the answer, and claims of its token, that are not as usual."""

NOT_BOUND: dict[str, tuple[Answered, str, str]] = {
    "26.0.8 ignores the proof": (({"token_type": "Bearer"}, {}), "Keycloak ignored the proof", "26.4"),
    "no type": (({"token_type": None}, {}), "no known token_type, not DPoP", "in Keycloak's place"),
    "no cnf": (({}, {"cnf": None}), "not bound to the key of this process (it has no cnf.jkt)", "mapper"),
    "another key": (({}, {"cnf": {"jkt": "A" * 43}}), "to another one", "mapper"),
    "cnf is a text": (({}, {"cnf": "x"}), "no cnf.jkt", "mapper"),
    "a certificate": (({}, {"cnf": {"x5t#S256": "x"}}), "bound to a client certificate", "OAuth 2.0 Mutual TLS"),
    "not readable": (({"access_token": "opaque"}, {}), "not a JWT that can be read", ""),
}


@pytest.mark.parametrize(("answer", "said", "cure"), NOT_BOUND.values(), ids=NOT_BOUND)
def test_a_token_that_is_not_bound_to_our_key_is_not_used(
    answer: Answered, said: str, cure: str, bob: Receiver, keycloak: BindingKeycloak
) -> None:
    keycloak.body, keycloak.claims = answer

    with pytest.raises(TokenRequestError) as raised:
        httpx.get(bob.url, auth=ServiceTokenAuth(bob.url, dpop=True))

    assert said in str(raised.value)
    assert cure in raised.value.cure
    assert not raised.value.retryable
    assert bob.seen == []


def test_a_certificate_beside_our_key_is_refused_too(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.both = True

    with pytest.raises(TokenRequestError, match="bound to a client certificate"):
        httpx.get(bob.url, auth=auth_for(bob))


def test_the_type_counts_in_any_case(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.body = {"token_type": "dpop"}

    assert httpx.get(bob.url, auth=auth_for(bob)).status_code == 200


def test_keycloaks_nonce_is_used_at_once_and_kept(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.nonce = "n-1"
    for scope in ("a", "b"):
        httpx.get(bob.url, auth=auth_for(bob, scope=scope))

    assert [proof.claims.get("nonce") for proof in keycloak.shown] == [None, "n-1", "n-1"]
    assert len({proof.claims["jti"] for proof in keycloak.shown}) == 3
    assert [proof and proof.claims.get("nonce") for proof in proofs(bob)] == [None, None]  # it is Keycloak's


def test_a_nonce_without_its_header_ends_after_one_request(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.always = refusal(400, "use_dpop_nonce", "a nonce is needed")

    with pytest.raises(TokenRequestError, match="use_dpop_nonce"):
        httpx.get(bob.url, auth=auth_for(bob))
    assert len(keycloak.requests) == 1


def test_a_nonce_that_changes_all_the_time_ends_after_two_requests(bob: Receiver, keycloak: BindingKeycloak) -> None:
    for number in range(9):
        answer = refusal(400, "use_dpop_nonce", "a nonce is needed")
        answer.headers["DPoP-Nonce"] = f"n-{number}"
        keycloak.answers.append(answer)

    with pytest.raises(TokenRequestError, match="use_dpop_nonce"):
        httpx.get(bob.url, auth=auth_for(bob))
    assert len(keycloak.requests) == 2


def test_a_signed_assertion_is_not_sent_twice_with_a_nonce(
    bob: Receiver, keycloak: BindingKeycloak, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    keycloak.nonce = "n-1"
    signing = settings(client_secret=None, client_auth="private_key_jwt", client_key_file=file)
    httpx.get(bob.url, auth=auth_for(bob, settings=signing))

    first, second = keycloak.requests
    assert first.form["client_assertion"] != second.form["client_assertion"]


# The clocks


@pytest.mark.parametrize("ahead", [-480.0, 480.0])
def test_a_machine_whose_clock_is_eight_minutes_off_works(
    ahead: float, bob: Receiver, keycloak: BindingKeycloak
) -> None:
    keycloak.ahead = ahead
    auth = auth_for(bob)

    assert httpx.get(bob.url, auth=auth).status_code == 200
    assert len(keycloak.shown) == 2  # the first one was too old, or from the future
    (proof,) = proofs(bob)
    assert proof is not None
    assert abs(proof.claims["iat"] - (time.time() + ahead)) < 5
    httpx.get(bob.url, auth=auth.asking(scope="another"))
    assert len(keycloak.shown) == 3  # what was learned is kept


def test_without_a_date_the_iat_of_a_token_shows_the_time(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.dated, keycloak.ahead = False, -12
    keycloak.claims = {"iat": int(time.time()) - 12, "exp": int(time.time()) + 288}
    httpx.get(bob.url, auth=auth_for(bob))

    (proof,) = proofs(bob)
    assert proof is not None
    assert -16 < proof.claims["iat"] - time.time() < -8


def test_a_clock_that_is_eleven_minutes_off_is_said_with_both_clocks(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.ahead = 660

    with pytest.raises(TokenRequestError, match="DPoP proof is not active") as raised:
        httpx.get(bob.url, auth=auth_for(bob))

    assert len(keycloak.requests) == 1
    assert "this machine's shows 20" in raised.value.cure
    assert "6 s ahead" in re.sub("6[56][0-9] s", "6 s", raised.value.cure)
    assert raised.value.retryable


def test_a_receiver_with_another_clock_is_asked_once_more_with_its_time(
    send: Send, bob: Receiver, keycloak: BindingKeycloak
) -> None:
    theirs = formatdate(time.time() + 480, usegmt=True)
    bob.dates = theirs
    bob.refuse(headers=INVALID_PROOF)
    auth = auth_for(bob)

    assert send(auth, "POST", bob.url, content=b"again").status_code == 200
    first, second = proofs(bob)
    assert first is not None
    assert second is not None
    assert 470 < second.claims["iat"] - first.claims["iat"] < 490
    assert [seen.body for seen in bob.seen] == [b"again"] * 2
    assert len(keycloak.requests) == 1
    send(auth, "GET", bob.url)
    assert len(bob.seen) == 3


@pytest.mark.parametrize("off", [0, 3, -3, 660, None])
def test_a_refused_proof_that_the_date_does_not_explain_is_replaced_once(
    off: float | None, send: Send, bob: Receiver, keycloak: BindingKeycloak, caplog: pytest.LogCaptureFixture
) -> None:
    bob.dates = "" if off is None else formatdate(time.time() + off, usegmt=True)
    bob.refuse(headers=INVALID_PROOF)

    assert send(auth_for(bob), "POST", bob.url, content=b"again").status_code == 200
    first, second = proofs(bob)
    assert first is not None
    assert second is not None
    assert first.claims["jti"] != second.claims["jti"]
    assert [seen.body for seen in bob.seen] == [b"again"] * 2
    assert len(set(bob.tokens)) == len(keycloak.requests) == 1
    assert "redirect" not in caplog.text


def test_an_origin_that_refuses_a_new_proof_too_gets_none_for_ten_seconds(
    send: Send, bob: Receiver, charles: Receiver, clock: Clock
) -> None:
    auth, bob.dates, charles.dates = auth_for(bob, charles), "", ""
    for there in (bob, charles):
        there.always = (401, INVALID_PROOF, b"")

    assert send(auth, "GET", bob.url).status_code == 401
    assert len(bob.seen) == 2
    clock.now += 9
    send(auth, "GET", f"{bob.url}/x")
    assert len(bob.seen) == 3
    send(auth, "GET", charles.url)
    assert len(charles.seen) == 2
    clock.now += 2
    send(auth, "GET", bob.url)
    assert len(bob.seen) == 5


def test_a_body_that_cannot_be_repeated_is_not_sent_with_a_new_proof(bob: Receiver) -> None:
    auth = auth_for(bob)
    bob.refuse(headers=INVALID_PROOF)

    assert httpx.post(bob.url, auth=auth, content=iter([b"x"])).status_code == 401
    assert len(bob.seen) == 1
    bob.refuse(headers=INVALID_PROOF)
    assert httpx.post(bob.url, auth=auth, content=b"x").status_code == 200


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_transport_that_sends_a_request_again_gets_a_new_proof_when_it_is_refused(
    package: Any, bob: Receiver
) -> None:
    class Retrying(package.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            answer = super().handle_request(request)
            if answer.status_code != 503:
                return answer
            answer.close()
            return super().handle_request(request)

    bob.answers = [(503, {}, b""), (401, INVALID_PROOF, b"")]
    with package.Client(auth=auth_for(bob), transport=Retrying()) as client:
        assert client.get(bob.url).status_code == 200
    first, repeated, third = (str(proof and proof.text) for proof in proofs(bob))
    assert first == repeated != third


# A receiver's refusals


def test_invalid_token_of_the_scheme_dpop_renews_the_token(
    send: Send, bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    send(auth, "GET", bob.url)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)

    assert send(auth, "POST", bob.url, content=b"again").status_code == 200
    assert len(keycloak.requests) == 2
    assert bob.tokens[1] != bob.tokens[2]
    made = proofs(bob)
    assert made[1] is not None
    assert made[2] is not None
    assert made[1].claims["ath"] != made[2].claims["ath"]


REFUSED_AT_ONCE = {
    "the scheme Bearer": {"WWW-Authenticate": 'Bearer realm="bob", error="invalid_token"'},
    "no error": {"WWW-Authenticate": 'DPoP realm="bob", algs="ES256"'},
    "another error": {"WWW-Authenticate": 'DPoP error="insufficient_scope"'},
    "a nonce is wanted, and none is given": NONCE_WANTED,
    "an empty nonce": {**NONCE_WANTED, "DPoP-Nonce": ""},
    "a nonce with a space": {**NONCE_WANTED, "DPoP-Nonce": "a b"},
    "a nonce with a quote": {**NONCE_WANTED, "DPoP-Nonce": 'a"b'},
    "a nonce of 513 characters": {**NONCE_WANTED, "DPoP-Nonce": "n" * 513},
    "the words in a text": {"WWW-Authenticate": 'DPoP realm="error=\\"invalid_token\\""'},
}


@pytest.mark.parametrize("headers", REFUSED_AT_ONCE.values(), ids=REFUSED_AT_ONCE)
def test_every_other_refusal_renews_nothing_and_resends_nothing(
    headers: dict[str, str], bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    httpx.get(bob.url, auth=auth)
    clock.now += 11
    bob.dates = formatdate(time.time() + 11, usegmt=True)  # the other clock stands: here time went on, too
    bob.refuse(9, headers=headers)

    assert httpx.get(bob.url, auth=auth).status_code == 401
    assert len(bob.seen) == 2
    httpx.get(bob.url, auth=auth)
    assert len(keycloak.requests) == 1
    assert proofs(bob)[2].claims.get("nonce") is None  # type: ignore[union-attr]


def test_a_bearer_token_is_not_renewed_by_a_challenge_of_the_scheme_dpop(
    bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob")
    httpx.get(bob.url, auth=auth)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)

    assert httpx.get(bob.url, auth=auth).status_code == 401
    assert len(bob.seen) == 2
    assert len(keycloak.requests) == 1


CHALLENGES = {
    "in one field": Pairs(("WWW-Authenticate", 'Bearer realm="bob", DPoP algs="ES256", error="invalid_token"')),
    "in two fields": Pairs(
        ("WWW-Authenticate", 'Bearer realm="bob", error="invalid_request"'),
        ("WWW-Authenticate", 'DPoP algs="ES256", error="invalid_token"'),
    ),
    "twice the same scheme": Pairs(
        ("WWW-Authenticate", 'dpop algs="ES256"'), ("www-authenticate", "dPoP error=invalid_token")
    ),
}


@pytest.mark.parametrize("headers", CHALLENGES.values(), ids=CHALLENGES)
def test_our_challenge_is_found_among_others(
    headers: Pairs, bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    httpx.get(bob.url, auth=auth)
    clock.now += 11
    bob.refuse(headers=headers)

    assert httpx.get(bob.url, auth=auth).status_code == 200
    assert len(keycloak.requests) == 2


def test_a_receivers_nonce_is_used_at_once_and_kept_and_replaced(
    send: Send, bob: Receiver, charles: Receiver, keycloak: BindingKeycloak
) -> None:
    auth = auth_for(bob, charles)
    bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": "n-1"})

    assert send(auth, "POST", bob.url, content=b"again").status_code == 200
    bob.answers.append((200, {"DPoP-Nonce": "n-2"}, b""))
    send(auth, "GET", bob.url)
    send(auth, "GET", bob.url)
    send(auth, "GET", charles.url)

    assert [proof and proof.claims.get("nonce") for proof in proofs(bob)] == [None, "n-1", "n-1", "n-2"]
    assert [proof and proof.claims.get("nonce") for proof in proofs(charles)] == [None]
    assert [seen.body for seen in bob.seen][:2] == [b"again"] * 2
    assert len(keycloak.requests) == 1


def test_a_receiver_whose_nonce_changes_all_the_time_gets_two_requests(send: Send, bob: Receiver) -> None:
    for number in range(9):
        bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": f"n-{number}"})

    assert send(auth_for(bob), "GET", bob.url).status_code == 401
    assert len(bob.seen) == 2


def test_a_receiver_that_refuses_its_own_nonce_gets_one_request(send: Send, bob: Receiver) -> None:
    auth = auth_for(bob)
    bob.answers.append((200, {"DPoP-Nonce": "n"}, b""))
    send(auth, "GET", bob.url)
    bob.refuse(9, headers={**NONCE_WANTED, "DPoP-Nonce": "n"})

    assert send(auth, "GET", bob.url).status_code == 401
    assert len(bob.seen) == 2


@pytest.mark.parametrize("status", [200, 400, 403, 407])
@pytest.mark.parametrize("headers", [INVALID_TOKEN, {**NONCE_WANTED, "DPoP-Nonce": "n"}])
def test_only_a_401_is_a_refusal(
    headers: dict[str, str], status: int, bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    httpx.get(bob.url, auth=auth)
    clock.now += 11
    bob.answers.append((status, headers, b""))

    assert httpx.get(bob.url, auth=auth).status_code == status
    httpx.get(bob.url, auth=auth)
    assert len(bob.seen) == 3
    assert len(keycloak.requests) == 1


def test_a_renewed_token_may_need_a_nonce_and_then_it_ends(
    send: Send, bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    send(auth, "GET", bob.url)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)
    bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": "n"})
    bob.refuse(9, headers=INVALID_TOKEN)

    assert send(auth, "GET", bob.url).status_code == 401
    assert len(bob.seen) == 4
    assert len(keycloak.requests) == 2


def test_a_body_that_cannot_be_repeated_is_not_sent_again_but_the_nonce_is_kept(send: Send, bob: Receiver) -> None:
    auth = auth_for(bob)
    bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": "n-1"})

    assert send(auth, "POST", bob.url, files={"f": io.BytesIO(b"x")}).status_code == 401
    assert len(bob.seen) == 1
    send(auth, "GET", bob.url)
    assert proofs(bob)[1].claims["nonce"] == "n-1"  # type: ignore[union-attr]


def test_a_hook_that_raises_does_not_hide_a_nonce(bob: Receiver) -> None:
    def raising(response: httpx.Response) -> None:
        response.raise_for_status()

    bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": "n-1"})
    with (
        service_client(bob.url, audience="bob", dpop=True, event_hooks={"response": [raising]}) as client,
    ):
        with pytest.raises(httpx.HTTPStatusError):
            client.get("/")
        client.get("/")

    assert proofs(bob)[1].claims["nonce"] == "n-1"  # type: ignore[union-attr]


# What a request must not carry


@pytest.mark.parametrize("name", ["DPoP", "dpop"])
def test_a_proof_of_ones_own_is_refused(name: str, send: Send, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld, match="already has a DPoP header"):
        send(auth_for(bob), "GET", bob.url, headers={name: "a.b.c"})
    assert bob.seen == []


def test_the_same_request_can_be_sent_again(bob: Receiver) -> None:
    with httpx.Client(auth=auth_for(bob)) as client:
        request = client.build_request("GET", bob.url)
        client.send(request)
        client.send(request)

    first, second = proofs(bob)
    assert first is not None
    assert second is not None
    assert first.claims["jti"] != second.claims["jti"]


def test_the_same_request_with_another_proof_is_refused(bob: Receiver) -> None:
    with httpx.Client(auth=auth_for(bob)) as client:
        request = client.build_request("GET", bob.url)
        client.send(request)
        request.headers["DPoP"] = "a.b.c"
        with pytest.raises(TokenWithheld, match="already has a DPoP header"):
            client.send(request)


def test_a_token_is_marked_as_refused_also_if_its_request_cannot_be_repeated(
    bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    httpx.get(bob.url, auth=auth)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)

    assert httpx.post(bob.url, auth=auth, files={"f": io.BytesIO(b"x")}).status_code == 401
    httpx.get(bob.url, auth=auth)
    assert len(bob.seen) == 3
    assert len(keycloak.requests) == 2


def test_the_placeholder_of_an_sdk_is_replaced(bob: Receiver) -> None:
    auth = auth_for(bob)
    httpx.get(bob.url, auth=auth, headers={"Authorization": f"Bearer {auth.placeholder}"})

    assert thumbprint_in(bob.tokens[0])


# The same object for other clients


def test_headers_for_one_request(bob: Receiver, keycloak: BindingKeycloak) -> None:
    auth = auth_for(bob)
    headers = auth.headers_for("post", f"{bob.url}/x?q=1")
    asynchronous = asyncio.run(auth.aheaders_for("POST", f"{bob.url}/x?q=1"))

    assert set(headers) == set(asynchronous) == {"Authorization", "DPoP"}
    proof = Proof.read(headers["DPoP"])
    assert (proof.claims["htm"], proof.claims["htu"]) == ("POST", f"{bob.url}/x")
    assert thumbprint_in(headers["Authorization"]) == proof.thumbprint
    assert asynchronous["DPoP"] != headers["DPoP"]
    assert set(ServiceTokenAuth(bob.url, audience="bob").headers_for("GET", bob.url)) == {"Authorization"}
    assert len(keycloak.requests) == 2


@pytest.mark.parametrize(
    ("origin", "url", "htu"),
    [
        ("http://bob:8000", "ws://bob:8000/chat?room=1", "http://bob:8000/chat"),
        ("https://bob", "wss://bob/chat", "https://bob/chat"),
        ("wss://bob", "https://bob/chat", "https://bob/chat"),
    ],
)
def test_a_proof_for_a_websocket_is_for_the_request_that_opens_it(origin: str, url: str, htu: str) -> None:
    proof = Proof.read(ServiceTokenAuth(origin, audience="bob", dpop=True).headers_for("GET", url)["DPoP"])

    assert proof.claims["htu"] == htu


ELSEWHERE = [
    "http://evil:8000/",
    "https://bob:8000/",
    "http://bob:8001",
    "http://u@bob:8000/",
    "/x",
    "",
    "ftp://bob:8000",
    "http://[x",
]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize("dpop", [True, False])
def test_no_headers_for_another_place(url: str, dpop: bool, keycloak: BindingKeycloak) -> None:
    with pytest.raises(TokenWithheld):
        ServiceTokenAuth("http://bob:8000", audience="bob", dpop=dpop).headers_for("GET", url)
    assert keycloak.requests == []


def test_no_headers_for_a_url_that_holds_the_token_of_the_current_request(keycloak: BindingKeycloak) -> None:
    token = ".".join([b64('{"alg":"RS256"}'), *jwt(sub="ann", padding="x" * 64).split(".")[1:]])
    before = INBOUND.set(digest(token))
    try:
        with pytest.raises(TokenWithheld, match="The URL holds"):
            ServiceTokenAuth("http://bob:8000", dpop=True).headers_for("GET", f"http://bob:8000/?t={token}")
    finally:
        INBOUND.reset(before)


def test_a_refused_header_renews_the_token(bob: Receiver, keycloak: BindingKeycloak, clock: Clock) -> None:
    auth = auth_for(bob)
    headers = auth.headers_for("GET", bob.url)
    clock.now += 11
    auth.refused(headers["Authorization"])
    auth.headers_for("GET", bob.url)
    assert len(keycloak.requests) == 2
    clock.now += 11
    auth.refused()
    auth.headers_for("GET", bob.url)
    assert len(keycloak.requests) == 3


def test_a_bound_token_is_given_to_nobody_without_a_proof(
    keycloak: BindingKeycloak, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("KEYCLOAK_DPOP", "true")
    for auth in (ServiceTokenAuth("http://bob:8000"), ServiceTokenAuth("http://bob:8000", dpop=True)):
        for give in (auth.token, lambda auth=auth: asyncio.run(auth.atoken()), auth.for_grpc):
            with pytest.raises(ConfigurationError, match=r"auth\.headers_for\(method, url\)"):
                give()
    assert keycloak.requests == []


def test_grpc_channels_that_were_made_before_the_setting_give_no_bound_token(
    environment: pytest.MonkeyPatch, keycloak: BindingKeycloak
) -> None:
    environment.delenv("KEYCLOAK_URL")
    channels = ServiceTokenAuth("http://bob:8000").for_grpc()
    environment.setenv("KEYCLOAK_URL", "http://keycloak:8080")
    environment.setenv("KEYCLOAK_DPOP", "true")

    with pytest.raises(ConfigurationError, match="headers_for"):
        channels._rules.header()
    assert keycloak.requests == []


# Values


def test_objects_that_differ_in_dpop_differ(keycloak: BindingKeycloak) -> None:
    bound, bearer, unsaid = (ServiceTokenAuth("http://bob:8000", dpop=dpop) for dpop in (True, False, None))

    assert len({bound, bearer, unsaid}) == 3
    assert bound == ServiceTokenAuth("http://bob:8000", dpop=True)
    assert repr(bound) == "ServiceTokenAuth('http://bob:8000', dpop=True)"
    assert repr(unsaid) == "ServiceTokenAuth('http://bob:8000')"
    assert pickle.loads(pickle.dumps(bound)) == bound  # noqa: S301 - made here
    assert bound.asking(scope="x").headers_for("GET", "http://bob:8000")["DPoP"]
    assert bound.asking(scope="x") == ServiceTokenAuth("http://bob:8000", scope="x", dpop=True)
    crm = service_client("http://bob:8000", dpop=True)
    assert crm != service_client("http://bob:8000")
    assert pickle.loads(pickle.dumps(crm)) == crm  # noqa: S301 - made here
    assert "dpop=True" in repr(crm)


def test_a_token_and_its_key_show_nothing_and_are_not_pickled(source: TokenSource, keycloak: BindingKeycloak) -> None:
    shared = source.token(settings(dpop=True), Wanted.of("bob", None))
    token = shared.get()
    assert token.binding is not None
    private = token.binding.key._private.as_dict(private=True)["d"]

    for thing in (token, token.binding, token.binding.key, shared, source, token.binding.prove("GET", "http://b", PIN)):
        assert private not in repr(thing)
        assert token.value not in repr(thing)
    for thing in (token.binding, token.binding.key):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        assert copy.deepcopy(thing) is copy.copy(thing) is thing


@needs_fork
def test_a_forked_child_gets_a_token_and_a_key_of_its_own(
    bob: Receiver, keycloak: BindingKeycloak, source: TokenSource
) -> None:
    auth, bearer = auth_for(bob), ServiceTokenAuth(bob.url, audience="bob")
    httpx.get(bob.url, auth=auth)
    httpx.get(bob.url, auth=bearer)
    wait_until_idle()

    def child() -> None:
        before = len(keycloak.requests)
        httpx.get(bob.url, auth=bearer)
        assert len(keycloak.requests) == before  # a bearer token is kept
        httpx.get(bob.url, auth=auth)
        assert len(keycloak.requests) == before + 1
        assert keycloak.shown[0].thumbprint != keycloak.shown[1].thumbprint

    assert in_child(child) == 0
    httpx.get(bob.url, auth=auth)
    first, _, _, in_the_child, after = proofs(bob)
    assert first is not None
    assert in_the_child is not None
    assert after is not None
    assert first.thumbprint == after.thumbprint != in_the_child.thumbprint
    assert bob.tokens[0] == bob.tokens[4] != bob.tokens[3]


def test_health_shows_which_tokens_are_bound(bob: Receiver) -> None:
    httpx.get(bob.url, auth=auth_for(bob))
    httpx.get(bob.url, auth=ServiceTokenAuth(bob.url, audience="bob"))

    assert [token.dpop for token in health(FastAPI()).tokens] == [True, False]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"token_type": "Bearer"}, "26.4"),
        ({"error": "invalid_request", "error_description": "DPoP HTTP URL mismatch"}, "--proxy-headers=xforwarded"),
        (
            {"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"},
            "SECRET",
        ),
    ],
)
def test_a_service_whose_token_is_not_bound_does_not_start(
    body: dict[str, Any], said: str, keycloak: BindingKeycloak
) -> None:
    keycloak.body = body
    lifespan = service_lifespan(service_client("http://bob:8000", audience="bob", dpop=True))

    async def start() -> None:
        async with lifespan(FastAPI()):
            pass

    with pytest.raises(TokenRequestError, match=re.escape(said)):
        asyncio.run(start())


CURES = {
    "DPoP HTTP URL mismatch": ("--proxy-headers=xforwarded", False),
    "DPoP proof has already been used": ("repeats POST", True),
    "DPoP proof is not active": ("this machine's shows", True),
    "DPoP proof is missing": ("takes the header DPoP out", False),
    "DPoP header verification failure": ("joins or repeats", False),
}


@pytest.mark.parametrize(("description", "expected"), CURES.items(), ids=CURES)
def test_each_of_keycloaks_errors_about_a_proof_has_its_cure(
    description: str, expected: tuple[str, bool], bob: Receiver, keycloak: BindingKeycloak
) -> None:
    keycloak.always = refusal(400, "invalid_request", description)

    with pytest.raises(TokenRequestError) as raised:
        httpx.get(bob.url, auth=auth_for(bob))

    assert (expected[0] in raised.value.cure, raised.value.retryable) == (True, expected[1])
    assert len(keycloak.requests) == 1
    assert bob.seen == []


def test_a_client_that_must_send_proofs_is_told_how(bob: Receiver, keycloak: BindingKeycloak) -> None:
    keycloak.always = refusal(400, "invalid_request", "DPoP proof is missing")

    with pytest.raises(TokenRequestError) as raised:
        httpx.get(bob.url, auth=ServiceTokenAuth(bob.url))
    assert raised.value.cure.startswith("Set KEYCLOAK_DPOP=true")
