"""Is this token authentic, still valid, and for us? Who is calling? One verdict for each token, as a value."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import httpx

from s2s_fastapi.backchannel import BackChannel
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.keycloak.cures import audience_cure, shown
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.answers import error_of
from s2s_fastapi.receiver.claims import read_principal, seconds
from s2s_fastapi.receiver.jwks import VerificationKey
from s2s_fastapi.receiver.jws import Jws, parse
from s2s_fastapi.receiver.keys import KeySource
from s2s_fastapi.receiver.refusal import Refused
from s2s_fastapi.settings import KeycloakSettings

__all__ = ["TokenVerifier", "Verdict"]

_LONGEST_LIFE: Final = 24 * 3600
_BACK_CHANNEL_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one token, and whom it speaks of where its signature held."""

    decision: Decision
    principal: Principal | None = None


class TokenVerifier:
    """Verify access tokens of one realm without any framework: in a message, in gRPC metadata, in a Celery task.

    Checked are form, algorithm, key, signature, ``iss``, ``typ``, ``exp``, ``nbf``, ``iat``, revocation and ``aud``; not who is
    calling: pass the principal to a requirement's ``check``. Nothing is read or fetched before the first token.
    """

    def __init__(
        self,
        settings: KeycloakSettings | None = None,
        *,
        audience: str | Collection[str] | None = None,
        insecure_skip_audience: bool = False,
        transport: Callable[[], httpx.BaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the settings from the environment at the first token unless they are given.

        ``audience`` replaces the settings' one. ``transport`` makes the httpx transport for Keycloak, ``clock`` tells the seconds
        since the epoch.
        """
        self._given = settings
        self._audience = _audience_names(audience)
        self._skip_audience = insecure_skip_audience
        self._transport = transport
        self._clock = clock
        self._ready: _Ready | None = None
        self._made: dict[str, _Ready] = {}

    def verify(self, token: str) -> Principal:
        """Return the caller a token speaks of.

        Raises:
            AuthenticationError: The token is not accepted; ``code`` is the reason (RFC 6750 section 3.1 ``invalid_token``).
            KeysUnavailable: Keycloak's keys are not there to check it with.
            ConfigurationError: The settings are missing or wrong.
        """
        return _principal(self.decide(token))

    async def averify(self, token: str) -> Principal:
        """Return the caller like `verify`, without blocking the event loop (asyncio or trio)."""
        return _principal(await self.adecide(token))

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences this verifier accepts: as given, or else the settings'; empty where neither says one."""
        return self._audience or (self._given or KeycloakSettings()).audiences

    def decide(self, token: str) -> Verdict:
        """Return the verdict on a token as a value; raises only ConfigurationError."""
        ready = self.ready()
        try:
            jws = parse(token)
        except Refused as refused:
            return Verdict(Decision(reason=refused.reason))
        try:
            return ready.judge(jws, ready.keys.key(jws.kid, jws.algorithm), self._clock())
        except (Refused, KeysUnavailable) as error:
            return _without_key(jws, error)

    async def adecide(self, token: str) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        ready = self.ready()
        try:
            jws = parse(token)
        except Refused as refused:
            return Verdict(Decision(reason=refused.reason))
        try:
            return ready.judge(jws, await ready.keys.akey(jws.kid, jws.algorithm), self._clock())
        except (Refused, KeysUnavailable) as error:
            return _without_key(jws, error)

    def ready(self) -> "_Ready":
        """Return what verifying needs, read from the settings once.

        Raises:
            ConfigurationError: The settings are missing or wrong, or say no audience.
        """
        if self._ready is None:
            settings = self._given or KeycloakSettings()
            audiences = self._audience or settings.audiences
            if not audiences and not self._skip_audience:
                raise ConfigurationError(
                    "Set KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE: which tokens are meant for this service?"
                )
            channel = BackChannel(ca_file=settings.ca_file, transport=self._transport, timeout=_BACK_CHANNEL_SECONDS)
            made = _Ready(
                settings=settings,
                audiences=frozenset() if self._skip_audience else audiences,
                keys=KeySource(Endpoints.of(settings), channel),
            )
            # Threads may meet here: one of them wins, or each would fetch keys of its own. No lock: a fork could find it taken.
            self._ready = self._made.setdefault("ready", made)
        return self._ready


@dataclass(frozen=True, slots=True)
class _Ready:
    """The expectations of one service, and the keys to check them with."""

    settings: KeycloakSettings
    audiences: frozenset[str]
    """Empty only where the audience is skipped on purpose."""
    keys: KeySource

    def judge(self, jws: Jws, key: VerificationKey, now: float) -> Verdict:
        """Decide about a token whose key is known."""
        if not key.verify(jws.signing_input, jws.signature):
            return Verdict(Decision(reason=Reason.INVALID_SIGNATURE, unverified_kid=shown(jws.kid)[:64]))
        principal: Principal | None = None
        try:
            _check_type(jws.claims)
            principal = read_principal(jws.claims)
            self._check_issuer(principal)
            self._check_life(principal, jws.claims, now)
            self.check_time(principal, now)
            self._check_audience(principal)
        except Refused as refused:
            reason, cure = refused.reason, refused.cure
        else:
            reason, cure = Reason.ALLOWED, ""
        decision = Decision(
            reason=reason,
            cure=cure,
            kid=shown(jws.kid),
            client_id=shown(jws.claims.get("azp", "")),
            token_id=shown(jws.claims.get("jti", "")),
            issuer=shown(jws.claims.get("iss", "")),
        )
        return Verdict(decision, principal)

    def check_time(self, principal: Principal, now: float) -> None:
        """Refuse a token that time or a revocation has overtaken."""
        leeway = self.settings.leeway
        if now >= principal.expires_at + leeway:
            raise Refused(
                Reason.EXPIRED, f"token of {principal.client_id} expired {now - principal.expires_at:.0f} s ago"
            )
        if principal.issued_at < self.keys.not_before:
            raise Refused(Reason.REVOKED, f"token of {principal.client_id} was issued before the realm's not-before")

    def _check_issuer(self, principal: Principal) -> None:
        expected = self.settings.issuer
        if principal.issuer != expected:
            raise Refused(
                Reason.WRONG_ISSUER,
                f"token of {principal.client_id} was issued by {shown(principal.issuer)}, expected {expected}: set KEYCLOAK_PUBLIC_URL "
                "(or KEYCLOAK_ISSUER) to the address Keycloak writes into tokens, or give Keycloak a fixed hostname",
            )

    def _check_life(self, principal: Principal, claims: dict[str, Any], now: float) -> None:
        latest = now + self.settings.leeway
        not_before = claims.get("nbf", 0)
        # Old servers write nbf: 0; false equals it, but is no date.
        if (isinstance(not_before, bool) or not_before != 0) and seconds(claims, "nbf") > latest:
            raise Refused(
                Reason.NOT_YET_VALID, f"token of {principal.client_id} has nbf in the future: compare the clocks"
            )
        if principal.issued_at > latest:
            raise Refused(
                Reason.NOT_YET_VALID, f"token of {principal.client_id} has iat in the future: compare the clocks"
            )
        if principal.expires_at - principal.issued_at > _LONGEST_LIFE:
            raise Refused(
                Reason.LIFETIME_TOO_LONG,
                f"token of {principal.client_id} lives longer than 24 h: shorten Access Token Lifespan of the client or the realm",
            )

    def _check_audience(self, principal: Principal) -> None:
        if self.audiences and self.audiences.isdisjoint(principal.audiences):
            raise Refused(Reason.WRONG_AUDIENCE, audience_cure(principal, self.audiences))


def _check_type(claims: dict[str, Any]) -> None:
    if claims.get("cnf") is not None:
        raise Refused(
            Reason.SENDER_CONSTRAINED, "the token is bound to a key (DPoP or mTLS) and was sent as a bearer token"
        )
    kind = claims.get("typ")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Refused(Reason.WRONG_TYPE, f"the token's typ is {shown(kind)}, expected Bearer: send the access token")


def _without_key(jws: Jws, error: Refused | KeysUnavailable) -> Verdict:
    if isinstance(error, KeysUnavailable):
        return Verdict(Decision(reason=Reason.KEYS_UNAVAILABLE, cure=str(error), retry_after=error.retry_after))
    return Verdict(Decision(reason=error.reason, unverified_kid=shown(jws.kid)[:64]))


def _principal(verdict: Verdict) -> Principal:
    if verdict.principal is None or verdict.decision.reason is not Reason.ALLOWED:
        raise error_of(verdict.decision)
    return verdict.principal


def _audience_names(audience: str | Collection[str] | None) -> frozenset[str]:
    if audience is None:
        return frozenset()
    names: Any = (audience,) if isinstance(audience, str) else audience
    if (
        not isinstance(names, Collection)
        or not names
        or not all(isinstance(name, str) and name and name.isprintable() and " " not in name for name in names)
    ):
        raise ConfigurationError("audience must be a name or several, none of them empty.")
    if "account" in names:
        raise ConfigurationError('audience cannot be "account": nearly every token of a realm carries it.')
    return frozenset(names)
