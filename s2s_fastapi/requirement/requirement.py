"""What a route requires of its caller, as a value: who may call, and with which scopes and roles."""

import json
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn, Self, TypeVar

from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection  # FastAPI reads the annotation below at run time
from starlette.types import Scope

from s2s_fastapi.answers import error_of
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import asked_by_fastapi, awaited
from s2s_fastapi.keycloak.cures import (
    also_for,
    audience_cure,
    caller_cure,
    kind_cure,
    realm_cure,
    role_cure,
    scope_cure,
    unbound_cure,
    wrong_kind_cure,
)
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.guard import guarded
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Anonymous, Authenticated

__all__ = [
    "AllOf",
    "AnyOf",
    "Audience",
    "Bound",
    "Caller",
    "HasRole",
    "HasScope",
    "InRealm",
    "OptionalOf",
    "Requirement",
    "ask",
    "of_another_realm",
    "scopes_around",
    "within",
]

E = TypeVar("E")

_NO_SCOPES: Final = SecurityScopes()
"""The scopes around a requirement that is called by hand: none. Nobody changes it."""
_NO_CONNECTION: Final[Any] = None
_ALLOWED: Final = Decision(reason=Reason.ALLOWED)
# How far a token came: is it for this service, who is calling, may it call, does the app's own code say yes.
_PRECEDENCE: Final = (
    Reason.OTHER_REALM,
    Reason.WRONG_AUDIENCE,
    Reason.AUDIENCE_NOT_ONLY,
    Reason.NOT_BOUND,
    Reason.UNKNOWN_KIND,
    Reason.NOT_A_SERVICE,
    Reason.NOT_A_USER,
    Reason.CALLER_NOT_ALLOWED,
    Reason.SCOPE_MISSING,
    Reason.ROLE_MISSING,
    Reason.CLAIM_MISSING,
    Reason.CONDITION_NOT_MET,
    Reason.CONDITION_FAILED,  # last: any other answer that decides is better than none
)

_OF_OTHERS: Final = (Reason.OTHER_REALM, Reason.NOT_A_SERVICE, Reason.NOT_A_USER)


class _Scheme(SecurityBase):
    """What FastAPI's own document says of a requirement before the realm is known: see `s2s_fastapi.declared.openapi`.

    A plain class below the dataclass, so that these attributes are not fields.
    """

    model = HTTPBearer(bearerFormat="JWT", description="An access token of Keycloak (RFC 6750).")
    scheme_name = "ServiceToken"
    needs_credentials = True
    """False only for what `Requirement.optional` returns."""
    asks_code = False
    """Whether a condition is part of it, so that code of the app decides."""
    _key: tuple[Any, ...]
    _hash: int


