"""What mappers write into tokens, and the requirements that compare it: the same on real servers and in the realm model."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from example_app.realm import claims_of
from s2s_fastapi import (
    KeycloakSettings,
    Principal,
    Requirement,
    TokenVerifier,
    require_caller,
    require_claim,
    require_that,
    require_user,
)
from s2s_fastapi.realm.model import Granted, RealmModel
from tests.real.many_realms import with_keys
from tests.real.server import Keycloak
from tests.realm.realms import BASIC, SERVICE_ACCOUNT, audience, caller, claim, mapper, realm, user

NAME = "conditions"
DOCUMENT = realm(
    NAME,
    clientScopes=[BASIC, SERVICE_ACCOUNT],
    defaultDefaultClientScopes=["basic"],
    clients=[
        caller(
            "shop",
            defaultClientScopes=["basic", "service_account"],
            protocolMappers=[
                audience(custom="orders"),
                claim("tenant", "acme"),
                claim("level", "2", "long"),
                claim("beta", "true", "boolean"),
                claim("teams", '["blue", "green"]', "JSON"),
                claim("org.unit", "sales"),
                claim("a\\.b", "dotted"),
            ],
        ),
        {
            "clientId": "shop-ui",
            "publicClient": True,
            "directAccessGrantsEnabled": True,
            "defaultClientScopes": ["basic"],
            "protocolMappers": [
                audience(custom="orders"),
                mapper("usermodel-attribute", user_attribute="tenant", claim_name="tenant"),
                mapper("usermodel-attribute", user_attribute="username", claim_name="preferred_username"),
                mapper("usermodel-attribute", user_attribute="email", claim_name="email"),
                mapper(
                    "usermodel-property",
                    user_attribute="emailVerified",
                    claim_name="email_verified",
                    jsonType_label="boolean",
                ),
            ],
        },
    ],
    users=[
        user("ann", attributes={"tenant": ["acme"]}, emailVerified=True),
        user("bob", attributes={"tenant": ["umbrella"]}, emailVerified=False),
    ],
)
WRITTEN = ("tenant", "level", "beta", "teams", "org", "a.b", "preferred_username", "email", "email_verified")


@pytest.fixture(scope="module")
def conditions(keycloak: Keycloak) -> Iterator[Keycloak]:
    keycloak.admin.create_realm(with_keys(DOCUMENT))
    yield keycloak
    keycloak.admin.delete_realm(NAME)


def token(keycloak: Keycloak, **form: str) -> str:
    url = f"{keycloak.url}/realms/{NAME}/protocol/openid-connect/token"
    answer = httpx.post(url, data=form, trust_env=False, timeout=60).raise_for_status()
    access: str = answer.json()["access_token"]
    return access


def written(claims: Any) -> dict[str, Any]:
    return {name: claims[name] for name in WRITTEN if name in claims}


def test_what_mappers_write_is_compared_by_its_json_type_and_the_model_writes_the_same(conditions: Keycloak) -> None:
    verifier = TokenVerifier(KeycloakSettings(url=conditions.url, realm=NAME, client_id="orders"))
    model = RealmModel.read(DOCUMENT, version=conditions.version)

    def seen(access: str, foreseen: object) -> Principal:
        assert isinstance(foreseen, Granted)
        assert written(claims_of(access)) == written(foreseen.claims)
        return verifier.verify(access)

    shop = seen(
        token(conditions, grant_type="client_credentials", client_id="shop", client_secret="s"),
        model.service_token("shop"),
    )
    ann, bob = (
        seen(
            token(conditions, grant_type="password", client_id="shop-ui", username=name, password="p"),
            model.password(name, via="shop-ui"),
        )
        for name in ("ann", "bob")
    )

    def reasons(principal: Principal, *requirements: Requirement) -> list[str]:
        return [str(each.judge(principal).reason) for each in requirements]

    assert set(
        reasons(
            shop,
            require_caller("shop") & require_claim("tenant", "umbrella", "acme"),
            require_claim("level", 2),
            require_claim("beta", True),
            require_claim("teams", "green"),
            require_claim(("org", "unit"), "sales"),
            require_claim("a.b", "dotted"),
            require_that("two teams", lambda each: len(each.claims["teams"]) == 2),
        )
    ) == {"allowed"}
    assert set(
        reasons(
            shop,
            require_claim("tenant", "umbrella"),
            require_claim("level", "2"),
            require_claim("level", True),
            require_claim("level", 2.0),
            require_claim("beta", "true"),
            require_claim("beta", 1),
            require_claim("teams", "red"),
            require_claim("org.unit", "sales"),
            require_claim(("a", "b"), "dotted"),
        )
    ) == {"claim_missing"}
    assert "as long, expected" in require_claim("level", "2").judge(shop).cure
    assert 'require_claim(("org", "unit"), ...)' in require_claim("org.unit", "sales").judge(shop).cure

    tenant = require_user("shop-ui") & require_claim("tenant", "acme")
    assert reasons(ann, tenant) + reasons(bob, tenant) == ["allowed", "claim_missing"]
    assert (ann.username, ann.email) == ("ann", "ann@example.org")
    assert (bob.username, bob.email) == ("bob", None)
    assert (shop.username, shop.email) == (None, None)
