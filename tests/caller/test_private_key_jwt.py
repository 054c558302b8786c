"""Token requests that are signed: what goes out, what Keycloak's refusals mean, and what happens when the key's file changes."""

import json
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner

from s2s_fastapi import ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller.credentials import PrivateKeyJwt, client_authentication
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from tests.caller.fakes import Asked, Clock, Keycloak, refusal, reply, settings

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def new_key() -> bytes:
    return ECKey.generate_key("P-256").as_pem(private=True)


@pytest.fixture(autouse=True)
def no_secret(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("KEYCLOAK_CLIENT_SECRET")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(new_key())
    return file


def signing(file: Path, **changes: Any) -> KeycloakSettings:
    return settings(client_secret=None, client_auth="private_key_jwt", client_key_file=file, **changes)


def assertion_of(asked: Asked) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(asked.form["client_assertion"].split(".")[1] + "=="))
    return claims


def refused(auth: ServiceTokenAuth) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        auth.token()
    return caught.value


def test_a_token_request_brings_an_assertion_and_nothing_else_that_proves(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    ServiceTokenAuth(settings=signing(file)).token()

    (asked,) = keycloak.requests
    assert asked.headers == {}
    assert set(asked.form) == {"grant_type", "client_id", "client_assertion_type", "client_assertion"}
    assert (asked.form["client_id"], asked.form["client_assertion_type"]) == ("chat-app-service", TYPE)
    assert assertion_of(asked)["aud"] == "http://keycloak:8080/realms/corp"


def test_the_assertion_is_for_the_issuer_also_where_keycloak_is_reached_elsewhere(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    ServiceTokenAuth(settings=signing(file, public_url="https://sso.example")).token()

    assert keycloak.requests[0].url.startswith("http://keycloak:8080/")
    assert assertion_of(keycloak.requests[0])["aud"] == "https://sso.example/realms/corp"


def test_the_clock_is_asked_when_the_request_is_made(file: Path) -> None:
    now = 1000.0
    proof = PrivateKeyJwt(client_id="a", file=file, issuer="i", now=lambda: now)
    first = proof.prove()
    now = 2000.0

    issued = [
        json.loads(urlsafe_b64decode(one.form["client_assertion"].split(".")[1] + "=="))["iat"]
        for one in (first, proof.prove())
    ]
    assert issued == [1000, 2000]


def test_the_next_attempt_has_an_assertion_of_its_own(
    source: TokenSource, keycloak: Keycloak, clock: Clock, file: Path
) -> None:
    keycloak.answers = [refusal(503, "temporarily_unavailable")]
    auth = ServiceTokenAuth(settings=signing(file))
    refused(auth)
    clock.now += 6

    auth.token()

    first, second = (assertion_of(asked)["jti"] for asked in keycloak.requests)
    assert first != second


def test_a_key_that_is_refused_is_read_again_and_a_new_one_used_at_once(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    def rotated(asked: Asked) -> Any:
        file.write_bytes(new_key())
        return refusal(400, "invalid_client", "Unable to load public key")

    keycloak.answers = [rotated]

    assert ServiceTokenAuth(settings=signing(file)).token()
    first, second = keycloak.requests
    assert first.form["client_assertion"].split(".")[0] != second.form["client_assertion"].split(".")[0]
    assert assertion_of(first)["jti"] != assertion_of(second)["jti"]


def test_a_key_that_is_refused_is_not_tried_again_until_its_file_changes(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    keycloak.answers = [refusal(400, "invalid_client", "Unable to load public key")]
    auth = ServiceTokenAuth(settings=signing(file))

    refused(auth)
    refused(auth)
    assert len(keycloak.requests) == 1

    file.unlink()
    file.write_bytes(new_key() + b"\n")
    assert auth.token()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nMIG", b"{"])
def test_a_file_that_is_half_written_is_tried_again_after_5_s_and_its_token_stays(
    source: TokenSource, keycloak: Keycloak, clock: Clock, file: Path, content: bytes
) -> None:
    good = file.read_bytes()
    auth = ServiceTokenAuth(settings=signing(file))
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="KEYCLOAK_CLIENT_KEY_FILE"):
        auth.token()
    file.write_bytes(good)
    clock.now += 6

    assert auth.token()
    assert len(keycloak.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        ("Unable to load public key", "keygen --client-id chat-app-service --key"),
        (
            "Client authentication with signed JWT failed: Signature on JWT token failed validation",
            "keygen --client-id chat-app-service --key",
        ),
        ("Client authentication with signed JWT failed: Error when loading public keys: x", "keygen --client-id"),
        (
            "Invalid signature algorithm",
            '"Signature algorithm" of the client chat-app-service in Keycloak (Credentials page) to ES256',
        ),
        ("invalid signature algorithm", "(Credentials page) to ES256 or to any"),
        ("Invalid token audience", "the assertion is for http://keycloak:8080/realms/corp"),
        (
            "Client authentication with signed JWT failed: Token audience doesn't match domain. Expected",
            "KEYCLOAK_PUBLIC_URL",
        ),
        ("Token is not active", "Compare the clocks"),
        ("Token was issued in the future", "Compare the clocks"),
        ("Token was issued too far in the past to be used now", "Compare the clocks"),
    ],
)
def test_what_keycloak_says_of_an_assertion_names_its_cure_and_is_remembered_30_s(
    source: TokenSource, keycloak: Keycloak, clock: Clock, file: Path, said: tuple[str, str]
) -> None:
    description, cure = said
    keycloak.always = refusal(400, "invalid_client", description)
    auth = ServiceTokenAuth(settings=signing(file))

    error = refused(auth)
    clock.now += 29
    refused(auth)

    assert cure in error.cure
    assert not error.retryable
    assert len(keycloak.requests) == 1


def test_an_assertion_that_was_seen_twice_may_be_tried_again_soon(
    source: TokenSource, keycloak: Keycloak, clock: Clock, file: Path
) -> None:
    keycloak.answers = [refusal(400, "invalid_client", "Token reuse detected")]
    auth = ServiceTokenAuth(settings=signing(file))

    error = refused(auth)
    clock.now += 6

    assert "sends a token request twice" in error.cure
    assert error.retryable
    assert auth.token()


def test_a_client_that_is_set_to_the_other_way_has_its_own_cure(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    keycloak.answers = [
        refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
        refusal(400, "invalid_client", "Parameter client_assertion_type is missing"),
    ]

    assert (
        '"Client Authenticator" of the client chat-app-service in Keycloak to "Signed Jwt"'
        in refused(ServiceTokenAuth(settings=signing(file))).cure
    )
    assert "set KEYCLOAK_CLIENT_AUTH=private_key_jwt" in refused(ServiceTokenAuth(settings=settings())).cure


def test_an_echo_of_the_assertion_or_the_key_is_left_out(source: TokenSource, keycloak: Keycloak, file: Path) -> None:
    def echo(asked: Asked) -> Any:
        return refusal(500, "server_error", f"got {asked.form['client_assertion']}")

    keycloak.answers = [echo, reply(500, {"error": f"{file.read_text()}"})]

    errors = [refused(ServiceTokenAuth(settings=signing(file), scope=scope)) for scope in ("a", "b")]
    assert all("left out" in str(error) for error in errors)


def test_an_echo_of_an_earlier_assertion_is_left_out_too(source: TokenSource, keycloak: Keycloak, file: Path) -> None:
    earlier = client_authentication(signing(file)).prove().form["client_assertion"]
    keycloak.answers = [refusal(401, "invalid_client", f"token reuse detected: {earlier}")]

    error = refused(ServiceTokenAuth(settings=signing(file)))

    assert "token reuse detected: (left out)" in str(error)
    assert "sends a token request twice" in error.cure
    assert earlier.partition(".")[0] not in f"{error} {error!r}"


def test_equal_values_prove_the_same_and_nothing_else_is_equal(file: Path, tmp_path: Path) -> None:
    one = client_authentication(signing(file))

    assert one == client_authentication(signing(file, leeway=1.0))
    others = [
        client_authentication(signing(tmp_path / "another")),
        client_authentication(signing(file, client_id="another")),
        client_authentication(signing(file, issuer="http://another/realms/corp")),
        client_authentication(settings(client_secret=None, client_secret_file=file)),
        client_authentication(settings()),
    ]
    assert len({one, *others}) == 6


def test_neither_key_nor_assertion_is_in_a_repr(file: Path) -> None:
    authentication = client_authentication(signing(file))
    proof = authentication.prove()
    shown = f"{authentication!r} {proof!r} {proof}"

    assert proof.form["client_assertion"] not in shown
    assert file.read_text().splitlines()[1] not in shown


def test_authlib_is_not_loaded_before_the_first_assertion() -> None:
    program = (
        "import sys; from s2s_fastapi import *; from s2s_fastapi.caller.credentials import client_authentication;"
        " client_authentication(KeycloakSettings(url='http://k', realm='r', client_id='c', client_auth='private_key_jwt',"
        " client_key_file='/nowhere')); print([name for name in sys.modules if name.startswith(('authlib', 'joserfc'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_whole_way_to_an_issuer_that_checks_and_back(tmp_path: Path) -> None:
    printed = (
        CliRunner().invoke(command_line(), ["keygen", "--client-id", "chat", "--out", str(tmp_path / "key.pem")]).stdout
    )
    issuer = EmbeddedIssuer({"realm": "corp", "enabled": True, "clients": [json.loads(printed)]})
    with issuer.serving():
        environment = {
            name.removeprefix("KEYCLOAK_").lower(): value for name, value in issuer.environment("corp", "chat").items()
        }
        auth = ServiceTokenAuth(settings=KeycloakSettings(**environment, client_key_file=tmp_path / "key.pem"))
        assert auth.token()

    (exchange,) = issuer.requests("token")
    assert (exchange.client_id, exchange.status) == ("chat", 200)
    assert exchange.form["client_assertion"] not in repr(exchange)
