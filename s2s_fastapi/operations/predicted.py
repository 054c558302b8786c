"""The tokens that a plan is about, as the realm model predicts them: what they hold, what they lack, and what nobody asked for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT
from s2s_fastapi.names import EVERYBODYS_AUDIENCE
from s2s_fastapi.operations.snapshot import Snapshot, audience_of
from s2s_fastapi.operations.wanted import RealmFinding, Severity, Wanted, WantedCall
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.exchange import SubjectToken
from s2s_fastapi.realm.model import Denied
from s2s_fastapi.text import listed, named, names_in

__all__ = [
    "Predicted",
    "Users",
    "claims_of",
    "every_brought_by",
    "exchanged_claims",
    "same_claims",
    "token_findings",
    "users_of",
]

_CLAIMS: Final = ("aud", "client_id", "cnf", "scope", "realm_access", "resource_access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One token that a caller requests: its claims before and after the plan. Empty: Keycloak refuses the request."""

    caller: str
    request: str | None
    exchanged_for: tuple[str, ...] = ()
    """The audiences for which the token of a user is exchanged; empty for a token of the caller's own."""
    dpop: bool = False
    """Whether the request has a proof, so that the token is bound to its key."""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    def claims_in(self, realm: Snapshot) -> dict[str, Any]:
        """Return the claims that the token has in a realm."""
        if self.exchanged_for:
            return exchanged_claims(realm, self.caller, self.request, dpop=self.dpop)
        return claims_of(realm, self.caller, self.request, dpop=self.dpop)


def claims_of(realm: Snapshot, caller: str, request: str | None, *, dpop: bool = False) -> dict[str, Any]:
    """Return the claims that a plan shows of the token of a service; none if Keycloak refuses the request.

    With `dpop` the request has a proof. It has a client certificate: the token is bound to it if Keycloak binds the tokens of the client.
    """
    granted = realm.model.service_token(caller, scope=request, jkt=ANY_THUMBPRINT if dpop else "", x5t=ANY_THUMBPRINT)
    if isinstance(granted, Denied):
        return {}
    return {name: granted.claims[name] for name in _CLAIMS if name in granted.claims}


def exchanged_claims(
    realm: Snapshot, caller: str, request: str | None, audiences: Collection[str] = (), *, dpop: bool = False
) -> dict[str, Any]:
    """Return the claims that a plan shows of a token for which the token of a user was exchanged; none if Keycloak refuses that.

    It is the token of a user about whom nothing is known: without any role, so that client scopes with role mappings are left out.
    ``audiences`` are the parameter of the request. With `dpop` it has a proof.
    """
    granted = realm.model.exchanged(
        caller, SubjectToken.of_any_user(caller), scope=request, audiences=audiences, jkt=ANY_THUMBPRINT if dpop else ""
    )
    if isinstance(granted, Denied):
        return {}
    return {name: granted.claims[name] for name in _CLAIMS if name in granted.claims}


class Users(Enum):
    """Whether the tokens of users that a client logs in are for a service."""

    ALWAYS = "always"
    ON_REQUEST = "on request"
    """If the client requests an Optional client scope."""
    NEVER = "never"
    NO_CLIENT = "no client"


def users_of(realm: Snapshot, front_end: str, service: str) -> Users:
    """Return whether the tokens of the users of a client are for a service, as far as Audience mappers decide it."""
    client = realm.client(front_end)
    if client is None:
        return Users.NO_CLIENT
    default, optional = (
        any(service in every_brought_by(scope) for name in client.get(kind, ()) if (scope := realm.scope(name)))
        for kind in ("defaultClientScopes", "optionalClientScopes")
    )
    if default or service in every_brought_by(client):
        return Users.ALWAYS
    return Users.ON_REQUEST if optional else Users.NEVER


