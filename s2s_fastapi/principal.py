"""Who is calling: a verified token as an immutable value."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Literal, NoReturn

__all__ = ["INBOUND", "Kind", "Principal", "digest", "frozen", "length_of"]

Kind = Literal["service", "user", "unknown"]

INBOUND: ContextVar[bytes | None] = ContextVar("s2s_fastapi_inbound", default=None)
"""The `digest` of the token the current request came with: the one token the caller side must never send on."""


def digest(token: str | bytes) -> bytes:
    """Return what stands for a token where the token itself must not be kept: its length, 4 bytes, and its SHA-256.

    With the length it can be found again in a text, whatever it is glued to: see `length_of`.
    """
    octets = token if isinstance(token, bytes) else token.encode()
    return len(octets).to_bytes(4) + sha256(octets).digest()


def length_of(digest: bytes) -> int:
    """Return how many bytes the token has that a digest stands for."""
    return int.from_bytes(digest[:4])


def frozen(value: Any) -> Any:
    """Return a JSON value as one that nobody can change: objects as read-only mappings, arrays as tuples, at any depth."""
    if isinstance(value, dict):
        return MappingProxyType({name: frozen(member) for name, member in value.items()})
    if isinstance(value, list):
        return tuple(frozen(member) for member in value)
    return value


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller of a request: what a verified token says, deeply immutable.

    It is Starlette's ``request.user``. Times are whole seconds since the epoch. ``kind`` is ``service`` for a token of the
    client-credentials grant, ``user`` for one with a user's session, and ``unknown`` for everything else, which no requirement
    accepts. ``claims`` is the whole payload, read-only (RFC 7519 section 4; objects are mappings, arrays are tuples).
    """

    client_id: str
    """The client that got the token: the claim ``azp``."""
    kind: Kind
    issuer: str
    issued_at: int
    expires_at: int
    subject: str = ""
    """``sub``; may be empty: a realm can leave it out of service tokens."""
    token_id: str = ""
    """``jti``: joins our log with Keycloak's events."""
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    realm_roles: frozenset[str] = frozenset()
    client_roles: Mapping[str, frozenset[str]] = field(default_factory=_nothing, hash=False)
    claims: Mapping[str, Any] = field(default_factory=_nothing, hash=False, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """True, by Starlette's name: there is no principal without a verified token."""
        return True

    @property
    def display_name(self) -> str:
        """The client id, by Starlette's name."""
        return self.client_id

    @property
    def identity(self) -> str:
        """The subject, or the client id where there is none, by Starlette's name."""
        return self.subject or self.client_id

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        # As a route parameter without Depends, FastAPI would read the principal from the request body: the attacker chooses.
        raise TypeError(
            "Principal is not request data: write `caller: Annotated[Principal, Depends(require_service())]`, with Depends(...) around the "
            "requirement, or `caller: CurrentPrincipal` if every authenticated caller may call. A route cannot return a Principal either: "
            "return the fields you need, for example `caller.client_id`"
        )
