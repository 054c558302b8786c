"""The user for whom this service calls: a user's access token, read before it is exchanged (RFC 8693 section 2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from s2s_fastapi.accepted import digest
from s2s_fastapi.caller.granted import MAX_TOKEN, TOKEN68, claims_of
from s2s_fastapi.errors import NoUserToActFor, SessionEnded, TokenRequestError
from s2s_fastapi.keycloak.cures import issuer_steps
from s2s_fastapi.keycloak.exchange import not_in_audience
from s2s_fastapi.text import named, names_in

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Subject"]

_LATEST: Final = 10**11
_LONGEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A user's access token, and what it says. Whoever waits for an exchange holds it; nothing keeps it.

    - `of` reads a token without a check of its signature. Keycloak checks it, and what is read here can only refuse it.
    - ``repr`` and ``str`` do not show the token. A subject refuses to be pickled.
    """

    text: str = field(repr=False)
    """The token. It goes to Keycloak's token endpoint, and nowhere else."""
    digest: bytes = field(repr=False)
    issuer: str
    client_id: str
    """The client that got the token: ``azp``."""
    subject: str
    """The user: ``sub``."""
    session: str
    """The user's session: ``sid``."""
    expires_at: int
    """``exp``, in seconds since the epoch."""
    audiences: frozenset[str]

    @classmethod
    def of(cls, token: str) -> Self:
        """Return what an access token of a user says.

        Raises:
            NoUserToActFor: It is not the bearer access token of a user's session.
        """
        readable = len(token) <= MAX_TOKEN and TOKEN68.fullmatch(token)
        claims = (claims_of(token) if readable else None) or {}
        problem = _problem(claims)
        if problem:
            del token  # error trackers record the locals of each frame that raises
            raise NoUserToActFor(f"There is no user to act for: {problem} Nothing was sent.")
        return cls(
            text=token,
            digest=digest(token),
            issuer=claims["iss"],
            client_id=claims["azp"],
            subject=claims["sub"],
            session=claims["sid"],
            expires_at=int(claims["exp"]),
            audiences=frozenset(names_in(claims.get("aud"))),
        )

    def check(self, settings: "KeycloakSettings", now: float) -> None:
        """Refuse a token that Keycloak would not exchange for the client of `settings`, at `now` seconds since the epoch.

        Raises:
            NoUserToActFor: It was issued by another realm.
            SessionEnded: It has expired.
            TokenRequestError: It is not for this client.
        """
        client = settings.client_id
        if self.issuer != settings.issuer:
            raise NoUserToActFor(
                f"There is no user to act for: the token was issued by {named(self.issuer)}, and {named(client)} exchanges tokens of"
                f" {settings.issuer} only. Nothing was sent. If that is the same realm: {issuer_steps(self.issuer, settings.issuer)}"
            )
        if self.expires_at <= now:
            raise SessionEnded(
                f"The token of the user {named(self.subject)} expired {now - self.expires_at:.0f} s ago, so it cannot be exchanged."
                " Nothing was sent."
            )
        # Keycloak exchanges a client's own tokens without this.
        if client not in self.audiences and self.client_id != client:
            raise TokenRequestError(
                f"The token of the user {named(self.subject)} is not for {named(client)}, so Keycloak would not exchange it. Nothing was sent.",
                cure=settings.worded(not_in_audience(client, self.client_id)),
                retryable=False,
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("A user's token is not pickled: it belongs to the request that brought it.")

    def __copy__(self) -> Self:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _problem(claims: Mapping[str, Any]) -> str:
    """Return in one sentence why these are not the claims of a user's bearer access token; empty if they are."""
    if not claims:
        return "the text is not an access token of Keycloak that can be read."
    if "cnf" in claims:
        return "a sender-constrained user token (DPoP or mTLS) cannot be exchanged by the service that received it."
    kind = claims.get("typ")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "the token is not an access token (its typ is not Bearer)."
    if "client_id" in claims:
        return "the token belongs to a service. A service calls as itself: use service_client or service_auth without a user."
    if "authorization" in claims or not _name(claims.get("sid")):
        return "the token has no session of a user (sid): it is a service's, lightweight or exchanged from a service's."
    for name in ("iss", "azp", "sub"):
        if not _name(claims.get(name)):
            return f"the claim {name} of the token is missing or malformed. Remove the mapper that overwrites it in Keycloak."
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 < expires < _LATEST:
        return "the claim exp of the token is missing or malformed. Remove the mapper that overwrites it in Keycloak."
    return ""


def _name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()
