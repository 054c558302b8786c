"""Who may call a route, read from its requirement: the claims of one that may, and why another may not."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.asked import plain, ways_of
from s2s_fastapi.requirement.conditions import HasClaim, Scalar, with_claim
from s2s_fastapi.requirement.require import require_service, require_user
from s2s_fastapi.requirement.requirement import AllOf, Audience, Bound, Caller, HasRole, HasScope, Requirement
from s2s_fastapi.testing.attack.ground import Permits
from s2s_fastapi.testing.attack.prover import binding
from s2s_fastapi.verifier.predicted import predicted_principal

__all__ = ["UNDECIDED", "permits_of"]

UNDECIDED: Final = (str(Reason.CONDITION_NOT_MET), str(Reason.CONDITION_FAILED))
"""Why the token of a route is refused, if only a condition of the app knows which token it accepts."""
_CLIENT: Final = "calling-service"
_SERVICE: Final = require_service()
_ANYBODY: Final = require_service() | require_user()


def permits_of(
    requirement: Requirement | None,
    *,
    audiences: AbstractSet[str],
    client_id: str,
    users: bool,
    realm: str = "",
    bound: bool = False,
) -> Permits:
    """Return who of the attacked realm may call a route of an app that accepts these audiences.

    ``client_id`` is the app's own. ``realm`` is what requirements call the attacked one. ``bound``: the app accepts only bound tokens.
    """
    middleware = _ANYBODY if users else _SERVICE
    whole = middleware if requirement is None else AllOf((middleware, requirement))  # also of optional requirements

    def refused(claims: Mapping[str, Any]) -> str:
        read = predicted_principal(claims)
        if isinstance(read, Decision):
            return str(read.reason)
        caller = replace(read, realm=realm, binding="dpop" if "cnf" in claims else "")
        decision = whole.judge(caller, client_id)
        return "" if decision.reason is Reason.ALLOWED else str(decision.reason)

    audience = min(audiences, default=client_id or "any-audience")
    ways = [_claims(tuple(map(plain, way)), audiences, audience, client_id, bound=bound) for way in ways_of(whole)]
    outcomes = [refused(each) for each in ways]
    wanted = next((each for each in ("", *UNDECIDED) if each in outcomes), None)
    if wanted is not None:
        claims = ways[outcomes.index(wanted)]
    else:  # nobody may call: the control will show it
        claims = {"azp": _CLIENT, "client_id": _CLIENT, "aud": audience, **(binding() if bound else {})}
    return Permits(claims=claims, refused=refused, user="sid" in claims)


def _claims(
    leaves: tuple[Requirement, ...], audiences: AbstractSet[str], audience: str, client_id: str, *, bound: bool
) -> dict[str, Any]:
    """Return the claims that meet all of these, if any do."""
    callers = [leaf for leaf in leaves if isinstance(leaf, Caller)]
    named = [leaf.client_ids for leaf in callers if leaf.client_ids]
    azp = min(frozenset.intersection(*named), default=_CLIENT) if named else _CLIENT
    who = {"sid": "a-session"} if any(leaf.kind == "user" for leaf in callers) else {"client_id": azp}
    claims: dict[str, Any] = {"azp": azp, **who, "aud": audience}
    scopes = {scope for leaf in leaves if isinstance(leaf, HasScope) for scope in leaf.scopes}
    if scopes:
        claims["scope"] = " ".join(sorted(scopes))
    for leaf in leaves:
        if isinstance(leaf, Audience):
            claims["aud"] = min(leaf.audiences & audiences, default=min(leaf.audiences))
        elif isinstance(leaf, HasRole):
            owner = leaf.client or client_id
            access = claims.setdefault("resource_access", {}).setdefault(owner, {}) if not leaf.realm else None
            access = claims.setdefault("realm_access", {}) if access is None else access
            access["roles"] = sorted({*access.get("roles", ()), *leaf.roles})
    values: dict[tuple[str, ...], list[Scalar]] = {}
    for leaf in leaves:
        if isinstance(leaf, HasClaim):
            values.setdefault(leaf.path, []).append(leaf.values[0])
    if bound or any(isinstance(leaf, Bound) for leaf in leaves):
        claims |= binding()
    for path, several in values.items():  # a list holds a value for each of them
        with_claim(claims, path, several if len(several) > 1 else several[0])
    return claims
