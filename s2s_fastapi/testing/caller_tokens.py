"""Which tokens meet a requirement, and which just do not: computed from the tree of the requirement, for access tests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any, Final, Literal

from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.asked import leaves_of, plain, ways_of
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.conditions import Condition, HasClaim, Scalar, with_claim
from s2s_fastapi.requirement.requirement import (
    AllOf,
    AnyOf,
    Audience,
    Bound,
    Caller,
    HasRole,
    HasScope,
    InRealm,
    Requirement,
)

__all__ = [
    "ANOTHER",
    "ANYBODY",
    "CallerToken",
    "Refused",
    "count_ways",
    "refused_tokens",
    "satisfying_tokens",
    "undecided_conditions",
]

ANYBODY: Final = "any-service"
"""The caller, if the requirement names none."""
ANOTHER: Final = "another-service"
"""A caller, and an audience, that no requirement names."""
_LIFE: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerToken:
    """What the token of a caller says, as far as requirements look at it."""

    kind: Literal["service", "user"] = "service"
    client_id: str = ANYBODY
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    roles: frozenset[tuple[str, str]] = frozenset()
    """Each after its client."""
    realm_roles: frozenset[str] = frozenset()
    values: frozenset[tuple[tuple[str, ...], type, Scalar]] = frozenset()
    """Other claims: the path, the type and the value. Several values of one claim make a list."""
    expired: bool = False
    realm: str = ""
    """The issuer of a further realm of the app; empty for the first one."""
    bound: bool = False
    """Whether the token is bound to a key (RFC 9449)."""
    proof: Literal["right", "none", "of another key"] = "right"
    """The proof of the request, if the token is bound."""

    @property
    def claims(self) -> dict[str, Any]:
        """The claims that Keycloak would write for exactly this, and nothing else."""
        by_client: dict[str, list[str]] = {}
        for client, role in sorted(self.roles):
            by_client.setdefault(client, []).append(role)
        others: dict[str, Any] = {}
        for path in sorted({path for path, _, _ in self.values}):
            held = sorted((each for each in self.values if each[0] == path), key=str)
            with_claim(others, path, held[0][2] if len(held) == 1 else [value for _, _, value in held])
        return {
            **others,
            "aud": sorted(self.audiences) or None,
            "scope": " ".join(sorted(self.scopes)) or None,
            "realm_access": {"roles": sorted(self.realm_roles)} if self.realm_roles else None,
            "resource_access": {client: {"roles": roles} for client, roles in by_client.items()} or None,
        }

    @property
    def principal(self) -> Principal:
        """The caller that a receiver makes of it."""
        return Principal(
            client_id=self.client_id,
            kind=self.kind,
            issuer=self.realm,
            other_realm=self.realm,
            issued_at=0,
            expires_at=_LIFE,
            audiences=self.audiences,
            scopes=self.scopes,
            realm_roles=self.realm_roles,
            client_roles={
                client: frozenset(role for owner, role in self.roles if owner == client) for client, _ in self.roles
            },
            claims=self.claims,
            binding="dpop" if self.bound else "",
        )

    def reason(self, requirement: Requirement) -> Reason:
        """Return what a requirement decides about it."""
        if self.expired:
            return Reason.EXPIRED
        if self.bound and self.proof != "right":
            return Reason.PROOF_MISSING if self.proof == "none" else Reason.INVALID_PROOF
        return requirement.judge(self.principal).reason

    def __str__(self) -> str:
        who = f"service {self.client_id}" if self.kind == "service" else f"user of {self.client_id}"
        held = [
            ("aud", self.audiences),
            ("scope", self.scopes),
            ("role", {f"{role} of {client}" for client, role in self.roles}),
            ("realm role", self.realm_roles),
            ("claim", {f"{' > '.join(path)} {json.dumps(value)}" for path, _, value in self.values}),
        ]
        said = "".join(f", {name} {' '.join(sorted(values))}" for name, values in held if values)
        where = f" of the realm {self.realm}" if self.realm else ""
        proof = (
            "" if self.proof == "right" else ", without a proof" if self.proof == "none" else f", a proof {self.proof}"
        )
        return f"{who}{where}{said}{', bound' if self.bound else ''}{proof}{', expired' if self.expired else ''}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that lacks one thing."""

    what: str
    """What is wrong, as it stands in the name of a test."""
    token: CallerToken
    reason: Reason
    beside: CallerToken
    """The token that lacks nothing."""


def count_ways(requirement: Requirement) -> int:
    """Return in how many ways a requirement can be met, without making them."""
    if isinstance(requirement, AnyOf):
        return sum(map(count_ways, requirement.parts))
    if isinstance(requirement, AllOf):
        return reduce(lambda product, part: product * count_ways(part), requirement.parts, 1)
    return 1


def satisfying_tokens(requirement: Requirement, *, bound: bool = False) -> list[CallerToken]:
    """Return the smallest token for each way to meet a requirement; none for a way that no token can meet.

    ``bound``: the app accepts only tokens that are bound to a key.
    """
    tokens = (_smallest(way, bound=bound) for way in ways_of(requirement))
    return list(dict.fromkeys(token for token in tokens if token.reason(requirement) is Reason.ALLOWED))


