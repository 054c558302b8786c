"""The tokens that a plan is about, as the realm model predicts them: what they hold, what they lack, and what nobody asked for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.names import EVERYBODYS_AUDIENCE
from s2s_fastapi.operations.snapshot import Snapshot
from s2s_fastapi.operations.wanted import RealmFinding, Severity, Wanted, WantedCall
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import Denied
from s2s_fastapi.text import listed, named

__all__ = ["Predicted", "claims_of", "same_claims", "token_findings"]

_CLAIMS: Final = ("aud", "client_id", "scope", "realm_access", "resource_access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One token that a caller requests: its claims before and after the plan. Empty: Keycloak refuses the request."""

    caller: str
    request: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def claims_of(realm: Snapshot, caller: str, request: str | None) -> dict[str, Any]:
    """Return the claims that a plan shows of the token of a service; none if Keycloak refuses the request."""
    granted = realm.model.service_token(caller, scope=request)
    if isinstance(granted, Denied):
        return {}
    return {name: granted.claims[name] for name in _CLAIMS if name in granted.claims}


def same_claims(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two tokens give the same, in whatever order their claims list it."""
    return _given_by(one) == _given_by(other)


def _given_by(claims: Mapping[str, Any]) -> tuple[object, ...]:
    return claims.get("client_id"), _audiences(claims), frozenset(str(claims.get("scope", "")).split()), _roles(claims)


def token_findings(realm: Snapshot, wanted: Wanted, callers: Collection[str]) -> Iterator[RealmFinding]:
    """Yield where a token lacks something after all steps, or has more: by settings of the realm that no step of a plan changes."""
    unasked: dict[tuple[str, str], set[str]] = {}
    for call in wanted.calls:
        if call.caller not in callers:
            continue
        claims = claims_of(realm, call.caller, call.request)
        if problem := next(_lacking(realm, wanted, call, claims), ""):
            request = f" with the scope {named(call.request)}" if call.request else ""
            yield RealmFinding(
                Severity.OPEN,
                f"After all steps {named(call.caller)} still cannot call {listed(call.audiences)}{request}: {problem}.",
            )
        for audience in _audiences(claims) - wanted.reach.get(call.caller, frozenset()):
            unasked.setdefault((call.caller, audience), set()).update(_sources(realm, call, audience))
    for (caller, audience), sources in unasked.items():
        # Roles of Keycloak's client for user accounts put it into nearly every token of a realm.
        usual = audience == EVERYBODYS_AUDIENCE
        # A role that the plan grants puts its owner there too, for as long as the caller has it.
        roles = {each.role for each in wanted.roles if (each.caller, each.role.client) == (caller, audience)}
        roles &= realm.granted(caller)
        cure = (
            f"{named(caller)} has the role {listed(role.name for role in roles)} of it, as it shall."
            if roles
            else "Take it away there, or declare the call."
        )
        yield RealmFinding(
            Severity.NOTE if usual or roles else Severity.OPEN,
            f"The token of {named(caller)} is also for {named(audience)}, and no access file asks for that: it comes by"
            f" {' and by '.join(sorted(sources)) or 'a mapper that is not known'}. {cure}",
        )


def _lacking(realm: Snapshot, wanted: Wanted, call: WantedCall, claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a token lacks, as the end of a sentence."""
    client = realm.client(call.caller) or {}
    lightweight = client.get("attributes", {}).get("client.use.lightweight.access.token.enabled") == "true"
    light = f", because “Always use lightweight access token” of the client {named(call.caller)} is on: switch it off"
    because = light if lightweight else ""
    if not claims:
        yield "Keycloak would refuse its token request"
    if lacking := {*call.audiences} - _audiences(claims):
        yield f"its token would lack the audience {listed(lacking)}{because}"
    if claims.get("client_id") != call.caller:
        yield f"its token would lack client_id, so no receiver accepts it as a service's{because}"
    required = {each.scope for each in wanted.scopes if each.caller == call.caller}
    assigned = {*client["defaultClientScopes"], *{*call.scopes}.intersection(client["optionalClientScopes"])}
    for name in sorted((required & assigned).difference(str(claims.get("scope", "")).split(" "))):
        hidden = "“Include in token scope” is off"
        dropped = "it counts only for callers with certain roles, which it lacks"
        why = hidden if realm.in_effect(call.caller, name) else dropped
        yield f"its token would lack the client scope {named(name)}, because {why}"
    roles = {each.role for each in wanted.roles if each.caller == call.caller} & realm.granted(call.caller)
    if left := roles - _roles(claims):
        yield f"its token would lack the role {listed(role.name for role in left)}, because no mapper puts it there"


def _sources(realm: Snapshot, call: WantedCall, audience: str) -> Iterator[str]:
    """Yield which mappers put an audience into a token."""
    found = realm.model.provenance(call.caller, scope=call.request)
    for source in found.sources if found is not None else ():
        if audience in source.audiences:
            yield f"the mapper {named(source.mapper)} of the client scope {named(source.scope)}"


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    found = claims.get("aud", ())
    return frozenset((found,) if isinstance(found, str) else found)


def _roles(claims: Mapping[str, Any]) -> frozenset[Role]:
    owned = {"": claims.get("realm_access") or {}, **(claims.get("resource_access") or {})}
    return frozenset(Role(owner, name) for owner, access in owned.items() for name in access.get("roles", ()))
