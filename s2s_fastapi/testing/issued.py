"""The tokens that a realm of the issuer has signed and that have not expired: which of them a client may exchange."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from s2s_fastapi.realm.exchange import SubjectToken, bound_to
from s2s_fastapi.realm.model import Granted
from s2s_fastapi.text import names_in

__all__ = ["IssuedToken", "IssuedTokens"]

_KEPT: Final = 100_000
_TYPES: Final = frozenset({"bearer", "dpop"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """What the issuer remembers of a token. It has no claim that somebody else wrote: only what was granted."""

    subject: SubjectToken
    session: str
    """``sid``; empty if the token has no session."""
    valid_from: float
    issued_at: int
    expires_at: int
    """Seconds since the epoch, the last second in which it is valid."""
    named: object = field(default=None, repr=False)
    """What a test named about the account, if there is no realm file."""

    @classmethod
    def of(cls, claims: Mapping[str, Any], granted: Granted, *, session: str, named: object) -> "IssuedToken | None":
        """Return what to remember of an access token, or None if it is none that Keycloak would exchange.

        A test may have replaced claims. A token with another session or client than the real one is not good any more.
        """
        right = (
            str(claims.get("typ")).lower() in _TYPES
            and claims.get("sid", "") == session
            and claims.get("azp") == granted.client_id
        )
        times = [claims.get(name, 0) for name in ("iat", "exp", "nbf")]
        if not right or not all(isinstance(time, (int, float)) for time in times):
            return None
        given = replace(granted, claims={**granted.claims, "aud": names_in(claims.get("aud"))}).as_subject()
        issued_at, expires_at, valid_from = times
        return cls(
            subject=replace(given, bound=bound_to(claims)),
            session=session,
            issued_at=issued_at,
            expires_at=expires_at,
            valid_from=valid_from,
            named=named,
        )


class IssuedTokens:
    """The newest 100,000 tokens of one realm by their digests, and when its accounts were logged out. Safe to use from threads."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._tokens: dict[bytes, IssuedToken] = {}
        self._logouts: dict[str, int] = {}

    def add(self, token: str, issued: IssuedToken, *, now: int) -> None:
        """Remember a token. Those at the front that have expired are forgotten, and the oldest if there are too many."""
        with self._lock:
            self._tokens[_digest(token)] = issued
            while self._tokens:
                oldest = next(iter(self._tokens))
                if len(self._tokens) <= self._kept and self._tokens[oldest].expires_at >= now:
                    break
                del self._tokens[oldest]

    def find(self, token: str, *, now: float) -> IssuedToken | None:
        """Return a token that is valid now, or None if the text is none, or if it has expired or its user has logged out."""
        with self._lock:
            found = self._tokens.get(_digest(token))
            if found is None or not found.valid_from <= now < found.expires_at + 1:
                return None
            return None if found.issued_at < self.not_before(found.subject.username) else found

    def logout(self, username: str, *, now: int) -> int:
        """End all sessions of an account, and return how many there were.

        As with Keycloak's *Sign out*, its tokens from before this second are revoked too, also those without a session.
        """
        with self._lock:
            ended = {key for key, one in self._tokens.items() if one.session and one.subject.username == username}
            sessions = {self._tokens.pop(key).session for key in ended}
            self._logouts[username] = now
            return len(sessions)

    def not_before(self, username: str) -> int:
        """Return the second before which the account's tokens are revoked: that of its last logout, or 0."""
        return self._logouts.get(username, 0)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