def undecided_conditions(requirement: Requirement) -> list[str]:
    """Return the names of the conditions without which no way, or not every way, can be tried: only the app can tell."""
    return sorted(
        {leaf.name for way in ways_of(requirement) for leaf in map(plain, way) if isinstance(leaf, Condition)}
    )


def refused_tokens(requirement: Requirement, *, bound: bool = False) -> list[Refused]:
    """Return tokens that lack one thing of a satisfying one, and that meet no other way either.

    A token that a condition may let in is left out: only the app can tell. ``bound`` is as in `satisfying_tokens`: then a bearer token is
    refused before any requirement is asked.
    """
    found: dict[tuple[str, CallerToken], Refused] = {}
    realms = _audiences_by_realm(requirement)
    for token in satisfying_tokens(requirement, bound=bound):
        others = (
            replace(token, realm=realm, audiences=names) for realm, names in realms.items() if realm != token.realm
        )
        elsewhere = (("a caller of another realm", other) for other in others)
        for what, lacking in (*_lacking(token), *elsewhere):
            reason = lacking.reason(requirement) if lacking.bound or not bound else Reason.BEARER_NOT_ACCEPTED
            if reason not in (Reason.ALLOWED, Reason.CONDITION_NOT_MET):
                found.setdefault((what, lacking), Refused(what, lacking, reason, token))
    return list(found.values())


def _audiences_by_realm(requirement: Requirement) -> dict[str, frozenset[str]]:
    """Return the realms that a requirement speaks of, each with audiences that a token of it needs."""
    leaves: dict[str, list[Requirement]] = {}
    for leaf in leaves_of(requirement):
        leaves.setdefault(_realm(leaf), []).append(plain(leaf))
    return {
        realm: _audiences([leaf for leaf in of_realm if isinstance(leaf, Audience)])
        for realm, of_realm in leaves.items()
    }


def _realm(leaf: Requirement) -> str:
    return leaf.realm if isinstance(leaf, InRealm) else ""


def _lacking(token: CallerToken) -> Iterator[tuple[str, CallerToken]]:
    """Yield a token with one fault after the other."""
    user = token.kind == "user"
    yield "a service's token" if user else "a user's token", replace(token, kind="service" if user else "user")
    yield "a user of another client" if user else "another service", replace(token, client_id=ANOTHER)
    yield "a wrong audience", replace(token, audiences=frozenset({ANOTHER}))
    yield "one more audience", replace(token, audiences=token.audiences | {ANOTHER})
    for scope in sorted(token.scopes):
        yield f"without scope {scope}", replace(token, scopes=token.scopes - {scope})
    for client, role in sorted(token.roles):
        yield f"without role {role} of {client}", replace(token, roles=token.roles - {(client, role)})
    for role in sorted(token.realm_roles):
        yield f"without realm role {role}", replace(token, realm_roles=token.realm_roles - {role})
    for path, kind, value in sorted(token.values, key=str):
        name, rest = " > ".join(path), token.values - {(path, kind, value)}
        yield f"without claim {name}", replace(token, values=rest)
        yield f"another value in claim {name}", replace(token, values=rest | {(path, str, ANOTHER)})
    yield "an expired token", replace(token, expired=True)
    if token.bound:
        yield "the same token without a proof", replace(token, proof="none")
        yield "the same token with a proof of another key", replace(token, proof="of another key")
        yield "a token that is bound to no key", replace(token, bound=False)


def _smallest(leaves: tuple[Requirement, ...], *, bound: bool) -> CallerToken:
    """Return the smallest token for plain requirements that must all be met; one that meets not all of them if none can."""
    way = tuple(map(plain, leaves))
    callers = [leaf for leaf in way if isinstance(leaf, Caller)]
    named = [leaf.client_ids for leaf in callers if leaf.client_ids]
    roles = [leaf for leaf in way if isinstance(leaf, HasRole)]
    return CallerToken(
        kind=callers[0].kind if callers else "service",
        client_id=min(reduce(and_, named), default=ANYBODY) if named else ANYBODY,
        audiences=_audiences([leaf for leaf in way if isinstance(leaf, Audience)]),
        scopes=frozenset(scope for leaf in way if isinstance(leaf, HasScope) for scope in leaf.scopes),
        roles=frozenset((leaf.client or "", role) for leaf in roles if not leaf.realm for role in leaf.roles),
        realm_roles=frozenset(role for leaf in roles if leaf.realm for role in leaf.roles),
        realm=max(map(_realm, leaves), default=""),
        values=frozenset(
            (leaf.path, type(leaf.values[0]), leaf.values[0]) for leaf in way if isinstance(leaf, HasClaim)
        ),
        bound=bound or any(isinstance(leaf, Bound) for leaf in way),
    )


def _audiences(leaves: list[Audience]) -> frozenset[str]:
    """Return few audiences that are in all of ``leaves``: one if there is such a one, else one of each."""
    only = [leaf.audiences for leaf in leaves if leaf.only]
    allowed = [leaf.audiences & reduce(and_, only) if only else leaf.audiences for leaf in leaves]
    if not all(allowed):
        return frozenset()
    chosen: set[str] = set()
    for names in sorted(allowed, key=lambda names: (len(names), sorted(names))):
        if chosen.isdisjoint(names):
            rest = [other for other in allowed if chosen.isdisjoint(other)]
            chosen.add(min(names, key=lambda name: (-sum(name in other for other in rest), name)))
    return frozenset(chosen)