def every_brought_by(holder: Mapping[str, Any]) -> frozenset[str]:
    """Return the audiences that the mappers of a client scope, or of a client, put into access tokens."""
    return frozenset(audience for mapper in holder.get("protocolMappers", ()) if (audience := audience_of(mapper)))


def same_claims(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two tokens give the same, in whatever order their claims list it."""
    return _given_by(one) == _given_by(other)


def _given_by(claims: Mapping[str, Any]) -> tuple[object, ...]:
    scopes = frozenset(str(claims.get("scope", "")).split())
    return claims.get("client_id"), "cnf" in claims, _audiences(claims), scopes, _roles(claims)


def token_findings(realm: Snapshot, wanted: Wanted, callers: Collection[str]) -> Iterator[RealmFinding]:
    """Yield where a token lacks something after all steps, or has more: by settings of the realm that no step of a plan changes."""
    unasked: dict[tuple[str, str], set[str]] = {}
    for call in wanted.calls:
        if call.caller not in callers:
            continue
        on_behalf = " on behalf of users" if call.on_behalf else ""
        claims = _predicted(call).claims_in(realm)
        if problem := next(_lacking(realm, wanted, call, claims), ""):
            request = f" with the scope {named(call.request)}" if call.request else ""
            yield RealmFinding(
                Severity.OPEN,
                f"After all steps {named(call.caller)} still cannot call {listed(call.audiences)}{on_behalf}{request}: {problem}.",
            )
        if call.on_behalf:
            yield from _too_wide(call, _audiences(claims) - {*call.audiences})
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


def _predicted(call: WantedCall) -> Predicted:
    return Predicted(caller=call.caller, request=call.request, exchanged_for=call.exchanged_for, dpop=call.dpop)


def _too_wide(call: WantedCall, others: Collection[str]) -> Iterator[RealmFinding]:
    """Yield a note if the service that is called could send the user's token on."""
    if others:
        who = named(call.caller)
        yield RealmFinding(
            Severity.NOTE,
            f"The tokens of users that {who} exchanges for {listed(call.audiences)} are also for {listed(others)}, so {listed(call.audiences)} could send"
            f" them on. Request a client scope for each call (scope=... in the code of {who}): then it is Optional, and no other token has it.",
        )


def _lacking(realm: Snapshot, wanted: Wanted, call: WantedCall, claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a token lacks, as the end of a sentence."""
    client = realm.client(call.caller) or {}
    lightweight = client.get("attributes", {}).get("client.use.lightweight.access.token.enabled") == "true"
    light = f", because “Always use lightweight access token” of the client {named(call.caller)} is on: switch it off"
    because = light if lightweight else ""
    if not claims:
        yield f"Keycloak would refuse {'the exchange' if call.on_behalf else 'its token request'}"
    if lacking := {*call.audiences} - _audiences(claims):
        yield f"its token would lack the audience {listed(lacking)}{because}"
    if claims.get("client_id") != call.caller and not call.on_behalf:
        yield f"its token would lack client_id, so no receiver accepts it as a service's{because}"
    required = {each.scope for each in wanted.scopes if each.caller == call.caller}
    assigned = {*client["defaultClientScopes"], *{*call.scopes}.intersection(client["optionalClientScopes"])}
    for name in sorted((required & assigned).difference(str(claims.get("scope", "")).split(" "))):
        hidden = "“Include in token scope” is off"
        dropped = "it counts only for callers with certain roles, which it lacks"
        why = hidden if not realm.mapped("clientScope", name) or realm.in_effect(call.caller, name) else dropped
        yield f"its token would lack the client scope {named(name)}, because {why}"
    if call.on_behalf:  # a user has roles of his own
        return
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
    return frozenset(names_in(claims.get("aud")))


def _roles(claims: Mapping[str, Any]) -> frozenset[Role]:
    owned = {"": claims.get("realm_access") or {}, **(claims.get("resource_access") or {})}
    return frozenset(Role(owner, name) for owner, access in owned.items() for name in access.get("roles", ()))
