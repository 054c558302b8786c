"""Who may call whom: what the apps declare, beside what the realm grants."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, CallAccess, RouteEntry
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.operations.wanted import accepted_audiences
from s2s_fastapi.principal import Principal
from s2s_fastapi.realm.model import Denied, RealmModel
from s2s_fastapi.requirement.conditions import CONDITION_UNKNOWN, HasClaim, Scalar, with_claim
from s2s_fastapi.requirement.requirement import Audience, Caller, HasRole, HasScope
from s2s_fastapi.verifier.predicted import predicted_principal

__all__ = ["Relation", "RouteAnswer", "Status", "Unanswered", "judged", "relations", "unanswered"]

_ISSUED_AT: Final = 1
_EXPIRES_AT: Final = 2


class Status(StrEnum):
    """How what is declared and what is granted fit together: a closed list of stable names."""

    label: str
    problem: bool

    def __new__(cls, value: str, label: str, problem: bool) -> Self:
        """Make a member whose value is the name alone."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label, member.problem = label, problem
        return member

    WORKS = "works", "declared, and Keycloak grants it", False
    REFUSED = "refused", "declared, and the receiver would refuse the token", True
    NOT_GRANTED = "not_granted", "declared, and Keycloak grants no token for it", True
    NOT_ALLOWED = "not_allowed", "the caller declares it, and no route of the receiver allows this caller", True
    NOT_DECLARED = "not_declared", "Keycloak grants it, and no app declares it", True
    DECLARED = "declared", "declared; no realm was given to compare with", False
    ALLOWED = "allowed", "the receiver allows it; the caller's app was not given, or does not declare the call", False


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """What one route of the receiver answers to the token."""

    route: str
    accepted: bool
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """One service that calls, or may call, another."""

    caller: str
    receiver: str
    status: Status
    audiences: tuple[str, ...] = ()
    """The receiver's audiences that the token is, or should be, for."""
    scopes: tuple[str, ...] = ()
    """The scopes that the caller asks for; for a grant that nobody declares, the one that brings the audience."""
    routes: tuple[RouteAnswer, ...] = ()
    """Empty without a realm."""
    token: Mapping[str, Any] | None = None
    """The claims that Keycloak would issue, without dates and ids; None without a realm, or if Keycloak refuses."""
    note: str = ""
    """What Keycloak answers in place of a token, or why no receiver can read the token."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An audience that an app calls, and that none of the given apps accepts."""

    caller: str
    audience: str


def relations(files: Iterable[AccessFile], realm: RealmModel | None = None) -> tuple[Relation, ...]:
    """Return every pair of services of which one calls the other, or could.

    - Declared calls, and callers that a route names, come from the access files.
    - With a `realm`, each token is computed as Keycloak would issue it, and each route of the receiver judges it. Then there is also every
      client that Keycloak grants a receiver's audience, although no app declares that.
    """
    apps = {app.client_id: app for file in files for app in file.apps}
    receivers = [app for app in apps.values() if app.requires is not None]
    found: dict[tuple[str, str], Relation] = {}
    for caller in apps.values():
        for call in caller.calls:
            for receiver in receivers:
                if receiver.client_id != caller.client_id and accepted_audiences(receiver) & set(call.audiences):
                    found[caller.client_id, receiver.client_id] = _declared(caller.client_id, call, receiver, realm)
    for receiver in receivers:
        for name in sorted(_named(receiver) - {receiver.client_id}):
            found.setdefault((name, receiver.client_id), Relation(name, receiver.client_id, Status.ALLOWED))
    for relation in _granted(receivers, realm) if realm is not None else ():
        key = relation.caller, relation.receiver
        if key not in found or (found[key].status is Status.ALLOWED and key[0] in apps):
            found[key] = relation
        elif found[key].status is Status.ALLOWED:
            found[key] = replace(relation, status=Status.ALLOWED)
    return tuple(sorted(found.values(), key=lambda each: (each.receiver, each.caller)))


def unanswered(files: Iterable[AccessFile]) -> tuple[Unanswered, ...]:
    """Return the audiences that apps call, and that none of the apps in the files accepts."""
    apps = [app for file in files for app in file.apps]
    accepted = {name for app in apps for name in accepted_audiences(app)}
    return tuple(
        Unanswered(app.client_id, audience)
        for app in apps
        for audience in sorted({name for call in app.calls for name in call.audiences} - accepted)
    )


