"""Token requests that another issuer's token proves: what goes out, how refusals are remembered, and what Keycloak's words mean."""

import copy
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller import credentials
from s2s_fastapi.caller.credentials import FederatedJwt, client_authentication
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.settings import KeycloakSettings
from tests.caller.fakes import Asked, Clock, Keycloak, jwt, refusal, reply, settings, wait_until_idle
from tests.caller.federated import CLUSTER, ISSUER, NOW, SUBJECT, federated, token

BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LOOKUP = "Invalid client or Invalid client credentials"


@pytest.fixture(autouse=True)
def no_secret(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("KEYCLOAK_CLIENT_SECRET")


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock by which tokens expire."""

    class Stopped(FederatedJwt):
        def __init__(self, **values: Any) -> None:
            super().__init__(**values, now=lambda: NOW + 1.0)

    monkeypatch.setattr(credentials, "FederatedJwt", Stopped)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(token())
    return file


@pytest.fixture
def granting(keycloak: Keycloak) -> Keycloak:
    keycloak.claims["azp"] = "chat-app-service"
    return keycloak


def replace(file: Path, text: str) -> None:
    """Put a new file in the place of the old one, as everybody does who writes tokens."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def refused(auth: ServiceTokenAuth) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        auth.token()
    return caught.value


def test_a_token_request_brings_the_token_of_the_file_and_nothing_else_that_proves(
    source: TokenSource, granting: Keycloak, file: Path
) -> None:
    assert ServiceTokenAuth(settings=federated(file)).token()

    (asked,) = granting.requests
    assert asked.headers == {}
    assert asked.form == {
        "grant_type": "client_credentials",
        "client_id": "chat-app-service",
        "client_assertion_type": BEARER,
        "client_assertion": token(),
    }


def test_the_file_is_read_for_each_request(source: TokenSource, granting: Keycloak, clock: Clock, file: Path) -> None:
    auth = ServiceTokenAuth(settings=federated(file))
    auth.token()
    replace(file, token(jti="2"))
    clock.now += 400
    auth.token()

    assert [asked.form["client_assertion"] for asked in granting.requests] == [token(), token(jti="2")]


@pytest.mark.parametrize(
    "claims",
    [{"aud": ["https://kubernetes.default.svc"]}, {"aud": [ISSUER, "other"]}, {"exp": NOW}, {"iat": NOW - 3700}],
)
def test_a_token_that_must_not_be_sent_is_not_sent(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path, claims: dict[str, Any]
) -> None:
    replace(file, token(**claims))
    auth = ServiceTokenAuth(settings=federated(file))

    assert "so it was not sent" in str(refused(auth))
    assert granting.requests == []

    replace(file, token())
    clock.now += 6
    assert auth.token()


def test_a_token_in_use_outlives_a_file_that_is_gone(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    auth = ServiceTokenAuth(settings=federated(file))
    first = auth.token()
    file.unlink()
    clock.now += 250

    assert auth.token() == first
    wait_until_idle()
    clock.now += 100
    with pytest.raises(ConfigurationError, match=r"KEYCLOAK_CLIENT_ASSERTION_FILE: .* cannot be read"):
        auth.token()


# Whose token it is


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"azp": "billing"}, "its token belongs to billing (azp), not to chat-app-service"),
        ({}, "its token does not say that it belongs to chat-app-service (azp)"),
        ({"azp": None}, "its token belongs to no client (azp)"),
        ({"azp": ["chat-app-service"]}, "its token belongs to no client (azp)"),
    ],
)
def test_a_token_that_keycloak_gave_to_another_client_is_not_used(
    source: TokenSource, keycloak: Keycloak, file: Path, claims: dict[str, Any], says: str
) -> None:
    keycloak.claims = claims

    assert says in str(refused(ServiceTokenAuth(settings=federated(file))))


