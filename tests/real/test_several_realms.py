"""One app that trusts two realms of a real server, with the same clients in both. The second one is hostile as far as Keycloak lets it be."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from example_app.realm import Realm
from s2s_fastapi import CurrentPrincipal, ServiceAuthMiddleware, require_caller
from s2s_fastapi.caller.auth import ServiceTokenAuth
from tests.kit.receiving import Observed
from tests.real.server import Keycloak
from tests.real.settings import settings_of

CALLER = "chat-app-service"


class TwoRealms:
    """Two copies of one realm on one server, and the app that trusts both."""

    def __init__(self, corp: Realm, partners: Realm) -> None:
        self.corp, self.partners = corp, partners
        self.observed = Observed()
        app = FastAPI(openapi_url=None)
        given = [
            settings_of(corp, "crm-api-gateway"),
            settings_of(partners, "crm-api-gateway", name="partners"),
        ]
        app.add_middleware(ServiceAuthMiddleware, settings=given, observer=self.observed)

        @app.get("/ours", dependencies=[Depends(require_caller(CALLER))])
        def ours(caller: CurrentPrincipal) -> str:
            return caller.issuer

        @app.get("/theirs", dependencies=[Depends(require_caller(CALLER, realm="partners"))])
        def theirs(caller: CurrentPrincipal) -> str:
            return caller.issuer

        self.client = TestClient(app)

    def asked(self, path: str, token: str) -> str:
        """Return the issuer that the route saw, or why the caller was refused."""
        answer = self.client.get(path, headers={"Authorization": f"Bearer {token}"})
        return str(answer.json()) if answer.status_code == 200 else str(self.observed.decisions[-1].reason)


@pytest.fixture
def two(keycloak: Keycloak) -> Iterator[TwoRealms]:
    with ExitStack() as stack:
        realms = TwoRealms(*(stack.enter_context(keycloak.copy_of("corp")) for _ in range(2)))
        stack.enter_context(realms.client)
        yield realms


def test_the_same_client_in_two_realms_is_two_callers(two: TwoRealms) -> None:
    ours, theirs = (realm.service_token(CALLER) for realm in (two.corp, two.partners))
    assert two.asked("/ours", ours) == two.corp.issuer
    assert two.asked("/theirs", theirs) == two.partners.issuer
    assert two.asked("/ours", theirs) == "other_realm"
    assert two.asked("/theirs", ours) == "other_realm"


def test_two_realms_with_one_key_and_one_kid_are_still_two(keycloak: Keycloak, two: TwoRealms) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    for realm in (two.corp, two.partners):
        keycloak.admin.request(
            "POST",
            f"/{realm.name}/components",
            {
                "name": "the same",
                "providerId": "rsa",
                "providerType": "org.keycloak.keys.KeyProvider",
                "config": {"priority": ["1000"], "algorithm": ["RS256"], "privateKey": [pem]},
            },
        )
    kids = {keycloak.admin.signing_kid(realm.name) for realm in (two.corp, two.partners)}
    assert len(kids) == 1
    ours, theirs = (realm.service_token(CALLER) for realm in (two.corp, two.partners))
    assert two.asked("/ours", ours) == two.corp.issuer
    assert two.asked("/theirs", theirs) == two.partners.issuer
    assert two.asked("/ours", theirs) == "other_realm"


def test_a_revocation_and_new_keys_of_one_realm_leave_the_other_as_it_is(keycloak: Keycloak, two: TwoRealms) -> None:
    ours, theirs = (realm.service_token(CALLER) for realm in (two.corp, two.partners))
    assert two.asked("/theirs", theirs) == two.partners.issuer
    keycloak.admin.set_not_before(two.partners.name, int(time.time()) + 3600)
    keycloak.admin.rotate_keys(two.partners.name)  # so that the realm is asked again
    assert two.asked("/theirs", two.partners.service_token(CALLER)) == "revoked"
    assert two.asked("/theirs", theirs) == "revoked"
    assert two.asked("/ours", ours) == two.corp.issuer
    keycloak.admin.rotate_keys(two.corp.name)
    assert two.asked("/ours", two.corp.service_token(CALLER)) == two.corp.issuer


def test_each_settings_get_tokens_of_their_own_realm_only(two: TwoRealms) -> None:
    tokens = [
        ServiceTokenAuth("http://crm.test", settings=settings_of(realm, CALLER), audience="crm-api-gateway").token()
        for realm in (two.corp, two.partners)
    ]
    assert two.asked("/ours", tokens[0]) == two.corp.issuer
    assert two.asked("/ours", tokens[1]) == "other_realm"
    assert two.asked("/theirs", tokens[1]) == two.partners.issuer
