"""DPoP at the embedded issuer: what it refuses and binds, in Keycloak's words. `tests/real/test_dpop_parity.py` asks real servers the same."""

from typing import Any

import httpx
import pytest

from example_app.realm import claims_of
from s2s_fastapi.testing import EmbeddedIssuer
from tests.realm.proofs import KEYS, NAME, answers, document, form_of, post_to, proof

PATH = f"/realms/{NAME}/protocol/openid-connect/token"
URL = f"http://keycloak.test{PATH}"
BAD = "invalid_request"
UNREADABLE = "DPoP header verification failure"
NOT_SIGNED = (
    "DPoP verification failure: org.keycloak.exceptions.TokenSignatureInvalidException: Invalid token signature"
)
NO_SIGNATURE = "DPoP verification failure: org.keycloak.common.VerificationException: Signing failed"
MISSING = "DPoP mandatory claims are missing"
OTHERS = "Sender-constrained token exchange rejected as the token was not issued for the requesting client"
SAID: dict[str, list[str]] = {
    "DPoP proof is missing": [
        "empty",
        "forced, no proof",
        "forced-off, no proof",
        "a forced login, no proof",
        "no-flows, an empty proof",
        "exchange own bound, no proof",
        "exchange, the requester must prove, no proof",
        "exchange, not enabled, no proof",
        "exchange, nothing right, no proof",
    ],
    UNREADABLE: [
        *("garbage", "comma", "two headers", "four parts", "claims no JSON", "claims a list", "header no JSON"),
        *("header a list", "a JSON proof", "jwk text", "alg 'XX256'", "alg ''", "iat 'now'"),
        *("no-flows, a bad proof", "an unknown scope, a bad proof", "exchange, garbage and a bad proof"),
    ],
    "Invalid or missing type in DPoP header: null": ["without typ"],
    "Invalid or missing type in DPoP header: JWT": ["typ 'JWT'"],
    "Invalid or missing type in DPoP header: DPOP+JWT": ["typ 'DPOP+JWT'"],
    "No alg in DPoP header": ["without alg"],
    "Unsupported DPoP algorithm: none": ["alg 'none'", "alg none, no signature"],
    "Unsupported DPoP algorithm: HS256": ["alg 'HS256'", "alg HS256, signed with a secret"],
    "Unsupported DPoP algorithm: Ed25519": ["alg 'Ed25519'"],
    "No JWK in DPoP header": ["without jwk", "jwk null"],
    "Unsupported key type in DPoP header": ["jwk empty", "jwk of a secret", "jwk of an unknown kind"],
    "Private key material must not be present in DPoP JWK": [
        *(f"private key {name}" for name in ("ES256", "RS256", "EdDSA")),
    ],
    "Key with algorithm RS256 and type EC is incorrect for provider algorithm RS256": ["alg of another kind"],
    NO_SIGNATURE: ["no signature", "two parts", "alg of another curve"],
    NOT_SIGNED: ["one bit of the signature", "jwk of a stranger", "alg of the same kind", "signature and no jti"],
    MISSING: ["without iat", "without jti", "without htm", "without htu", "jti '   '", "no jti and htu"],
    "Malformed HTTP URL in DPoP proof": ["htu no URL", "htu spaces"],
    "DPoP HTTP URL mismatch": [
        *(f"htu {what}" for what in ("slash", "https", "host", "port", "path", "dots", "escaped", "user", "path only")),
        "htm and htu",
    ],
    "DPoP HTTP method mismatch": ["htm GET", "htm post", "htm and iat"],
    "DPoP proof is not active": ["iat -60", "iat -27", "iat 17", "iat 60"],
    "DPoP proof has already been used": [
        *("the same proof", "the same jti, another client", "the same jti, another key", "the same proof after that"),
    ],
    "DPoP confirmation doesn't match DPoP proof": ["exchange own bound, a proof by another key"],
    OTHERS: ["exchange bound, no proof", "exchange bound, a proof", "exchange service bound, a proof"],
}
BOUND = [
    *(f"key {name}" for name in KEYS),
    *("iat -23", "iat 14", "htu query", "htu fragment", "htu upper case scheme", "nonce", "ath", "jti 7", "padding"),
    *("forced, a proof", "light, a proof", "typed, a proof", "lower, a proof", "a login, a proof"),
    *("that proof after that", "the same jti, another spelling of htu", "exchange bearer, a proof"),
    *("exchange own bound, a proof", "exchange, the requester must prove"),
]


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """Give every answer of the issuer by its question."""
    return answers(post_to(EmbeddedIssuer(document())), URL)


@pytest.mark.parametrize(("said", "questions"), SAID.items(), ids=str)
def test_a_bad_proof_is_refused_in_keycloaks_words(answered: dict[str, Any], said: str, questions: list[str]) -> None:
    expected = (400, {"error": BAD, "error_description": said})
    assert {question: answered[question] for question in questions} == dict.fromkeys(questions, expected)


