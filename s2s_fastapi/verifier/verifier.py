"""Is this token authentic, still valid, and for us? Who is calling? One verdict for each token, as a value."""

import math
import time
from collections.abc import Callable

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import KeysUnavailable
from s2s_fastapi.keycloak.cures import shown, unsigned_cure
from s2s_fastapi.telemetry.attributes import AUDIENCE, OUTCOME
from s2s_fastapi.telemetry.metrics import HIT, LOOKUPS, MISS, VERIFICATION
from s2s_fastapi.telemetry.spans import Span, describe, failed, span
from s2s_fastapi.text import listed
from s2s_fastapi.verifier.accepted_tokens import VerifiedToken, VerifiedTokens
from s2s_fastapi.verifier.checks import Expectations
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.jws import Jws, parse
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.refusal import Refused
from s2s_fastapi.verifier.verdict import Verdict

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
        if keys is None:
            return None
        entry = self.tokens.recent.get(token)
        # All that `VerifiedToken.holds` asks, for the usual case: without the four calls to it.
        if (
            entry is not None
            and entry.keys is keys
            and entry.issued_at >= self.keys.not_before
            and entry.begins <= self._clock() < entry.ends
        ):
            LOOKUPS.add(1, HIT)
            return entry.verdict
        return self._hit(token, keys)

    def decide(self, token: bytes) -> Verdict:
        """Return the verdict on a token, waiting for keys if need be."""
        try:
            if token in self.tokens and (verdict := self._hit(token, self.keys.get())) is not None:
                return verdict
        except KeysUnavailable as error:
            return self._unread(error)
        kid, began = "", time.perf_counter()
        with span("verify token") as current:
            try:
                jws = parse(token)
                kid = jws.kid
                verdict = self._first(token, jws, self.keys.key(kid, jws.algorithm))
            except (Refused, KeysUnavailable) as error:
                verdict = self._unread(error, kid)
            return _told(verdict, current, began)

    async def adecide(self, token: bytes) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        try:
            if token in self.tokens and (verdict := self._hit(token, await self.keys.aget())) is not None:
                return verdict
        except KeysUnavailable as error:
            return self._unread(error)
        kid, began = "", time.perf_counter()
        with span("verify token") as current:
            try:
                jws = parse(token)
                kid = jws.kid
                verdict = self._first(token, jws, await self.keys.akey(kid, jws.algorithm))
            except (Refused, KeysUnavailable) as error:
                verdict = self._unread(error, kid)
            return _told(verdict, current, began)

    def _hit(self, token: bytes, keys: KeySet) -> Verdict | None:
        verdict = self._again(token, keys)
        if verdict is not None:
            LOOKUPS.add(1, HIT)
        return verdict

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
            keys = self.keys.peek()
            if keys is not None and (verdict := self._again(token, keys)) is not None:
                return verdict
            if not key.verify(jws.signing_input, jws.signature):
                raise Refused(Reason.INVALID_SIGNATURE)
            now = self._clock()
            try:
                claims = jws.claims()
            except Refused as refused:
                known = Decision(
                    reason=refused.reason, cure=refused.cure, client_id=refused.client_id, kid=shown(jws.kid)
                )
                return Verdict((known,))
            verdict = self.expectations.judge(
                claims,
                kid=jws.kid,
                not_before=self.keys.not_before,
                now=now,
                observing=now < self._observe_until,
                token=token,
            )
            principal = verdict.principal
            if principal is not None and verdict.lets_in:
                begins, ends = self.expectations.begins(principal), self.expectations.ends(principal)
                if verdict.observed:
                    ends = min(ends, self._observe_until)
                self.tokens.put(token, VerifiedToken(verdict, key, principal.issued_at, begins, ends))
            return verdict

    def _unread(self, error: Refused | KeysUnavailable, kid: str = "") -> Verdict:
        """Return the verdict on a token of which nothing may be believed: the sentence is made of the settings and the published keys."""
        if isinstance(error, KeysUnavailable):
            return Verdict((Decision(reason=Reason.KEYS_UNAVAILABLE, cure=str(error), retry_after=error.retry_after),))
        cure = error.cure or unsigned_cure(
            error.reason, issuer=self.expectations.issuer, jwks=self.keys.url, published=self.keys.published(kid)
        )
        return Verdict((Decision(reason=error.reason, cure=cure, unverified_kid=shown(kid)[:64] if kid else ""),))


def _told(verdict: Verdict, current: Span, began: float) -> Verdict:
    """Tell trace and metrics of the verdict on a token that was not known."""
    outcome = "allowed"
    if not verdict.lets_in or verdict.observed:
        decision = verdict.decision
        outcome = decision.outcome
        if outcome == "failed":
            failed(current, str(decision.reason), decision.cure)
    if current.is_recording():
        describe(current, verdict.decision)
        if verdict.principal is not None:
            names = sorted(verdict.principal.audiences)[:16]
            current.set_attribute(AUDIENCE, listed(names, " "))
    LOOKUPS.add(1, MISS)
    VERIFICATION.record(time.perf_counter() - began, {OUTCOME: outcome})
    return verdict
