"""Token exchange: the embedded issuer and real servers get the same requests, and answer alike, claim by claim and word by word."""

import time
from typing import Any

import httpx
import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.admin import PLAIN
from tests.real.conftest import Servers
from tests.real.many_realms import with_keys
from tests.real.server import NEWEST, Keycloak
from tests.realm.exchanges import (
    NAME,
    IssuerAdministrator,
    Post,
    answers,
    document,
    exchange_form,
    post_to,
    service_form,
)


class _Administrator:
    def __init__(self, keycloak: Keycloak) -> None:
        self._admin = keycloak.admin

    def logout(self, username: str) -> object:
        """Log the user out in a later second than that of any token: Keycloak keeps an offline session, and revokes tokens by the whole second."""
        time.sleep(1)
        return self._admin.request("POST", f"{self._user(username)}/logout")

    def change_user(self, username: str, *, enabled: bool) -> None:
        self._admin.request("PUT", self._user(username), {"enabled": enabled})

    def change_client(self, client_id: str, *, enabled: bool) -> None:
        self._admin.update_client(NAME, client_id, enabled=enabled)

    def _user(self, username: str) -> str:
        return f"/{NAME}/users/{self._admin.get(f'/{NAME}/users?username={username}&exact=true')[0]['id']}"


def _post_to(client: httpx.Client, keycloak: Keycloak, realm: str) -> Post:
    url = f"{keycloak.url}{keycloak.auth_path}/realms/{realm}/protocol/openid-connect/token"

    def post(form: str) -> tuple[int, dict[str, Any]]:
        answer = client.post(url, content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
        return answer.status_code, answer.json()

    return post


def test_the_embedded_issuer_exchanges_tokens_as_keycloak_does(keycloaks: Servers) -> None:
    keycloak, issuer = keycloaks(NEWEST), EmbeddedIssuer(document())
    keycloak.admin.create_realm(with_keys(document()))
    try:
        with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
            real = answers(_post_to(client, keycloak, NAME), _Administrator(keycloak))
    finally:
        keycloak.admin.delete_realm(NAME)
    embedded = answers(post_to(issuer), IssuerAdministrator(issuer))
    assert len(real) > 90
    assert embedded == real


@pytest.mark.parametrize("client_id", ["alice", "nobody"])
def test_keycloak_26_0_knows_no_exchange_whoever_asks(keycloaks: Servers, client_id: str) -> None:
    keycloak, issuer = keycloaks("26.0.8"), EmbeddedIssuer(document(), version="26.0.8")
    form = exchange_form("abc", client_id)
    with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
        real = _post_to(client, keycloak, "corp")(form)
    assert (
        real
        == post_to(issuer)(form)
        == (
            400,
            {"error": "unsupported_grant_type", "error_description": "Unsupported grant_type"},
        )
    )
    assert post_to(issuer)(service_form("alice"))[0] == 200
