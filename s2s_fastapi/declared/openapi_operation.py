"""One guarded operation in OpenAPI: who may call it, with which token, and the answers to everybody else."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, Self

from s2s_fastapi.answers import ProtectionSpace, headers_of
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.endpoints import PublicEndpoints
from s2s_fastapi.requirement.conditions import Condition, HasClaim
from s2s_fastapi.requirement.requirement import Audience, Bound, Caller, HasRole, HasScope, Requirement
from s2s_fastapi.text import listed, named

__all__ = [
    "CERTIFICATE_SCHEME",
    "CERTIFICATE_SCHEME_NAME",
    "ERROR_SCHEMA",
    "PROOF_SCHEME",
    "PROOF_SCHEME_NAME",
    "Way",
    "refusals",
    "scheme",
    "security",
]

ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "ServiceAuthError",
    "type": "object",
    "properties": {"detail": {"title": "Detail", "type": "string"}},
    "required": ["detail"],
}
"""The body of every refusal."""

PROOF_SCHEME_NAME: Final = "DPoP"
PROOF_SCHEME: Final[Mapping[str, Any]] = {
    "type": "http",
    "scheme": "dpop",
    "description": (
        "The access token is bound to a key (request it with a DPoP proof), is sent under the scheme DPoP, and each request has a new proof in "
        "the header DPoP (RFC 9449)."
    ),
}
"""How a bound token is sent. Where it comes from, the scheme beside it says."""

CERTIFICATE_SCHEME_NAME: Final = "ClientCertificate"
CERTIFICATE_SCHEME: Final[Mapping[str, Any]] = {
    "type": "mutualTLS",
    "description": (
        "The access token is bound to a client certificate (request it with the certificate), and the connection of each request has that "
        "certificate (RFC 8705 section 3)."
    ),
}
"""How a token that is bound to a certificate is sent. Where it comes from, the scheme beside it says."""

_SHOWN_OPERATIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be accepted: the caller, and what its token must have. As text it is one line for people."""

    kind: Literal["service", "user"]
    clients: tuple[str, ...] = ()
    """One of them is enough. If it is empty, every caller of this kind may call."""
    audiences: tuple[str, ...] = ()
    """All of them, each a name or several with "or" between them."""
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """With their owner: ``writer of crm-api-gateway``."""
    claims: tuple[str, ...] = ()
    """With their values: ``tenant "acme" or "umbrella"``."""
    conditions: tuple[str, ...] = ()
    """By name: only the app knows what they ask."""
    issuer: str = ""
    """The realm, if it is not the first one."""

    bound: bool = False
    """Whether the token must be bound: to a key (DPoP), or to a client certificate."""

    @classmethod
    def of(cls, leaves: Collection[Requirement], audiences: frozenset[str], client_id: str, issuer: str = "") -> Self:
        """Return the way that plain requirements make together, in an app that accepts ``audiences`` and is ``client_id``."""
        who = [leaf for leaf in leaves if isinstance(leaf, Caller)]
        clients = [leaf.client_ids for leaf in who if leaf.client_ids]
        roles = sorted(
            f"realm role {named(role)}" if leaf.realm else f"role {named(role)} of {named(leaf.client or client_id)}"
            for leaf in leaves
            if isinstance(leaf, HasRole)
            for role in leaf.roles
        )
        return cls(
            kind=who[0].kind if who else "service",
            clients=tuple(sorted(frozenset.intersection(*clients))) if clients else (),
            audiences=tuple(_audiences(audiences, [leaf for leaf in leaves if isinstance(leaf, Audience)])),
            scopes=tuple(sorted({scope for leaf in leaves if isinstance(leaf, HasScope) for scope in leaf.scopes})),
            roles=tuple(dict.fromkeys(roles)),
            claims=tuple(sorted({_claim(leaf) for leaf in leaves if isinstance(leaf, HasClaim)})),
            conditions=tuple(sorted({leaf.name for leaf in leaves if isinstance(leaf, Condition)})),
            issuer=issuer,
            bound=any(isinstance(leaf, Bound) for leaf in leaves),
        )

    @property
    def scheme(self) -> str:
        """The name of the security scheme with which one gets such a token."""
        name = Requirement.scheme_name if self.kind == "service" else "UserToken"
        return f"{name}.{_component(self.issuer)}" if self.issuer else name

    def __str__(self) -> str:
        who = listed(self.clients, " or ")
        parts = [
            (f"service {who}" if who else "any service")
            if self.kind == "service"
            else f"user of {who}"
            if who
            else "any user",
            *(f"token for {audience}" for audience in self.audiences),
            *(("bound token",) if self.bound else ()),
            *(f"scope {named(scope)}" for scope in self.scopes),
            *self.roles,
            *(f"claim {claim}" for claim in self.claims),
            *(f"condition {json.dumps(name, ensure_ascii=False)}" for name in self.conditions),
        ]
        if self.issuer:
            parts.append(f"of {self.issuer}")
        return ", ".join(parts)


def _component(issuer: str) -> str:
    """Return an issuer as a part of a name in ``components``. Two issuers never have one name."""
    readable = re.sub("[^A-Za-z0-9._-]+", "-", issuer.partition("://")[2])
    return f"{readable}-{sha256(issuer.encode()).hexdigest()[:8]}"


def _claim(leaf: HasClaim) -> str:
    values = " or ".join(json.dumps(value, ensure_ascii=False) for value in leaf.values)
    return f"{' > '.join(map(named, leaf.path))} {values}"


