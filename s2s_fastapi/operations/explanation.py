"""Why a call is accepted or refused: a token, judged for each route of the apps that it may reach, and where its contents come from."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.caller.token_errors import NO_SERVICE_ACCOUNT
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AppAccess, RouteEntry, canonical, in_one_realm
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.keycloak import exchange
from s2s_fastapi.keycloak.client_authentication import CERTIFICATE_BOUND
from s2s_fastapi.keycloak.cures import unsigned_cure
from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT, bind_or_switch_off
from s2s_fastapi.operations.declarations import any_service_for, audiences_of, receiving
from s2s_fastapi.operations.declared_calls import about_the_code
from s2s_fastapi.operations.relations import binding_problem, certificate_notes
from s2s_fastapi.operations.tokens import described, described_by, nearly_named, under_dpop, verdict_on
from s2s_fastapi.principal import Principal
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.exchange import ANY_SESSION, SubjectToken
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.realm.provenance import Provenance, audiences_brought_by
from s2s_fastapi.requirement.conditions import CONDITION_UNKNOWN
from s2s_fastapi.requirement.requirement import AllOf, Audience, HasRole, HasScope
from s2s_fastapi.text import listed, named
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.jws import Jws, parse

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = [
    "ROUTES_UNKNOWN",
    "Explanation",
    "FileRealm",
    "Question",
    "RealmSource",
    "RouteAnswer",
    "Token",
    "declared_only",
    "declares_bound",
    "denied",
    "exchanged",
    "explained",
    "given",
    "predicted",
    "required",
    "token_of_claims",
    "whole_claims",
]

VERSION: Final = 1
"""The version of the JSON: docs/schemas/explain.schema.json."""
ROUTES_UNKNOWN: Final = "routes_unknown"
"""The reason if the token is for the service, and nobody knows what its routes require."""
_PUBLIC: Final = "public"
_LEEWAY: Final = 30.0
_MARKED: Final = (26, 2)
"""The version from which on Keycloak marks the kind of a token in its ``jti``."""
_REALM_DISABLED: Final = 403
_ANOTHER_TOKEN: Final = frozenset({Reason.WRONG_TYPE, Reason.NOT_A_SERVICE, Reason.NOT_A_USER})
_LIGHTWEIGHT: Final = "client.use.lightweight.access.token.enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which token is meant, and which call."""

    client_id: str = ""
    scopes: tuple[str, ...] = ()
    to: str = ""
    """The called service, by its client id or its audience; empty for all that are declared."""
    on_behalf: bool = False
    """Whether the client calls on behalf of a user."""
    dpop: bool = False
    """Whether the client sends a proof, so that its token is bound (RFC 9449)."""
    method: str = ""
    route: str = ""
    """With `method`, the one route that is meant; empty for all."""

    @property
    def scope(self) -> str | None:
        """The parameter ``scope`` of the token request."""
        return " ".join(self.scopes) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token, and what a service decides about it before it looks at the audience and the caller."""

    source: str
    """Where it comes from, and whether its signature was checked."""
    decision: Decision
    further: tuple[Decision, ...] = ()
    """What else is wrong with the token itself. A service answers only the first reason, `decision`."""
    principal: Principal | None = None
    supposed: Principal | None = None
    """If Keycloak gives no token: who would call if it gave one."""
    provenance: Provenance | None = None
    model: RealmModel | None = field(default=None, repr=False)
    """The realm, if it is known."""
    notes: tuple[str, ...] = ()


class RealmSource(Protocol):
    """A realm that answers which token it would give: a realm file, or a server."""

    def model(self, question: Question) -> RealmModel:
        """Return what is known of the realm, as far as the question needs it."""

    def predicted(self, question: Question) -> Token:
        """Return the token that the client would get, or why it would get none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """What one route answers to the token."""

    app: str
    route: str
    reason: str
    """``public`` if the route needs no token, `ROUTES_UNKNOWN` if no route of the app is known."""
    cure: str = ""
    then: tuple[Decision, ...] = ()
    """What would stand in the way after that, one after the other."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reason, and those that would follow."""
        return (self.reason, *(str(each.reason) for each in self.then))

    @property
    def public(self) -> bool:
        """Whether the route needs no token."""
        return self.reason == _PUBLIC

    @property
    def accepted(self) -> bool:
        """Whether the route lets the caller in. It is not said of a route that nobody knows."""
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
        asking = [route for route in self.routes if not route.public]
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
                "on_behalf": question.on_behalf,
                "dpop": question.dpop,
                "method": question.method,
                "route": question.route,
            },
            "accepted": self.accepted,
            "source": token.source,
            "reason": str(token.decision.reason),
            "cure": token.decision.cure,
            "then": _decisions_json(token.further),
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
                    "then": _decisions_json(each.then),
                }
                for each in self.routes
            ],
        }