def test_an_opaque_token_is_not_used(source: TokenSource, keycloak: Keycloak, file: Path) -> None:
    keycloak.answers = [reply(200, {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300})]

    assert "it is unknown whether it belongs to chat-app-service" in str(
        refused(ServiceTokenAuth(settings=federated(file)))
    )


def test_a_token_without_azp_is_used_where_a_secret_proves_the_client(source: TokenSource, keycloak: Keycloak) -> None:
    assert ServiceTokenAuth(settings=settings()).token()


# A key that Keycloak does not know yet


def test_a_new_key_that_is_refused_is_tried_again_every_3_s_and_after_20_s_every_30_s(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    granting.always = refusal(401, "invalid_client", LOOKUP)
    auth = ServiceTokenAuth(settings=federated(file))

    def requests_after(seconds: float) -> int:
        clock.now += seconds
        before = len(granting.requests)
        refused(auth)
        return len(granting.requests) - before

    error = refused(auth)
    assert error.retryable
    assert error.retry_after in (3, 4)  # a failure is remembered for up to a tenth more
    assert [requests_after(2.9), requests_after(0.5)] == [0, 1]
    assert [requests_after(3.4) for _ in range(4)] == [1] * 4  # 17 s
    assert requests_after(3.4) == 1  # 20.4 s
    assert [requests_after(3.4), requests_after(26), requests_after(4)] == [0, 0, 1]
    assert not refused(auth).retryable


def test_a_rotation_costs_no_call_while_a_token_is_usable(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    auth = ServiceTokenAuth(settings=federated(file))
    first = auth.token()
    replace(file, token(kid="k2"))
    granting.always = refusal(401, "invalid_client", LOOKUP)
    clock.now += 245  # the renewal is due, and the token is usable for 45 s more
    for _ in range(10):  # Keycloak fetches the new key after 10 s
        assert auth.token() == first
        wait_until_idle()
        clock.now += 1
    assert len(granting.requests) in (4, 5)  # 3 or 4 in vain

    granting.always = None
    clock.now += 2
    auth.token()
    wait_until_idle()
    assert auth.token() != first


def test_a_key_that_is_known_and_refused_is_remembered_30_s(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    auth = ServiceTokenAuth(settings=federated(file))
    auth.token()
    replace(file, token(jti="2"))  # another token, signed by the key of the first
    granting.always = refusal(401, "invalid_client", LOOKUP)
    clock.now += 400

    error = refused(auth)
    clock.now += 29
    refused(auth)

    assert not error.retryable
    assert len(granting.requests) == 2


@pytest.mark.parametrize("kid", ["k1", None])
def test_a_new_file_is_tried_at_once_after_a_refusal(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path, kid: str | None
) -> None:
    granting.answers = [refusal(401, "invalid_client", LOOKUP)]
    auth = ServiceTokenAuth(settings=federated(file))
    refused(auth)
    replace(file, token(kid=kid, jti="another"))

    assert auth.token()


def test_a_file_that_is_replaced_during_a_request_is_sent_at_once(
    source: TokenSource, granting: Keycloak, file: Path
) -> None:
    def swapped(asked: Asked) -> Any:
        replace(file, token(kid="k2"))
        return refusal(401, "invalid_client", LOOKUP)

    granting.answers = [swapped]

    assert ServiceTokenAuth(settings=federated(file)).token()
    assert [asked.form["client_assertion"] for asked in granting.requests] == [token(), token(kid="k2")]


def test_a_refusal_with_a_reason_has_nothing_to_do_with_a_new_key(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    granting.always = refusal(400, "invalid_client", "Invalid token audience")
    auth = ServiceTokenAuth(settings=federated(file))

    assert not refused(auth).retryable
    clock.now += 29
    refused(auth)
    assert len(granting.requests) == 1


@pytest.mark.parametrize("said", ["Token is not active", "Token was issued in the future"])
def test_a_token_that_was_issued_a_moment_ago_is_tried_again_soon(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path, said: str
) -> None:
    granting.answers = [refusal(400, "invalid_client", said)]
    auth = ServiceTokenAuth(settings=federated(file))

    error = refused(auth)
    clock.now += 6

    assert error.retryable
    assert auth.token()


# What Keycloak says

CURES = [
    (401, "invalid_client", LOOKUP, f"jwt.credential.sub must be {SUBJECT}, and jwt.credential.issuer must be the alias of the identity provider of {CLUSTER}."),
    (401, "unauthorized_client", LOOKUP, "clientAuthenticatorType must be federated-jwt"),
    (400, "invalid_client", "Invalid token audience", "Set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER to the issuer that Keycloak names"),
    (400, "invalid_client", "Multiple audiences not allowed", "made for that issuer (aud)"),
    (400, "invalid_client", "Token reuse detected", 'Set supportsClientAssertionReuse to "true" in the identity provider of'),
    (400, "invalid_client", "Token jti claim is required", 'Set supportsClientAssertionReuse to "true" in the identity provider of'),
    (400, "invalid_client", "Token was issued too far in the past to be used now", "of type kubernetes takes a token for 3600 s after its iat"),
    (400, "invalid_client", "Token is not active", f"Compare the clocks of Keycloak and of {CLUSTER}"),
    (400, "invalid_client", "Token was issued in the future", f"Compare the clocks of Keycloak and of {CLUSTER}"),
    (400, "invalid_client", "client_id parameter does not match authenticated client", f"Its subject is {SUBJECT}, and another client has"),
]  # fmt: skip


@pytest.mark.parametrize("case", CURES)
@pytest.mark.parametrize("dpop", [False, True])
def test_what_keycloak_says_names_what_to_change(
    source: TokenSource, granting: Keycloak, file: Path, case: tuple[int, str, str, str], dpop: bool
) -> None:
    status, said, description, cure = case
    granting.always = refusal(status, said, description)
    auth = ServiceTokenAuth("http://crm.test", settings=federated(file), audience="crm", dpop=dpop)

    with pytest.raises(TokenRequestError) as caught:
        auth.headers_for("GET", "http://crm.test/")

    error = caught.value
    assert cure in error.cure
    assert "{" not in error.cure
    assert (error.http_status, error.error, error.error_description) == (status, said, description)


def test_a_spiffe_id_has_no_issuer_to_name(source: TokenSource, granting: Keycloak, file: Path) -> None:
    replace(file, token(sub="spiffe://acme.test/chat", drop="iss"))
    granting.always = refusal(401, "invalid_client", LOOKUP)

    error = refused(ServiceTokenAuth(settings=federated(file)))

    assert granting.requests[0].form["client_assertion_type"].endswith(":jwt-spiffe")
    assert "the alias of the identity provider of type spiffe" in error.cure


def test_a_reused_token_is_not_sent_again_before_its_file_changes(
    source: TokenSource, granting: Keycloak, clock: Clock, file: Path
) -> None:
    granting.answers = [refusal(400, "invalid_client", "Token reuse detected")]
    auth = ServiceTokenAuth(settings=federated(file))
    assert not refused(auth).retryable
    clock.now += 29
    refused(auth)
    assert len(granting.requests) == 1

    replace(file, token(jti="2"))
    assert auth.token()


def test_the_sentences_name_the_variables_of_these_settings(
    source: TokenSource, granting: Keycloak, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "URL": "http://keycloak:8080",
        "REALM": "corp",
        "CLIENT_ID": "chat-app-service",
        "CLIENT_AUTH": "federated_jwt",
        "CLIENT_ASSERTION_FILE": str(file),
    }.items():
        monkeypatch.setenv(f"PARTNERS_{name}", value)
    replace(file, token(aud="x"))
    error = refused(ServiceTokenAuth(settings=KeycloakSettings.from_environment(prefix="PARTNERS_")))

    assert str(error).startswith("PARTNERS_CLIENT_ASSERTION_FILE: ")
    assert "PARTNERS_PUBLIC_URL" in error.cure
    assert "KEYCLOAK_" not in f"{error} {error.cure}"


# Where it is not


def test_nothing_of_the_token_is_in_a_repr_an_exception_a_pickle_or_a_log(
    source: TokenSource, granting: Keycloak, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(asked: Asked) -> Any:
        return refusal(400, "invalid_client", f"not good: {asked.form['client_assertion']}")

    caplog.set_level(logging.DEBUG)
    granting.answers = [echo]
    chosen = federated(file)
    authentication = client_authentication(chosen)
    proof = authentication.prove()
    error = refused(ServiceTokenAuth(settings=chosen))

    shown = f"{authentication!r} {proof!r} {proof} {error} {error!r} {vars(error)!r} {chosen!r} {caplog.text}"
    pickled = pickle.dumps(error) + pickle.dumps(chosen) + pickle.dumps(copy.copy(error))
    for part in token().split("."):
        assert part not in shown
        assert part.encode() not in pickled
    assert "left out" in error.error_description


def halves(asked: Asked) -> Any:
    signature = asked.form["client_assertion"].rpartition(".")[2]
    return refusal(400, signature[:20], signature[20:])


def with_blanks(asked: Asked) -> Any:
    return refusal(400, "invalid_client", " ".join(asked.form["client_assertion"].rpartition(".")[2]))


def in_claim(name: str, part: int, **claims: Any) -> Any:
    def answer(asked: Asked) -> Any:
        text = ".".join(asked.form["client_assertion"].split(".")[part:])
        made = jwt(**{"azp": "chat-app-service", "aud": "x", "jti": "t", **claims, name: text})
        return reply(200, {"access_token": made, "token_type": "Bearer", "expires_in": 300})

    return answer


@pytest.mark.parametrize(
    "echo",
    [
        halves,
        with_blanks,
        in_claim("azp", 0),
        in_claim("azp", -1),
        in_claim("aud", -1),
        in_claim("jti", -1, aud="bob"),
        in_claim("iss", -1, aud="bob"),
        lambda asked: reply(
            200, {"access_token": "a.b.c", "token_type": "Bearer", "scope": asked.form["client_assertion"]}
        ),
    ],
)
def test_an_answer_that_repeats_a_part_of_the_token_shows_nothing_of_its_signature(
    source: TokenSource, keycloak: Keycloak, file: Path, caplog: pytest.LogCaptureFixture, echo: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    keycloak.answers = [echo]
    error = refused(ServiceTokenAuth(audience="bob", settings=federated(file)))

    shown = "".join(f"{error} {error!r} {vars(error)!r} {caplog.text}".split())
    signature = token().rpartition(".")[2]
    assert not any(signature[at : at + 16] in shown for at in range(len(signature) - 15))


@pytest.mark.parametrize("name", ["azp", "aud"])
def test_a_claim_that_is_a_token_is_not_shown(source: TokenSource, keycloak: Keycloak, file: Path, name: str) -> None:
    payload = ".".join(token().split(".")[:2])
    keycloak.claims = {"azp": "chat-app-service", "aud": "x", name: payload}

    assert "eyJ" not in str(refused(ServiceTokenAuth(audience="bob", settings=federated(file))))


def test_equal_values_prove_the_same_and_nothing_else_is_equal(file: Path, tmp_path: Path) -> None:
    one = client_authentication(federated(file))

    assert one == client_authentication(federated(file, leeway=1.0))
    others = [
        client_authentication(federated(tmp_path / "another")),
        client_authentication(federated(file, client_id="another")),
        client_authentication(federated(file, issuer="http://another/realms/corp", url="http://another")),
        client_authentication(settings()),
    ]
    assert len({one, *others}) == 5


def test_no_file_is_read_before_a_token_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "later"
    os.mkfifo(file)

    assert client_authentication(federated(file)).stamp() is not None
    ServiceTokenAuth(settings=federated(file))
