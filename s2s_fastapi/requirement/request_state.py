"""What the middleware knows about a request. Only the middleware can put it there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from starlette.types import Scope

from s2s_fastapi.accepted import SCOPE_KEY, AcceptedToken
from s2s_fastapi.answers import ProtectionSpace, error_within
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import ASKED_ANYWAY, credentials_cure
from s2s_fastapi.principal import Principal
from s2s_fastapi.telemetry import Observer
from s2s_fastapi.telemetry.located import located
from s2s_fastapi.telemetry.metrics import decided
from s2s_fastapi.telemetry.spans import Span, describe
from s2s_fastapi.verifier.verdict import Judge, Verdict

__all__ = ["ANONYMOUS_KEY", "SCOPE_KEY", "VERIFIER_KEY", "Anonymous", "Authenticated", "Service", "Unasked", "admit"]

ANONYMOUS_KEY: Final = "s2s_fastapi.anonymous"
VERIFIER_KEY: Final = "s2s_fastapi.keys"
"""What a request's token is verified with, on public paths too: for `auth_ready`."""


@dataclass(frozen=True, slots=True)
class Service:
    """The receiving app, as far as decisions about its requests need it."""

    client_id: str
    space: ProtectionSpace
    """What challenges say of it."""
    observer: Observer
    observing: Callable[[], bool]
    """Return whether refusals are only logged: see ``insecure_observe_until``."""
    further: "Mapping[str, Service]" = field(default_factory=dict)
    """The app as callers of further realms see it, by the issuer."""

    def under_dpop(self) -> "Service":
        """Return the app as requests with a token under the scheme DPoP see it."""
        further = {issuer: each.under_dpop() for issuer, each in self.further.items()}
        return replace(self, space=self.space.under_dpop(), further=further)

    def report(self, decision: Decision, scope: Scope, current: Span) -> None:
        """Report a refusal, or one that is only observed, to the metrics, the server's span and the observer."""
        decided(decision)
        describe(current, decision)
        self.observer.decided(located(decision, scope, current))


@dataclass(frozen=True, slots=True)
class Unasked:
    """A requirement that a dependency returned."""

    text: str
    """What is wrong if it is never asked."""
    covered: Callable[[Sequence[Any]], bool]
    """Return whether a caller that met these requirements meets it, too."""


@dataclass(slots=True, eq=False)
class Authenticated(AcceptedToken):
    """One request that the middleware accepted, for the requirements behind it.

    It is not Starlette's ``scope["user"]``, which any inner middleware may replace.
    """

    verdict: Verdict
    service: Service
    span: Span
    """The server's, if somebody traces requests."""
    refusal: Decision | None = None
    """Set when a requirement refused: the middleware sees that the answer keeps its challenge."""
    answered: bool = False
    asked: list[Any] = field(default_factory=list)
    """The requirements that were asked and met so far."""
    unasked: "dict[object, Unasked] | None" = None
    """Requirements that dependencies returned instead of asking them, and that the code has not asked yet."""

    @classmethod
    def of(cls, scope: Scope) -> "Authenticated":
        """Return the state of a request.

        Raises:
            AuthenticationError: It is a request without credentials, on an optional path.
            ConfigurationError: No `ServiceAuthMiddleware` authenticated it. Nothing is accepted then, whoever calls.
        """
        state = scope.get(SCOPE_KEY)
        if not isinstance(state, cls):
            if (anonymous := Anonymous.of(scope)) is not None:
                raise anonymous.refused(scope)
            raise ConfigurationError(
                "The route has a requirement, but no ServiceAuthMiddleware authenticated the request. If the app has none, add "
                "ServiceAuthMiddleware to it: app.add_middleware(ServiceAuthMiddleware). If the path is one of its public_paths, take it out there."
            )
        return state

    def admit(self, scope: Scope, requirement: Judge) -> Principal:
        """Return the caller if ``requirement`` allows it; otherwise report the refusal and raise what Starlette answers."""
        return self.decided(scope, requirement, requirement.judge(self.principal, self.service.client_id))

    def decided(self, scope: Scope, requirement: Judge, decision: Decision) -> Principal:
        """Go on with what ``requirement`` decided about the caller, as `admit` does."""
        if decision.reason is Reason.ALLOWED:
            self.asked.append(requirement)
            return self.principal
        observed, refused = self.weighed(requirement, decision)
        if refused is None:
            for each in observed:
                self._observe(scope, each)
            self.asked.append(requirement)
            return self.principal
        self.refusal = refused
        self.service.report(refused, scope, self.span)
        raise error_within(scope, refused, self.service.space)

    def weighed(self, requirement: Judge, decision: Decision) -> tuple[tuple[Decision, ...], Decision | None]:
        """Return what follows from a refusal: the refusals that are only logged, or none and the one that refuses. Nothing is reported."""
        service = self.service
        if service.observing():
            refusals = requirement.refusals(self.principal, service.client_id) or (decision,)
            enforced = [refusal for refusal in refusals if not refusal.reason.observable]
            if not enforced:
                return tuple(replace(self._of_this_token(refusal), observed=True) for refusal in refusals), None
            # A refusal decides, whatever a condition that failed would have answered.
            decision = min(enforced, key=lambda refusal: refusal.status)
        return (), self._of_this_token(decision)

    def _observe(self, scope: Scope, decision: Decision) -> None:
        """Keep a refusal that is only logged until the answer starts: one for each reason, however often it was found."""
        if self.answered:
            self.service.report(decision, scope, self.span)
            return
        observed = {known.reason: known for known in self.verdict.decisions if known.observed}
        before = observed.get(decision.reason)
        if before is None:
            observed[decision.reason] = decision
        elif decision.cure not in before.cure:
            observed[decision.reason] = replace(before, cure=f"{before.cure}; {decision.cure}")
        self.verdict = Verdict(tuple(observed.values()), self.principal, self.verdict.digest)

    def _of_this_token(self, decision: Decision) -> Decision:
        return self.verdict.with_token(decision, self.service.client_id)


@dataclass(slots=True)
class Anonymous:
    """One request without credentials that the middleware accepted on an optional path: it looked, and found none."""

    service: Service
    span: Span
    refusal: Decision | None = None
    """Set when a requirement refused: see `Authenticated`."""
    answered: bool = False
    asked: list[Any] = field(default_factory=list)
    """The requirements that were asked so far and need no credentials."""
    unasked: "dict[object, Unasked] | None" = None

    @classmethod
    def of(cls, scope: Scope) -> "Anonymous | None":
        """Return the state of a request that has no credentials; None if it has some, or if no middleware has looked."""
        state = scope.get(ANONYMOUS_KEY)
        return state if isinstance(state, cls) and SCOPE_KEY not in scope else None

    def refused(self, scope: Scope) -> Exception:
        """Report that a requirement needs a caller, and return what Starlette answers."""
        cure = credentials_cure(ASKED_ANYWAY, self.service.space.dpop)
        self.refusal = decision = Decision(reason=Reason.NO_CREDENTIALS, cure=cure)
        self.service.report(decision, scope, self.span)
        return error_within(scope, decision, self.service.space)

    def ended(self) -> None:
        """Do nothing: there is no token to drop."""


def admit(scope: Scope, requirement: Judge) -> Principal | None:
    """Return the caller if ``requirement`` allows it; None for a request without credentials that an optional requirement lets in.

    Raises:
        AuthenticationError, AuthorizationError: It does not.
        ConfigurationError: No `ServiceAuthMiddleware` looked at the request.
    """
    if not requirement.needs_credentials and Anonymous.of(scope) is not None:
        return None
    return Authenticated.of(scope).admit(scope, requirement)
