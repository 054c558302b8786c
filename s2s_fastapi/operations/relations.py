"""Who may call whom: what the apps declare, beside what the realm grants."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, CallAccess, RouteEntry
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.keycloak.client_authentication import (
    CERTIFICATE,
    CERTIFICATE_BOUND,
    accept_certificate_first,
    bind_to_certificate_first,
    needs_certificate,
)
from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT, accept_first, bind_first
from s2s_fastapi.operations.declarations import one_for_each_client
from s2s_fastapi.operations.wanted import accepted_audiences
from s2s_fastapi.principal import Binding, Kind, Principal
from s2s_fastapi.realm.exchange import ANY_SESSION, SubjectToken
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.requirement.conditions import CONDITION_UNKNOWN, HasClaim, Scalar, with_claim
from s2s_fastapi.requirement.requirement import AllOf, AnyOf, Audience, Bound, Caller, HasRole, HasScope, Requirement
from s2s_fastapi.text import listed, named
from s2s_fastapi.verifier.predicted import predicted_principal

__all__ = [
    "Relation",
    "RouteAnswer",
    "Status",
    "Unanswered",
    "best_of",
    "binding_problem",
    "bound_first",
    "caller_of",
    "certificate_notes",
    "granted_for",
    "in_part",
    "judged",
    "relations",
    "routes_for_bound_tokens",
    "seen_by",
    "unanswered",
    "with_accepted_binding",
]

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
    IN_PART = "in_part", "declared and granted, and a route that names this caller refuses it", True
    REFUSED = "refused", "declared, and the receiver would refuse the token", True
    NOT_GRANTED = "not_granted", "declared, and Keycloak does not grant it", True
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
    """What Keycloak answers in place of a token, why no receiver can read the token, or which routes refuse it."""
    cure: str = ""
    """What to change; empty if nothing needs attention."""
    on_behalf: bool = False
    """Whether the token is that of a user, on whose behalf the caller calls. The user's own roles are not known, and count as there."""
    dpop: bool = False
    """Whether the token is bound to a key of the caller, and each request carries a proof (RFC 9449)."""


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

    Raises:
        ConfigurationError: Two apps have one client id.
    """
    apps = {app.client_id: app for app in one_for_each_client(app for file in files for app in file.apps)}
    receivers = [app for app in apps.values() if app.requires is not None]
    found: dict[tuple[str, str], Relation] = {}
    for caller in apps.values():
        for receiver in receivers:
            accepted = accepted_audiences(receiver)
            calls = [call for call in caller.calls if accepted & set(call.audiences)]
            if calls and receiver.client_id != caller.client_id:
                each = [_declared(caller.client_id, call, receiver, realm) for call in calls]
                found[caller.client_id, receiver.client_id] = _joined(each, receiver)
    for receiver in receivers:
        for name in sorted(_named(receiver) - {receiver.client_id}):
            found.setdefault((name, receiver.client_id), Relation(name, receiver.client_id, Status.ALLOWED))
    for relation in _granted(receivers, realm) if realm is not None else ():
        key = relation.caller, relation.receiver
        if key not in found or (found[key].status is Status.ALLOWED and key[0] in apps):
            found[key] = relation
        elif found[key].status is Status.ALLOWED:
            found[key] = replace(relation, status=Status.ALLOWED)
    ordered = sorted(found.values(), key=lambda each: (each.receiver, each.caller))
    return tuple(replace(each, cure=_cure(each, apps[each.receiver])) for each in ordered)


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
    relation = Relation(caller, receiver.client_id, Status.DECLARED, audiences, call.scopes, on_behalf=call.on_behalf)
    relation = replace(relation, dpop=call.dpop)
    if not _may_ever(caller, receiver, on_behalf=call.on_behalf):
        return replace(relation, status=Status.NOT_ALLOWED)
    if realm is None:
        problem = binding_problem(caller, receiver, binding="dpop" if call.dpop else "")
        return replace(relation, status=Status.REFUSED, note=problem.cure) if problem is not None else relation
    granted = granted_for(call, caller, realm, peer="127.0.0.1")
    if isinstance(granted, Denied):
        note = f"{granted.status} {granted.error}{granted.description and f': {granted.description}'}"
        return replace(relation, status=Status.NOT_GRANTED, note=note)
    principal = caller_of(call, granted)
    if isinstance(principal, Decision):
        return replace(relation, status=Status.REFUSED, token=granted.claims, note=principal.cure)
    principal = seen_by(receiver, principal)
    relation = replace(relation, token=granted.claims, routes=judged(principal, receiver))
    if not principal.audiences & set(audiences):
        return replace(relation, status=Status.NOT_GRANTED)
    accepted = any(answer.accepted for answer in relation.routes)
    return replace(relation, status=Status.WORKS if accepted else Status.REFUSED)


def granted_for(call: CallAccess, caller: str, realm: RealmModel, *, peer: str | None = None) -> Granted | Denied:
    """Return the token that Keycloak gives for a declared call: the caller's own, or one that it exchanges for that of any user.

    The caller is taken for one that shows a client certificate: the token is bound to it if Keycloak binds the tokens of the client.
    """
    scope, jkt = " ".join(call.scopes) or None, ANY_THUMBPRINT if call.dpop else ""
    if not call.on_behalf:
        return realm.service_token(caller, scope=scope, peer=peer, jkt=jkt, x5t=ANY_THUMBPRINT)
    return realm.exchanged(caller, SubjectToken.of_any_user(caller), scope=scope, peer=peer, jkt=jkt)


def caller_of(call: CallAccess, granted: Granted) -> Principal | Decision:
    """Return the caller that a receiver sees in the token of a declared call, or why it cannot read the token."""
    return predicted_principal({**granted.claims, **(ANY_SESSION if call.on_behalf else {})})


def with_accepted_binding(principal: Principal, receiver: AppAccess) -> Principal:
    """Return the caller with a bound token if the receiver takes one, else with a bearer token: for all else than the binding."""
    return replace(principal, binding="dpop" if receiver.dpop else "certificate" if receiver.client_certificate else "")


def binding_problem(caller: str, receiver: AppAccess, *, binding: Binding) -> Decision | None:
    """Return why a receiver refuses every token of a caller that is bound so, or is a bearer token; None if it takes them."""
    if binding == "dpop" and not receiver.dpop:
        return Decision(reason=Reason.NO_CREDENTIALS, cure=accept_first([receiver.client_id], caller))
    if binding == "certificate" and not receiver.client_certificate:
        return Decision(reason=Reason.SENDER_CONSTRAINED, cure=accept_certificate_first([receiver.client_id], caller))
    if binding != "dpop" and receiver.dpop == "required":
        return Decision(reason=Reason.BEARER_NOT_ACCEPTED, cure=bind_first([receiver.client_id], caller))
    return None


def bound_first(receivers: Iterable[AppAccess], caller: str) -> str:
    """Return the cure if these receivers require bound tokens, and a caller sends bearer tokens: in the way that they take."""
    given = tuple(receivers)
    by_certificate = all(each.client_certificate and not each.dpop for each in given)
    return (bind_to_certificate_first if by_certificate else bind_first)([each.client_id for each in given], caller)


def certificate_notes(model: RealmModel, client_id: str) -> tuple[str, ...]:
    """Return what is to be known about a token that is bound to a certificate. No realm says whether the service has one.

    A client that logs in by its certificate has one.
    """
    client = model.client(client_id)
    if client is None or client.attributes.get(CERTIFICATE_BOUND) != "true" or client.authenticator == CERTIFICATE:
        return ()
    return (needs_certificate(client_id),)


def seen_by(receiver: AppAccess, caller: Principal) -> Principal:
    """Return a user with all roles and claims that the receiver asks for: nobody knows here which ones users have. A service stays as it is."""
    if caller.kind != "user":
        return caller
    best = _best(caller.client_id, receiver, "user")
    return replace(caller, realm_roles=best.realm_roles, client_roles=best.client_roles, claims=best.claims)


def _joined(found: Sequence[Relation], receiver: AppAccess) -> Relation:
    """Return one relation for all tokens with which an app calls another: the first that has a problem, or what they open together."""
    worst = next((each for each in found if each.status.problem), None)
    if worst is not None or found[0].status is not Status.WORKS:
        return worst or found[0]
    first = found[0]
    routes = best_of(each.routes for each in found)
    # Routes for users and routes for services name one caller: each takes the tokens of its own kind.
    kinds = {each.on_behalf for each in found}
    note = "" if len(kinds) > 1 else in_part(first.caller, receiver, routes, on_behalf=first.on_behalf)
    return replace(
        first,
        status=Status.IN_PART if note else Status.WORKS,
        dpop=all(each.dpop for each in found),
        audiences=tuple(dict.fromkeys(name for each in found for name in each.audiences)),
        scopes=tuple(dict.fromkeys(name for each in found for name in each.scopes)),
        routes=routes,
        note=note,
    )


def best_of(answers: Iterable[Sequence[RouteAnswer]]) -> tuple[RouteAnswer, ...]:
    """Return what each route answers to the token of a caller that it likes best. Each sequence has the same routes."""
    return tuple(
        next((each for each in of_route if each.accepted), of_route[0]) for of_route in zip(*answers, strict=True)
    )


def in_part(caller: str, receiver: AppAccess, answers: Sequence[RouteAnswer], *, on_behalf: bool = False) -> str:
    """Say which routes of the receiver name the caller and refuse it all the same, or return ""."""
    own = _own(caller, receiver, answers, on_behalf=on_behalf)
    refusing = [each for each in own if not each.accepted]
    if not refusing:
        return ""
    names = ", ".join(f"{each.route} ({each.reason})" for each in refusing)
    return f"{len(refusing)} of {len(own)} routes that name this caller {'refuses' if len(refusing) == 1 else 'refuse'} it: {names}"


def _own(caller: str, receiver: AppAccess, answers: Sequence[RouteAnswer], *, on_behalf: bool) -> list[RouteAnswer]:
    """Return the answers of the routes that name the caller."""
    routes = [route for route in receiver.routes if not route.open]
    kind: Kind = "user" if on_behalf else "service"
    return [answer for route, answer in zip(routes, answers, strict=True) if caller in _named_by(route, kind)]


def _cure(relation: Relation, receiver: AppAccess) -> str:
    caller, called = named(relation.caller), named(relation.receiver)
    if relation.status is Status.NOT_GRANTED:
        return "s2s-fastapi plan shows what the realm lacks, and s2s-fastapi explain why."
    if relation.status is Status.NOT_ALLOWED:
        require = "require_user" if relation.on_behalf else "require_caller"
        return f"Add {caller} to {require}(...) in the code of {called}, or take the call out of the code of {caller}."
    if relation.status is Status.NOT_DECLARED:
        by = f"the scope {listed(relation.scopes)}" if relation.scopes else f"what brings {listed(relation.audiences)}"
        return f"Declare the call in the code of {caller}, or take {by} from {caller} in Keycloak."
    if not relation.status.problem or not relation.routes:
        return ""
    answers = _own(relation.caller, receiver, relation.routes, on_behalf=relation.on_behalf) or relation.routes
    refused = next((each for each in answers if not each.accepted), None)
    if refused is not None and refused.reason == Reason.NOT_BOUND:
        return bound_first([receiver], relation.caller)
    return "" if refused is None else refused.cure


def _granted(receivers: list[AppAccess], realm: RealmModel) -> Iterator[Relation]:
    """Yield each client whose tokens are for a receiver.

    - Its plain token is tried, each scope that it may ask for, and all of these scopes together.
    - The first one that a route accepts is shown; without such a token, the first that is for the receiver.
    """
    for caller in realm.service_client_ids:
        left = {receiver.client_id: receiver for receiver in receivers if receiver.client_id != caller}
        refused: dict[str, Relation] = {}
        alone = [scope for scope in realm.optional_scopes(caller) if _token(caller, (scope,), realm) is not None]
        for asked in dict.fromkeys(((), *((scope,) for scope in alone), tuple(alone))):
            token = _token(caller, asked, realm)
            if token is None:
                continue
            for receiver in list(left.values()):
                relation = _undeclared(caller, asked, token, receiver)
                if any(answer.accepted for answer in relation.routes):
                    del left[receiver.client_id]
                    yield _least(relation, receiver, realm)
                elif relation.audiences:
                    refused.setdefault(receiver.client_id, relation)
        yield from (relation for name, relation in refused.items() if name in left)


def _token(caller: str, asked: tuple[str, ...], realm: RealmModel) -> tuple[Principal, Mapping[str, Any]] | None:
    """Return what a client gets if it asks for these scopes; None if it gets no token that a receiver can read."""
    granted = realm.service_token(
        caller,
        scope=" ".join(asked) or None,
        peer="127.0.0.1",
        jkt=_forced(caller, realm),
        x5t=ANY_THUMBPRINT,
    )
    principal = None if isinstance(granted, Denied) else predicted_principal(granted.claims)
    return None if isinstance(granted, Denied) or not isinstance(principal, Principal) else (principal, granted.claims)


def _forced(caller: str, realm: RealmModel) -> str:
    """Return the key of a client that gets bound tokens only; empty for any other one, which may choose."""
    return "" if realm.proof_missing(caller) is None else ANY_THUMBPRINT


def _undeclared(
    caller: str, asked: tuple[str, ...], token: tuple[Principal, Mapping[str, Any]], receiver: AppAccess
) -> Relation:
    """Return what a token is good for at a receiver; without audiences and routes if it is not for the receiver."""
    principal, claims = token
    principal = principal if principal.binding else with_accepted_binding(principal, receiver)
    audiences = tuple(sorted(principal.audiences & accepted_audiences(receiver)))
    routes = judged(principal, receiver) if audiences else ()
    return Relation(caller, receiver.client_id, Status.NOT_DECLARED, audiences, asked, routes, claims)


def _least(relation: Relation, receiver: AppAccess, realm: RealmModel) -> Relation:
    """Return the relation without the scopes that it does not need to be accepted."""
    for scope in relation.scopes if len(relation.scopes) > 1 else ():
        fewer = tuple(name for name in relation.scopes if name != scope)
        token = _token(relation.caller, fewer, realm)
        without = None if token is None else _undeclared(relation.caller, fewer, token, receiver)
        if without is not None and any(answer.accepted for answer in without.routes):
            relation = without
    return relation


def judged(principal: Principal, receiver: AppAccess) -> tuple[RouteAnswer, ...]:
    """Return what each route of an app that needs a token answers to a caller."""
    return tuple(_answer(principal, receiver, route) for route in receiver.routes if not route.open)


def routes_for_bound_tokens(receiver: AppAccess) -> tuple[str, ...]:
    """Return the routes of an app that no bearer token opens: in each way to meet what they require, it must be bound."""
    return tuple(route.name for route in receiver.routes if not route.open and _needs_bound(route.requires))


def _needs_bound(requirement: Requirement | None) -> bool:
    if isinstance(requirement, AllOf):
        return any(map(_needs_bound, requirement.parts))
    if isinstance(requirement, AnyOf):
        return all(map(_needs_bound, requirement.parts))
    return isinstance(requirement, Bound)


def _answer(principal: Principal, receiver: AppAccess, route: RouteEntry) -> RouteAnswer:
    decisions: list[Decision] = [
        requirement.judge(principal, receiver.client_id)
        for requirement in (receiver.requires, route.requires)
        if requirement is not None
    ]
    if problem := binding_problem(principal.client_id, receiver, binding=principal.binding):
        decisions.insert(0, problem)
    refusal = next((decision for decision in decisions if decision.reason is not Reason.ALLOWED), None)
    if refusal is None:
        return RouteAnswer(route.name, accepted=True)
    if refusal.reason is Reason.CONDITION_NOT_MET:  # known by its name only: all else holds
        return RouteAnswer(route.name, accepted=True, reason=CONDITION_UNKNOWN, cure=refusal.cure)
    return RouteAnswer(route.name, accepted=False, reason=str(refusal.reason), cure=refusal.cure)


def _may_ever(caller: str, receiver: AppAccess, *, on_behalf: bool = False) -> bool:
    """Return whether a route would accept this service, or users through it, if Keycloak granted all that the route asks for."""
    best = _best(caller, receiver, "user" if on_behalf else "service")
    # Whether it sends a bound token is a matter of deployment: it has a sentence of its own.
    best = with_accepted_binding(best, receiver)
    leaves = _leaves(receiver)
    every = [frozenset(leaf.audiences) for leaf in leaves if isinstance(leaf, Audience)] or [frozenset()]
    tokens = [replace(best, audiences=audiences) for audiences in (*every, frozenset[str]().union(*every))]
    routes = [route for route in receiver.routes if not route.open]
    return any(_answer(token, receiver, route).accepted for token in tokens for route in routes)


def _leaves(receiver: AppAccess) -> list[Requirement]:
    return [
        leaf for part in (receiver.requires, *(route.requires for route in receiver.routes)) for leaf in leaves_of(part)
    ]


def _best(caller: str, receiver: AppAccess, kind: Kind) -> Principal:
    """Return a caller that has all scopes, roles and claims for which a route asks, and no audience."""
    leaves = _leaves(receiver)
    roles: dict[str, set[str]] = {}
    for leaf in leaves:
        if isinstance(leaf, HasRole) and not leaf.realm:
            roles.setdefault(leaf.client or receiver.client_id, set()).update(leaf.roles)
    return Principal(
        client_id=caller,
        kind=kind,
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
    return frozenset(name for route in receiver.routes for name in _named_by(route))


def _named_by(route: RouteEntry, kind: Kind = "service") -> frozenset[str]:
    leaves = (leaf for leaf in leaves_of(route.requires) if isinstance(leaf, Caller) and leaf.kind == kind)
    return frozenset(name for leaf in leaves for name in leaf.client_ids)
