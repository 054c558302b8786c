"""From what the realm model grants to the answer of the token endpoint: dates, ids and signatures (RFC 6749 section 5.1)."""

import hashlib
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from s2s_fastapi.realm.exchange import ID_TOKEN
from s2s_fastapi.realm.model import Granted, RealmModel
from s2s_fastapi.testing.issued import IssuedToken
from s2s_fastapi.testing.realm import IssuerRealm
from s2s_fastapi.testing.versions import Wire
from s2s_fastapi.text import base64url

__all__ = ["Mint"]

Grant = Literal["client_credentials", "password", "token_exchange"]

_MARKS: Final[dict[Grant, str]] = {"client_credentials": "cc", "password": "ro", "token_exchange": "te"}
_NOT_APPLICABLE: Final = "N_A"
_ID_TOKEN_ALGORITHM: Final = "RS256"
_REFRESH_LIFESPAN: Final = 1800  # Keycloak's default idle time of a session


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint:
    """Makes tokens of one realm at one moment, and remembers them. The claims are the model's; only dates, ids and the address are added."""

    realm: IssuerRealm
    issuer: str
    wire: Wire
    now: int
    client: str = "127.0.0.1"
    """The address of the client."""
    subject: IssuedToken | None = None
    """The token that is exchanged: the new one has its session."""
    named: object = None
    """What a test named about the account, if there is no realm file."""
    with_named: Callable[[object], RealmModel] | None = None
    """Returns the realm to which what was named is added."""

    def answer(self, granted: Granted, grant: Grant) -> dict[str, Any]:
        """Return the members of the token response, in Keycloak's order."""
        session = self.session(granted)  # the model has no sessions
        claims = self.claims(granted, grant, session)
        token = self.realm.keys.sign(claims, algorithm=granted.algorithm, header_type=granted.header_type)
        if granted.issued_type == ID_TOKEN:
            token = self._id_token(granted, claims)
        else:
            self.remember(token, claims, granted, session)
        answer = {
            "access_token": token,
            "expires_in": granted.lifespan,
            "refresh_expires_in": granted.refresh_lifespan,
        }
        if granted.refresh:
            answer["refresh_token"] = self._refresh_token(granted, claims)
        answer["token_type"] = _NOT_APPLICABLE if granted.issued_type == ID_TOKEN else granted.token_type
        if granted.openid:
            answer["id_token"] = self._id_token(granted, claims, token)
        revoked = self.realm.issued.not_before(granted.account)
        answer["not-before-policy"] = max(self.realm.not_before, granted.not_before, revoked)
        if granted.session:
            answer["session_state"] = session
        issued = {"issued_token_type": granted.issued_type} if granted.issued_type else {}
        return {**granted.response, **answer, "scope": granted.scope, **issued}

    def model_for(self, subject: IssuedToken | None) -> RealmModel:
        """Return the realm that answers about a token: it has the account of the token, also if only a test named it."""
        if subject is None or subject.named is None or self.with_named is None:
            return self.realm.model
        return self.with_named(subject.named)

    def remember(self, token: str, claims: Mapping[str, Any], granted: Granted, session: str) -> None:
        """Remember an access token of this realm, so that a client can exchange it."""
        issued = IssuedToken.of(claims, granted, session=session, named=self.named)
        if issued is not None and claims.get("iss") == self.issuer:
            self.realm.issued.add(token, issued, now=self.now)

    def claims(self, granted: Granted, grant: Grant, session: str) -> dict[str, Any]:
        """Return the claims of the access token."""
        claims = {
            **self._dates(granted.lifespan),
            "jti": self._jti(granted, grant),
            "iss": self.issuer,
            **granted.claims,
        }
        # A mapper shows the id of a session also if there is none: Keycloak makes one for the moment.
        shown = session or self._new_session()
        return claims | {name: shown for name in ("sid", "session_state") if claims.get(name) == ""}

    def _dates(self, life: int) -> dict[str, int]:
        return {"exp": self.now + life, "iat": self.now}

    def _jti(self, granted: Granted, grant: Grant) -> str:
        if not self.wire.marked_ids:
            return str(uuid.uuid4())
        letter = "f" if granted.offline else "n"
        own = granted.client_id in granted.clients
        session = "tr" if not granted.session else f"o{letter}" if own else f"{letter}t"
        kind = "lt" if self.realm.lightweight(str(granted.claims.get("azp", ""))) else "rt"
        return f"{session}{kind}{_MARKS[grant]}:{uuid.uuid4()}"

    def session(self, granted: Granted) -> str:
        """Return the id of the token's session: a new one, or that of the token that is exchanged; empty if there is no session."""
        if not granted.session:
            return ""
        if self.subject is not None:
            return self.subject.session
        return self._new_session()

    def _new_session(self) -> str:
        return secrets.token_urlsafe(18) if self.wire.short_sessions else str(uuid.uuid4())

    def _refresh_token(self, granted: Granted, claims: dict[str, Any]) -> str:
        """Return a refresh token: signed with an unpublished key. This issuer does not redeem it."""
        client = self.realm.model.client(granted.client_id)
        bound = (
            ("cnf",) if client is not None and client.public else ()
        )  # nobody but a public client proves its key again
        shared: dict[str, Any] = {name: claims[name] for name in ("sub", "azp", "sid", *bound) if name in claims}
        members: dict[str, Any] = {
            **self._dates(_REFRESH_LIFESPAN),
            "jti": str(uuid.uuid4()),
            "iss": self.issuer,
            "aud": self.issuer,
            "typ": "Refresh",
            **shared,
            "scope": granted.scope,
        }
        return self.realm.keys.sign(members, algorithm="HS512")

    def _id_token(self, granted: Granted, claims: dict[str, Any], access_token: str = "") -> str:
        """Return an ID token with the claims that every ID token has (OpenID Connect Core section 2)."""
        half = hashlib.sha256(access_token.encode("ascii")).digest()[:16]
        shared: dict[str, Any] = {name: claims[name] for name in ("sub", "azp", "sid") if name in claims}
        members: dict[str, Any] = {
            **self._dates(granted.lifespan),
            "jti": str(uuid.uuid4()),
            "iss": self.issuer,
            "aud": claims.get("azp"),
            "typ": "ID",
            **shared,
            **({"at_hash": base64url(half)} if access_token else {}),
        }
        return self.realm.keys.sign(members, algorithm=_ID_TOKEN_ALGORITHM)
