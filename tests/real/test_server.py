"""The servers themselves: addresses, restarts, failures, and what the administrator changes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from example_app.realm import Realm, claims_of
from tests.real.server import NEWEST, Keycloak


def _json(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(url, timeout=30, trust_env=False).raise_for_status().json()
    return found


def _published(realm: Realm) -> set[str]:
    return {key["kid"] for key in _json(realm.jwks_url)["keys"] if key["use"] == "sig"}


def test_the_issuer_is_the_public_address_whichever_way_one_comes_in(keycloak_auth_path: Keycloak) -> None:
    realm = keycloak_auth_path.realm("techstore")
    port = keycloak_auth_path.port
    assert realm.issuer == f"http://auth.techstore.example:{port}/auth/realms/techstore"
    assert claims_of(realm.service_token("shop-api"))["iss"] == realm.issuer
    discovery = _json(f"{realm.internal}/.well-known/openid-configuration")
    assert discovery["issuer"] == realm.issuer
    assert discovery["token_endpoint"] == realm.token_url
    assert discovery["jwks_uri"] == realm.jwks_url


def test_a_server_under_auth_answers_nowhere_else(keycloak_auth_path: Keycloak, keycloak: Keycloak) -> None:
    without, stray = keycloak_auth_path.realm("corp"), keycloak.realm("corp")
    assert httpx.get(without.jwks_url.replace("/auth/", "/"), trust_env=False).status_code == 404
    assert httpx.get(stray.jwks_url.replace("/realms/", "/auth/realms/"), trust_env=False).status_code == 404


def test_a_service_is_configured_by_its_environment(keycloak: Keycloak, keycloak_auth_path: Keycloak) -> None:
    plain = keycloak.realm("corp").environment("chat-app-service")
    assert set(plain) == {"KEYCLOAK_URL", "KEYCLOAK_REALM", "KEYCLOAK_CLIENT_ID", "KEYCLOAK_CLIENT_SECRET"}
    under = keycloak_auth_path.realm("techstore").environment("shop-api")
    assert set(under) - set(plain) == {"KEYCLOAK_PUBLIC_URL", "KEYCLOAK_AUTH_PATH"}
    assert under["KEYCLOAK_AUTH_PATH"] == "/auth"
    assert under["KEYCLOAK_CLIENT_SECRET"] == keycloak_auth_path.realm("techstore").secret("shop-api")


def test_a_new_key_signs_at_once_and_the_old_one_stays_published_until_disabled(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as corp:
        old = keycloak.admin.signing_kid(corp.name)
        assert _published(corp) == {old}
        new = keycloak.admin.rotate_keys(corp.name)
        assert new != old
        assert _published(corp) == {old, new}
        keycloak.admin.disable_key(corp.name, old)
        assert _published(corp) == {new}


def test_not_before_shows_on_the_public_page(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as corp:
        assert _json(corp.internal)["tokens-not-before"] == 0
        now = int(time.time())
        keycloak.admin.set_not_before(corp.name, now)
        assert _json(corp.internal)["tokens-not-before"] == now


def test_a_replaced_secret_is_refused(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as corp:
        keycloak.admin.set_client_secret(corp.name, "billing", "another")
        form = {"grant_type": "client_credentials", "client_id": "billing"}
        refused = corp.ask(**form, client_secret=corp.secret("billing"))
        assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized_client")
        assert corp.ask(**form, client_secret="another").status_code == 200


def test_a_disabled_client_gets_no_token(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as corp:
        keycloak.admin.update_client(corp.name, "billing", enabled=False)
        refused = corp.ask(grant_type="client_credentials", client_id="billing", client_secret=corp.secret("billing"))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_an_export_holds_what_a_model_needs_and_no_secret(keycloak: Keycloak) -> None:
    exported = keycloak.admin.export_realm("abc")
    accounts = {user.get("serviceAccountClientId") for user in exported["users"]}
    assert {"alice", "alice-without-role", "alice-without-roles-scope"} <= accounts
    assert not any(value in str(exported) for value in keycloak.values.values())


def test_a_restart_keeps_address_keys_secrets_and_changes(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as corp:
        published = _published(corp)
        keycloak.admin.remove_scope(corp.name, "billing", "crm-audience")
        keycloak.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(corp.jwks_url, trust_env=False)
        keycloak.start()
        assert _published(corp) == published
        assert "aud" not in claims_of(corp.service_token("billing"))
        assert claims_of(keycloak.realm("corp").service_token("billing"))["aud"] == "crm-api-gateway"


def test_secrets_are_in_no_repr(keycloak: Keycloak) -> None:
    shown = repr([keycloak, keycloak.admin, keycloak.realm("corp")])
    assert not any(value in shown for value in keycloak.values.values())


@pytest.mark.usefixtures("keycloaks")
def test_a_start_that_fails_says_so_with_the_end_of_its_log() -> None:
    broken = Keycloak(NEWEST, environment={"KC_LOG_LEVEL": "no-such-level"})
    with pytest.raises(RuntimeError, match=r"(?s)ended while it started\..*no-such-level"), broken:
        pytest.fail("this server cannot start")


_STARTS_AND_WAITS = """
import sys, time
from tests.real.server import Keycloak
server = Keycloak(sys.argv[1])
server.start()
print(server.url, server._home, flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("keycloaks")
def test_a_server_does_not_outlive_a_killed_test_run(pytestconfig: pytest.Config) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS_AND_WAITS, NEWEST],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        url, home = run.stdout.readline().split()
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _answers(url):
        assert time.monotonic() < deadline, "the server still answers"
        time.sleep(0.1)
    shutil.rmtree(home, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True
