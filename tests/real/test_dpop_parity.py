"""DPoP at the token endpoint: the embedded issuer and real servers get the same proofs, and answer alike, claim by claim and word by word."""

from collections.abc import Sequence
from typing import Any

import httpx

from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.admin import PLAIN
from tests.real.many_realms import with_keys
from tests.real.server import NEWEST, Keycloak
from tests.realm.proofs import NAME, Post, answers, document, post_to

_URL = "/realms/{realm}/protocol/openid-connect/token"


def _post_to(client: httpx.Client, url: str) -> Post:
    def post(form: str, headers: Sequence[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        typed = ("Content-Type", "application/x-www-form-urlencoded")
        answer = client.post(url, content=form, headers=[typed, *headers])
        return answer.status_code, answer.json()

    return post


def test_the_embedded_issuer_judges_proofs_as_keycloak_does(keycloak: Keycloak) -> None:
    issuer = EmbeddedIssuer(document(), version=keycloak.version)
    url = f"{keycloak.url}{_URL.format(realm=NAME)}"
    keycloak.admin.create_realm(with_keys(document()))
    try:
        with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
            real = answers(_post_to(client, url), url)
    finally:
        keycloak.admin.delete_realm(NAME)
    embedded = answers(post_to(issuer), f"http://keycloak.test{_URL.format(realm=NAME)}")
    assert len(real) > 200
    assert embedded == real
    bound = [what for what, answer in real.items() if isinstance(answer, dict) and "cnf" in answer["claims"]]
    # Keycloak 26.0 knows DPoP as a preview feature that is off: it ignores the attribute and every proof.
    assert bool(bound) == (keycloak.version == NEWEST)


def test_both_name_the_same_algorithms_for_proofs_in_their_metadata(keycloak: Keycloak) -> None:
    page = "/realms/corp/.well-known/openid-configuration"
    with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
        real = client.get(f"{keycloak.url}{page}").json().get("dpop_signing_alg_values_supported")
    issuer = EmbeddedIssuer({"realm": "corp", "enabled": True}, version=keycloak.version)
    with httpx.Client(transport=issuer.transport()) as client:
        embedded = client.get(f"http://keycloak.test{page}").json().get("dpop_signing_alg_values_supported")
    assert sorted(embedded or ()) == sorted(real or ())
    assert bool(real) == (keycloak.version == NEWEST)