def test_a_good_proof_binds_the_token(answered: dict[str, Any]) -> None:
    for question in BOUND:
        claims = answered[question]["claims"]
        assert (claims["typ"], claims["cnf"]["kc-jkt-type"]) == ("DPoP", "DPoP"), question
    assert answered["free, no proof"]["token_type"] == "Bearer"
    assert answered["key RS256"]["claims"]["cnf"]["jkt"] == "RS256"
    assert answered["lower, a proof"]["token_type"] == "dpop"


def test_only_the_refresh_token_of_a_public_client_is_bound(answered: dict[str, Any]) -> None:
    assert answered["a login, a proof"]["refresh"] == "ES256"
    assert answered["session, a proof"]["refresh"] == answered["a login, no proof"]["refresh"] == ""


def test_a_key_that_cannot_be_read_is_the_failure_of_the_server(answered: dict[str, Any]) -> None:
    for question in ("jwk of another key", "jwk without a curve"):
        assert answered[question][0] == 500


def test_who_is_refused_before_does_not_use_up_the_proof(answered: dict[str, Any]) -> None:
    assert answered["a wrong secret, a bad proof"][1]["error"] == "unauthorized_client"
    assert answered["a parameter twice, a bad proof"][1]["error_description"] == "duplicated parameter"
    assert answered["that proof after that"]["token_type"] == "DPoP"


def test_a_release_without_dpop_ignores_the_attribute_and_every_proof() -> None:
    old = answers(post_to(EmbeddedIssuer(document(), version="26.0.8")), URL)
    given = [answer for answer in old.values() if isinstance(answer, dict)]
    assert len(given) > 100
    assert {answer["token_type"].lower() for answer in given} == {"bearer"}
    assert not any("cnf" in answer["claims"] for answer in given)
    assert "DPoP" not in str([answer for answer in old.values() if not isinstance(answer, dict)])


@pytest.mark.parametrize(("offset", "good"), [(-26, False), (-25, True), (15, True), (16, False)])
def test_the_limits_of_time_are_those_of_keycloak_to_the_second(offset: int, good: bool) -> None:
    now = 1_900_000_000
    issuer = EmbeddedIssuer(document(), clock=lambda: now)
    status, _ = post_to(issuer)(form_of(), [("DPoP", proof(URL, claims={"iat": now + offset}))])
    assert (status == 200) is good


def test_a_jti_is_used_up_until_its_proof_has_run_out() -> None:
    now = [1_900_000_000]
    issuer = EmbeddedIssuer(document(), clock=lambda: now[0])

    def status(iat: int) -> int:
        return post_to(issuer)(form_of(), [("DPoP", proof(URL, claims={"iat": iat, "jti": "one"}))])[0]

    assert status(now[0]) == 200
    now[0] += 25
    assert status(now[0]) == 400
    now[0] += 1
    assert status(now[0]) == 200


def test_the_url_of_a_proof_is_the_one_that_was_called_and_not_the_public_one() -> None:
    issuer = EmbeddedIssuer(document(), public_url="https://sso.example.com")
    form = {"grant_type": "client_credentials", "client_id": "free", "client_secret": "s"}
    with httpx.Client(transport=issuer.transport()) as client:
        for called, named, status in (
            ("http://keycloak.internal:8080", "http://keycloak.internal:8080", 200),
            ("http://keycloak.internal:8080", "https://sso.example.com", 400),
            ("https://sso.example.com", "https://sso.example.com", 200),
            ("https://sso.example.com", "http://sso.example.com", 400),
        ):
            headers = {"DPoP": proof(f"{named}{PATH}"), "X-Forwarded-Host": "sso.example.com"}
            answer = client.post(f"{called}{PATH}?x=1", data=form, headers=headers)
            assert answer.status_code == status, (called, named)


def test_over_a_socket_and_as_an_asgi_app_the_proof_is_the_same() -> None:
    issuer = EmbeddedIssuer(document())
    form = {"grant_type": "client_credentials", "client_id": "forced", "client_secret": "s"}
    with issuer.serving() as server, httpx.Client(trust_env=False) as client:
        url = f"{server.url}{PATH}"
        answer = client.post(url, data=form, headers={"DPoP": proof(url)}).json()
        twice = client.post(url, data=form, headers=[("DPoP", proof(url)), ("DPoP", proof(url))])
    assert claims_of(answer["access_token"])["cnf"]["jkt"] == KEYS["ES256"][1].thumbprint()
    assert twice.json()["error_description"] == UNREADABLE


def test_the_metadata_name_the_algorithms_of_proofs() -> None:
    page = f"/realms/{NAME}/.well-known/openid-configuration"
    for version, there in (("26.7.3", True), ("26.4.0", True), ("26.3.5", False), ("26.0.8", False)):
        with httpx.Client(transport=EmbeddedIssuer(document(), version=version).transport()) as client:
            shown = client.get(f"http://keycloak.test{page}").json().get("dpop_signing_alg_values_supported")
        assert (shown is not None and "ES256" in shown and "HS256" not in shown) is there