def _declared(caller: str, call: CallAccess, receiver: AppAccess, realm: RealmModel | None) -> Relation:
    audiences = tuple(sorted(accepted_audiences(receiver) & set(call.audiences)))
    relation = Relation(caller, receiver.client_id, Status.DECLARED, audiences, call.scopes)
    if not _may_ever(caller, receiver):
        return replace(relation, status=Status.NOT_ALLOWED)
    if realm is None:
        return relation
    granted = realm.service_token(caller, scope=" ".join(call.scopes) or None, peer="127.0.0.1")
    if isinstance(granted, Denied):
        note = f"{granted.status} {granted.error}{granted.description and f': {granted.description}'}"
        return replace(relation, status=Status.NOT_GRANTED, note=note)
    principal = predicted_principal(granted.claims)
    if isinstance(principal, Decision):
        return replace(relation, status=Status.REFUSED, token=granted.claims, note=principal.cure)
    relation = replace(relation, token=granted.claims, routes=judged(principal, receiver))
    if not principal.audiences & set(audiences):
        return replace(relation, status=Status.NOT_GRANTED)
    accepted = any(answer.accepted for answer in relation.routes)
    return replace(relation, status=Status.WORKS if accepted else Status.REFUSED)


def _granted(receivers: list[AppAccess], realm: RealmModel) -> Iterator[Relation]:
    """Yield each client whose tokens are for a receiver: its plain token, and with each scope that it may ask for."""
    for caller in realm.service_client_ids:
        left = {receiver.client_id: receiver for receiver in receivers if receiver.client_id != caller}
        for scope in (None, *realm.optional_scopes(caller)):
            granted = realm.service_token(caller, scope=scope, peer="127.0.0.1")
            if isinstance(granted, Denied):
                continue
            principal = predicted_principal(granted.claims)
            if isinstance(principal, Decision):
                continue
            for receiver in list(left.values()):
                audiences = tuple(sorted(principal.audiences & accepted_audiences(receiver)))
                routes = judged(principal, receiver) if audiences else ()
                if any(answer.accepted for answer in routes):
                    del left[receiver.client_id]
                    asked = () if scope is None else (scope,)
                    yield Relation(
                        caller, receiver.client_id, Status.NOT_DECLARED, audiences, asked, routes, granted.claims
                    )


def judged(principal: Principal, receiver: AppAccess) -> tuple[RouteAnswer, ...]:
    """Return what each route of an app that needs a token answers to a caller."""
    return tuple(_answer(principal, receiver, route) for route in receiver.routes if not route.open)


def _answer(principal: Principal, receiver: AppAccess, route: RouteEntry) -> RouteAnswer:
    decisions: list[Decision] = [
        requirement.judge(principal, receiver.client_id)
        for requirement in (receiver.requires, route.requires)
        if requirement is not None
    ]
    refusal = next((decision for decision in decisions if decision.reason is not Reason.ALLOWED), None)
    if refusal is None:
        return RouteAnswer(route.name, accepted=True)
    if refusal.reason is Reason.CONDITION_NOT_MET:  # known by its name only: all else holds
        return RouteAnswer(route.name, accepted=True, reason=CONDITION_UNKNOWN, cure=refusal.cure)
    return RouteAnswer(route.name, accepted=False, reason=str(refusal.reason), cure=refusal.cure)


def _may_ever(caller: str, receiver: AppAccess) -> bool:
    """Return whether a route would accept this service if Keycloak granted it all that the route asks for."""
    leaves = [
        leaf for part in (receiver.requires, *(route.requires for route in receiver.routes)) for leaf in leaves_of(part)
    ]
    roles: dict[str, set[str]] = {}
    for leaf in leaves:
        if isinstance(leaf, HasRole) and not leaf.realm:
            roles.setdefault(leaf.client or receiver.client_id, set()).update(leaf.roles)
    best = Principal(
        client_id=caller,
        kind="service",
        issuer="",
        issued_at=_ISSUED_AT,
        expires_at=_EXPIRES_AT,
        scopes=frozenset(scope for leaf in leaves if isinstance(leaf, HasScope) for scope in leaf.scopes),
        realm_roles=frozenset(
            role for leaf in leaves if isinstance(leaf, HasRole) and leaf.realm for role in leaf.roles
        ),
        client_roles={client: frozenset(names) for client, names in roles.items()},
        claims=_every_claim(leaf for leaf in leaves if isinstance(leaf, HasClaim)),
    )
    every = [frozenset(leaf.audiences) for leaf in leaves if isinstance(leaf, Audience)] or [frozenset()]
    tokens = [replace(best, audiences=audiences) for audiences in (*every, frozenset[str]().union(*every))]
    routes = [route for route in receiver.routes if not route.open]
    return any(_answer(token, receiver, route).accepted for token in tokens for route in routes)


def _every_claim(leaves: Iterable[HasClaim]) -> dict[str, Any]:
    """Return claims that hold each value: a list holds several."""
    values: dict[tuple[str, ...], list[Scalar]] = {}
    for leaf in leaves:
        values.setdefault(leaf.path, []).extend(leaf.values)
    claims: dict[str, Any] = {}
    for path, held in values.items():
        with_claim(claims, path, held)
    return claims


def _named(receiver: AppAccess) -> frozenset[str]:
    """Return the services that a route of the app names."""
    leaves = [leaf for route in receiver.routes for leaf in leaves_of(route.requires)]
    named = (leaf.client_ids for leaf in leaves if isinstance(leaf, Caller) and leaf.kind == "service")
    return frozenset(name for names in named for name in names)