def _audiences(accepted: frozenset[str], leaves: Sequence[Audience]) -> Iterable[str]:
    """Yield what must be in ``aud``. What the app accepts is left out if the route asks for a part of it."""
    asked = [(leaf.audiences, leaf.only) for leaf in leaves]
    if accepted and not any(names <= accepted for names, _ in asked):
        asked.insert(0, (accepted, False))
    said = [listed(names, " or ") + (" and nobody else" if only else "") for names, only in asked]
    return dict.fromkeys(said)


def security(
    ways: Iterable[Way],
    own: Iterable[Mapping[str, Any]] = (),
    *,
    anonymous: bool = False,
    dpop: str = "",
    certificate: bool = False,
) -> list[dict[str, Any]]:
    """Return the alternatives of one operation; each is combined with one of its ``own``, because our token is always needed.

    - With ``anonymous`` each of its ``own`` is enough, and ``{}`` stands for a request without credentials.
    - ``dpop`` says whether tokens under the scheme DPoP are accepted, beside bearer tokens or alone.
    - ``certificate`` says whether tokens that are bound to a client certificate are accepted.

    Entries of a list mean "or", names within one entry "and" (OpenAPI Specification, Security Requirement Object).
    """
    made: list[dict[str, Any]] = []
    for other in list(own) or [{}]:
        for way in ways:
            entry = {**other, way.scheme: list(way.scopes)}
            bearer = dpop != "required"
            entries = [
                *([entry] if bearer and not way.bound else []),
                *([{**entry, PROOF_SCHEME_NAME: []}] if dpop else []),
                *([{**entry, CERTIFICATE_SCHEME_NAME: []}] if bearer and certificate else []),
            ]
            made += [each for each in entries if each not in made]
        if anonymous:
            made.append(dict(other))
    return made


def scheme(name: str, urls: PublicEndpoints, scopes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the security scheme of services or of users: where a token comes from, and the scopes with the operations that need them.

    Services use the client-credentials grant, users the authorization code of a front end (RFC 6749 sections 4.4 and 4.1).
    """
    flow: dict[str, Any] = {
        "tokenUrl": urls.token,
        "scopes": {scope: _wanted_by(scopes[scope]) for scope in sorted(scopes)},
    }
    if name.split(".", maxsplit=1)[0] == Requirement.scheme_name:
        text = "Access token of a service, for the audience of this one (OAuth 2.0 client credentials)."
        return {"type": "oauth2", "description": text, "flows": {"clientCredentials": flow}}
    text = "Access token of a user, for the audience of this service (OAuth 2.0 authorization code)."
    flow = {"authorizationUrl": urls.authorization, **flow}
    return {"type": "oauth2", "description": text, "flows": {"authorizationCode": flow}}


def _wanted_by(operations: Sequence[str]) -> str:
    operations = list(dict.fromkeys(operations))
    more = len(operations) - _SHOWN_OPERATIONS
    return f"Required by {', '.join(operations[:_SHOWN_OPERATIONS])}" + (f" and {more} more" if more > 0 else "")


def refusals(
    ways: Sequence[Way], space: ProtectionSpace, schema: Mapping[str, Any], *, anonymous: bool = False
) -> dict[str, dict[str, Any]]:
    """Return the answers to everybody else, by status, with body (``schema``) and headers (RFC 6750 section 3).

    - ``space`` is what the challenges say of the service.
    - ``anonymous``: requests without credentials are accepted.
    """
    proofs = " A bound token needs a new proof in each request." if space.dpop else ""
    scopes = next((" ".join(way.scopes) for way in ways if way.scopes), "")
    lacking = Decision(reason=Reason.SCOPE_MISSING if scopes else Reason.CALLER_NOT_ALLOWED, scope=scopes)
    required = "; or ".join(map(str, ways))
    texts = [
        (Decision(reason=Reason.INVALID_REQUEST), Reason.INVALID_REQUEST.detail),
        (
            Decision(reason=Reason.NO_CREDENTIALS),
            (
                "Credentials that are not accepted here."
                if anonymous
                else "No access token, or one that is not accepted here."
            )
            + proofs,
        ),
        (lacking, f"The access token does not allow this. Required: {required}."),
        (Decision(reason=Reason.KEYS_UNAVAILABLE, retry_after=5), Reason.KEYS_UNAVAILABLE.detail),
    ]
    return {
        str(decision.status): {
            "description": text,
            "headers": _headers(headers_of(decision, space)),
            "content": {"application/json": {"schema": dict(schema), "example": {"detail": decision.reason.detail}}},
        }
        for decision, text in texts
    }


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the headers of an answer. OpenAPI has one entry for a name, so two challenges are one example, as RFC 9110 section 5.3 joins them."""
    joined: dict[str, list[str]] = {}
    for name, value in headers.items():
        joined.setdefault(name.title() if name.lower() != "www-authenticate" else "WWW-Authenticate", []).append(value)
    return {name: _header(name, ", ".join(values)) for name, values in joined.items()}


def _header(name: str, value: str) -> dict[str, Any]:
    if name == "Retry-After":
        return {
            "description": "Seconds to wait before the next try.",
            "schema": {"type": "integer"},
            "example": int(value),
        }
    return {"description": "The challenge (RFC 6750 section 3).", "schema": {"type": "string"}, "example": value}
