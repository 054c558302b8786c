"""Who is calling: a verified token as an immutable value."""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, Self

from s2s_fastapi.errors import NoUserToActFor

__all__ = [
    "FURTHER",
    "INBOUND",
    "MOST_FURTHER",
    "NOTHING",
    "SCOPE_KEY",
    "AcceptedToken",
    "Kind",
    "Payload",
    "Principal",
    "digest",
    "frozen",
    "length_of",
]

Kind = Literal["service", "user", "unknown"]

SCOPE_KEY: Final = "s2s_fastapi.authenticated"
"""Where the middleware keeps the `AcceptedToken` of a request in its ASGI scope. It removes whatever else is there."""

INBOUND: ContextVar[bytes | None] = ContextVar("s2s_fastapi_inbound", default=None)
"""The `digest` of the current request's token: the one token that the calling side must never send on."""

FURTHER: ContextVar[tuple[bytes, ...]] = ContextVar("s2s_fastapi_further", default=())
"""The digests of tokens that the code itself authenticated in this context, the latest last. They must not be sent on either."""
MOST_FURTHER: Final = 8
"""A consumer may authenticate message after message in one context."""


def digest(token: str | bytes) -> bytes:
    """Return what stands for a token, because the token itself must not be kept: its length in 4 bytes, and its SHA-256.

    With the length, the token can be found in a text, whatever stands beside it: see `length_of`.
    """
    octets = token if isinstance(token, bytes) else token.encode()
    return len(octets).to_bytes(4) + sha256(octets).digest()


def length_of(digest: bytes) -> int:
    """Return the length in bytes of the token that a digest stands for."""
    return int.from_bytes(digest[:4])


def frozen(value: Any) -> Any:
    """Return a JSON value that cannot be changed: objects as read-only mappings, arrays as tuples, at any depth."""
    if isinstance(value, dict):
        return MappingProxyType({name: frozen(member) for name, member in value.items()})
    if isinstance(value, list):
        return tuple(frozen(member) for member in value)
    return value


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return NOTHING


class Payload(Mapping[str, Any]):
    """The claims of a token as a read-only mapping. They are kept as bytes, and read when somebody looks at them for the first time.

    Most apps never look at them, and the bytes take a quarter of the memory. `read` returns the claims; it has read the same bytes before.
    """

    __slots__ = ("_octets", "_read", "_seen")

    def __init__(self, octets: bytes, read: Callable[[bytes], dict[str, Any]]) -> None:
        self._octets = octets
        self._read = read
        self._seen: Mapping[str, Any] | None = None

    def _members(self) -> Mapping[str, Any]:
        members = self._seen
        if members is None:
            self._seen = members = frozen(self._read(self._octets))
        return members

    def __getitem__(self, name: str) -> Any:
        return self._members()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return the claims and the members of another mapping as a new dict, as two dicts are joined."""
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def copy(self) -> dict[str, Any]:
        """Return the claims as a new dict."""
        return dict(self)

    def __repr__(self) -> str:
        return repr(self._members())


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller of a request: what a verified token says, deeply immutable.

    - It is Starlette's ``request.user``. Times are whole seconds since the epoch.
    - ``kind`` is ``service`` for a token of the client-credentials grant, and ``user`` for a token with a user's session. It is
      ``unknown`` for every other token, and no requirement for a service or a user accepts that.
    - What belongs to somebody is stored under ``(issuer, subject)``. Names and addresses change, and somebody else may get them later.
    - ``claims`` is the whole payload, read-only (RFC 7519 section 4; objects are mappings, arrays are tuples).
    """

    client_id: str
    """The client that got the token: the claim ``azp``."""
    kind: Kind
    issuer: str
    issued_at: int
    expires_at: int
    subject: str = ""
    """``sub``; it may be empty, because a realm can leave it out of service tokens."""
    token_id: str = ""
    """``jti``: joins our log with Keycloak's events."""
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    realm_roles: frozenset[str] = frozenset()
    client_roles: Mapping[str, frozenset[str]] = field(default_factory=_nothing, hash=False)
    claims: Mapping[str, Any] = field(default_factory=_nothing, hash=False, repr=False)
    realm: str = ""
    """The name that this service gives to the realm, `KeycloakSettings.name`: by default the one that it has in Keycloak. Two services may
    give one name to different realms: what must be unique is kept by ``issuer``."""
    other_realm: str = ""
    """The same name if the realm is not the first one of the service. A requirement that names no realm does not accept such a caller."""

    @property
    def is_authenticated(self) -> bool:
        """True, by Starlette's name: a principal always comes from a verified token."""
        return True

    @property
    def display_name(self) -> str:
        """The client id, by Starlette's name."""
        return self.client_id

    @property
    def identity(self) -> str:
        """The subject, or the client id if there is no subject, by Starlette's name."""
        return self.subject or self.client_id

    @property
    def username(self) -> str | None:
        """The claim ``preferred_username``; None without one. For people to read: a name changes, and somebody else may get it later."""
        return self._text("preferred_username")

    @property
    def email(self) -> str | None:
        """The claim ``email``, only if ``email_verified`` is true; None otherwise. Before that, users may write any address there."""
        return self._text("email") if self.claims.get("email_verified") is True else None

    def as_dict(self) -> dict[str, Any]:
        """Return the named fields as JSON has them, lists sorted. Other claims are left out: take what you need from ``claims``."""
        return {
            "client_id": self.client_id,
            "kind": self.kind,
            "issuer": self.issuer,
            "realm": self.realm,
            "subject": self.subject,
            "username": self.username,
            "email": self.email,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "token_id": self.token_id,
            "audiences": sorted(self.audiences),
            "scopes": sorted(self.scopes),
            "realm_roles": sorted(self.realm_roles),
            "client_roles": {client: sorted(self.client_roles[client]) for client in sorted(self.client_roles)},
        }

    def _text(self, name: str) -> str | None:
        value = self.claims.get(name)
        return value if isinstance(value, str) and value else None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        # As a route parameter without Depends, FastAPI would read the principal from the request body: the attacker chooses.
        raise TypeError(
            "Principal is not request data: put your requirement into Depends(...), as in `caller: Annotated[Principal, Depends(admin)]`, or "
            "write `caller: CurrentPrincipal` if every accepted caller may call. A route cannot return a Principal either: "
            "return the fields you need, for example `caller.client_id` or `caller.as_dict()`"
        )


@dataclass(slots=True, eq=False)
class AcceptedToken:
    """The token of one request that the middleware accepted, and its caller.

    - The text of the token is here only until the request ends: until the last byte of its answer, or until its WebSocket is closed.
    - It is what was verified, whatever another middleware writes into the request's headers.
    - It is in no repr and in no pickle. A copy is the same object, so the end of the request reaches the copies too.
    """

    principal: Principal
    digest: bytes
    """The `digest` of the token."""
    credentials: bytes | None = field(repr=False)
    """``Bearer <token>``, the very bytes that were verified; None when the request has ended."""

    def token(self) -> str:
        """Return the token.

        Raises:
            NoUserToActFor: The request has ended.
        """
        credentials = self.credentials
        token = b"" if credentials is None else credentials.partition(b" ")[2]
        if not compare_digest(digest(token), self.digest):
            raise NoUserToActFor(
                "There is no user to act for: the request has ended, and its token was dropped. Nothing was sent. Call before the answer is sent;"
                " a background task calls as this service itself."
            )
        return token.decode("ascii")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("The token of a request is not pickled: it is of use only while that request runs.")
