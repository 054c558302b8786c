"""Why a call is accepted or refused: a token, judged for each route of the apps that it may reach, and where its contents come from."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AppAccess, RouteEntry
from s2s_fastapi.keycloak.cures import unsigned_cure
from s2s_fastapi.operations.declarations import any_service_for, receiving
from s2s_fastapi.operations.tokens import described, described_by, verdict_on
from s2s_fastapi.principal import Principal
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.realm.provenance import Provenance
from s2s_fastapi.requirement.conditions import CONDITION_UNKNOWN
from s2s_fastapi.text import listed, named
from s2s_fastapi.verifier.algorithms import ALGORITHMS
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.jws import Jws, parse

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Explanation", "Question", "RouteAnswer", "Token", "explained", "given", "predicted"]

VERSION: Final = 1
"""The version of the JSON: docs/schemas/explain.schema.json."""
_PUBLIC: Final = "public"
_LEEWAY: Final = 30.0
_MARKED: Final = (26, 2)
"""The version from which on Keycloak marks the kind of a token in its ``jti``."""
_LIGHTWEIGHT: Final = "client.use.lightweight.access.token.enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which token is meant, and which call."""

    client_id: str = ""
    scopes: tuple[str, ...] = ()
    to: str = ""
    """The called service, by its client id or its audience; empty for all that are declared."""
    method: str = ""
    route: str = ""
    """With `method`, the one route that is meant; empty for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token, and what a service decides about it before it looks at the audience and the caller."""

    source: str
    """Where it comes from, and whether its signature was checked."""
    decision: Decision
    principal: Principal | None = None
    provenance: Provenance | None = None
    realm_clients: frozenset[str] = frozenset()
    """The clients of the realm that the token was predicted from."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What one route answers to the token."""

    app: str
    route: str
    reason: str
    """``public`` if the route needs no token."""
    cure: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the route lets the caller in."""
        return self.reason in (Reason.ALLOWED, _PUBLIC, CONDITION_UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to a question."""

    question: Question
    token: Token
    routes: tuple[RouteAnswer, ...] = ()
    hints: tuple[str, ...] = ()
    """What in the realm explains a refusal, and what to change there."""

    @property
    def accepted(self) -> bool:
        """Whether a route that needs a token lets the caller in; without such routes, whether the token is good in itself."""
        asking = [route for route in self.routes if route.reason != _PUBLIC]
        if not asking:
            return bool(self.routes) or self.token.decision.reason is Reason.ALLOWED
        return any(route.accepted for route in asking)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON of ``docs/schemas/explain.schema.json``."""
        question, token = self.question, self.token
        return {
            "version": VERSION,
            "question": {
                "client": question.client_id,
                "scopes": list(question.scopes),
                "to": question.to,
                "method": question.method,
                "route": question.route,
            },
            "accepted": self.accepted,
            "source": token.source,
            "reason": str(token.decision.reason),
            "cure": token.decision.cure,
            "notes": list(token.notes),
            **described(token.principal),
            **_provenance_json(token.provenance),
            "hints": list(self.hints),
            "routes": [
                {
                    "app": each.app,
                    "route": each.route,
                    "accepted": each.accepted,
                    "reason": str(each.reason),
                    "cure": each.cure,
                }
                for each in self.routes
            ],
        }


# Tokens


def predicted(model: RealmModel, question: Question, *, clock: Callable[[], float] = time.time) -> Token:
    """Return the token that Keycloak would give the client for these scopes, or why it would give none."""
    scope = " ".join(question.scopes) or None
    version = ".".join(map(str, model.version))
    source = f"predicted for the realm {named(model.name)} on Keycloak {version}"
    provenance = model.provenance(question.client_id, scope=scope)
    outcome = model.service_token(question.client_id, scope=scope)
    if isinstance(outcome, Denied):
        return Token(
            source=source,
            decision=Decision(reason=Reason.NO_CREDENTIALS, cure=_denied_cure(model, question, outcome, provenance)),
            provenance=provenance,
        )
    claims = _whole(model, question.client_id, outcome, now=int(clock()))
    notes = tuple(f"The prediction may differ from Keycloak: {each}." for each in outcome.unknown)
    return Token(
        source=source,
        decision=_judged(claims, outcome.algorithm, now=clock()),
        principal=described_by(claims),
        provenance=provenance,
        realm_clients=frozenset(model.client_ids),
        notes=notes,
    )


def given(text: str, settings: "KeycloakSettings | None", *, clock: Callable[[], float] = time.time) -> Token:
    """Return a token that somebody has. With `settings` its signature is checked, with the realm's keys.

    Without them, what it says is shown and not believed: its dates are compared, and the routes say what they would answer.
    """
    parsed = parse(text.encode("ascii", "replace"))
    if isinstance(parsed, Decision):
        return Token(source="given; it cannot be read", decision=_with_cure(parsed))
    if settings is not None:
        verdict = verdict_on(settings, text, ())
        held = bool(verdict.decision.kid)
        principal = verdict.principal or (described_by(_claims_in(parsed)) if held else None)
        state = "its signature holds" if held else "its signature was not verified"
        return Token(source=f"given; {state}", decision=verdict.decision, principal=principal)
    claims = _claims_in(parsed)
    return Token(
        source="given; its signature was not checked, because the environment has no settings of Keycloak",
        decision=_judged(claims, parsed.algorithm, now=clock()),
        principal=described_by(claims),
    )


def _claims_in(parsed: Jws) -> dict[str, Any]:
    found = parsed.claims()
    return {} if isinstance(found, Decision) else found


def _with_cure(decision: Decision) -> Decision:
    return (
        decision
        if decision.cure
        else Decision(reason=decision.reason, cure=unsigned_cure(decision.reason, issuer="", jwks=""))
    )


def _whole(model: RealmModel, client_id: str, outcome: Granted, *, now: int) -> dict[str, Any]:
    """Return the claims with those that only a server can know."""
    client = model.client(client_id)
    lightweight = client is not None and client.attributes.get(_LIGHTWEIGHT) == "true"
    mark = f"tr{'lt' if lightweight else 'rt'}cc:" if model.version >= _MARKED else ""
    claims = {
        "iss": f"https://keycloak.invalid/realms/{model.name}",
        "iat": now,
        "exp": now + outcome.lifespan,
        "jti": f"{mark}predicted",
        **outcome.claims,
    }
    return claims | {"sid": "predicted"} if "sid" in claims and not claims["sid"] else claims


def _judged(claims: Mapping[str, Any], algorithm: str, *, now: float) -> Decision:
    """Return what the checks of a service say that come before audience and caller; the issuer is taken as right."""
    if algorithm not in ALGORITHMS:
        cure = unsigned_cure(Reason.ALGORITHM_NOT_ALLOWED, issuer="", jwks="")
        return Decision(reason=Reason.ALGORITHM_NOT_ALLOWED, cure=cure)
    payload = json.dumps(dict(claims)).encode()
    issuer = claims.get("iss")
    checks = Checks(issuer=issuer if isinstance(issuer, str) else "", audiences=frozenset(), leeway=_LEEWAY)
    jws = Jws(algorithm=algorithm, kid="", payload=payload, signing_input=b"", signature=b"")
    return checks.judge(jws, json_object(payload), not_before=0, now=now, token=b"").decision


def _denied_cure(model: RealmModel, question: Question, denied: Denied, provenance: Provenance | None) -> str:
    """Say what to change in the realm if it gives the client no token."""
    who, client = named(question.client_id), model.client(question.client_id)
    said = (
        f"Keycloak would give {who} no token: {denied.error}{f' ({denied.description})' if denied.description else ''}."
    )
    if client is None:
        return f"{said} Make a client {who} (step A of the README): the realm {named(model.name)} has none."
    if not client.enabled:
        return f"{said} Enable the client {who}."
    if provenance is not None and provenance.not_assigned:
        names = listed(provenance.not_assigned, " and ")
        return f"{said} Assign {names} to the client {who} in Keycloak, as optional (or default) client scopes, or ask for others."
    if not client.service_accounts or client.public:
        return f'{said} Switch "Client authentication" and "Service account roles" on for the client {who} in Keycloak.'
    if "dpop" in denied.description.lower():
        return f'{said} Switch "Require DPoP bound tokens" off for the client {who} in Keycloak: this package sends bearer tokens.'
    return f"{said} Look at the client {who} in Keycloak."


# Routes


def explained(question: Question, token: Token, apps: Iterable[AppAccess]) -> Explanation:
    """Judge the token for each route of the called apps, and say what in the realm explains a refusal.

    Without a declaration of the called service, it is judged as an app that accepts any service with a token for it.
    """
    called = receiving(apps, question.to) or ((any_service_for(question.to),) if question.to else ())
    routes = tuple(answer for app in called for answer in _answers(app, question, token))
    return Explanation(
        question=question, token=token, routes=routes, hints=tuple(_hints(question, token, routes, called))
    )


def _answers(app: AppAccess, question: Question, token: Token) -> Iterator[RouteAnswer]:
    routes = [route for route in app.routes if _meant(route, question)]
    if not app.routes:
        yield RouteAnswer(app=app.client_id, route="any route", **_answer(app, None, token))
    for route in routes:
        name = f"{route.name} and below" if route.opaque else route.name
        if set(route.public) >= ({question.method} if question.method else set(route.methods) or {""}):
            yield RouteAnswer(app=app.client_id, route=name, reason=_PUBLIC)
            continue
        yield RouteAnswer(app=app.client_id, route=name, **_answer(app, route, token))


def _meant(route: RouteEntry, question: Question) -> bool:
    if not question.route:
        return True
    return route.path == question.route and (
        not question.method
        or question.method in route.methods
        or not route.methods
        or (question.method == "HEAD" and "GET" in route.methods)
    )


def _answer(app: AppAccess, route: RouteEntry | None, token: Token) -> dict[str, str]:
    if token.decision.reason is not Reason.ALLOWED or token.principal is None:
        return {"reason": str(token.decision.reason), "cure": token.decision.cure}
    for requirement in (app.requires, None if route is None else route.requires):
        decision = None if requirement is None else requirement.judge(token.principal, app.client_id)
        if decision is not None and decision.reason is not Reason.ALLOWED:
            # In an access file a condition is known by its name only: all else holds, and only the app can tell.
            only_the_app = decision.reason is Reason.CONDITION_NOT_MET
            return {"reason": CONDITION_UNKNOWN if only_the_app else str(decision.reason), "cure": decision.cure}
    return {"reason": str(Reason.ALLOWED), "cure": ""}


# Where it comes from


def _hints(
    question: Question, token: Token, routes: Iterable[RouteAnswer], called: Iterable[AppAccess]
) -> Iterator[str]:
    found, who = token.provenance, named(question.client_id)
    if found is None:
        return
    for dropped in found.dropped:
        brings = f", and with it the audience {listed(dropped.audiences)}" if dropped.audiences else ""
        yield (
            f"The scope {named(dropped.scope)} dropped out{brings}: it has role mappings, and the service account of {who} has none of"
            f" {listed(map(_role, dropped.roles))}. Give it one of these roles, or remove the role mappings from the scope."
        )
    if not any(route.reason == Reason.WRONG_AUDIENCE for route in routes):
        return
    wanted = {question.to} - {""} or {app.client_id for app in called}
    if token.realm_clients:
        yield from (_steps(audience, token.realm_clients, found) for audience in sorted(wanted))
    for offer in found.offers:
        names = offer.audiences & wanted
        if not names:
            continue
        scope, audience = named(offer.scope), listed(names)
        if offer.assigned:
            yield f"The optional scope {scope} has an Audience mapper for {audience} and was not requested: request it (scope={scope})."
        else:
            yield (
                f"The scope {scope} has an Audience mapper for {audience} and is not assigned to {who}: assign it, as Default, or as Optional"
                f" if {who} requests it (scope=...)."
            )


def _steps(audience: str, clients: Collection[str], found: Provenance) -> str:
    """Say which of the steps A to D the realm has. The token shows A."""
    has = ["A"]
    if audience in clients or "://" in audience:
        has.append("B")
    offered = [each.scope for each in found.offers if audience in each.audiences]
    scopes = sorted(offered + [each.scope for each in found.dropped if audience in each.audiences])
    if scopes:
        has.append(f"C ({listed(scopes)})")
    missing = [step for step in "ABCD" if not any(each.startswith(step) for each in has)]
    return f"Of the steps A to D in the README, the realm has {', '.join(has)} for {named(audience)}. Missing: {', '.join(missing)}."


def _role(role: Role) -> str:
    return f"{role.client}: {role.name}" if role.client else role.name


def _provenance_json(found: Provenance | None) -> dict[str, Any]:
    if found is None:
        return {"sources": [], "dropped_scopes": []}
    return {
        "sources": [
            {
                "scope": each.scope,
                "mapper": each.mapper,
                "audiences": sorted(each.audiences),
                "realm_roles": sorted(role.name for role in each.roles if not role.client),
                "client_roles": [
                    {"client": role.client, "role": role.name} for role in sorted(each.roles) if role.client
                ],
            }
            for each in found.sources
        ],
        "dropped_scopes": [
            {
                "scope": each.scope,
                "needs_one_of": [{"client": role.client, "role": role.name} for role in sorted(each.roles)],
                "audiences": sorted(each.audiences),
            }
            for each in found.dropped
        ],
    }
