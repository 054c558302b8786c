"""Realm JSON that a plan wrote, imported by a real server: it issues the tokens that the plan predicts."""

import time
from typing import Any

from example_app.realm import claims_of
from s2s_fastapi import (
    KeycloakSettings,
    ServiceTokenAuth,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
)
from s2s_fastapi.operations.plan import make_plan, question_of
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.wanted import wanted
from tests.kit.declaring import caller, receiver
from tests.real.conftest import Servers
from tests.real.server import NEWEST

APPS = (
    receiver(
        "ledger",
        require_caller("reporter") & require_role("read") & require_scope("ledger:read"),
        require_caller("reporter") & require_realm_role("partner"),
        require_caller("reporter", "auditor"),
    ),
    receiver("archive", require_caller("reporter"), audience="https://archive.example"),
    caller("reporter", "ledger", "https://archive.example"),
    caller("auditor", "ledger", scope="for-the-ledger"),
)


def test_the_realm_of_the_file_issues_the_predicted_tokens(keycloaks: Servers) -> None:
    keycloak = keycloaks(NEWEST)
    name = f"plan-file-{time.time_ns()}"
    empty = {"realm": name, "enabled": True}
    needed, findings = wanted(APPS, realm=name)
    snapshot = read_snapshot(RealmFile(empty, version=NEWEST), question_of(needed))
    plan = make_plan(snapshot, needed, findings, server="", issuer="")
    keycloak.admin.create_realm(realm_json(empty, plan))
    try:
        issued = {}
        for token in plan.tokens:
            client = keycloak.admin.client(name, token.caller)
            secret = keycloak.admin.get(f"/{name}/clients/{client['id']}/client-secret")["value"]
            settings = KeycloakSettings(url=keycloak.url, realm=name, client_id=token.caller, client_secret=secret)
            scope = token.request.split() if token.request else None
            claims = claims_of(ServiceTokenAuth(scope=scope, settings=settings).token())
            issued[token.caller, token.request] = comparable({key: claims[key] for key in token.after if key in claims})
            assert "account" not in issued[token.caller, token.request]["aud"]
    finally:
        keycloak.admin.delete_realm(name)

    assert issued == {(token.caller, token.request): comparable(token.after) for token in plan.tokens}
    assert len(issued) == 2
    assert issued["reporter", None]["resource_access"] == {"ledger": {"roles": ["read"]}}


def comparable(claims: Any) -> dict[str, Any]:
    audience = claims["aud"]
    return {
        **claims,
        "aud": sorted([audience] if isinstance(audience, str) else audience),
        "scope": sorted(claims["scope"].split()),
    }
