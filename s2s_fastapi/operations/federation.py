"""A client that an identity provider of the realm proves: what is in the way of it in a realm, and how both look in realm JSON."""

from collections.abc import Collection
from typing import Any

from s2s_fastapi.keycloak.client_authentication import SINCE, ByFederation, alias_in_use, client_fields, same_subject
from s2s_fastapi.operations.snapshot import Question, Snapshot
from s2s_fastapi.operations.wanted import RealmFinding, Severity
from s2s_fastapi.text import listed, named

__all__ = ["federated", "obstacle", "question_for"]


def question_for(client_id: str, how: ByFederation) -> Question:
    """Return what must be read of a realm to look for an obstacle."""
    return Question(clients=frozenset({client_id}), providers=frozenset({how.provider.alias}))


def obstacle(realm: Snapshot, client_id: str, how: ByFederation, *, replaced: Collection[str]) -> RealmFinding | None:
    """Return why this realm cannot let the client log in so, or None. No identity provider is changed to make room for it.

    ``replaced``: the clients of which an operator says that they may log in by this identity provider, if it has to be made.
    """
    who, provider = named(client_id), how.provider
    if realm.model.version < SINCE:
        return RealmFinding(
            Severity.OPEN,
            f"{who} proves itself by tokens of an identity provider (federated_jwt), and that needs Keycloak {'.'.join(map(str, SINCE))} or newer:"
            f" this server is {realm.version}, so nothing is planned for it.",
        )
    if others := [name for name in realm.proven(provider.alias, how.subject) if name != client_id]:
        problem = same_subject(provider.alias, how.subject, others)
        return RealmFinding(Severity.FORBIDDEN, f"{who} cannot log in as its access file says: {problem}.")
    found = realm.provider(provider.alias)
    if found is not None:
        problem = provider.difference(found)
        return (
            RealmFinding(
                Severity.OPEN,
                f"The identity provider {named(provider.alias)} is there, and {problem}. No plan changes an identity provider: nothing is planned for"
                f" {who}. Correct the access file, or name another alias.",
            )
            if problem
            else None
        )
    if others := [name for name in realm.naming(provider.alias) if name not in replaced]:
        problem = alias_in_use(provider.alias, others)
        return RealmFinding(Severity.FORBIDDEN, f"{who} cannot log in as its access file says: {problem}.")
    same = [
        str(one["alias"])
        for one in realm.document.get("identityProviders", ())
        if provider.issuer in (one["config"].get("issuer"), one["config"].get("trustDomain"))
    ]
    if same:
        return RealmFinding(
            Severity.OPEN,
            f"The identity provider {listed(same)} already has the issuer {named(provider.issuer)}, and Keycloak refuses a second one: nothing is"
            f" planned for {who}. Name {listed(same)} in its access file.",
        )
    return None


def federated(client_id: str, how: ByFederation) -> dict[str, Any]:
    """Return the identity provider and the client as members of realm JSON. Neither has a secret."""
    client = {
        "clientId": client_id,
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": False,
        "standardFlowEnabled": False,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": True,
        "fullScopeAllowed": False,
        **client_fields(provider=how.provider.alias, subject=how.subject),
    }
    return {"identityProviders": [how.provider.representation], "clients": [client]}
