"""Tokens with a minimum remaining lifetime."""

import math
from typing import Any

from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.shared_token import RENEWAL_SPACING, SharedToken
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.text import named

__all__ = ["LongEnough", "lasting", "seconds"]


def seconds(given: Any) -> float:
    """Return the number that a developer wrote as ``min_validity``.

    Raises:
        ConfigurationError: It is not a number of seconds.
    """
    number = not isinstance(given, bool) and isinstance(given, int | float)
    if not number or not math.isfinite(given) or given < 0:
        raise ConfigurationError(
            "min_validity= must be a number of seconds, zero or more: how long the token must still live."
        )
    return float(given)


def lasting(shared: "SharedToken | LongEnough", min_validity: float | None) -> "SharedToken | LongEnough":
    """Return `shared`, or a view of it for a caller that needs `min_validity` seconds of its token.

    Raises:
        ConfigurationError: `min_validity` is not a number of seconds.
    """
    if min_validity is None:
        return shared
    plain = shared.shared if isinstance(shared, LongEnough) else shared
    needed = seconds(min_validity)
    return LongEnough(plain, needed) if needed else plain


class LongEnough:
    """A view of a shared token for a caller that needs `min_validity` seconds of it.

    The token stays shared: a renewal for one caller is a renewal for all, at most once in 10 s. So no caller can need more seconds
    than a token has left 10 s after it was requested.
    """

    def __init__(self, shared: SharedToken, min_validity: float) -> None:
        self.shared = shared
        self._seconds = min_validity
        self.renew = shared.renew
        self.arenew = shared.arenew
        self.workers = shared.workers
        self.start = shared.start
        self.refuse = shared.refuse
        self.current = shared.current
        self.used = shared.used
        self.resent = shared.resent
        self.state = shared.state

    def peek(self) -> GrantedToken | None:
        """Return the token if it is fresh and has enough seconds left, else None; start nothing."""
        token = self.shared.peek()
        return token if token is not None and self._lasts(token) else None

    def get(self) -> GrantedToken:
        """Return a token with enough seconds left. If there is none, wait at most 5 s, together with all other callers, for one request.

        Raises:
            TokenRequestError: as `SharedToken.get`; or the tokens of the realm do not live long enough.
        """
        token = self.shared.get()
        return token if self._lasts(token) else self._checked(self.shared.renew(self._renewable(token)))

    async def aget(self) -> GrantedToken:
        """Do as `get`, without blocking the running asyncio or trio loop."""
        token = await self.shared.aget()
        return token if self._lasts(token) else self._checked(await self.shared.arenew(self._renewable(token)))

    def _lasts(self, token: GrantedToken) -> bool:
        return token.life - self.shared.age(token) >= self._seconds

    def _renewable(self, token: GrantedToken) -> GrantedToken:
        self._possible(token)
        resting = self.shared.resting()
        if resting is not None:
            raise resting
        return token

    def _checked(self, token: GrantedToken) -> GrantedToken:
        if self._lasts(token):
            return token
        self._possible(token)
        # Within the spacing of a request that brought nothing: the token is the one that was there.
        raise self.shared.last_error() or TokenRequestError(
            f"The token of {named(self.shared.client_id)} has less than {self._seconds:g} s left, and another token was requested just now."
        )

    def _possible(self, token: GrantedToken) -> None:
        longest = max(0.0, token.life - RENEWAL_SPACING)
        if self._seconds > longest:
            raise TokenRequestError(
                f"The tokens of {named(self.shared.client_id)} live {token.life:g} s, so min_validity={self._seconds:g} is not possible"
                f" (at most {longest:g}: a token is renewed at most every {RENEWAL_SPACING:g} s).",
                cure="Lower min_validity, or raise the access token lifespan of the client or of the realm in Keycloak.",
                retryable=False,
            )
