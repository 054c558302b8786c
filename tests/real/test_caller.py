"""The caller on real servers: what the stories do not tell."""

import asyncio
from pathlib import Path

import pytest

from example_app.realm import claims_of
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError
from tests.real.server import Keycloak
from tests.real.settings import settings_of


def refusal_of(settings: KeycloakSettings, scope: str | None = None) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as refused:
        ServiceTokenAuth(settings=settings, scope=scope).token()
    assert str(refused.value).count("\n") == 0
    return refused.value


def test_a_wrong_secret_names_its_variable_and_not_the_secret(every_keycloak: Keycloak) -> None:
    realm = every_keycloak.realm("corp")

    error = refusal_of(settings_of(realm, "chat-app-service", client_secret="not-the-secret-of-chat"))

    assert (error.http_status, error.error) == (401, "unauthorized_client")
    assert "Correct KEYCLOAK_CLIENT_SECRET" in error.cure
    assert "not-the-secret" not in str(error)
    assert not error.retryable


def test_a_scope_that_is_not_assigned_is_named(every_keycloak: Keycloak) -> None:
    realm = every_keycloak.realm("abc")

    error = refusal_of(settings_of(realm, "alice"), scope="no-such-scope")

    assert (error.http_status, error.error) == (400, "invalid_scope")
    assert "Assign no-such-scope to the client alice in Keycloak" in error.cure


def test_an_unknown_client_a_wrong_realm_and_a_stray_path_each_name_their_variable(every_keycloak: Keycloak) -> None:
    realm = every_keycloak.realm("corp")
    auth_path = "" if every_keycloak.auth_path else "/auth"

    unknown = refusal_of(settings_of(realm, "chat-app-service", client_id="chat-app-servise"))
    no_realm = refusal_of(settings_of(realm, "chat-app-service", realm="corpp"))
    stray = refusal_of(settings_of(realm, "chat-app-service", auth_path=auth_path))
    no_account = refusal_of(settings_of(realm, "crm-api-gateway"))

    assert "Set KEYCLOAK_CLIENT_ID: the realm corp has no enabled client 'chat-app-servise'" in unknown.cure
    assert "there is no realm corpp" in no_realm.cure
    assert "KEYCLOAK_AUTH_PATH" in stray.cure
    assert '"Service account roles" on for the client crm-api-gateway' in no_account.cure


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("secret", ["plain", "% + : / = & ?", "Пароль-é ü"])
def test_any_secret_authenticates_either_way(keycloak: Keycloak, method: str, secret: str) -> None:
    with keycloak.copy_of("corp") as realm:
        keycloak.admin.set_client_secret(realm.name, "chat-app-service", secret)
        settings = settings_of(realm, "chat-app-service", client_secret=secret, client_auth=method)

        token = ServiceTokenAuth(settings=settings, audience="crm-api-gateway").token()

    assert claims_of(token)["azp"] == "chat-app-service"


def test_a_secret_that_was_rotated_in_its_file_is_used_at_once(keycloak: Keycloak, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with keycloak.copy_of("corp") as realm:
        file.write_text(realm.secret("chat-app-service"))
        settings = settings_of(realm, "chat-app-service", client_secret=None, client_secret_file=file)
        auth = ServiceTokenAuth(settings=settings)
        keycloak.admin.set_client_secret(realm.name, "chat-app-service", "the next one")

        with pytest.raises(TokenRequestError, match=r"Correct the secret in .*KEYCLOAK_CLIENT_SECRET_FILE"):
            auth.token()
        file.write_text("the next one\n")
        token = auth.token()

    assert claims_of(token)["azp"] == "chat-app-service"


def test_tokens_for_different_audiences_never_mix_and_equal_ones_are_one(keycloak: Keycloak) -> None:
    settings = settings_of(keycloak.realm("abc"), "alice")
    bob = ServiceTokenAuth("http://bob", audience="bob", scope="untrusted-audience", settings=settings)
    charles = bob.asking(audience="charles", scope="charles-audience", origins=["http://charles"])
    both = bob.asking(audience=["bob", "charles"], scope=["charles-audience", "untrusted-audience"])

    async def ask() -> list[str]:
        auths = (bob, charles, both, bob.asking(scope="untrusted-audience"))
        return list(await asyncio.gather(*(auth.atoken() for auth in auths for _ in range(5))))

    tokens = asyncio.run(ask())

    audiences = [claims_of(token)["aud"] for token in (tokens[0], tokens[5])]
    assert audiences == ["bob", "charles"]
    assert set(claims_of(tokens[10])["aud"]) == {"bob", "charles"}
    assert len(set(tokens)) == 3
    assert tokens[15] == tokens[0]