# Tokens


@dataclass(frozen=True, slots=True)
class FileRealm:
    """A realm file or export, as a `RealmSource`."""

    realm: RealmModel

    def model(self, question: Question) -> RealmModel:  # noqa: ARG002 - the seam's signature
        """Return the realm."""
        return self.realm

    def predicted(self, question: Question) -> Token:
        """Return the token that Keycloak would give after the import."""
        return predicted(self.realm, question)


def predicted(model: RealmModel, question: Question, *, clock: Callable[[], float] = time.time) -> Token:
    """Return the token that Keycloak would give the client for these scopes, or why it would give none."""
    outcome = model.service_token(question.client_id, scope=question.scope, jkt=_key(question), x5t=ANY_THUMBPRINT)
    source = f"predicted for the realm {named(model.name)} on Keycloak {'.'.join(map(str, model.version))}"
    if isinstance(outcome, Denied):
        return denied(model, question, outcome, source=source, clock=clock)
    unknown = (f"The prediction may differ from Keycloak: {each}." for each in outcome.unknown)
    notes = (*certificate_notes(model, question.client_id), *unknown)
    claims = whole_claims(model, question.client_id, outcome, now=int(clock()))
    return token_of_claims(model, question, outcome, claims, source=source, notes=notes, clock=clock)


def exchanged(model: RealmModel, question: Question, *, clock: Callable[[], float] = time.time) -> Token:
    """Return the token that the client would get for that of a user without any role, or why Keycloak would not exchange it."""
    client = question.client_id
    outcome = model.exchanged(client, SubjectToken.of_any_user(client), scope=question.scope, jkt=_key(question))
    source = f"predicted for the realm {named(model.name)} on Keycloak {'.'.join(map(str, model.version))}, exchanged for that of a user"
    if isinstance(outcome, Denied):
        cure = _exchange_cure(model, question, outcome)
        return Token(source=source, decision=Decision(reason=Reason.NO_CREDENTIALS, cure=cure), model=model)
    claims = {**whole_claims(model, client, outcome, now=int(clock())), **ANY_SESSION}
    notes = (
        "It is the token of a user without any role. What a user may do is decided by the user's own roles.",
        f"Keycloak exchanges only tokens of users that have {named(client)} in aud.",
        *(f"The prediction may differ from Keycloak: {each}." for each in outcome.unknown),
    )
    decision, *further = _judged(claims, outcome.algorithm, now=clock())
    return Token(
        source=source,
        decision=decision,
        further=tuple(further),
        principal=described_by(claims),
        model=model,
        notes=notes,
    )


def _key(question: Question) -> str:
    """Return the thumbprint of the key of a proof, if the client sends one."""
    return ANY_THUMBPRINT if question.dpop else ""


