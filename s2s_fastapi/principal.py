"""Who is calling: a verified token as an immutable value."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn

__all__ = [
    "NOTHING",
    "Binding",
    "Kind",
    "Payload",
    "Principal",
    "frozen",
]

Kind = Literal["service", "user", "unknown"]
Binding = Literal["", "dpop", "certificate"]


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
    binding: Binding = ""
    """How the request proved that it comes from the owner of the token's key: ``dpop`` by a DPoP proof (RFC 9449), ``certificate`` by the client
    certificate of its connection (RFC 8705 section 3). A token that is bound in both ways needs both, and is ``dpop``. Empty for a bearer token."""

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
            "binding": self.binding,
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
