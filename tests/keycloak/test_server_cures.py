"""The receiver asks for keys and the caller for a token: the same fault gets the same cure."""

import socket
from collections.abc import Iterator

import pytest

from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenVerifier
from s2s_fastapi.errors import KeysUnavailable, TokenRequestError
from s2s_fastapi.keycloak.server_cures import answer_cure, unreachable_cure
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.realm import Realm

CERTS = "http://keycloak:8080/realms/corp/protocol/openid-connect/certs"
TOKEN = "http://keycloak:8080/realms/corp/protocol/openid-connect/token"


@pytest.fixture(scope="module")
def at_the_root() -> Iterator[str]:
    with EmbeddedIssuer({"realm": "corp"}).serving() as server:
        yield server.url


@pytest.fixture(scope="module")
def under_auth() -> Iterator[str]:
    with EmbeddedIssuer({"realm": "corp"}, auth_path="/auth").serving() as server:
        yield server.url


def cures(url: str, *, realm: str = "corp", **more: str) -> tuple[str, str]:
    """Return what the receiver says, and the cure of the caller."""
    settings = KeycloakSettings(url=url, realm=realm, client_id="crm", client_secret="a-secret", **more)
    with pytest.raises(KeysUnavailable) as of_receiver:
        TokenVerifier(settings).verify(Realm().token())
    with pytest.raises(TokenRequestError) as of_caller:
        ServiceTokenAuth(settings=settings).token()
    return str(of_receiver.value), of_caller.value.cure


def same(url: str, words: str, **more: str) -> None:
    receiver, caller = cures(url, **more)
    assert words in caller
    assert receiver.endswith(f". {caller}")


def test_https_on_a_port_for_http_is_not_confused_with_a_server_that_is_down(at_the_root: str) -> None:
    same(at_the_root.replace("http:", "https:"), "The port answers in plain http: write http:// in KEYCLOAK_URL")


def test_a_path_in_keycloak_url_that_the_server_does_not_have_is_named(at_the_root: str) -> None:
    same(f"{at_the_root}/auth", "The server does not run under /auth: correct KEYCLOAK_AUTH_PATH, or the path in")


def test_an_auth_path_that_the_server_does_not_have_is_named(at_the_root: str) -> None:
    same(
        at_the_root,
        "The server does not run under /auth: correct KEYCLOAK_AUTH_PATH, or the path in",
        auth_path="/auth",
    )


def test_an_auth_path_that_is_missing_is_named(under_auth: str) -> None:
    same(under_auth, "Set KEYCLOAK_AUTH_PATH=/auth if the server runs under /auth.")


def test_a_realm_that_does_not_exist_is_named(at_the_root: str) -> None:
    same(at_the_root, f"there is no realm Corp on {at_the_root}.", realm="Corp")


def test_a_server_that_is_down_is_named_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        same(url, f"Is Keycloak up at {url}, and is KEYCLOAK_URL right for this process?")


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (404, "realm does not exist", "there is no realm corp on http://keycloak:8080."),
        (404, "unable to find matching target resource method", "Set KEYCLOAK_AUTH_PATH=/auth if"),
        (404, "", "If that is right, KEYCLOAK_URL does not point at a Keycloak."),
        (403, "invalid_request https required", "Use https in KEYCLOAK_URL"),
        (403, "access_denied realm not enabled", "Enable the realm corp in Keycloak"),
        (400, "missingnormalization", "Remove double slashes from KEYCLOAK_URL"),
        (302, "", "Set KEYCLOAK_URL to the address that it redirects to"),
        (401, "", "it does not point at a Keycloak, or a proxy in front of Keycloak answers"),
        (499, "", "it does not point at a Keycloak"),
        (500, "", ""),
        (503, "", ""),
        (400, "some other error", ""),
    ],
)
def test_an_answer_has_the_same_cure_for_every_page(status: int, said: str, words: str) -> None:
    cure = answer_cure(CERTS, status, said)
    assert cure == answer_cure(TOKEN, status, said)
    assert words in cure
    assert bool(words) == bool(cure)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("certificate has expired", "Renew the certificate"),
        ("certificate is not yet valid", "Compare the clock of this host"),
        ("Hostname mismatch, certificate is not valid for 'keycloak'.", "a name that is in the certificate"),
        ("IP address mismatch, certificate is not valid for '127.0.0.1'.", "a name that is in the certificate"),
        ("CA cert does not include key usage extension", "keyUsage=critical,keyCertSign"),
        ("self-signed certificate", "Set KEYCLOAK_CA_FILE to it"),
        ("self-signed certificate in certificate chain", "a proxy that opens TLS has one of its own"),
        ("unable to get local issuer certificate", "send the whole chain"),
    ],
)
def test_a_certificate_that_is_not_trusted_has_the_cure_for_its_fault(said: str, words: str) -> None:
    assert words in unreachable_cure(CERTS.replace("http:", "https:"), f"its certificate is not trusted: {said}")


@pytest.mark.parametrize(
    ("url", "problem", "words"),
    [
        (CERTS, "the answer is not HTTP, or the connection was closed too early", "write https:// in KEYCLOAK_URL"),
        (
            CERTS.replace("http:", "https:"),
            "its certificate is not trusted: expired",
            "KEYCLOAK_URL or KEYCLOAK_CA_FILE",
        ),
        (CERTS.replace("http:", "https:"), "TLS failed: WRONG_VERSION_NUMBER", "plain http"),
        (CERTS.replace("http:", "https:"), "TLS failed: RECORD_LAYER_FAILURE", "plain http"),
        (CERTS, "no complete answer within 3 s", "Is Keycloak up at http://keycloak:8080"),
    ],
)
def test_no_answer_has_a_cure_for_what_went_wrong(url: str, problem: str, words: str) -> None:
    assert words in unreachable_cure(url, problem)


def test_a_server_that_answers_in_tls_is_not_advised_https_again() -> None:
    secure = CERTS.replace("http:", "https:")
    assert "https://" not in unreachable_cure(secure, "the answer is not HTTP").partition("?")[2]


def test_no_sentence_repeats_what_the_server_wrote() -> None:
    said = "realm does not exist hunter2"
    assert "hunter2" not in answer_cure(CERTS, 404, said)
