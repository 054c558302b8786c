"""Requests for bound tokens on real servers: clocks that are wrong, signed assertions, and each refusal with its cure."""

import json
import secrets
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from example_app.realm import Realm, claims_of
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.proof import key as proof_key
from tests.real.conftest import Servers
from tests.real.server import NEWEST, Keycloak
from tests.real.settings import settings_of

CLIENT = "chat-app-service"
URL = "http://crm.test/tickets"


def calling(settings: KeycloakSettings, **options: Any) -> ServiceTokenAuth:
    given = {"audience": "crm-api-gateway", "dpop": True, **options}
    return ServiceTokenAuth("http://crm.test", settings=settings, **given)


def refused(settings: KeycloakSettings, **options: Any) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        calling(settings, **options).headers_for("GET", URL)
    return caught.value


def proof_in(headers: dict[str, str]) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(headers["DPoP"].split(".")[1] + "=="))
    return claims


def must_bind(keycloak: Keycloak, realm: Realm) -> None:
    there = keycloak.admin.client(realm.name, CLIENT)
    attributes = {**there["attributes"], "dpop.bound.access.tokens": "true"}
    keycloak.admin.request("PUT", f"/{realm.name}/clients/{there['id']}", {**there, "attributes": attributes})


@pytest.fixture(scope="module")
def keycloak(keycloaks: Servers) -> Keycloak:
    return keycloaks(NEWEST)


@pytest.mark.parametrize("off", [-10.0, 0.0, 10.0])
def test_a_clock_that_is_a_little_off_gets_its_tokens(off: float, keycloak: Keycloak) -> None:
    settings = settings_of(keycloak.realm("corp"), CLIENT)
    with using(TokenSource(wall=lambda: time.time() + off)):
        headers = calling(settings).headers_for("GET", URL)

    assert "jkt" in claims_of(headers["Authorization"].removeprefix("DPoP "))["cnf"]
    assert abs(proof_in(headers)["iat"] - time.time()) < 15


@pytest.mark.parametrize("off", [-480.0, 480.0])
def test_keycloak_itself_sends_no_date_so_a_clock_that_is_far_off_is_told(off: float, keycloak: Keycloak) -> None:
    settings = settings_of(keycloak.realm("corp"), CLIENT)
    with using(TokenSource(wall=lambda: time.time() + off)):
        error = refused(settings)

    assert error.error_description == "DPoP proof is not active"
    assert "Set the clocks: this machine's shows" in error.cure
    assert "has no Date" in error.cure
    assert error.retryable


def test_a_proof_that_was_used_is_told(keycloak: Keycloak, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(keycloak.realm("corp"), CLIENT)
    fixed = secrets.token_bytes(16)
    monkeypatch.setattr(secrets, "token_bytes", lambda _: fixed)
    with using(TokenSource()):
        calling(settings).headers_for("GET", URL)
        error = refused(settings, scope="profile")

    assert error.error_description == "DPoP proof has already been used"
    assert "repeats POST" in error.cure
    assert error.retryable


def test_a_client_that_must_bind_gets_bound_tokens_only_and_is_told_how(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as realm, using(TokenSource()):
        must_bind(keycloak, realm)
        settings = settings_of(realm, CLIENT)
        error = refused(settings, dpop=False)
        headers = calling(settings).headers_for("GET", URL)

    assert error.error_description == "DPoP proof is missing"
    assert error.cure.startswith("Set KEYCLOAK_DPOP=true")
    assert headers["Authorization"].startswith("DPoP ")


def test_an_address_that_a_proxy_hides_is_told(keycloak: Keycloak, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(keycloak.realm("corp"), CLIENT)
    called = proof_key._called
    monkeypatch.setattr(proof_key, "_called", lambda url: called(url).replace("http://", "https://"))
    with using(TokenSource()):
        error = refused(settings)

    assert error.error_description == "DPoP HTTP URL mismatch"
    assert "--proxy-headers=xforwarded" in error.cure


def test_a_service_without_a_secret_gets_bound_tokens(keycloak: Keycloak, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    done = CliRunner().invoke(command_line(), ["keygen", "--client-id", CLIENT, "--out", str(file)])
    with keycloak.copy_of("corp") as realm, using(TokenSource()):
        there = keycloak.admin.client(realm.name, CLIENT)
        keycloak.admin.request("PUT", f"/{realm.name}/clients/{there['id']}", json.loads(done.stdout))
        signing = {"client_secret": None, "client_auth": "private_key_jwt", "client_key_file": file}
        headers = calling(settings_of(realm, CLIENT, **signing)).headers_for("GET", URL)

    assert "jkt" in claims_of(headers["Authorization"].removeprefix("DPoP "))["cnf"]
