"""Verify a token outside of any web framework, with the settings read at the first one."""

import logging
import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, Literal

import httpx

from s2s_fastapi import environment
from s2s_fastapi.accepted import FURTHER, MOST_FURTHER, digest
from s2s_fastapi.answers import ProtectionSpace, error_of
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.environment import realms_of
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import NOTHING_GIVEN, UNPROVABLE, WHOLE_HEADER
from s2s_fastapi.names import NO_AUDIENCE, audience_names
from s2s_fastapi.principal import Principal
from s2s_fastapi.proof.replay import ReplayStore
from s2s_fastapi.telemetry import DecisionLog
from s2s_fastapi.telemetry.metrics import decided
from s2s_fastapi.telemetry.spans import current_span, describe, trace_id
from s2s_fastapi.verifier.accepted_tokens import CACHED_TOKENS, AcceptedTokens
from s2s_fastapi.verifier.bearer import credentials_of, is_dpop, token_in
from s2s_fastapi.verifier.bound import BoundTokens, DpopOptions, certified
from s2s_fastapi.verifier.checks import MAX_LIFETIME, Checks
from s2s_fastapi.verifier.client_certificate import CertificateSource, ClientCertificates, checked_source
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.presented import Connection, Presented
from s2s_fastapi.verifier.public_url import outermost_root
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import BoundVerdict, Judge, Verdict
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["TokenVerifier"]

_log = logging.getLogger("s2s_fastapi")

_NOTHING_GIVEN: Final = Decision(reason=Reason.MALFORMED_TOKEN, cure=NOTHING_GIVEN)
_WHOLE_HEADER: Final = Decision(reason=Reason.MALFORMED_TOKEN, cure=WHOLE_HEADER)