def _exchange_cure(model: RealmModel, question: Question, outcome: Denied) -> str:
    """Say what is to change before Keycloak exchanges tokens for the client."""
    who, client = named(question.client_id), model.client(question.client_id)
    description = f" ({outcome.description})" if outcome.description else ""
    said = f"Keycloak would exchange no token for {who}: {outcome.error}{description}."
    if client is None:
        return f"{said} Make a client {who} (step A of the README): the realm {named(model.name)} has none."
    if not client.enabled:
        return f"{said} Enable the client {who}."
    if outcome.error == "unsupported_grant_type":
        return f"{said} {exchange.TOO_OLD}"
    if client.public or client.bearer_only:
        return f"{said} {exchange.public_client(client.id)}"
    if outcome.error == "invalid_scope":
        held = {*model.default_scopes(client.id), *model.optional_scopes(client.id)}
        lacking = listed([name for name in question.scopes if name not in held] or question.scopes, " and ")
        return f"{said} Assign {lacking} to the client {who} as optional client scopes, or request others."
    if model.may_exchange(client.id) is not None:
        return f"{said} {exchange.not_enabled(client.id)}"
    return f"{said} Look at the client {who} in Keycloak."


def token_of_claims(
    model: RealmModel,
    question: Question,
    outcome: Granted,
    claims: Mapping[str, Any],
    *,
    source: str,
    notes: tuple[str, ...] = (),
    clock: Callable[[], float] = time.time,
) -> Token:
    """Return a token with these claims, judged as a service judges it before its routes are asked."""
    decision, *further = _judged(claims, outcome.algorithm, now=clock())
    return Token(
        source=source,
        decision=decision,
        further=tuple(further),
        principal=described_by(claims),
        provenance=model.provenance(question.client_id, scope=question.scope),
        model=model,
        notes=notes,
    )


def denied(
    model: RealmModel,
    question: Question,
    outcome: Denied,
    *,
    source: str,
    notes: tuple[str, ...] = (),
    clock: Callable[[], float] = time.time,
) -> Token:
    """Return that Keycloak gives no token, every reason for it, and whose token it would be without them."""
    provenance = model.provenance(question.client_id, scope=question.scope)
    first, *others = _denied_cures(model, question, outcome, provenance)
    usable = model.with_usable(question.client_id)
    missing = () if provenance is None else provenance.not_assigned
    scopes = tuple(name for name in question.scopes if name not in missing)
    then = usable.service_token(question.client_id, scope=" ".join(scopes) or None, jkt=_key(question))
    claims = None if isinstance(then, Denied) else whole_claims(usable, question.client_id, then, now=int(clock()))
    client = model.client(question.client_id)
    if claims is not None and client is not None and client.attributes.get(CERTIFICATE_BOUND) == "true":
        claims["cnf"] = {**claims.get("cnf", {}), "x5t#S256": ANY_THUMBPRINT}
    judged = () if isinstance(then, Denied) or claims is None else _judged(claims, then.algorithm, now=clock())
    return Token(
        source=source,
        decision=Decision(reason=Reason.NO_CREDENTIALS, cure=first),
        further=(
            *(Decision(reason=Reason.NO_CREDENTIALS, cure=each) for each in others),
            *(each for each in judged if each.reason is not Reason.ALLOWED),
        ),
        supposed=None if claims is None else described_by(claims),
        provenance=provenance,
        model=model,
        notes=notes,
    )


def given(
    text: str, settings: "KeycloakSettings | None", *, not_before: int = 0, clock: Callable[[], float] = time.time
) -> Token:
    """Return a token that somebody has. With `settings` its signature is checked, with the realm's keys.

    - Without them, what it says is shown and not believed: its dates are compared, and the routes say what they would answer.
    - ``not_before`` is the realm's, if it is known: tokens that were issued earlier are revoked.
    """
    parsed = parse(text.encode("ascii", "replace"))
    if isinstance(parsed, Decision):
        return Token(source="given; it cannot be read", decision=_with_cure(parsed))
    claims = _claims_in(parsed)
    found = _judged(claims, parsed.algorithm, now=clock(), not_before=not_before)
    if settings is not None:
        verdict = verdict_on(settings, text, ())
        held = bool(verdict.decision.kid)
        if not held:
            return Token(source="given; its signature was not verified", decision=verdict.decision)
        found = tuple(dict.fromkeys((verdict.decision, *_unlike(verdict.decision, found))))
        decision, *further = _refusals(found) or (verdict.decision,)
        principal = verdict.principal or described_by(claims)
        return Token(
            source="given; its signature holds", decision=decision, further=tuple(further), principal=principal
        )
    decision, *further = found
    return Token(
        source="given; its signature was not checked, because the environment has no settings of Keycloak",
        decision=decision,
        further=tuple(further),
        principal=described_by(claims),
    )