@dataclass(frozen=True, eq=False, repr=False)
class Requirement(_Scheme):
    """What a route requires of its caller: a frozen, hashable value.

    - Join requirements with ``&`` and ``|``. They refuse to be true or false, so `and`, `or` and ``if requirement:`` raise.
    - Use one in ``Depends`` or ``Security`` on an app, a router or a route, HTTP or WebSocket. The dependency's value is the `Principal`.
    - ``guard`` protects a Starlette endpoint. ``check`` checks a principal from anywhere else.
    - Equal requirements are equal values, so ``app.dependency_overrides[require_caller("a")]`` works.
    """

    def __post_init__(self) -> None:
        self._identify(*vars(self).values())

    def _identify(self, *values: object) -> None:
        """Note what makes it equal to another one. FastAPI asks for the hash of a dependency three times in each request."""
        key = (type(self), *values)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))

    def __eq__(self, other: object) -> bool:
        """Return whether the other requires the same."""
        return self is other or (isinstance(other, Requirement) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._key[1:]  # the hash of a text is another one in another process

    @property
    def dependency(self) -> NoReturn:
        """Refuse to be a ``Depends``: FastAPI reads this attribute of what stands in ``dependencies=[...]``.

        Raises:
            AttributeError: Always, so that a requirement has no such attribute.
        """
        raise AttributeError(
            f"{self} stands in dependencies=[...] without Depends: write dependencies=[Depends({self})]."
        )

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide about a principal; ``client_id`` is the receiving app's own, for roles without a client."""
        raise NotImplementedError

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return everything that would have to change before ``principal`` is allowed, one decision for each; empty if it is allowed."""
        decision = self.judge(principal, client_id)
        return () if decision.reason is Reason.ALLOWED else (decision,)

    def check(self, principal: Principal) -> Principal:
        """Return ``principal`` if it meets the requirement. For code outside of a request, after `TokenVerifier.verify`.

        Raises:
            AuthorizationError: It does not: 403 (RFC 6750 section 3.1 ``insufficient_scope``).
            AuthenticationError: Its token is not for the required audience: 401.
            ConfigurationError: The requirement only makes sense inside an app, for example a role without ``client=``.
        """
        decision = self.judge(principal)
        if decision.reason is not Reason.ALLOWED:
            raise error_of(decision)
        return principal

    def guard(self, endpoint: E) -> E:
        """Return ``endpoint`` so that it runs only for callers that meet the requirement.

        ``endpoint`` is a Starlette function of a request or a WebSocket (async or not), an ``HTTPEndpoint`` or
        ``WebSocketEndpoint`` class, or any ASGI app to be mounted.
        """
        return guarded(self, endpoint)

    def optional(self) -> "OptionalOf":
        """Return the requirement for a path of ``optional_paths``: it is asked only of requests that bring credentials.

        - The dependency's value is ``Principal | None``. None means that the request had no credentials at all.
        - On every other path it is the plain requirement, because the middleware lets nobody in without credentials there.
        """
        return OptionalOf(self)

    @awaited
    def __call__(
        self, connection: HTTPConnection = _NO_CONNECTION, security_scopes: SecurityScopes = _NO_SCOPES
    ) -> Awaitable[Principal]:
        """Return an awaitable of the caller if it meets the requirement. FastAPI calls this for ``Depends(requirement)``.

        Call it by hand with the request or the WebSocket: ``await requirement(request)``. It decides at once, so a forgotten ``await``
        lets nobody in.

        Raises:
            AuthorizationError: The caller does not meet it.
            ConfigurationError: `ServiceAuthMiddleware` did not authenticate the request, or no request is given.
        """
        if connection is _NO_CONNECTION:
            raise ConfigurationError(
                "Do not call a requirement without a request. In a route write Depends(admin), without parentheses after admin. Elsewhere"
                " write `await admin(request)`."
            )
        scopes = security_scopes.scopes
        requirement = within(self, scopes) if scopes else self
        scope = connection.scope
        state = scope.get(SCOPE_KEY)
        if type(state) is not Authenticated:
            if not self.needs_credentials and (anonymous := Anonymous.of(scope)) is not None:
                anonymous.asked.append(self)
                return _nobody()
            state = Authenticated.of(scope)  # raises
        if state.noted and requirement in state.noted:
            state.noted = [each for each in state.noted if each != requirement]
            return _given(state.principal)
        decision = requirement.judge(state.principal, state.service.client_id)
        if decision is _ALLOWED:  # the usual case, without another call
            state.asked.append(requirement)
            return _given(state.principal)
        return _given(state.decided(scope, requirement, decision))

    def __bool__(self) -> bool:
        """Refuse to be true or false: ``a and b`` would be ``b`` alone, and the first requirement would be lost.

        So ``if requirement:`` raises as well: write ``if requirement is not None:``. FastAPI alone may ask whether there is a dependency.

        Raises:
            ConfigurationError: Anybody else asks.
        """
        if asked_by_fastapi():
            return True
        raise ConfigurationError(
            f"Join requirements with & and |, not with `and` and `or`, which would drop one of them: write {self} & ... to require both, "
            f"or {self} | ... to require one of them. To see whether there is a requirement, write `is not None`."
        )

    def __and__(self, other: "Requirement") -> "Requirement":
        """Require both."""
        return AllOf(parts=(*_parts(self, AllOf), *_parts(other, AllOf)))

    def __or__(self, other: "Requirement") -> "Requirement":
        """Require one of the two."""
        return AnyOf(parts=(*_parts(self, AnyOf), *_parts(other, AnyOf)))


def ask(requirement: Requirement, scope: Scope) -> None:
    """Ask as FastAPI does for ``Depends(requirement)``, in front of FastAPI.

    Raises:
        AuthorizationError, AuthenticationError: The caller does not meet it.
        ConfigurationError: `ServiceAuthMiddleware` did not authenticate the request.
    """
    state = scope.get(SCOPE_KEY)
    if type(state) is not Authenticated:
        if not requirement.needs_credentials and (anonymous := Anonymous.of(scope)) is not None:
            anonymous.asked.append(requirement)
            return
        state = Authenticated.of(scope)  # raises
    decision = requirement.judge(state.principal, state.service.client_id)
    if decision is _ALLOWED:
        state.asked.append(requirement)
    else:
        state.decided(scope, requirement, decision)


async def _given(principal: Principal) -> Principal:
    return principal


async def _nobody() -> Any:
    """Give no caller, None: the request has no credentials."""


def _call(factory: str, *arguments: Iterable[str], **options: object) -> str:
    names = [f'"{name}"' for name in sorted(chain(*arguments))]
    return f"{factory}({', '.join([*names, *(f'{key}={value!r}' for key, value in options.items() if value)])})"


def _always_refuses(decision: Decision) -> bool:
    """Return whether observe mode refuses for this reason, and nothing that is asked later changes the answer."""
    return not decision.reason.observable and decision.reason is not Reason.CONDITION_FAILED


def _distance(decision: Decision) -> int:
    """Return how far a token came before it was refused."""
    return _PRECEDENCE.index(decision.reason)


@dataclass(frozen=True, eq=False, repr=False)
class AllOf(Requirement):
    """Several requirements that must all be met."""

    parts: tuple[Requirement, ...]
    _asked: ClassVar[Sequence[Requirement]]
    """The parts, those that ask code of the app last. Not a field."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "asks_code", any(part.asks_code for part in self.parts))
        object.__setattr__(self, "_asked", sorted(self.parts, key=lambda part: part.asks_code))

    def __repr__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Refuse for the first of these: the token is not for this service, the caller is another, something is missing.

        Conditions are asked last, and only if all else holds.
        """
        for part in self._asked:
            decision = part.judge(principal, client_id)
            if decision is not _ALLOWED and decision.reason is not Reason.ALLOWED:
                rest = self._asked[self._asked.index(part) + 1 :]
                return _decisive(decision, part, rest, principal, client_id)
        return _ALLOWED

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return what every part lacks, not only what is answered. Conditions are left out if observe mode refuses without them."""
        found: list[Decision] = []
        for part in self._asked:
            if part.asks_code and any(map(_always_refuses, found)):
                break
            found += part.refusals(principal, client_id)
        return tuple(found)


def _decisive(
    refusal: Decision, part: Requirement, rest: Iterable[Requirement], principal: Principal, client_id: str
) -> Decision:
    """Return the refusal to answer with: the ``refusal`` of ``part``, or that of one of the ``rest``.

    After a part without a condition, the others without one are asked as well, and no condition is. After a condition that refused, none
    is asked. After a condition that failed, a refusal of another one decides.
    """
    for other in rest:
        if other.asks_code and not (part.asks_code and refusal.reason is Reason.CONDITION_FAILED):
            break
        decision = other.judge(principal, client_id)
        if decision.reason is not Reason.ALLOWED and _distance(decision) < _distance(refusal):
            refusal = decision
    return refusal


@dataclass(frozen=True, eq=False, repr=False)
class AnyOf(Requirement):
    """Several requirements of which one is enough."""

    parts: tuple[Requirement, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "asks_code", any(part.asks_code for part in self.parts))

    def __repr__(self) -> str:
        return " | ".join(f"({part})" if isinstance(part, AllOf) else str(part) for part in self.parts)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Allow with the first that allows; refuse with the one that came nearest."""
        decisions: list[Decision] = []
        for part in self.parts:
            decision = part.judge(principal, client_id)
            if decision is _ALLOWED or decision.reason is Reason.ALLOWED:
                return _ALLOWED
            decisions.append(decision)
        nearest = max(decisions, key=_distance)
        if nearest.reason is Reason.CONDITION_FAILED:
            return nearest
        # What a service lacks to be a user is no advice, nor the other way round, nor what a caller lacks to be of another realm.
        cures = dict.fromkeys(each.cure for each in decisions if each is nearest or each.reason not in _OF_OTHERS)
        return (
            nearest
            if len(cures) == 1
            else replace(nearest, cure=f"one of these is enough. Either: {' Or: '.join(cures)}")
        )

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return what the part that came nearest lacks; of two such parts, the one that observe mode must refuse."""
        lacking: list[tuple[Decision, ...]] = []
        for part in self.parts:
            refusals = part.refusals(principal, client_id)
            if not refusals:
                return ()
            lacking.append(refusals)
        return max(
            lacking, key=lambda each: (min(map(_distance, each)), not all(one.reason.observable for one in each))
        )


@dataclass(frozen=True, eq=False, repr=False)
class Caller(Requirement):
    """The caller is a service or a user, of one of these clients or of any."""

    kind: Literal["service", "user"]
    client_ids: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        if self.kind == "user":
            return _call("require_user", self.client_ids)
        return _call("require_caller" if self.client_ids else "require_service", self.client_ids)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by the kind of the token first, then by the client that got it."""
        if principal.other_realm:
            return of_another_realm(principal)
        if principal.kind == self.kind and (not self.client_ids or principal.client_id in self.client_ids):
            return _ALLOWED
        if principal.kind == "unknown":
            return Decision(reason=Reason.UNKNOWN_KIND, cure=kind_cure(principal))
        if principal.kind != self.kind:
            wrong = Reason.NOT_A_SERVICE if self.kind == "service" else Reason.NOT_A_USER
            return Decision(reason=wrong, cure=wrong_kind_cure(principal, self.kind))
        return Decision(reason=Reason.CALLER_NOT_ALLOWED, cure=caller_cure(principal, self.client_ids))


@dataclass(frozen=True, eq=False, repr=False)
class HasScope(Requirement):
    """The caller has all of these scopes."""

    scopes: frozenset[str]

    def __repr__(self) -> str:
        return _call("require_scope", self.scopes)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by the claim ``scope``."""
        if principal.other_realm:
            return of_another_realm(principal)
        missing = self.scopes - principal.scopes
        if not missing:
            return _ALLOWED
        return Decision(
            reason=Reason.SCOPE_MISSING, scope=" ".join(sorted(self.scopes)), cure=scope_cure(principal, missing)
        )


@dataclass(frozen=True, eq=False, repr=False)
class HasRole(Requirement):
    """The caller has all of these roles of one client, or of the realm."""

    roles: frozenset[str]
    client: str | None = None
    """None: the receiving app's own client."""
    realm: bool = False

    def __repr__(self) -> str:
        return _call("require_realm_role" if self.realm else "require_role", self.roles, client=self.client)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide by the claims ``realm_access`` or ``resource_access``."""
        if principal.other_realm:
            return of_another_realm(principal)
        owner = self.client or client_id
        if not self.realm and not owner:
            raise ConfigurationError("require_role: say whose role it is with client=..., or set KEYCLOAK_CLIENT_ID.")
        held = principal.realm_roles if self.realm else principal.client_roles.get(owner, frozenset[str]())
        missing = self.roles - held
        if not missing:
            return _ALLOWED
        return Decision(
            reason=Reason.ROLE_MISSING, cure=role_cure(principal, missing, owner="" if self.realm else owner)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Audience(Requirement):
    """The token is for one of these audiences, and with ``only`` for no other."""

    audiences: frozenset[str]
    only: bool = False

    def __repr__(self) -> str:
        return _call("require_audience", self.audiences, only=self.only)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by the claim ``aud`` (RFC 7519 section 4.1.3)."""
        if principal.other_realm:
            return of_another_realm(principal)
        if self.audiences.isdisjoint(principal.audiences):
            return Decision(reason=Reason.WRONG_AUDIENCE, cure=audience_cure(principal, self.audiences))
        others = principal.audiences - self.audiences
        if self.only and others:
            return Decision(reason=Reason.AUDIENCE_NOT_ONLY, cure=also_for(principal, others))
        return _ALLOWED


@dataclass(frozen=True, eq=False, repr=False)
class Bound(Requirement):
    """The token is bound to a key or to a certificate, and the request proved that its sender has it."""

    def __repr__(self) -> str:
        return "require_bound()"

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by what the request proved, never by the claim ``cnf`` alone."""
        if principal.other_realm:
            return of_another_realm(principal)
        if principal.binding:
            return _ALLOWED
        return Decision(reason=Reason.NOT_BOUND, cure=unbound_cure(principal))


@dataclass(frozen=True, eq=False, repr=False)
class OptionalOf(Requirement):
    """A requirement that is asked only of requests that bring credentials: see `Requirement.optional`."""

    needs_credentials = False
    requirement: Requirement

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "asks_code", self.requirement.asks_code)

    def __repr__(self) -> str:
        inner = f"({self.requirement})" if isinstance(self.requirement, AllOf | AnyOf) else str(self.requirement)
        return f"{inner}.optional()"

    def optional(self) -> "OptionalOf":
        """Return it: it is optional already."""
        return self

    if TYPE_CHECKING:  # the caller, or None

        def __call__(
            self, connection: HTTPConnection = _NO_CONNECTION, security_scopes: SecurityScopes = _NO_SCOPES
        ) -> Awaitable[Any]:
            """Return an awaitable of the caller, or of None if the request has no credentials and its path is optional."""
            ...

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide about a caller as the requirement does."""
        return self.requirement.judge(principal, client_id)

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return what the requirement would have to see changed."""
        return self.requirement.refusals(principal, client_id)


@dataclass(frozen=True, eq=False, repr=False)
class InRealm(Requirement):
    """A plain requirement for callers of one realm, and for no others. Without it, a requirement speaks of the first realm."""

    realm: str
    """The name that the service gives to the realm (`KeycloakSettings.name`), or its issuer."""
    requirement: Requirement

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "asks_code", self.requirement.asks_code)

    def __repr__(self) -> str:
        said = str(self.requirement).removesuffix(")")
        return f"{said}{'' if said.endswith('(') else ', '}realm={json.dumps(self.realm, ensure_ascii=False)})"

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Refuse callers of other realms; for the others, decide as the plain requirement does in its own realm."""
        if self.realm not in (principal.realm, principal.issuer):
            return Decision(reason=Reason.OTHER_REALM, cure=realm_cure(principal, self.realm))
        return self.requirement.judge(_at_home(principal) if principal.other_realm else principal, client_id)


@lru_cache(maxsize=256)
def _at_home(principal: Principal) -> Principal:
    """Return the caller as a requirement of its own realm sees it. Remembered: a copy costs more than all else that is judged."""
    return replace(principal, other_realm="")


def of_another_realm(principal: Principal) -> Decision:
    """Return the refusal of a caller that is not of the first realm, by a requirement that names no realm."""
    return Decision(reason=Reason.OTHER_REALM, cure=realm_cure(principal))


def scopes_around(requirement: Requirement, scopes: Iterable[str]) -> Requirement:
    """Return what the scopes of a ``Security`` around a requirement require: of a caller in each realm that the requirement names."""
    wanted = HasScope(frozenset(scopes))
    realms = dict.fromkeys(_realms_in(requirement))
    parts = tuple(InRealm(realm, wanted) if realm else wanted for realm in realms)
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def within(requirement: Requirement, scopes: Iterable[str]) -> Requirement:
    """Return what FastAPI asks for a requirement with the ``scopes`` of a ``Security`` around it."""
    wanted = tuple(scopes)
    if not wanted:
        return requirement
    if isinstance(requirement, OptionalOf):
        return OptionalOf(requirement.requirement & scopes_around(requirement, wanted))
    return requirement & scopes_around(requirement, wanted)


def _realms_in(requirement: Requirement) -> Iterator[str]:
    if isinstance(requirement, OptionalOf):
        requirement = requirement.requirement
    if isinstance(requirement, AllOf | AnyOf):
        for part in requirement.parts:
            yield from _realms_in(part)
    else:
        yield requirement.realm if isinstance(requirement, InRealm) else ""


def _parts(requirement: Requirement, kind: type[AllOf] | type[AnyOf]) -> tuple[Requirement, ...]:
    if not isinstance(requirement, Requirement):
        raise ConfigurationError("A requirement can only be joined with another: require_...(...) & require_...(...).")
    if isinstance(requirement, OptionalOf):
        raise ConfigurationError(
            f"{requirement} cannot be joined: write (require_...(...) & require_...(...)).optional()."
        )
    return requirement.parts if isinstance(requirement, kind) else (requirement,)
