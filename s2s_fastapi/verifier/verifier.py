"""Is this token authentic, still valid, and for us? Who is calling? One verdict for each token, as a value."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import KeysUnavailable
from s2s_fastapi.keycloak.cures import shown, unsigned_cure
from s2s_fastapi.principal import Principal
from s2s_fastapi.telemetry.attributes import AUDIENCE, CALLER, OUTCOME
from s2s_fastapi.telemetry.metrics import HIT, LOOKUPS, MISS, VERIFICATION
from s2s_fastapi.telemetry.spans import Span, describe, failed, span
from s2s_fastapi.text import listed
from s2s_fastapi.verifier.accepted_tokens import AcceptedTokens, RememberedToken
from s2s_fastapi.verifier.bearer import token_in
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.jws import Jws, parse
from s2s_fastapi.verifier.keys import KeySource, unavailable
from s2s_fastapi.verifier.verdict import BoundVerdict, Verdict

__all__ = ["Verifier", "reported"]

_NOT_SIGNED: Final = Decision(reason=Reason.INVALID_SIGNATURE)


class Verifier:
    """Decide about tokens with the realm's keys. An accepted token is not verified again while it holds.

    - A token is given as its credentials: ``Bearer <token>``, as `s2s_fastapi.verifier.bearer` returns them.
    - ``observe_until`` (seconds since the epoch): before that moment a token for another audience, or of another kind of caller,
      is accepted, and its verdict says so.
    """

    def __init__(
        self,
        checks: Checks,
        keys: KeySource,
        tokens: AcceptedTokens,
        *,
        observe_until: float = -math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.checks = checks
        self.keys = keys
        self.tokens = tokens
        self.bound = tokens.empty() if checks.dpop or checks.certificate else None
        """Good tokens that are bound. They never lie where the fast path looks, because none of them accepts a request by itself. None if the
        service accepts none."""
        self._observe_until = observe_until
        self.clock = clock

    def remembers(self, credentials: bytes) -> bool:
        """Return whether a token with exactly these credentials was accepted before, or was good and is bound."""
        return credentials in self.tokens or (self.bound is not None and credentials in self.bound)

    def known(self, credentials: bytes) -> Verdict | None:
        """Return the verdict on a token that was accepted before and still would be. Never waits.

        None says nothing about the token: `decide` does.
        """
        keys = self.keys.peek()
        if keys is None:
            return None
        entry = self.tokens.recent.get(credentials)
        # All that `RememberedToken.holds` checks, for the usual case: without the four calls to it.
        if (
            entry is not None
            and entry.keys is keys
            and entry.begins <= self.clock() < entry.ends
            and entry.issued_at >= self.keys.not_before
        ):
            LOOKUPS.add(1, HIT)
            return entry.verdict
        return self.hit(credentials, keys)

    def decide(self, credentials: bytes) -> Verdict:
        """Return the verdict on a token, waiting for keys if need be."""
        try:
            if self.remembers(credentials) and (verdict := self.hit(credentials, self.keys.get())) is not None:
                return verdict
        except KeysUnavailable as error:
            return Verdict((unavailable(error),))
        began = time.perf_counter()
        with span("verify token") as current:
            jws = parse(token_in(credentials))
            key = jws if isinstance(jws, Decision) else self.keys.key(jws.kid, jws.algorithm)
            return reported(self.judged(credentials, jws, key), current, began)

    async def adecide(self, credentials: bytes) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        try:
            if self.remembers(credentials) and (verdict := self.hit(credentials, await self.keys.aget())) is not None:
                return verdict
        except KeysUnavailable as error:
            return Verdict((unavailable(error),))
        began = time.perf_counter()
        with span("verify token") as current:
            jws = parse(token_in(credentials))
            key = jws if isinstance(jws, Decision) else await self.keys.akey(jws.kid, jws.algorithm)
            return reported(self.judged(credentials, jws, key), current, began)

    @property
    def realms(self) -> "tuple[Verifier, ...]":
        """The realms that it decides for: itself alone."""
        return (self,)

    @property
    def ready(self) -> "tuple[Verifier, ...]":
        """The realms without whose keys the service is not ready."""
        return (self,)

    def of(self, principal: Principal) -> "Verifier":  # noqa: ARG002 - the seam's signature
        """Return the realm that decided about a caller."""
        return self

    def hit(self, credentials: bytes, keys: KeySet) -> Verdict | None:
        """Return the verdict on a remembered token if it still holds, and count the look-up."""
        verdict = self._again(credentials, keys)
        if verdict is not None:
            LOOKUPS.add(1, HIT)
        return verdict

    def _again(self, credentials: bytes, keys: KeySet) -> Verdict | None:
        """Return what was decided before, if everything that can have changed since is as it was."""
        tokens = self.tokens
        entry = tokens.get(credentials)
        if entry is None and self.bound is not None:
            tokens = self.bound
            entry = tokens.get(credentials)
        if entry is None:
            return None
        if entry.holds(keys, self.keys.not_before, self.clock()):
            return entry.verdict
        tokens.drop(credentials)
        return None

    def judged(self, credentials: bytes, jws: Jws | Decision, key: VerificationKey | Decision) -> Verdict:
        """Decide about a token whose key was looked for. If several threads bring the same new token, one of them verifies it."""
        if isinstance(jws, Decision):
            return self._unsigned(jws)
        if isinstance(key, Decision):
            return self._unsigned(key, jws.kid)
        with self.tokens.lock(credentials):
            # Other requests with the same token may have waited for the keys, too.
            keys = self.keys.peek()
            if keys is not None and (verdict := self._again(credentials, keys)) is not None:
                return verdict
            if not key.verify(jws.signing_input, jws.signature):
                return self._unsigned(_NOT_SIGNED, jws.kid)
            claims = jws.claims()
            if isinstance(claims, Decision):
                return Verdict((replace(claims, kid=shown(jws.kid), issuer=shown(self.checks.issuer)),))
            now = self.clock()
            verdict = self.checks.judge(
                jws,
                claims,
                not_before=self.keys.not_before,
                now=now,
                observing=now < self._observe_until,
                credentials=credentials,
            )
            token: Verdict = verdict
            tokens: AcceptedTokens | None = self.tokens
            if isinstance(verdict, BoundVerdict):
                token, tokens = verdict.of_token, self.bound
            principal = token.principal
            if principal is not None and token.accepted and tokens is not None:
                ends = self.checks.ends(principal)
                if token.observed:
                    ends = min(ends, self._observe_until)
                remembered = RememberedToken(verdict, key, principal.issued_at, verdict.begins, ends)
                tokens.put(credentials, remembered)
            return verdict

    def _unsigned(self, refusal: Decision, kid: str = "") -> Verdict:
        """Return the verdict on a token that has no valid signature: its cure is made of the settings and the published keys alone."""
        if refusal.reason is Reason.KEYS_UNAVAILABLE:
            return Verdict((refusal,))
        cure = refusal.cure or self.checks.worded(
            unsigned_cure(
                refusal.reason, issuer=self.checks.issuer, jwks=self.keys.url, published=self.keys.published(kid)
            )
        )
        return Verdict((Decision(reason=refusal.reason, cure=cure, unverified_kid=shown(kid)[:64] if kid else ""),))


def reported(verdict: Verdict, current: Span, began: float) -> Verdict:
    """Report the verdict on a token that was not known to the trace and the metrics."""
    outcome = "allowed"  # also of a bound token: what the request's proof is worth is decided after this
    if isinstance(verdict, BoundVerdict):
        current.set_attribute(CALLER, verdict.decision.client_id)
    elif not verdict.accepted or verdict.observed:
        decision = verdict.decision
        outcome = decision.outcome
        if outcome == "failed":
            failed(current, str(decision.reason), decision.cure)
    if current.is_recording() and not isinstance(verdict, BoundVerdict):
        describe(current, verdict.decision)
        if verdict.principal is not None:
            names = sorted(verdict.principal.audiences)[:16]
            current.set_attribute(AUDIENCE, listed(names, " "))
    LOOKUPS.add(1, MISS)
    VERIFICATION.record(time.perf_counter() - began, {OUTCOME: outcome})
    return verdict
