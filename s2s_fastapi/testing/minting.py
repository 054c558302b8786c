"""From what the realm model grants to the answer of the token endpoint: dates, ids and signatures (RFC 6749 section 5.1)."""

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from typing import Any, Final, Literal

from s2s_fastapi.realm.model import Granted
from s2s_fastapi.testing.realm import IssuerRealm
from s2s_fastapi.testing.versions import Wire
from s2s_fastapi.text import base64url

__all__ = ["Mint"]

Grant = Literal["client_credentials", "password"]

_MARKS: Final[dict[Grant, str]] = {"client_credentials": "cc", "password": "ro"}
_ID_TOKEN_ALGORITHM: Final = "RS256"
_REFRESH_LIFESPAN: Final = 1800  # Keycloak's default idle time of a session


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint:
    """Makes tokens of one realm at one moment. The claims are the model's; only dates, ids and the address are added."""

    realm: IssuerRealm
    issuer: str
    wire: Wire
    now: int
    client: str = "127.0.0.1"
    """The address of the client."""

    def answer(self, granted: Granted, grant: Grant) -> dict[str, Any]:
        """Return the members of the token response, in Keycloak's order."""
        session = self._session()  # the model has no sessions
        claims = self.claims(granted, grant, session)
        token = self.realm.keys.sign(claims, algorithm=granted.algorithm, header_type=granted.header_type)
        answer = {
            "access_token": token,
            "expires_in": granted.lifespan,
            "refresh_expires_in": granted.refresh_lifespan,
        }
        if granted.refresh:
            answer["refresh_token"] = self._refresh_token(granted, claims)
        answer["token_type"] = claims.get("typ", "Bearer")
        if granted.openid:
            answer["id_token"] = self._id_token(granted, claims, token)
        answer["not-before-policy"] = max(self.realm.not_before, granted.not_before)
        if granted.session:
            answer["session_state"] = session
        return {**granted.response, **answer, "scope": granted.scope}

    def claims(self, granted: Granted, grant: Grant, session: str = "") -> dict[str, Any]:
        """Return the claims of the access token. A new ``session`` is made if none is given."""
        claims = {
            **self._dates(granted.lifespan),
            "jti": self._jti(granted, grant),
            "iss": self.issuer,
            **granted.claims,
        }
        session = session or self._session()
        return claims | {name: session for name in ("sid", "session_state") if claims.get(name) == ""}

    def _dates(self, life: int) -> dict[str, int]:
        return {"exp": self.now + life, "iat": self.now}

    def _jti(self, granted: Granted, grant: Grant) -> str:
        if not self.wire.marked_ids:
            return str(uuid.uuid4())
        session = "of" if granted.offline else "on" if granted.session else "tr"
        kind = "lt" if self.realm.lightweight(str(granted.claims.get("azp", ""))) else "rt"
        return f"{session}{kind}{_MARKS[grant]}:{uuid.uuid4()}"

    def _session(self) -> str:
        return secrets.token_urlsafe(18) if self.wire.short_sessions else str(uuid.uuid4())

    def _refresh_token(self, granted: Granted, claims: dict[str, Any]) -> str:
        """Return a refresh token: signed with an unpublished key. This issuer does not redeem it."""
        shared: dict[str, Any] = {name: claims[name] for name in ("sub", "azp", "sid") if name in claims}
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

    def _id_token(self, granted: Granted, claims: dict[str, Any], access_token: str) -> str:
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
            "at_hash": base64url(half),
        }
        return self.realm.keys.sign(members, algorithm=_ID_TOKEN_ALGORITHM)
