"""Is this token authentic, still valid, and for us? Who is calling? One verdict for each token, as a value."""

import math
import time
from collections.abc import Callable

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import KeysUnavailable
from s2s_fastapi.keycloak.cures import shown, unsigned_cure
from s2s_fastapi.principal import digest
from s2s_fastapi.receiver.expectations import Expectations
from s2s_fastapi.receiver.jwks import KeySet, VerificationKey
from s2s_fastapi.receiver.jws import Jws, parse
from s2s_fastapi.receiver.keys import KeySource
from s2s_fastapi.receiver.refusal import Refused
from s2s_fastapi.receiver.verdict import Verdict
from s2s_fastapi.receiver.verified import VerifiedToken, VerifiedTokens

__all__ = ["Verifier"]


class Verifier:
    """Decide about tokens with the realm's keys; what was decided for a token once is not decided again while it holds.

    ``observe_until`` (seconds since the epoch): before that a token for another audience, or of another kind
    of caller, is let in, and its verdict says so.
    """

    def __init__(
        self,
        expectations: Expectations,
        keys: KeySource,
        tokens: VerifiedTokens,
        *,
        observe_until: float = -math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.expectations = expectations
        self.keys = keys
        self.tokens = tokens
        self._observe_until = observe_until
        self._clock = clock

    def known(self, token: bytes) -> Verdict | None:
        """Return the verdict on a token that was accepted before and still would be; never waits.

        None says nothing about the token: `decide` does.
        """
        keys = self.keys.peek()
        return None if keys is None else self._again(token, keys)

    def decide(self, token: bytes) -> Verdict:
        """Return the verdict on a token, waiting for keys if need be."""
        try:
            if (verdict := self._again(token, self.keys.get()) if token in self.tokens else None) is not None:
                return verdict
            jws = parse(token)
        except (Refused, KeysUnavailable) as error:
            return self._unread(error)
        try:
            return self._first(token, jws, self.keys.key(jws.kid, jws.algorithm))
        except (Refused, KeysUnavailable) as error:
            return self._unread(error, jws.kid)

    async def adecide(self, token: bytes) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        try:
            if (verdict := self._again(token, await self.keys.aget()) if token in self.tokens else None) is not None:
                return verdict
            jws = parse(token)
        except (Refused, KeysUnavailable) as error:
            return self._unread(error)
        try:
            return self._first(token, jws, await self.keys.akey(jws.kid, jws.algorithm))
        except (Refused, KeysUnavailable) as error:
            return self._unread(error, jws.kid)

    def _again(self, token: bytes, keys: KeySet) -> Verdict | None:
        """Return what was decided before, if everything that can have changed since is as it was."""
        entry = self.tokens.get(token)
        if entry is None:
            return None
        if entry.holds(keys, self.keys.not_before, self._clock()):
            return entry.verdict
        self.tokens.drop(token)
        return None

    def _first(self, token: bytes, jws: Jws, key: VerificationKey) -> Verdict:
        """Decide about a token whose key is known; of several threads that bring the same new token one verifies it."""
        with self.tokens.turn(token):
            # Others may have waited for the keys with the same token.
            if (verdict := self.known(token)) is not None:
                return verdict
            if not key.verify(jws.signing_input, jws.signature):
                raise Refused(Reason.INVALID_SIGNATURE)
            now = self._clock()
            verdict = self.expectations.judge(
                jws.claims(),
                kid=jws.kid,
                not_before=self.keys.not_before,
                now=now,
                observing=now < self._observe_until,
            )
            principal = verdict.principal
            if principal is not None and verdict.lets_in:
                verdict = Verdict(verdict.decisions, principal, digest(token))
                begins, ends = self.expectations.begins(principal), self.expectations.ends(principal)
                if verdict.observed:
                    ends = min(ends, self._observe_until)
                self.tokens.put(token, VerifiedToken(verdict, key, principal.issued_at, begins, ends))
            return verdict

    def _unread(self, error: Refused | KeysUnavailable, kid: str = "") -> Verdict:
        """Return the verdict on a token of which nothing may be believed: the sentence is made of the settings alone."""
        if isinstance(error, KeysUnavailable):
            return Verdict((Decision(reason=Reason.KEYS_UNAVAILABLE, cure=str(error), retry_after=error.retry_after),))
        cure = unsigned_cure(error.reason, issuer=self.expectations.issuer, jwks=self.keys.url)
        return Verdict((Decision(reason=error.reason, cure=cure, unverified_kid=shown(kid)[:64] if kid else ""),))