def _refusals(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    return tuple(each for each in decisions if each.reason is not Reason.ALLOWED)


def _unlike(first: Decision, others: Iterable[Decision]) -> Iterator[Decision]:
    """Yield the others that say something else."""
    return (each for each in others if each.reason is not first.reason)


def _claims_in(parsed: Jws) -> dict[str, Any]:
    found = parsed.claims()
    return {} if isinstance(found, Decision) else found


def _with_cure(decision: Decision) -> Decision:
    return (
        decision
        if decision.cure
        else Decision(reason=decision.reason, cure=unsigned_cure(decision.reason, issuer="", jwks=""))
    )


def whole_claims(model: RealmModel, client_id: str, outcome: Granted, *, now: int) -> dict[str, Any]:
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


def _judged(claims: Mapping[str, Any], algorithm: str, *, now: float, not_before: int = 0) -> tuple[Decision, ...]:
    """Return every check that the token does not pass, before audience and caller; the issuer is taken as right. Never empty."""
    found: list[Decision] = []
    if algorithm not in ALGORITHMS:
        cure = unsigned_cure(Reason.ALGORITHM_NOT_ALLOWED, issuer="", jwks="")
        found.append(Decision(reason=Reason.ALGORITHM_NOT_ALLOWED, cure=cure))
    payload = json.dumps(dict(claims)).encode()
    issuer = claims.get("iss")
    checks = Checks(
        issuer=issuer if isinstance(issuer, str) else "", audiences=frozenset(), leeway=_LEEWAY, certificate=True
    )
    jws = Jws(algorithm=algorithm, kid="", payload=payload, signing_input=b"", signature=b"")
    # Whether the service accepts bound tokens at all is asked for each service: see `_answer`.
    refusals, _ = checks.refusals(jws, json_object(payload), not_before=not_before, now=now, dpop=under_dpop(claims))
    return (*found, *refusals) or (Decision(reason=Reason.ALLOWED),)


def _denied_cures(
    model: RealmModel, question: Question, outcome: Denied, provenance: Provenance | None
) -> tuple[str, ...]:
    """Say everything that is to change in the realm before it gives the client a token."""
    who, client = named(question.client_id), model.client(question.client_id)
    description = f" ({outcome.description})" if outcome.description else ""
    said = f"Keycloak would give {who} no token: {outcome.error}{description}."
    if client is None:
        return (f"{said} Make a client {who} (step A of the README): the realm {named(model.name)} has none.",)
    found = []
    if outcome.status == _REALM_DISABLED:
        found.append(f"Enable the realm {named(model.name)}.")
    if not client.enabled:
        found.append(f"Enable the client {who}.")
    if client.bearer_only or client.public or not client.service_accounts:
        found.append(NO_SERVICE_ACCOUNT.format(client=who))
    if client.account is not None and not client.account.enabled:
        found.append(f"Enable the user {named(client.account.username)}, the service account of {who}.")
    if provenance is not None and provenance.not_assigned:
        names = listed(provenance.not_assigned, " and ")
        absent = [name for name in provenance.not_assigned if name not in model.scopes]
        make = f"Make {listed(absent, ' and ')}, a client scope that the realm does not have. " if absent else ""
        found.append(
            f"{make}Assign {names} to the client {who} in Keycloak, as optional (or default) client scopes, or ask for others."
        )
    if not question.dpop and model.proof_missing(client.id) is not None:
        found.append(f"{bind_or_switch_off(client.id)} With --dpop, this is explained for a bound token.")
    first, *others = found or [f"Look at the client {who} in Keycloak."]
    return (f"{said} {first}", *others)


# Routes


def explained(
    question: Question, token: Token, apps: Iterable[AppAccess], *, files: Iterable[str] = (), realm_file: str = ""
) -> Explanation:
    """Judge the token for each route of the called apps, and say what in the realm and in the code explains a refusal.

    - Without a declaration of the called service, only its audience is judged: what its routes require is not known.
    - ``files`` are the access files that were read, and ``realm_file`` is the realm file, if no server was asked.
    """
    apps, elsewhere = in_one_realm(apps, token.principal.issuer if token.principal is not None else "")
    given = tuple(apps)
    called = receiving(given, question.to)
    answers = {app: tuple(_answers(app, question, token)) for app in called}
    if question.to and not called:
        app = any_service_for(question.to)
        called = (app,)
        answers = {app: tuple(_as_far_as_known(answer) for answer in _answers(app, question, token))}
    routes = tuple(answer for each in answers.values() for answer in each)
    hints = [*_nearly_named(token, called), *_hints(question, token, routes, called), *elsewhere]
    for app, its in answers.items():
        reasons = {reason for route in its if not route.accepted for reason in route.reasons}
        if _in_effect(question, token, app):
            reasons -= {Reason.WRONG_AUDIENCE}  # no plan makes a scope that is there
        if token.principal is not None or not _makes_client(
            question, token
        ):  # a token that is there is refused for its binding
            reasons -= {Reason.NO_CREDENTIALS}
        if refused := [each for each in its if not each.accepted]:
            hints += _without_credentials(app, question, {each.route for each in refused})
        realm = token.model.name if token.model is not None else ""
        hints += about_the_code(
            question.client_id, reasons, app, given, realm=realm, files=files, realm_file=realm_file
        )
    return Explanation(question=question, token=token, routes=routes, hints=tuple(dict.fromkeys(hints)))


def _nearly_named(token: Token, called: Iterable[AppAccess]) -> Iterator[str]:
    for app in called:
        accepted, caller = audiences_of(app), token.principal or token.supposed
        if caller is None or accepted & caller.audiences:
            continue
        for name, close in nearly_named(accepted, caller):
            yield f"The token is for {named(close)}, and {named(app.client_id)} accepts {named(name)}: is one of the two names mistyped?"


def _as_far_as_known(answer: RouteAnswer) -> RouteAnswer:
    """Return what a service answers of which only the audience is known."""
    if not answer.accepted:
        return answer
    app = named(answer.app)
    cure = (
        f"The token is good for {app}. The routes of {app} are not known: add --access FILE, the access file of {app}."
    )
    return replace(answer, reason=ROUTES_UNKNOWN, cure=cure)


def _without_credentials(app: AppAccess, question: Question, refused: Collection[str]) -> Iterator[str]:
    """Say which routes that refuse the token accept a request that brings none."""
    routes = [route for route in app.routes if route.optional and route.name in refused and _meant(route, question)]
    names = [
        f"{route.name} (for {listed(route.optional)})" if {*route.methods} - {*route.optional} else route.name
        for route in routes
    ]
    if names:
        yield (
            f"{', '.join(names)} of {named(app.client_id)} accepts a request without any credentials. One that brings a token is judged, so a"
            " refused token is worse than none there."
        )


def _makes_client(question: Question, token: Token) -> bool:
    """Return whether a plan could give the client a token: it makes clients and service accounts, and changes nothing else of a client."""
    client = None if token.model is None else token.model.client(question.client_id)
    return client is None or (not client.service_accounts and not client.public and client.enabled)


def _in_effect(question: Question, token: Token, app: AppAccess) -> bool:
    model, found = token.model, token.provenance
    if model is None or found is None:
        return False
    return any(_without_effect(question, model, found, audience) for audience in audiences_of(app))


def declared_only(question: Question, apps: Iterable[AppAccess]) -> Explanation:
    """Say what the routes would require of the client. No realm is known, so nobody can say what its token has.

    The routes answer as if the token had every audience, scope and role that they require.
    """
    called = receiving(apps, question.to)
    leaves = [
        leaf
        for app in called
        for route in app.routes
        for leaf in (*leaves_of(app.requires), *leaves_of(route.requires))
    ]
    access: dict[str, list[str]] = {}
    for app in called:
        for role in (leaf for route in app.routes for leaf in leaves_of(route.requires) if isinstance(leaf, HasRole)):
            access.setdefault("" if role.realm else role.client or app.client_id, []).extend(role.roles)
    claims = {
        "azp": question.client_id,
        "client_id": question.client_id,
        "aud": sorted({name for leaf in leaves if isinstance(leaf, Audience) for name in leaf.audiences}),
        "scope": " ".join(sorted({name for leaf in leaves if isinstance(leaf, HasScope) for name in leaf.scopes})),
        "realm_access": {"roles": access.pop("", [])},
        "resource_access": {owner: {"roles": names} for owner, names in access.items()},
    }
    token = Token(
        source=(
            "not known, because neither a realm file nor a server was given. The routes answer as if it had every audience, scope and role"
            " that they require"
        ),
        decision=Decision(reason=Reason.ALLOWED),
        supposed=described_by(claims | ({"cnf": {"jkt": ANY_THUMBPRINT}} if question.dpop else {})),
    )
    routes = tuple(answer for app in called for answer in _answers(app, question, token))
    return Explanation(question=question, token=token, routes=routes, hints=tuple(required(question, called)))


def declares_bound(apps: Iterable[AppAccess], client_id: str, to: str) -> bool:
    """Return whether an app declares that it calls a service with bound tokens, and with no others."""
    given = tuple(apps)
    names = {to} | {name for app in receiving(given, to) for name in (app.client_id, *audiences_of(app))}
    calls = [
        call for app in given if app.client_id == client_id for call in app.calls if names & {*call.audiences} or not to
    ]
    return bool(calls) and all(call.dpop for call in calls)


def required(question: Question, apps: Iterable[AppAccess]) -> Iterator[str]:
    """Say what the routes that are meant require, as the code writes it."""
    for app in receiving(apps, question.to):
        for route in app.routes:
            if _meant(route, question) and not route.open:
                parts = tuple(each for each in (app.requires, route.requires) if each is not None)
                yield f"{route.name} of {named(app.client_id)} requires {canonical(AllOf(parts)) if parts else 'nothing'}."


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


def _answer(app: AppAccess, route: RouteEntry | None, token: Token) -> dict[str, Any]:
    """Return the first reason, which is what the service answers, and those that would follow."""
    found = list(_refusals((token.decision, *token.further)))
    caller = token.principal or token.supposed
    if caller is not None and (problem := binding_problem(caller.client_id, app, binding=caller.binding)):
        found.append(problem)
    for requirement in (app.requires, None if route is None else route.requires):
        if requirement is None or caller is None:
            continue
        first = requirement.judge(caller, app.client_id)
        if first.reason is not Reason.ALLOWED:
            found.append(first)
            found += (each for each in requirement.refusals(caller, app.client_id) if each.cure not in first.cure)
    if not found:
        return {"reason": str(Reason.ALLOWED)}
    every = list(dict.fromkeys((each.reason, each.cure) for each in found))
    # A token of another kind is to be sent: what this one lacks beside is no advice.
    last = next((number for number, (reason, _) in enumerate(every) if reason in _ANOTHER_TOKEN), len(every))
    (reason, cure), *others = every[: last + 1]
    # In an access file a condition is known by its name only: all else holds, and only the app can tell.
    return {
        "reason": CONDITION_UNKNOWN if reason is Reason.CONDITION_NOT_MET else str(reason),
        "cure": cure,
        "then": tuple(Decision(reason=reason, cure=cure) for reason, cure in others),
    }


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
    if token.model is not None:
        needed = {
            name
            for app in called
            for route in app.routes
            for leaf in leaves_of(route.requires)
            if isinstance(leaf, HasScope)
            for name in leaf.scopes
        }
        if any(Reason.SCOPE_MISSING in route.reasons for route in routes):
            yield from _about_scopes(question, token.model, token.principal or token.supposed, sorted(needed), found)
    if not any(Reason.WRONG_AUDIENCE in route.reasons for route in routes):
        return
    wanted = {question.to} - {""} or {app.client_id for app in called}
    if token.model is not None:
        for audience in sorted(wanted):
            if scopes := _without_effect(question, token.model, found, audience):
                yield (
                    f"The scope {listed(scopes)} is in effect and has an Audience mapper for {named(audience)}, which writes nothing into these"
                    f" tokens: switch “Always use lightweight access token” off for {who}."
                )
            else:
                yield _steps(
                    audience, token.model, [each.scope for each in found.dropped if audience in each.audiences]
                )
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


def _about_scopes(
    question: Question, model: RealmModel, caller: Principal | None, needed: Iterable[str], found: Provenance
) -> Iterator[str]:
    """Say why a required scope is not in the token. One that dropped out was named already."""
    who = named(question.client_id)
    dropped = {each.scope for each in found.dropped}
    held = (*model.default_scopes(question.client_id), *question.scopes)
    for name in needed:
        if caller is None or name in caller.scopes or name in dropped:
            continue
        scope = named(name)
        if name not in model.scopes:
            yield f"The realm has no client scope {scope}: make it, and assign it to {who}."
        elif name in held:
            yield f"The scope {scope} is assigned to {who}, and is not included in tokens: switch on “Include in token scope”."
        elif name in model.optional_scopes(question.client_id):
            yield f"The scope {scope} is an optional scope of {who} and was not requested: request it (scope={scope})."
        else:
            yield f"The scope {scope} is not assigned to {who}: assign it, as Default, or as Optional if {who} requests it (scope=...)."


def _without_effect(question: Question, model: RealmModel, found: Provenance, audience: str) -> list[str]:
    """Return the scopes that are in effect and have an Audience mapper for an audience, which is not in the token all the same."""
    dropped = {each.scope for each in found.dropped}
    held = (*model.default_scopes(question.client_id), *question.scopes)
    return [name for name in held if name not in dropped and audience in _brought(model, name)]


def _brought(model: RealmModel, scope: str) -> frozenset[str]:
    return audiences_brought_by(model.scopes[scope]) if scope in model.scopes else frozenset()


def _steps(audience: str, model: RealmModel, dropped: Collection[str]) -> str:
    """Say which of the steps A to D the realm has. The token shows A; D is missing, unless its scope dropped out."""
    has = ["A"]
    if audience in model.client_ids or "://" in audience:
        has.append("B")
    if scopes := [name for name in model.scopes if audience in _brought(model, name)]:
        has.append(f"C ({listed(scopes)})")
    if dropped:
        has.append("D")
    missing = [step for step in "ABCD" if not any(each.startswith(step) for each in has)]
    steps = f"Of the steps A to D in the README, the realm has {', '.join(has)} for {named(audience)}."
    lacks = f" Missing: {', '.join(missing)}." if missing else ""
    done = f" D is done, and the scope {listed(dropped)} drops out." if dropped else ""
    return f"{steps}{done}{lacks}"


def _role(role: Role) -> str:
    return f"{role.client}: {role.name}" if role.client else role.name


def _decisions_json(decisions: Iterable[Decision]) -> list[dict[str, str]]:
    return [{"reason": str(each.reason), "cure": each.cure} for each in decisions]


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