class TokenVerifier:
    """Verify access tokens without any framework: in a message, in gRPC metadata, in a Celery task.

    - It checks form, algorithm, key, signature, ``iss``, ``typ``, ``exp``, ``nbf``, ``iat``, revocation and ``aud``.
    - It does not check who is calling: pass the principal to a requirement's ``check``.
    - Nothing is read or fetched before the first token.
    - Each decision is written to the logger ``s2s_fastapi.decisions``, as the middleware does. There is no request, so the record has no
      method and no route.
    """

    def __init__(
        self,
        settings: "environment.KeycloakSettings | Sequence[environment.KeycloakSettings] | None" = None,
        *,
        audience: str | Collection[str] | None = None,
        cached_tokens: int = CACHED_TOKENS,
        max_lifetime: float = MAX_LIFETIME,
        dpop: Literal["accepted", "required"] | None = None,
        public_url: str | Collection[str] | None = None,
        replay_store: ReplayStore | None = None,
        client_certificate: CertificateSource | None = None,
        insecure_skip_audience: bool = False,
        transport: Callable[[], httpx.BaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the settings from the environment at the first token, unless they are given.

        - ``settings``: a list accepts tokens of several realms. A requirement that names no realm speaks of the first one.
        - ``audience`` replaces the audience in the settings.
        - ``cached_tokens`` accepted tokens are remembered and not verified again while they hold. 0 verifies each token each time.
        - ``max_lifetime`` is the seconds that a token may live, from ``iat`` to ``exp``: from 60 seconds to 30 days, by default 24 hours.
        - ``dpop``, ``public_url`` and ``replay_store``: as for `ServiceAuthMiddleware`. They count for `authenticate` with a request or a
          WebSocket: a proof names the method and the URL of its request (RFC 9449 section 4.2). A token alone, and pairs of names and values,
          have neither, so a bound token is refused there.
        - ``client_certificate``: as for `ServiceAuthMiddleware`, and for `authenticate` in the same way.
        - ``transport`` makes the httpx transport for Keycloak. ``clock`` returns the seconds since the epoch.

        Raises:
            ConfigurationError: ``dpop`` is something else, or needs ``public_url``; or ``client_certificate`` is something else.
        """
        self._certificate_source = checked_source(client_certificate)
        self._certificates: ClientCertificates | None = None
        self._dpop = DpopOptions.of(dpop, public_url, replay_store)
        self._bound: BoundTokens | None = None
        self._given = settings
        self._audience = audience_names(audience)
        self._skip_audience = insecure_skip_audience
        self._transport = transport
        self._clock = clock
        self._cached_tokens = cached_tokens
        self._verifier: Verifier | RealmsVerifier | None = None
        self._made: dict[str, Verifier | RealmsVerifier] = {}
        self._proving: dict[str, BoundTokens] = {}
        self._protects = ProtectionSpace()
        self._client_ids: dict[str, str] = {}
        self._max_lifetime = max_lifetime
        self._log = DecisionLog()

    def verify(self, token: str | bytes) -> Principal:
        """Return the caller that a token describes.

        Raises:
            AuthenticationError: The token is not accepted; ``code`` is the reason (RFC 6750 section 3.1 ``invalid_token``).
            KeysUnavailable: There are no keys of Keycloak to check it with.
            ConfigurationError: The settings are missing or wrong.
        """
        return _principal(self.decide(token))

    async def averify(self, token: str | bytes) -> Principal:
        """Return the caller like `verify`, without blocking the event loop (asyncio or trio)."""
        return _principal(await self.adecide(token))

    async def authenticate(self, connection: Connection, requirement: Judge | None = None) -> Principal:
        """Return the caller of a request, a WebSocket, a call of gRPC or a message, for code that has no `ServiceAuthMiddleware` in front.

        - ``connection``: a request or a WebSocket of Starlette, or pairs of header names and values. The rules for headers are those of the
          middleware, and so are the challenge, the record in the log and its cure.
        - ``requirement``: the caller must meet it, too. Without one, every caller with a token for this service is returned, users as well.
        - `ServiceTokenAuth` does not send on the last 8 tokens that were authenticated in this context (the current task). A thread that you
          start by yourself does not inherit that.

        Raises:
            AuthenticationError: There is no accepted token: 401, or 400 if the credentials are malformed (RFC 6750 section 3.1).
            AuthorizationError: The caller does not meet ``requirement``: 403.
            KeysUnavailable: There are no keys of Keycloak to check the token with: 503.
            ConfigurationError: The settings are missing or wrong, or ``connection`` is something else.
        """
        return await self._authenticated(Presented.of(connection), requirement)

    async def authenticate_optional(self, connection: Connection, requirement: Judge | None = None) -> Principal | None:
        """Return the caller like `authenticate`, or None if there are no credentials at all.

        None means: no Authorization header, no DPoP header, not even an empty one, and no ``access_token`` in the query. Everything else
        is judged, so bad credentials are never taken for none.

        Raises:
            S2SError: As for `authenticate`.
        """
        presented = Presented.of(connection)
        if not presented.anonymous:
            return await self._authenticated(presented, requirement)
        self.ready()
        self._log_located(presented, Decision(reason=Reason.ANONYMOUS))
        return None

    async def _authenticated(self, presented: Presented, requirement: Judge | None) -> Principal:
        verifier, credentials = self.ready(), presented.credentials(self._dpop.mode)
        space = self._protects
        # Also if it is refused: nobody has checked it, and it must not be sent on.
        if isinstance(credentials, Decision):
            verdict = Verdict((credentials,))
        else:
            FURTHER.set((*FURTHER.get()[1 - MOST_FURTHER :], digest(token_in(credentials))))
            if self._bound is not None and is_dpop(credentials):
                space = space.under_dpop()
                verdict = await self._proven(self._bound, credentials, presented)
            else:
                verdict = verifier.known(credentials) or await verifier.adecide(credentials)
                if isinstance(verdict, BoundVerdict) and (scope := _request_of(presented)) is not None:
                    verdict = certified(verdict, self._certificates, scope)
        decision, principal = verdict.decision, verdict.principal
        if principal is not None and verdict.accepted and requirement is not None:
            own = self._client_ids.get(principal.issuer, "")
            found = requirement.judge(principal, own)
            decision = decision if found.reason is Reason.ALLOWED else verdict.with_token(found, own)
        self._log_located(presented, decision)
        if principal is None or not decision.accepted:
            raise presented.error(decision, space)
        return principal

    async def _proven(self, bound: BoundTokens, credentials: bytes, presented: Presented) -> Verdict:
        scope = _request_of(presented)
        if scope is None:
            return await bound.unasked(credentials, UNPROVABLE)
        return await bound.decide(credentials, scope, outermost_root(scope))

    def _log_located(self, presented: Presented, decision: Decision) -> None:
        decided(decision)
        describe(current_span(), decision)
        if not decision.accepted or self._log.wants_allowed:
            self._log.decided(presented.located(decision))

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences that this verifier accepts: the given ones, or else those of the settings. Empty if neither names one."""
        return self._audience or frozenset[str]().union(*(each.audiences for each in realms_of(self._given)))

    def decide(self, token: str | bytes) -> Verdict:
        """Return the verdict on a token as a value; raises only ConfigurationError."""
        verifier, credentials = self.ready(), _credentials(token)
        if isinstance(credentials, Decision):
            return self._logged(Verdict((credentials,)))
        return self._logged(verifier.known(credentials) or verifier.decide(credentials))

    async def adecide(self, token: str | bytes) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        verifier, credentials = self.ready(), _credentials(token)
        if isinstance(credentials, Decision):
            return self._logged(Verdict((credentials,)))
        return self._logged(verifier.known(credentials) or await verifier.adecide(credentials))

    def ready(self) -> Verifier | RealmsVerifier:
        """Return the verifier, which is made of the settings once.

        Raises:
            ConfigurationError: The settings are missing or wrong, or name no audience.
        """
        if self._verifier is None:
            first, *others = realms_of(self._given)
            self._protects = self._dpop.placed(ProtectionSpace(first.client_id or first.realm))
            self._client_ids = {each.issuer: each.client_id for each in (first, *others)}
            alone = self._of(first)
            made: Verifier | RealmsVerifier = alone
            if others:
                made = RealmsVerifier((alone, *(self._of(settings, first=False) for settings in others)))
            # Threads may meet here. One of them wins, or each would remember its own tokens. There is no lock: a fork could find it taken.
            made = self._made.setdefault("verifier", made)
            certificates = ClientCertificates.of(self._certificate_source)
            self._certificates = certificates
            if self._dpop.mode:
                self._bound = self._proving.setdefault("bound", BoundTokens(made, self._dpop, certificates))
                for level, said in self._dpop.said:
                    _log_once(level, said)
            self._verifier = made  # last: another thread that sees it needs the rest, too
        return self._verifier

    def _of(self, settings: "environment.KeycloakSettings", *, first: bool = True) -> Verifier:
        audiences = self._audience or settings.audiences
        if not audiences and not self._skip_audience:
            raise ConfigurationError(settings.missing(NO_AUDIENCE))
        return Verifier(
            Checks.of(
                settings,
                frozenset() if self._skip_audience else audiences,
                first=first,
                max_lifetime=self._max_lifetime,
                dpop=self._dpop.mode,
                certificate=self._certificate_source is not None,
            ),
            KeySource.of(settings, self._transport),
            AcceptedTokens(self._cached_tokens),
            clock=self._clock,
        )

    def _logged(self, verdict: Verdict) -> Verdict:
        if verdict.accepted:
            verdict.count_acceptance()
            if not self._log.wants_allowed:
                return verdict
        else:
            decided(verdict.decision)
        self._log.decided(replace(verdict.decision, trace_id=trace_id(current_span())))
        return verdict


@lru_cache(maxsize=64)
def _log_once(level: int, sentence: str) -> None:
    """Log a sentence once in this process, because code may make a verifier for each request."""
    _log.log(level, "%s", sentence)


def _request_of(presented: Presented) -> MutableMapping[str, Any] | None:
    """Return the scope of a request or a WebSocket; None if only headers were given."""
    scope = presented.scope
    return scope if scope is not None and scope.get("type") in ("http", "websocket") else None


def _credentials(token: object) -> bytes | Decision:
    # A character that is not ASCII becomes one that no token has.
    if isinstance(token, str):
        token = token.encode("ascii", "replace")
    if not isinstance(token, bytes) or not token.strip():
        return _NOTHING_GIVEN
    if token[:7].lower() == b"bearer ":
        return _WHOLE_HEADER
    return credentials_of(token)


def _principal(verdict: Verdict) -> Principal:
    if verdict.principal is None or not verdict.accepted or verdict.observed:
        raise error_of(verdict.decision)
    return verdict.principal
