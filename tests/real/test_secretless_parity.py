"""Clients without a secret: the embedded issuer and real servers get the same assertions, and answer alike, claim by claim and word by word.

Certificates and SPIFFE need a server with other options: ``test_mtls.py`` asks about them.
"""

from typing import Any

import httpx
import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.admin import PLAIN
from tests.real.many_realms import with_keys
from tests.real.server import NEWEST, Keycloak
from tests.realm.realms import Representation, realm
from tests.realm.secretless import NAME, Send, document, federated_answers, providing, send_to

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _send_to(client: httpx.Client, url: str) -> Send:
    def send(form: str, _: str) -> tuple[int, dict[str, Any]]:
        answer = client.post(f"{url}/realms/{NAME}/protocol/openid-connect/token", content=form, headers=_FORM)
        return answer.status_code, answer.json()

    return send


def test_the_embedded_issuer_judges_the_tokens_of_other_issuers_as_keycloak_does(keycloak: Keycloak) -> None:
    new = keycloak.version == NEWEST
    with providing() as provider:
        made = document(provider.url, kubernetes=new)
        keycloak.admin.create_realm(with_keys(made))
        try:
            with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
                real = federated_answers(_send_to(client, keycloak.url), provider, keycloak.realm(NAME).issuer)
        finally:
            keycloak.admin.delete_realm(NAME)
        issuer = EmbeddedIssuer(made, version=keycloak.version)
        embedded = federated_answers(send_to(issuer, {}), provider, issuer.issuer(NAME))
    assert len(real) > 150
    assert embedded == real
    granted = {what for what, answer in real.items() if isinstance(answer, dict)}
    # Keycloak 26.0 knows no such clients: it grants a token to the one with a secret only.
    assert ("a pod" in granted) == new
    assert granted >= {"a secret beside it"}


def _provider(kind: str, **config: str) -> Representation:
    return {"alias": "k", "providerId": kind, "config": config}


@pytest.mark.parametrize(
    ("provider", "since", "refusal"),
    [
        (_provider("kubernetes", issuer="https://x.example"), "26.6", "needs Keycloak 26.6"),
        (
            _provider("oidc", issuer="https://x.example", supportsClientAssertions="true"),
            "26.0",
            "has no key to verify them",
        ),
    ],
    ids=["kubernetes", "no key"],
)
def test_both_refuse_a_realm_file_with_an_identity_provider_that_cannot_work(
    keycloak: Keycloak, provider: Representation, since: str, refusal: str
) -> None:
    made = realm("with-provider", identityProviders=[provider])
    notices = EmbeddedIssuer(made, version=keycloak.version).notices
    refused = (keycloak.version == NEWEST) == (since == "26.0")
    assert [refusal in notice.sentence for notice in notices if notice.refused] == [True] * refused
    if refused:
        with pytest.raises(RuntimeError):
            keycloak.admin.create_realm(made)
    else:
        keycloak.admin.create_realm(made)
        keycloak.admin.delete_realm("with-provider")
